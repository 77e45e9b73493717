"""Records of what happens in a run, and the bus that hands them to the sinks.

The training loop and the other modes put records on the :class:`Bus`. What becomes of them (lines,
files, metrics, pictures) is the business of the sinks in ``sinks/``. A sink that fails is dropped
with a warning: a full disk or a port in use must not end the job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typing_extensions import override

from inception_trainer.checkpoint.base import FailedSave, MemoryCopyRecord, SaveRecord
from inception_trainer.config.normalization import IMAGENET, Normalization
from inception_trainer.device import Figures, StepTimes
from inception_trainer.log import logger

from .progress import History


@dataclass(frozen=True)
class RunInfo:
    """What stays the same while this process runs."""

    job: str
    attempt: int
    model: str
    parameters: int
    """How many numbers the network learns."""
    precision: str
    device: str
    profile: str
    """The accelerator profile, which names the vendor."""
    backend: str
    rank: int
    world_size: int
    steps_per_epoch: int
    total_steps: int
    epochs: int
    global_batch: int
    """Samples of one optimizer step, over all ranks."""
    start_step: int
    """Steps done when this process began; 0 for a job that starts."""
    config: dict[str, Any]
    """The configuration with its defaults filled in, as plain data."""
    output: Path | None
    """Where this rank may leave files."""
    normalization: Normalization = IMAGENET
    """How pixels become the network's inputs."""
    class_names: tuple[str, ...] = ()
    data_fingerprints: Mapping[str, str] = field(default_factory=dict)
    """Of what is trained and evaluated on, wherever it is mounted."""
    weights: str | None = None
    """Whose layout the file had that the job's weights started from; None for random weights."""
    evaluated: tuple[float, float] | None = None
    """Validation top-1 and top-5 that an earlier attempt measured last."""
    train_samples: int = 0
    """Size of the training split."""
    evaluation_samples: int = 0
    repeated_steps: int = 0
    """Steps that restarts of the job had to do again."""


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step that this process has done, or told its device to do."""

    step: int
    """Steps done, this one included."""
    host_seconds: float
    """What it took on the host; what it took on the device comes as :class:`StepTimes`."""
    pod_samples: int
    """Samples consumed by the ranks of this pod."""
    samples_seen: int
    phase: str = "train"
    """What the samples were used for: ``train``, ``val`` or ``infer``."""


@dataclass(frozen=True)
class LogRecord:
    """Means over one log interval and all ranks; accuracies are 0 to 1."""

    step: int
    epoch: float
    """Epochs done, with their fraction."""
    loss: float
    accuracy_top1: float
    accuracy_top5: float
    learning_rate: float
    """That of the last step."""
    images_per_second: float
    """Of the whole job."""
    step_seconds: float
    data_wait_ratio: float
    """Share of the time that was spent waiting for data, 0 to 1."""
    progress: float
    """Share of the job's steps that is done, 0 to 1."""
    remaining_seconds: float
    """To the end of the job at the current speed; 0 while that is unknown."""
    samples_seen: int
    """Training samples consumed by the job, over all attempts."""
    skipped_samples: int
    skipped_steps: int = 0
    devices: tuple[Figures, ...] = ()
    """Figures of the devices of this pod's ranks; empty on the CPU."""
    loss_scale: float | None = None
    """What FP16 losses are multiplied by now."""
    gradient_norm: float | None = None
    """L2 norm of the gradients of the last step, before it is limited; None where no step asks for
    it.
    """
    device_idle_ratio: float | None = None
    """Share of the time in which the devices had nothing to do, 0 to 1; None where they do not say
    when they compute.
    """


@dataclass(frozen=True)
class EvaluationRecord:
    """One pass over the validation set; accuracies are 0 to 1."""

    step: int
    epoch: float
    loss: float
    accuracy_top1: float
    accuracy_top5: float
    samples: int
    """Evaluated by all ranks."""
    pod_samples: int
    """Of these, by the ranks of this pod."""
    seconds: float
    is_best: bool
    """Whether no earlier evaluation of the job had a better top-1."""
    data_seconds: float = 0.0
    """Of them, how long this rank waited for data."""
    batch_seconds: tuple[float, ...] = ()
    """What each batch of this rank took to compute."""
    raw_accuracy_top1: float | None = None
    """Of the network itself, where its average was measured and ``evaluation.rawWeights`` asks."""


@dataclass(frozen=True)
class EndRecord:
    """The result of this process."""

    summary: dict[str, Any]
    """The content of summary.json."""
    history: History
    finished: bool
    """False when the run was stopped and will go on."""


class Sink:
    """Takes records and does nothing with them; sinks override what they care about."""

    def start(self, info: RunInfo) -> None:
        """Called once, after the first step: what is slow to start must not delay it."""

    def step(self, record: StepRecord) -> None:
        """Called after every step; must be cheap."""

    def step_times(self, record: StepTimes) -> None:
        """Called for every step once its times are known, which may be some steps later; must be
        cheap.
        """

    def log(self, record: LogRecord) -> None:
        """Called at every log interval."""

    def evaluation(self, record: EvaluationRecord) -> None:
        """Called after every evaluation."""

    def checkpoint(self, record: SaveRecord) -> None:
        """Called from the writer thread after every finished checkpoint."""

    def checkpoint_failed(self, record: FailedSave) -> None:
        """Called from the writer thread for every checkpoint that could not be written."""

    def memory_copy(self, record: MemoryCopyRecord) -> None:
        """Called from a thread after every finished copy in memory; must be cheap."""

    def end(self, record: EndRecord) -> None:
        """Called once, when the run is finished or stopped."""

    def close(self) -> None:
        """Release what :meth:`start` took; called once, also after an error of the run."""


class Bus(Sink):
    """Hands every record to every sink, and drops sinks that fail."""

    def __init__(self, sinks: Iterable[Sink] = ()) -> None:
        self._sinks = list(sinks)
        self._started = False

    @override
    def start(self, info: RunInfo) -> None:
        """Start the sinks; later calls do nothing."""
        if not self._started:
            self._started = True
            self._call_each(lambda sink: sink.start(info))

    @override
    def step(self, record: StepRecord) -> None:
        self._call_each(lambda sink: sink.step(record))

    @override
    def step_times(self, record: StepTimes) -> None:
        self._call_each(lambda sink: sink.step_times(record))

    @override
    def log(self, record: LogRecord) -> None:
        self._call_each(lambda sink: sink.log(record))

    @override
    def evaluation(self, record: EvaluationRecord) -> None:
        self._call_each(lambda sink: sink.evaluation(record))

    @override
    def checkpoint(self, record: SaveRecord) -> None:
        self._call_each(lambda sink: sink.checkpoint(record))

    @override
    def checkpoint_failed(self, record: FailedSave) -> None:
        self._call_each(lambda sink: sink.checkpoint_failed(record))

    @override
    def memory_copy(self, record: MemoryCopyRecord) -> None:
        self._call_each(lambda sink: sink.memory_copy(record))

    @override
    def end(self, record: EndRecord) -> None:
        self._call_each(lambda sink: sink.end(record))

    @override
    def close(self) -> None:
        # A sink that was never started has taken nothing.
        if self._started:
            self._call_each(lambda sink: sink.close())

    def _call_each(self, method: Callable[[Sink], None]) -> None:
        # Over a copy, because a sink that fails leaves the list; the writer thread may be doing the
        # same in between.
        for sink in tuple(self._sinks):
            try:
                method(sink)
            except Exception as error:
                self._sinks.remove(sink)
                logger.warning(
                    "%s is switched off: %s: %s", type(sink).__name__, type(error).__name__, error
                )
