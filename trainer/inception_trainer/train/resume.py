"""Continues a job from its newest checkpoint: what rank 0 read becomes the state of all ranks.

The weights and the optimizer come from here. That the right samples follow is not done here: see
:mod:`inception_trainer.data.sampler`.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from inception_trainer.checkpoint.base import Checkpoint, CheckpointWriter, cannot_use
from inception_trainer.checkpoint.folder import check_fingerprint
from inception_trainer.comm import Comm
from inception_trainer.config.normalization import Normalization
from inception_trainer.config.settings import Settings
from inception_trainer.config.training import TrainingConfig
from inception_trainer.data import Splits
from inception_trainer.log import logger
from inception_trainer.reporting.progress import Progress

from .results import full_fingerprint
from .state import TrainingState, parts_of

T = TypeVar("T")


@dataclass(frozen=True)
class ResumePoint:
    """Where this attempt begins, equal on all ranks but for ``payload``, which only rank 0 has."""

    attempt: int
    progress: Progress
    resumes: bool
    """Whether a checkpoint was found."""
    saved_ranks: int = 0
    """How many ranks wrote it."""
    normalization: Normalization | None = None
    """That of the checkpoint."""
    weights: str | None = None
    """The layout of the weights that the job once began with."""
    optimizer_parts: tuple[str, ...] = ()
    """Which tensors of the optimizer the checkpoint holds."""
    has_average: bool = False
    scaler: dict[str, Any] | None = None
    """State of the loss scale."""
    payload: Checkpoint | None = None


Loading = Future[tuple[int, Checkpoint | None]]
"""The attempt's number and the newest checkpoint, once they are known."""


def begin_loading(store: CheckpointWriter | None, settings: Settings) -> Loading:
    """Become the writer of ``store`` and read its newest checkpoint, in a thread."""

    def load() -> tuple[int, Checkpoint | None]:
        if store is None:
            return settings.attempt or 1, None
        try:
            return store.acquire(), store.load()
        except OSError as error:
            raise cannot_use(store.root, error) from None

    return _in_background(load, "checkpoint-loader")


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


def agree_on_start(
    comm: Comm, loading: Loading, config: TrainingConfig, splits: Splits
) -> ResumePoint:
    """What rank 0 found in the checkpoint folder becomes known to all, errors included."""

    def describe() -> ResumePoint:
        attempt, payload = loading.result()
        if payload is None:
            return ResumePoint(attempt, Progress(), resumes=False)
        expected = full_fingerprint(config, splits)
        check_fingerprint(payload["fingerprint"], expected, config.checkpoint.path)
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
        )

    start = comm.from_first(describe)
    if start.resumes:
        start.progress.history.restarts.append(start.progress.step)
    # Tensors are not sent with it: they travel in flat vectors, straight to their places.
    return dataclasses.replace(start, payload=loading.result()[1])


def restore_state(state: TrainingState, start: ResumePoint) -> None:
    """Give every rank the state of ``start``, but for the weights, which the network was built
    with.
    """
    payload = start.payload
    average = payload.get("average") if payload else None
    state.begin_average(average, present=start.has_average, saved_ranks=start.saved_ranks)
    if not start.resumes:
        return
    state.restore_optimizer(payload and payload["optimizer"], start.optimizer_parts)
    state.restore_scaler(start.scaler)
    per_rank = None if payload is None else payload["rank_statistics"]
    state.restore_statistics(per_rank, start.saved_ranks)
    logger.info(
        "continuing at step %d (%d samples seen), saved by %d ranks",
        start.progress.step,
        start.progress.samples_seen,
        start.saved_ranks,
    )
