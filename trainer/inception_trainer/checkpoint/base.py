"""What saving checkpoints has in common for folders and object stores.

A :class:`CheckpointWriter` writes in a background thread while training goes on, one write at a
time. ``folder`` and ``object_store`` say where the bytes go and what keeps older attempts out.
"""

from __future__ import annotations

import abc
import hashlib
import io
import pickle
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from inception_trainer.errors import (
    DataError,
    Fenced,
    InputMissing,
    StorageFailed,
    TrainerError,
)
from inception_trainer.log import logger
from inception_trainer.storage import cannot_read_now, cannot_write_now, describe, lacks_room
from inception_trainer.stores import AnyPath

FORMAT = 1
"""Version of the content of a checkpoint; readers ignore keys that they do not know."""
DAMAGE_ERRORS = (ValueError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError)
"""What :func:`decode` raises for a checkpoint that is damaged."""
Checkpoint = dict[str, Any]
"""Tensors and plain values by name, as ``results`` puts them together."""


RETRY_PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds before each further try to write a checkpoint without which the job cannot end."""


@dataclass(frozen=True)
class FailedSave:
    """A checkpoint that could not be written; training goes on without it."""

    step: int
    reason: str


@dataclass(frozen=True)
class SaveRecord:
    """A checkpoint that has been written, for the metrics."""

    step: int
    size: int
    """Size of the checkpoint in bytes."""
    seconds: float
    """From the request to the rename that gives it its name."""
    stalled_seconds: float
    """Of these, how long training stood still: for the write before, and for the copies in host
    memory.
    """


@dataclass(frozen=True)
class MemoryCopyRecord:
    """A copy of the state in the pod's memory, for the metrics."""

    step: int
    size: int
    """In bytes."""
    seconds: float
    """From the step boundary until it could be used."""


@dataclass(frozen=True)
class _SaveRequest:
    """What the writer thread is to do; ``started`` is of the monotonic clock."""

    checkpoint: Checkpoint
    step: int
    best: bool
    final: bool
    kept_epoch: int | None
    complete: Callable[[], None]
    started: float
    stalled_seconds: float


class CheckpointWriter(abc.ABC):
    """Where one rank keeps the checkpoints of a job; one background write at a time.

    ``root`` is ``checkpoint.path``; ``saved`` is called in the writer thread after every write.
    """

    def __init__(self, root: object, saved: Callable[[SaveRecord], None] | None) -> None:
        self.root = root
        self.other: AnyPath | None = None
        """Where to look for checkpoints of this job while there are none in ``root``."""
        self.is_settled = True
        """Whether all that goes with the checkpoint that was loaded (``final.pt`` and the like) is
        in ``root``, too: a save may have been cut off before.
        """
        self._saved = saved or (lambda _record: None)
        self.failed: Callable[[FailedSave], None] = lambda _record: None
        """Called in the writer thread for each checkpoint that cannot be written just now."""
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._unsaved: tuple[_SaveRequest, BaseException] | None = None
        """The latest save and its error, where it cannot be written just now."""
        self._reserved_at: float | None = None

    @abc.abstractmethod
    def acquire(self) -> int:
        """Become the writer and return this attempt's number.

        Raises Fenced when a newer attempt is the writer.
        """

    @abc.abstractmethod
    def load(self) -> Checkpoint | None:
        """The newest checkpoint that is whole, None when there is none yet.

        Raises DataError when there are checkpoints and all of them are damaged.
        """

    @abc.abstractmethod
    def newest_step(self) -> int:
        """The step of the newest checkpoint without reading it, -1 when there is none yet.

        Whether it is whole is not known until it is loaded.
        """

    @abc.abstractmethod
    def adopt(self) -> None:
        """Begin with what is there, without reading it: the state comes from somewhere else.

        Takes the place of :meth:`load`.
        """

    def adopt_in_background(self) -> None:
        """Call :meth:`adopt` as a save would be done; the next one waits for it."""

        def work() -> None:
            try:
                self.adopt()
            except BaseException as error:
                self._failure = error

        self._thread = threading.Thread(target=work, name="checkpoint-writer", daemon=True)
        self._thread.start()

    @abc.abstractmethod
    def check_fence(self) -> None:
        """Raise Fenced when a newer attempt is the writer."""

    @abc.abstractmethod
    def commit(
        self,
        checkpoint: Checkpoint,
        step: int,
        best: bool,
        final: bool,
        kept_epoch: int | None = None,
    ) -> int:
        """Write one checkpoint, and all that goes with it; returns its size in bytes.

        With ``kept_epoch``, the number of epochs that it comes after, it is never removed.
        """

    @abc.abstractmethod
    def make_room(self) -> bool:
        """Remove the oldest checkpoint that is not needed to go on; False when there is none.

        Raises Fenced when a newer attempt is the writer.
        """

    def reserve(self) -> None:
        """Begin a save: wait for the write before, whose tensors may be overwritten from here on.

        The host copies of the tensors are reused from save to save, so that no save allocates.
        """
        self._reserved_at = time.monotonic()
        self._join()

    def save(
        self,
        checkpoint: Checkpoint,
        step: int,
        *,
        best: bool = False,
        final: bool = False,
        kept_epoch: int | None = None,
        complete: Callable[[], None] = lambda: None,
    ) -> None:
        """Write in the background, once the write before is done.

        Errors of the write are raised by the next call of ``save``, ``reserve`` or ``wait``; after
        those that may pass the next save tries again, and only ``wait`` insists. The writer calls
        ``complete`` before it reads the checkpoint, whose tensors must not change until it is
        written.
        """
        started = time.monotonic() if self._reserved_at is None else self._reserved_at
        self._reserved_at = None
        self._join()
        stalled_seconds = time.monotonic() - started
        request = _SaveRequest(
            checkpoint, step, best, final, kept_epoch, complete, started, stalled_seconds
        )
        # A daemon: a process that ends by an error must not wait for a store that hangs. Whoever
        # needs the checkpoint calls wait.
        self._thread = threading.Thread(
            target=self._write, args=(request,), name="checkpoint-writer", daemon=True
        )
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a write is under way."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until no write is under way, ``timeout`` seconds at most; raises its error.

        Without a timeout the latest checkpoint is written when this returns, or StorageFailed is
        raised after several tries.
        """
        unsaved = self._join(timeout)
        if timeout is not None:
            return
        for pause in RETRY_PAUSES:
            if unsaved is None:
                return
            time.sleep(pause)
            self._write(unsaved[0])
            unsaved = self._join()
        if unsaved is not None:
            request, error = unsaved
            remedy = "make room, or raise the quota" if lacks_room(error) else "see to the storage"
            raise StorageFailed(
                f"checkpoint.path: the checkpoint of step {request.step} cannot be written to "
                f"{self.root}: {describe(error)}; {remedy}"
            ) from error

    def _join(self, timeout: float | None = None) -> tuple[_SaveRequest, BaseException] | None:
        """Wait for the write under way; raises its error, returns what could not be written just
        now.
        """
        if self._thread is not None:
            self._thread.join(timeout)
        failure = self._failure
        self._failure = None
        if failure is not None:
            raise failure
        unsaved, self._unsaved = self._unsaved, None
        return unsaved

    def _write(self, request: _SaveRequest) -> None:
        try:
            request.complete()
            size = self._commit_with_room(request)
            seconds = time.monotonic() - request.started
            self._saved(SaveRecord(request.step, size, seconds, request.stalled_seconds))
        except BaseException as error:
            self._note_failure(request, error)

    def _commit_with_room(self, request: _SaveRequest) -> int:
        """Write the checkpoint; while there is no room for it, older ones go first."""
        while True:
            try:
                return self.commit(
                    request.checkpoint,
                    request.step,
                    request.best,
                    request.final,
                    request.kept_epoch,
                )
            except Exception as error:
                if not lacks_room(error) or not self.make_room():
                    raise

    def _note_failure(self, request: _SaveRequest, error: BaseException) -> None:
        """Keep the error for the next call, or go on where it may pass."""
        # A successor takes folders and objects away from under a write, which then fails in some
        # odd way. Where there is one, that is the reason to report.
        try:
            self.check_fence()
        except Fenced as fenced:
            self._failure = fenced
            return
        except (TrainerError, OSError):
            logger.warning("cannot tell whether a newer attempt has taken over")
        if not cannot_write_now(error):
            self._failure = error
            return
        self._unsaved = (request, error)
        logger.warning(
            "the checkpoint of step %d cannot be written to %s: %s; those before it stay",
            request.step,
            self.root,
            describe(error),
        )
        self.failed(FailedSave(request.step, describe(error)))


def decode(data: bytes, checksum: str) -> Checkpoint:
    """A checkpoint from its bytes, on the CPU; ``checksum`` is its SHA-256 in hex.

    Raises one of DAMAGE_ERRORS when it is damaged or of another format.
    """
    actual = hashlib.sha256(data).hexdigest()
    if actual != checksum:
        raise ValueError(f"its SHA-256 is {actual[:12]}..., not {checksum[:12]}...")
    # weights_only: whoever can write to the folder must not be able to run code in the trainer.
    # Before torch 2.10 that is no full protection (weights.pickles): there only the job itself may
    # be able to write, because without reading its checkpoints it could not go on at all.
    checkpoint: Checkpoint = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if checkpoint.get("format") != FORMAT:
        raise ValueError(f"its format is {checkpoint.get('format')!r}, this version reads {FORMAT}")
    return checkpoint


def job_of(checkpoint: Checkpoint) -> str:
    """``<namespace>/<name>`` of the job whose final checkpoint this is; empty where it is unknown.

    Version 0.1 told no more than that of the jobs that had shared a place.
    """
    summary = checkpoint.get("progress", {}).get("summary") or {}
    return str(summary.get("job", ""))


def cannot_use(root: object, error: OSError) -> TrainerError:
    """The error for a place of checkpoints that cannot be used at the start."""
    if lacks_room(error) or cannot_read_now(error):
        return StorageFailed(f"checkpoint.path: {root} cannot be used: {describe(error)}")
    return InputMissing(f"checkpoint.path: {root} cannot be used: {error.strerror or error}")


def all_damaged(folder: object, problems: list[str]) -> DataError:
    """The error for a folder whose checkpoints are all damaged; one problem for each of them."""
    return DataError(
        f"none of the checkpoints in {folder} can be read ({'; '.join(problems)}); "
        "restore one, or remove the folder to begin again"
    )
