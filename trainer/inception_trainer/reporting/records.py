"""One bus from the engine to everything that shows a training to someone; the sinks are in
``sinks/``.

A sink that fails is dropped with a warning: no dashboard is worth a training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inception_trainer.checkpoint.base import SaveRecord
from inception_trainer.config.normalization import IMAGENET, Normalization
from inception_trainer.device import Figures
from inception_trainer.log import logger

from .progress import History


@dataclass(frozen=True)
class RunInfo:
    """What stays the same while this process runs."""

    job: str
    attempt: int
    model: str
    parameters: int
    precision: str
    device: str
    profile: str
    backend: str
    rank: int
    world_size: int
    steps_per_epoch: int
    total_steps: int
    epochs: int
    global_batch: int
    start_step: int
    config: dict[str, Any]
    output: Path | None
    normalization: Normalization = IMAGENET
    """How pixels become the network's inputs."""
    weights: str | None = None
    """Whose layout the file had that the job's weights started from; None for random weights."""
    evaluated: tuple[float, float] | None = None
    """Validation top-1 and top-5 that an earlier attempt measured last."""
    train_samples: int = 0
    """Size of the training split."""
    evaluation_samples: int = 0


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step as this process saw it."""

    step: int
    """Steps done, this one included."""
    data_seconds: float
    compute_seconds: float
    pod_samples: int
    """Samples consumed by the ranks of this pod."""
    samples_seen: int
    phase: str = "train"
    """What the samples were used for: ``train``, ``val`` or ``infer``."""


@dataclass(frozen=True)
class LogRecord:
    """Means over one log interval and all ranks."""

    step: int
    epoch: float
    loss: float
    accuracy_top1: float
    accuracy_top5: float
    learning_rate: float
    images_per_second: float
    step_seconds: float
    data_wait_ratio: float
    progress: float
    remaining_seconds: float
    samples_seen: int
    skipped_samples: int
    skipped_steps: int = 0
    devices: tuple[Figures, ...] = ()
    """Figures of the devices of this pod's ranks; empty on the CPU."""
    loss_scale: float | None = None
    """What FP16 losses are multiplied by now."""


@dataclass(frozen=True)
class EvaluationRecord:
    """One pass over the validation set."""

    step: int
    epoch: float
    loss: float
    accuracy_top1: float
    accuracy_top5: float
    samples: int
    pod_samples: int
    seconds: float
    is_best: bool
    data_seconds: float = 0.0
    """Of them, how long this rank waited for data."""
    batch_seconds: tuple[float, ...] = ()
    """What each batch of this rank took to compute."""


@dataclass(frozen=True)
class EndRecord:
    """The last words of this process."""

    summary: dict[str, Any]
    history: History
    finished: bool
    """False when the run was stopped and will go on."""


class Sink:
    """Does nothing with any record; sinks override what they care about."""

    def start(self, info: RunInfo) -> None:
        """Called once, after the first step: what is slow to start must not delay it."""

    def step(self, record: StepRecord) -> None:
        """Called after every step; must be cheap."""

    def log(self, record: LogRecord) -> None:
        """Called at every log interval."""

    def evaluation(self, record: EvaluationRecord) -> None:
        """Called after every evaluation."""

    def checkpoint(self, record: SaveRecord) -> None:
        """Called from the writer thread after every finished checkpoint."""

    def end(self, record: EndRecord) -> None:
        """Called once, when the run is finished or stopped."""

    def close(self) -> None:
        """Release what :meth:`start` took."""


class Bus:
    """Hands every record to every sink."""

    def __init__(self, sinks: Iterable[Sink] = ()) -> None:
        self._sinks = list(sinks)
        self._started = False

    def start(self, info: RunInfo) -> None:
        """Start the sinks; later calls do nothing."""
        if not self._started:
            self._started = True
            self._each(lambda sink: sink.start(info))

    def step(self, record: StepRecord) -> None:
        """Pass on."""
        self._each(lambda sink: sink.step(record))

    def log(self, record: LogRecord) -> None:
        """Pass on."""
        self._each(lambda sink: sink.log(record))

    def evaluation(self, record: EvaluationRecord) -> None:
        """Pass on."""
        self._each(lambda sink: sink.evaluation(record))

    def checkpoint(self, record: SaveRecord) -> None:
        """Pass on."""
        self._each(lambda sink: sink.checkpoint(record))

    def end(self, record: EndRecord) -> None:
        """Pass on."""
        self._each(lambda sink: sink.end(record))

    def close(self) -> None:
        """Close all sinks."""
        if self._started:
            self._each(lambda sink: sink.close())

    def _each(self, act: Callable[[Sink], None]) -> None:
        for sink in tuple(self._sinks):
            try:
                act(sink)
            except Exception as error:
                self._sinks.remove(sink)
                logger.warning(
                    "%s is switched off: %s: %s", type(sink).__name__, type(error).__name__, error
                )
