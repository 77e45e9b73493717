"""Continues a job from the newest state that is whole, wherever it is: in the memory of a pod or in
the checkpoint folder. Its holder sends it to all ranks.

The weights and the optimizer come from here. That the right samples follow is not done here: see
:mod:`inception_trainer.data.sampler`.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from inception_trainer.checkpoint.base import Checkpoint, CheckpointWriter, cannot_use
from inception_trainer.checkpoint.memory import MemoryFolder
from inception_trainer.checkpoint.memory_file import MemoryCopy
from inception_trainer.checkpoint.memory_statistics import RankStatistics, read_statistics
from inception_trainer.comm import Comm
from inception_trainer.config import continuation
from inception_trainer.config.normalization import Normalization
from inception_trainer.config.settings import Settings
from inception_trainer.config.training import TrainingConfig
from inception_trainer.data.sampler import LengthPlan
from inception_trainer.errors import ConfigError, DataError
from inception_trainer.log import logger
from inception_trainer.reporting.progress import Progress

from .schedule import learning_rate
from .state import OPTIMIZER_PARTS, TrainingState, parts_of

T = TypeVar("T")
RATE_KEYS = ("epochs", "maxSteps", "schedule.", "optimizer.learningRate")
"""Keys on which the learning rate of a step depends."""
NOTHING = -1
"""The step of a state that is not there."""


@dataclass(frozen=True)
class ResumePoint:
    """Where this attempt begins, equal on all ranks but for ``payload``, which only the ``source``
    has, and ``statistics``.
    """

    attempt: int
    progress: Progress
    resumes: bool
    """Whether there is a state to go on from."""
    is_settled: bool = True
    """Whether all that was to be saved with it is in the checkpoint folder."""
    saved_ranks: int = 0
    """How many ranks were in the attempt that it is of."""
    normalization: Normalization | None = None
    """That of the checkpoint."""
    weights: str | None = None
    """The layout of the weights that the job once began with."""
    optimizer_parts: tuple[str, ...] = ()
    """Which tensors of the optimizer the checkpoint holds."""
    has_average: bool = False
    scaler: dict[str, Any] | None = None
    """State of the loss scale."""
    changes: tuple[continuation.Change, ...] = ()
    """How the configuration has changed since."""
    source: int = 0
    """The rank that has it."""
    from_memory: bool = False
    payload: Checkpoint | None = None
    statistics: Tensor | None = None
    """This rank's own batch norm statistics of then, where its pod still has them."""


@dataclass(frozen=True)
class OnDisk:
    """What rank 0 knows of the checkpoint folder before it has read a checkpoint."""

    attempt: int
    step: int
    """Of the newest checkpoint, NOTHING where there is none."""


@dataclass(frozen=True)
class InMemory:
    """What a rank has found in the memory of its pod."""

    copy: MemoryCopy | None = None
    """On local rank 0, for all of the pod."""
    statistics: tuple[RankStatistics, ...] = ()

    @property
    def finished(self) -> int:
        """The last step that this rank, or its predecessor in this pod, had finished."""
        return max((moment.step for moment in self.statistics if moment.is_live), default=NOTHING)

    def own(self, start: ResumePoint, rank: int) -> Tensor | None:
        """Batch norm statistics of this rank at the start, or one step before it."""
        moments = [
            moment
            for moment in self.statistics
            if moment.rank == rank
            and moment.world_size == start.saved_ranks
            # One that was killed late in the last step was not quick enough to note them.
            and start.progress.step - 1 <= moment.step <= start.progress.step
        ]
        newest = max(moments, key=lambda moment: (moment.step, moment.number), default=None)
        return None if newest is None else newest.values


class Search:
    """Looks for states to go on from, in threads, while the ranks find one another."""

    def __init__(
        self, store: CheckpointWriter | None, memory: MemoryFolder | None, settings: Settings
    ) -> None:
        self.store = store
        self._attempt = settings.attempt or 1
        self.memory = _in_background(lambda: _look(memory, settings), "memory-reader")
        self.disk = _in_background(self._acquire, "checkpoint-finder")
        self._checkpoint: Future[Checkpoint | None] | None = None
        # A first attempt need not ask whether anybody has a copy in memory.
        if memory is None or self._attempt == 1:
            self._begin_to_read()

    def checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint of the folder; raises DataError when all are damaged."""
        if self._checkpoint is None:
            self._begin_to_read()
        assert self._checkpoint is not None  # noqa: S101 - just begun
        return self._checkpoint.result()

    def _begin_to_read(self) -> None:
        self._checkpoint = _in_background(self._read, "checkpoint-loader")

    def _acquire(self) -> OnDisk:
        """Become the writer, before anything else is asked of the folder."""
        if self.store is None:
            return OnDisk(self._attempt, NOTHING)
        with _telling_what_is_missing(self.store):
            attempt = self.store.acquire()
            return OnDisk(attempt, self.store.newest_step())

    def _read(self) -> Checkpoint | None:
        self.disk.result()
        if self.store is None:
            return None
        with _telling_what_is_missing(self.store):
            return self.store.load()


@contextmanager
def _telling_what_is_missing(store: CheckpointWriter) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_use(store.root, error) from None


def _look(memory: MemoryFolder | None, settings: Settings) -> InMemory:
    if memory is None:
        return InMemory()
    copy = memory.newest() if settings.local_rank == 0 else None
    statistics = read_statistics(memory.statistics(settings.local_rank))
    return InMemory(copy, tuple(s for s in statistics if s.attempt < memory.attempt))


def _in_background(function: Callable[[], T], name: str) -> Future[T]:
    """Run ``function`` in a daemon thread."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    # No executor: Python waits for its threads at the end, and a store that does not answer would
    # keep a rank from ending.
    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def agree_on_start(comm: Comm, search: Search, now: continuation.Plain) -> ResumePoint:
    """The newest state of all becomes that of all ranks; errors of one are raised on every rank.

    ``now`` is the configuration and the data as :func:`.continuation.current` tells them.
    """
    disk = comm.from_first(search.disk.result)
    own = _of_this_training(search.memory.result(), now)
    step = NOTHING if own.copy is None else own.copy.step
    held, finished = comm.gather(torch.tensor([step, own.finished])).T.tolist()
    newest = max(held)
    start = None
    if disk.step > newest or newest == NOTHING:
        start = _from_disk(comm, search, now, disk, newest)
    if start is None:
        start = _from_memory(comm, own.copy, now, disk.attempt, held.index(newest))
        if search.store is not None:
            search.store.adopt_in_background()
    _count_again(start, max(newest, disk.step, *finished))
    return dataclasses.replace(start, statistics=own.own(start, comm.rank))


def _of_this_training(state: InMemory, now: continuation.Plain) -> InMemory:
    if state.copy is None:
        return state
    comparison = continuation.compare(continuation.saved(state.copy.header), now)
    if not comparison.conflicts:
        return state
    logger.warning("a memory copy of another configuration is not used")
    return dataclasses.replace(state, copy=None)


def _count_again(start: ResumePoint, finished: int) -> None:
    """Put the restart into the progress; ``finished`` is the last step that anybody knows of."""
    progress = start.progress
    if start.resumes:
        progress.history.restarts.append(progress.step)
    again = max(0, finished - progress.step)
    progress.repeated_steps += again
    if again:
        logger.info("%d steps were finished before and are done again", again)


def _from_disk(
    comm: Comm,
    search: Search,
    now: continuation.Plain,
    disk: OnDisk,
    in_memory: int,
) -> ResumePoint | None:
    """Read on rank 0; None when the copy in memory turns out to be the newest one after all.

    Raises ConfigError for a checkpoint that this configuration cannot go on from.
    """

    def describe() -> ResumePoint | None:
        try:
            payload = search.checkpoint()
        except DataError as error:
            if in_memory == NOTHING:
                raise
            logger.warning("%s; going on from the memory of a pod", error)
            return None
        if payload is None:
            return ResumePoint(disk.attempt, Progress(), resumes=False)
        if payload["progress"]["step"] < in_memory:
            return None
        comparison = continuation.compare(continuation.saved(payload), now)
        assert search.store is not None  # noqa: S101 - it was read from there
        if comparison.conflicts:
            raise ConfigError(comparison.refusal(search.store.root))
        start = _describe(payload, now, disk.attempt)
        return dataclasses.replace(start, is_settled=search.store.is_settled)

    start = comm.from_first(describe)
    if start is None or not comm.is_first:
        return start
    # Tensors are not sent with it: they travel in flat vectors, straight to their places.
    return dataclasses.replace(start, payload=search.checkpoint())


def _from_memory(
    comm: Comm, copy: MemoryCopy | None, now: continuation.Plain, attempt: int, source: int
) -> ResumePoint:
    """Read on the rank that has it."""
    payload = as_checkpoint(copy) if copy is not None and comm.rank == source else None

    def describe() -> ResumePoint:
        assert payload is not None  # noqa: S101 - only the source describes
        return _describe(payload, now, attempt)

    start = comm.from_rank(source, describe)
    return dataclasses.replace(start, source=source, from_memory=True, payload=payload)


def _describe(payload: Checkpoint, now: continuation.Plain, attempt: int) -> ResumePoint:
    return ResumePoint(
        attempt,
        Progress.from_dict(payload["progress"]),
        resumes=True,
        saved_ranks=payload["world_size"],
        normalization=Normalization.from_dict(payload["preprocessing"]),
        weights=payload.get("weights"),
        optimizer_parts=parts_of(payload["optimizer"]),
        has_average="average" in payload,
        scaler=payload.get("scaler"),
        changes=continuation.compare(continuation.saved(payload), now).changes,
    )


def announce_changes(start: ResumePoint, config: TrainingConfig, length: LengthPlan) -> None:
    """A line for each key that has another value than the training had before, and what becomes of
    the learning rate.
    """
    for change in start.changes:
        logger.info("going on with a changed configuration: %s", change)
    step = start.progress.step
    if not any(change.key.startswith(RATE_KEYS) for change in start.changes):
        return
    if step >= length.total_steps:
        logger.info("%d steps are done, and %d are asked for", step, length.total_steps)
        return
    logger.info(
        "schedule %s as configured now, over %d steps from the first one of the training on: "
        "the next step, number %d, has the learning rate %g",
        config.schedule.name,
        length.horizon,
        step + 1,
        learning_rate(config.optimizer.learning_rate, config.schedule, length, step),
    )


def as_checkpoint(copy: MemoryCopy) -> Checkpoint:
    """A memory copy with the keys of a checkpoint, but for the batch norm statistics of each rank,
    which are elsewhere.
    """
    parts: dict[str, dict[str, Tensor]] = {"model": {}}
    for name, tensor in copy.tensors().items():
        part, _, rest = name.partition("/")
        parts.setdefault(part, {})[rest] = tensor
    optimizer = {part: parts.pop(part, {}) for part in OPTIMIZER_PARTS}
    content = {key: value for key, value in copy.header.items() if key != "tensors"}
    content["optimizer"] = {"name": copy.header["optimizer"], **optimizer}
    content["model"] = parts["model"]
    if "average" in parts:
        content["average"] = {"model": parts["average"], "rank_statistics": None}
    return content


def restore_state(state: TrainingState, start: ResumePoint) -> None:
    """Give every rank the state of ``start``, but for the weights, which the network was built
    with.
    """
    payload = start.payload
    average = payload.get("average") if payload else None
    # Those of a memory copy follow rank by rank.
    saved_ranks = 0 if start.from_memory else start.saved_ranks
    state.begin_average(
        average, present=start.has_average, saved_ranks=saved_ranks, source=start.source
    )
    if not start.resumes:
        return
    state.restore_optimizer(payload and payload["optimizer"], start.optimizer_parts, start.source)
    state.restore_scaler(start.scaler)
    if start.from_memory:
        _restore_statistics_from_memory(state, start)
    else:
        per_rank = None if payload is None else payload["rank_statistics"]
        state.restore_statistics(per_rank, start.saved_ranks)
    logger.info(
        "continuing at step %d (%d samples seen), %s by %d ranks",
        start.progress.step,
        start.progress.samples_seen,
        f"kept in the memory of rank {start.source}'s pod" if start.from_memory else "saved",
        start.saved_ranks,
    )


def _restore_statistics_from_memory(state: TrainingState, start: ResumePoint) -> None:
    without = state.restore_own_statistics(start.statistics)
    if without:
        logger.info(
            "%d ranks begin with the mean of the other ranks' batch norm statistics", without
        )
