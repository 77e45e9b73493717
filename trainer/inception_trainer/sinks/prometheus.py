"""Prometheus metrics of one pod, served by its local rank 0 (names: docs/architecture/names.md).

Values that hold for the whole job (loss, accuracy, progress) are the same in every pod;
``trainer_samples_total`` counts this pod's samples only, so that ``sum(rate())`` is the job's
speed.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from typing_extensions import override

from inception_trainer import __version__
from inception_trainer.checkpoint.base import FailedSave, MemoryCopyRecord, SaveRecord
from inception_trainer.device import StepTimes
from inception_trainer.launcher.listener import Handler, Listener
from inception_trainer.launcher.rank_times import RankTimes
from inception_trainer.log import logger
from inception_trainer.reporting.outputs import replace_file
from inception_trainer.reporting.records import (
    EndRecord,
    EvaluationRecord,
    LogRecord,
    RunInfo,
    Sink,
    StepRecord,
)

STEP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
CHECKPOINT_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
RETRY_SECONDS = 1.0
"""Time between two tries to get the port."""
DEVICE_GAUGES = {
    "memory_used_bytes": (
        "Device memory in use, by anybody where the device tells, else by this rank"
    ),
    "memory_total_bytes": "Memory of the device",
    "memory_peak_bytes": "Most device memory allocated by this rank",
    "utilization_ratio": (
        "Share of time in which the device computed something, as its vendor counts it"
    ),
    "temperature_celsius": "Temperature of the device",
    "power_watts": "Power drawn by the device",
    "healthy": "1 while the device answers questions about itself, 0 once it stopped to",
}
"""Of the devices of this pod's ranks, by local rank; a figure that a vendor's module does not have
is absent.
"""
OPTIONAL_GAUGES = {
    "device_idle_ratio": (
        "Share of the last log interval in which the devices had nothing to do: batches were "
        "missing, or the host was busy between steps"
    ),
    "gradient_norm": "L2 norm of the gradients of the last step, before it is limited",
    "loss_scale": "What FP16 losses are multiplied by",
}
"""By fields of :class:`LogRecord` that may be unknown."""
RANK_COUNTERS = {
    "steps": "Steps of a rank of this pod whose times are known",
    "step_seconds": "Time of these steps",
    "own_seconds": "Part of it until the gradients of the rank were ready",
    "wait_seconds": "Part of it in which the rank then waited for those of the others",
}
"""By fields of :class:`RankTimes`."""


class RankCollector(Collector):
    """Where the steps of each rank of this pod went, read from their heartbeats when it is asked
    for: no rank tells another, and none is held up.
    """

    def __init__(self, read: Callable[[], Iterable[RankTimes]]) -> None:
        self._read = read

    @override
    def collect(self) -> Iterable[Metric]:
        families = {
            name: CounterMetricFamily(f"trainer_rank_{name}", text, labels=("rank",))
            for name, text in RANK_COUNTERS.items()
        }
        for times in self._read():
            for name, family in families.items():
                family.add_metric((str(times.rank),), getattr(times, name))
        return families.values()


class Prometheus(Sink):
    """Serves ``/metrics`` on ``port`` (0: nowhere) and leaves a copy in ``snapshot`` at the end."""

    def __init__(
        self,
        port: int,
        snapshot: Path | None = None,
        ranks: Callable[[], Iterable[RankTimes]] | None = None,
    ) -> None:
        """``ranks`` tells where the steps of this pod's ranks went."""
        # A second series per counter with the time it was made in: nobody asks for these.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._port = port
        self._snapshot = snapshot
        self._server: Listener | None = None
        self._closing = threading.Event()
        self._stepped = False
        self._optional: dict[str, Gauge] = {}
        """Made when there is something to show: what is not known is not 0."""
        # Not the library's own one: several of these live in one process of the tests, and its
        # figures of the Python process are nobody's question.
        self.registry = CollectorRegistry()
        if ranks is not None:
            self.registry.register(RankCollector(ranks))
        self._define_gauges()

    def _define_gauges(self) -> None:
        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(f"trainer_{name}", text, labels, registry=self.registry)

        self._progress = gauge("progress_ratio", "Share of the job's steps that is done")
        self._epoch = gauge("epoch", "Current epoch, from 0")
        self._step = gauge("step", "Optimizer steps done by the job, over all attempts")
        self._loss = gauge("loss", "Mean training loss of the last log interval")
        self._accuracy = gauge("accuracy_ratio", "Top-k accuracy, 0 to 1", ("split", "k"))
        self._rate = gauge("learning_rate", "Learning rate of the last step")
        self._seen = gauge(
            "samples_seen", "Training samples consumed by the job, over all attempts and pods"
        )
        self._speed = gauge(
            "samples_per_second", "Training samples per second of the whole job, last log interval"
        )
        self._remaining = gauge(
            "estimated_remaining_seconds", "Time to the end of the job at the current speed"
        )
        self._attempt = gauge("attempt", "Attempt that this process belongs to")
        self._first_step = gauge(
            "first_step_timestamp_seconds", "When this attempt made its first step; 0: not yet"
        )
        self._last_step = gauge("last_step_timestamp_seconds", "When the last step ended")
        self._saved = gauge(
            "checkpoint_last_success_timestamp_seconds", "When the last checkpoint was complete"
        )
        self._unsaved = gauge(
            "checkpoint_failing", "1 while the last checkpoint could not be written"
        )
        self._size = gauge("checkpoint_size_bytes", "Size of the last checkpoint")
        self._copied_step = gauge(
            "memory_snapshot_step", "Step of the last copy in the memory of this pod"
        )
        self._copy_seconds = gauge(
            "memory_snapshot_seconds", "Time from that step until the copy could be used"
        )
        self._copy_size = gauge("memory_snapshot_bytes", "Size of that copy")
        self._devices = {
            name: gauge(f"device_{name}", text, ("device",)) for name, text in DEVICE_GAUGES.items()
        }
        self._define_counters()

    def _define_counters(self) -> None:
        registry = self.registry
        self._samples = Counter(
            "trainer_samples", "Samples processed by this pod", ("phase",), registry=registry
        )
        self._steps = Counter(
            "trainer_steps", "Optimizer steps done by this process", registry=registry
        )
        self._skipped = Gauge(
            "trainer_skipped_samples",
            "Unreadable samples skipped by the job, over all attempts",
            registry=registry,
        )
        self._skipped_steps = Gauge(
            "trainer_skipped_steps",
            "Steps of the job whose FP16 gradients overflowed",
            registry=registry,
        )
        self._repeated = Counter(
            "trainer_repeated_steps",
            "Steps that restarts of the job had to do again, over all attempts",
            registry=registry,
        )
        self._duration = Histogram(
            "trainer_step_duration_seconds",
            "Time of a step: waiting for data, computing",
            ("part",),
            buckets=STEP_BUCKETS,
            registry=registry,
        )
        self._checkpoint = Histogram(
            "trainer_checkpoint_duration_seconds",
            "Time from the request of a checkpoint until it is on the disk",
            buckets=CHECKPOINT_BUCKETS,
            registry=registry,
        )
        self._unsaved_total = Counter(
            "trainer_checkpoint_failures",
            "Checkpoints that could not be written; training went on",
            registry=registry,
        )
        self._stalled = Counter(
            "trainer_checkpoint_stall_seconds",
            "Time that training stood still for checkpoints",
            registry=registry,
        )
        self._build = Info("trainer_build", "What runs here", registry=registry)
        # Series that are there from the start: rate() and alerts need no case for "not yet".
        for phase in ("train", "val", "infer"):
            self._samples.labels(phase)
        for part in ("data", "compute"):
            self._duration.labels(part)
        for split in ("train", "val"):
            for k in ("1", "5"):
                self._accuracy.labels(split, k)

    @override
    def start(self, info: RunInfo) -> None:
        """Fill in what is known and serve the port, from a thread."""
        self._info = info
        self._attempt.set(info.attempt)
        self._repeated.inc(info.repeated_steps)
        # What an earlier attempt measured: the curve must not fall to 0 with every restart.
        if info.evaluated is not None:
            self._set_validation(*info.evaluated)
        self._build.info(
            {
                "version": __version__,
                "model": info.model,
                "precision": info.precision,
                "device": info.device,
                "profile": info.profile,
                "backend": info.backend,
                "world_size": str(info.world_size),
            }
        )
        if self._port:
            threading.Thread(target=self._serve, name="metrics-server", daemon=True).start()

    @override
    def step(self, record: StepRecord) -> None:
        # Called for every step, so nothing here reads a tensor: that would wait for the device.
        if not self._stepped:
            self._first_step.set_to_current_time()
            self._stepped = True
        self._steps.inc()
        self._samples.labels(record.phase).inc(record.pod_samples)
        self._step.set(record.step)
        self._epoch.set(record.step // self._info.steps_per_epoch)
        self._progress.set(record.step / self._info.total_steps)
        self._seen.set(record.samples_seen)
        self._last_step.set_to_current_time()

    @override
    def step_times(self, record: StepTimes) -> None:
        self._duration.labels("data").observe(record.data_seconds)
        self._duration.labels("compute").observe(record.compute_seconds)

    @override
    def log(self, record: LogRecord) -> None:
        self._loss.set(record.loss)
        self._rate.set(record.learning_rate)
        self._speed.set(record.images_per_second)
        self._remaining.set(record.remaining_seconds)
        self._skipped.set(record.skipped_samples)
        self._skipped_steps.set(record.skipped_steps)
        self._accuracy.labels("train", "1").set(record.accuracy_top1)
        for name in OPTIONAL_GAUGES:
            value = getattr(record, name)
            if value is not None:
                self._optional_gauge(name).set(value)
        self._accuracy.labels("train", "5").set(record.accuracy_top5)
        for device, figures in enumerate(record.devices):
            for name, value in dataclasses.asdict(figures).items():
                if value is not None:
                    self._devices[name].labels(str(device)).set(value)

    @override
    def evaluation(self, record: EvaluationRecord) -> None:
        self._samples.labels("val").inc(record.pod_samples)
        self._set_validation(record.accuracy_top1, record.accuracy_top5)

    @override
    def checkpoint(self, record: SaveRecord) -> None:
        self._checkpoint.observe(record.seconds)
        self._stalled.inc(record.stalled_seconds)
        self._size.set(record.size)
        self._saved.set_to_current_time()
        self._unsaved.set(0)

    @override
    def checkpoint_failed(self, record: FailedSave) -> None:
        self._unsaved.set(1)
        self._unsaved_total.inc()

    @override
    def memory_copy(self, record: MemoryCopyRecord) -> None:
        self._copied_step.set(record.step)
        self._copy_seconds.set(record.seconds)
        self._copy_size.set(record.size)

    @override
    def end(self, record: EndRecord) -> None:
        """Set the final values and write the snapshot."""
        summary = record.summary
        self._step.set(summary["steps"])
        self._seen.set(summary["samplesSeen"])
        self._epoch.set(summary["steps"] // self._info.steps_per_epoch)
        self._progress.set(1.0 if record.finished else summary["steps"] / self._info.total_steps)
        if summary["evaluatedStep"] >= 0:
            self._set_validation(summary["accuracyTop1"], summary["accuracyTop5"])
        if record.finished:
            self._remaining.set(0)
        if self._snapshot is not None:
            self._snapshot.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self._snapshot, generate_latest(self.registry).decode())

    @override
    def close(self) -> None:
        self._closing.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _optional_gauge(self, name: str) -> Gauge:
        if name not in self._optional:
            text = OPTIONAL_GAUGES[name]
            self._optional[name] = Gauge(f"trainer_{name}", text, registry=self.registry)
        return self._optional[name]

    def _set_validation(self, top1: float, top5: float) -> None:
        self._accuracy.labels("val", "1").set(top1)
        self._accuracy.labels("val", "5").set(top5)

    def _serve(self) -> None:
        """Get the port, however long the process of an earlier attempt keeps it, and serve it."""
        warned = False
        while not self._closing.is_set():
            try:
                # The address may be in TIME_WAIT of the attempt before: SO_REUSEADDR is set.
                self._server = Listener(self._port, _handler(self.registry))
            except OSError as error:
                if not warned:
                    logger.warning(
                        "metrics port %d: %s; trying again in the background",
                        self._port,
                        error.strerror,
                    )
                warned = True
                self._closing.wait(RETRY_SECONDS)
                continue
            self._server.serve_forever(poll_interval=0.2)
            return


def _handler(registry: CollectorRegistry) -> type[Handler]:
    class MetricsHandler(Handler):
        @override
        def get(self, path: str) -> None:
            if path == "/metrics":
                self.answer(200, generate_latest(registry), CONTENT_TYPE_LATEST)
            else:
                self.answer(404, b"try /metrics\n", "text/plain")

    return MetricsHandler
