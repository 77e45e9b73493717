"""Keeps copies of the training's state in the pod's memory: a failure costs no finished step.

Every few seconds one rank of the pod copies the whole state while it computes on: parameters and
optimizer change only in the last part of a step, which waits for the copy. When the attempt
ends and this rank lives, it leaves a last copy, of the last step that was finished: a step that
failed has not changed them. What it has changed is known from :mod:`.boundary`.

Who asks for the last copy is an error of this rank, most of all a lost peer, or the launcher by
SIGUSR2 (:class:`.last_copy.LastCopySignal`).
"""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

import torch
from torch import Tensor

from inception_trainer.checkpoint.base import MemoryCopyRecord
from inception_trainer.checkpoint.memory import MemoryFolder
from inception_trainer.checkpoint.memory_file import CopyFile, Header, Layout, copy_to_view
from inception_trainer.checkpoint.memory_statistics import StatisticsFile
from inception_trainer.device import transfers
from inception_trainer.errors import NonFiniteLoss, RanksDiverged
from inception_trainer.log import logger
from inception_trainer.reporting.progress import Progress

from .boundary import Boundary, BoundaryStatistics, StepCounts, ordered
from .intervals import CopyClock
from .state import TrainingState

LEAVE_SECONDS = 2.0
"""What the last copy may take; the launcher waits as long."""
DRAIN_SECONDS = 0.5
"""How long the last copy waits for a device to do what it was told; then it takes it as hung."""
BOUNDARIES_KEPT = 16
"""How many steps the host may be ahead of a device whose state is copied."""
LOWEST_PRIORITY = 19


class _LeavingError(Exception):
    """A last copy is wanted, for which a periodic one need not be finished."""


class MemoryCopies:
    """The memory copies of one rank; does nothing before :meth:`begin`. A context manager.

    ``writes`` says whether this rank makes the periodic copies of its pod.
    """

    def __init__(
        self, state: TrainingState, device: torch.device, saved: Callable[[MemoryCopyRecord], None]
    ) -> None:
        self._state = state
        self._device = device
        self._saved = saved
        self._folder: MemoryFolder | None = None
        self._statistics: BoundaryStatistics | None = None
        self._header: Header = {}
        self._writes = False
        # The last one is that of the parameters that the host has asked for; a device may be
        # behind.
        self._boundaries: deque[Boundary] = deque(maxlen=BOUNDARIES_KEPT)
        self._counts = StepCounts(device)
        # Held while parameters change, or while they are copied.
        self._gate = threading.Lock()
        self._is_updating = False
        self._leaving = threading.Lock()
        self._has_left = False
        self._clock = CopyClock()
        self._copier: threading.Thread | None = None
        self._is_allocated = False
        self._registered: set[int] = set()

    def begin(
        self,
        folder: MemoryFolder,
        statistics: StatisticsFile,
        header: Header,
        progress: Progress,
        *,
        writes: bool,
    ) -> None:
        """Start at the state of ``progress``; ``header`` is what all copies have in common."""
        self._folder = folder
        self._header = header
        self._writes = writes
        self._statistics = BoundaryStatistics(ordered(self._state.statistics()), statistics)
        self._capture(progress)
        # For the copies of the attempt before, which are the newest until there is one of this.
        self._statistics.pin(progress.step)
        self._statistics.publish()

    # The training loop.

    def begin_update(self) -> None:
        """What comes next changes parameters: wait for a copy of them that is under way."""
        if self._folder is None:
            return
        asked = time.perf_counter()
        self._gate.acquire()
        self._clock.add_cost(time.perf_counter() - asked)
        self._is_updating = True
        self._counts.begin()

    def finished(self, progress: Progress) -> None:
        """The step is done; ``progress`` counts it."""
        if self._folder is None:
            return
        self._counts.finish()
        self._capture(progress)
        self._is_updating = False
        self._gate.release()

    def changed(self, progress: Progress) -> None:
        """An evaluation has changed statistics or progress."""
        if self._folder is None:
            return
        with self._gate:
            self._capture(progress)

    def noted(self, progress: Progress) -> None:
        """Figures have been added to the progress; nothing else has changed."""
        if self._folder is not None:
            last = self._boundaries[-1]
            self._boundaries[-1] = dataclasses.replace(last, progress=progress.as_dict())

    def is_due(self) -> bool:
        """Whether it is time for a periodic copy."""
        return self._folder is not None and self._clock.is_due() and not self._is_copying()

    def copy(self) -> None:
        """Begin a periodic copy of the present state; every rank must call it at the same step."""
        if self._folder is None or self._statistics is None:
            return
        began = time.perf_counter()
        self._clock.restart()
        boundary = self._boundaries[-1]
        self._statistics.pin(boundary.step)
        if self._writes and not self._is_copying():
            self._begin_copy(self._folder, boundary)
        self._clock.add_cost(time.perf_counter() - began)

    def _capture(self, progress: Progress) -> None:
        assert self._statistics is not None  # noqa: S101 - begin comes before
        self._statistics.capture(progress.step)
        self._boundaries.append(
            Boundary(
                self._counts.finished,
                progress.step,
                progress.as_dict(),
                self._statistics.newest(),
            )
        )

    # Periodic copies.

    def _is_copying(self) -> bool:
        return self._copier is not None and self._copier.is_alive()

    def _begin_copy(self, folder: MemoryFolder, boundary: Boundary) -> None:
        if not self._is_allocated:
            work = self._allocate(folder, boundary)
        else:
            work = self._copy(folder, boundary)
            # Taken for the thread, which gives it back: the next step must not be faster.
            self._gate.acquire()
            if self._device.type != "cpu":
                # Queued behind the step before, in front of the next.
                self._do_first_part(work)
        self._copier = threading.Thread(
            target=self._do_rest, args=(work,), name="memory-copier", daemon=True
        )
        self._copier.start()

    def _do_first_part(self, work: Iterator[None]) -> None:
        """Up to where the parameters may change again."""
        try:
            with self._giving_up_on_errors():
                next(work)
        finally:
            self._gate.release()

    def _do_rest(self, work: Iterator[None]) -> None:
        began = time.thread_time()
        if self._is_allocated and self._device.type == "cpu":
            self._do_first_part(work)
        with self._giving_up_on_errors():
            for _ in work:
                pass
        if self._device.type == "cpu":
            self._clock.add_cost(time.thread_time() - began)

    @contextmanager
    def _giving_up_on_errors(self) -> Iterator[None]:
        try:
            yield
        except _LeavingError:
            logger.info("a copy is left for the last one")
        except Exception as error:
            self._writes = False
            logger.warning("no more periodic memory copies: %s", error)

    def _allocate(self, folder: MemoryFolder, boundary: Boundary) -> Iterator[None]:
        """Take the memory for both buffers: before the first copy, beside the training."""
        layout = Layout.of(self._tensors(boundary))
        with folder.locked(LEAVE_SECONDS):
            folder.allocate(folder.files, layout)
        self._is_allocated = True
        yield from ()

    def _copy(self, folder: MemoryFolder, boundary: Boundary) -> Iterator[None]:
        """One copy; yields when the parameters may change again."""
        began = time.monotonic()
        with folder.locked(LEAVE_SECONDS):
            folder.check_owner()
            file = folder.oldest()
            self._take(self._begin_file(folder, file, boundary), boundary)
            arrived = self._mark()
            yield
            _step_back()
            arrived()
            if not file.is_finite():
                logger.warning("step %d is not kept: a weight is NaN or infinite", boundary.step)
                return
            self._commit(file, boundary, began, self._check_not_leaving)

    def _check_not_leaving(self) -> None:
        if self._has_left:
            raise _LeavingError

    def _begin_file(
        self, folder: MemoryFolder, file: CopyFile, boundary: Boundary
    ) -> dict[str, Tensor]:
        layout = Layout.of(self._tensors(boundary))
        folder.allocate([file], layout)
        if transfers.has_async_copy(self._device) and id(file) not in self._registered:
            self._registered.add(id(file))
            transfers.register(file.memory())
        return file.begin(layout)

    def _tensors(self, boundary: Boundary) -> dict[str, Tensor]:
        return {**self._state.learned(), **boundary.statistics}

    @torch.no_grad()
    def _take(self, views: dict[str, Tensor], boundary: Boundary) -> None:
        for name, tensor in self._tensors(boundary).items():
            copy_to_view(views[name], tensor)

    def _mark(self) -> Callable[[], None]:
        if transfers.has_async_copy(self._device):
            return transfers.mark(self._device)
        return lambda: None

    def _commit(
        self,
        file: CopyFile,
        boundary: Boundary,
        began: float,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        assert self._folder is not None  # noqa: S101 - asked before
        header = {
            **self._header,
            **self._state.optimizer_state(),
            "uid": self._folder.uid,
            "progress": boundary.progress,
        }
        file.commit(header, self._folder.attempt, boundary.step, check)
        self._saved(MemoryCopyRecord(boundary.step, file.size, time.monotonic() - began))

    # The end.

    def __enter__(self) -> MemoryCopies:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._folder is None or error is None:
            return
        if isinstance(error, (NonFiniteLoss, RanksDiverged)):
            # The next attempt must not go on with this: it begins at a checkpoint.
            self._has_left = True
            self._folder.discard()
        else:
            self.leave()

    def leave(self) -> None:
        """Leave a copy of the state after the last finished step, if no rank of this pod has; in
        any thread. The training cannot go on after it.
        """
        with self._leaving:
            if self._has_left or self._folder is None:
                return
            self._has_left = True
            is_torn = self._is_updating and _is_main_thread()
            if self._device.type == "cpu":
                self._try_to_leave(self._folder, is_torn)
                return
            # A device may never answer.
            thread = threading.Thread(
                target=self._try_to_leave, args=(self._folder, is_torn), daemon=True
            )
            thread.start()
            thread.join(LEAVE_SECONDS)
            if thread.is_alive():
                logger.warning("no last copy: the device does not answer")

    def _try_to_leave(self, folder: MemoryFolder, is_torn: bool) -> None:
        try:
            self._leave(folder, is_torn)
        except Exception as error:
            # The error that ends this process is another one.
            logger.warning("no last copy: %s: %s", type(error).__name__, error)

    def _leave(self, folder: MemoryFolder, is_torn: bool) -> None:
        began = time.monotonic()
        # Never given back: from here on nothing may change.
        if is_torn or not self._gate.acquire(timeout=LEAVE_SECONDS):
            logger.warning("no last copy: the weights are just being changed")
            return
        boundary = self._boundaries[-1]
        if self._device.type != "cpu":
            self._counts.drain(DRAIN_SECONDS)
        with folder.locked(LEAVE_SECONDS), transfers.own_queue(self._device):
            folder.check_owner()
            if boundary.step <= max(0, folder.newest_step()):
                return
            file = folder.oldest()
            # A queue that waits for a lost peer has not done the steps behind it: the device says
            # which one it did last, and whether that changed meanwhile.
            counts = self._counts.read()
            boundary = self._boundary_of(counts)
            self._take(self._begin_file(folder, file, boundary), boundary)
            if self._counts.read() != counts:
                raise RuntimeError("the device changed the weights while they were copied")
            if not file.is_finite():
                raise RuntimeError("a weight is NaN or infinite")
            self._commit(file, boundary, began)
        seconds = time.monotonic() - began
        logger.info("left step %d in the pod's memory in %.2f s", boundary.step, seconds)

    def _boundary_of(self, counts: tuple[int, int]) -> Boundary:
        """The boundary at which the parameters are; RuntimeError when they are at none."""
        begun, done = counts
        for boundary in reversed(self._boundaries):
            if begun == done == boundary.count:
                return boundary
        raise RuntimeError(f"the device has begun {begun} updates and finished {done}")


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _step_back() -> None:
    """Let everything else on these CPUs go first, from here to the end of the calling thread."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)
