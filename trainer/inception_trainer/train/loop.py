"""The training loop: step, log, evaluate, save, stop; what all ranks do together is decided at step
boundaries.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from inception_trainer.checkpoint.base import CheckpointWriter
from inception_trainer.checkpoint.results import payload_of, summary_of
from inception_trainer.comm import Agreement, Comm
from inception_trainer.config.training import TrainingConfig
from inception_trainer.data import Batch, Splits, streamed
from inception_trainer.device import Accelerator, Figures, of_ranks
from inception_trainer.errors import NonFiniteLoss, RanksDiverged, Stopped
from inception_trainer.heartbeat import Heartbeat
from inception_trainer.log import logger
from inception_trainer.reporting.progress import Progress
from inception_trainer.reporting.records import (
    Bus,
    EndRecord,
    EvaluationRecord,
    LogRecord,
    RunInfo,
    StepRecord,
)
from inception_trainer.stopping import StopRequest

from .evaluation import Evaluation, Evaluator
from .profiler import Trace
from .schedule import BatchPlan, LengthPlan, evaluation_share, learning_rate, micro_batches_of_epoch
from .state import TrainingState
from .step import StepStats, TrainStep

STOP, SAVE = "stop", "save"
WARMUP_STEPS = 2
"""First steps of a process that no speed counts: memory is allocated, kernels are chosen. Nor do
recorded steps.
"""


@dataclass(frozen=True)
class Job:
    """Everything a run is made of, put together by :mod:`inception_trainer.train.build`."""

    config: TrainingConfig
    info: RunInfo
    accelerator: Accelerator
    comm: Comm
    splits: Splits
    batch: BatchPlan
    length: LengthPlan
    state: TrainingState
    stepper: TrainStep
    evaluator: Evaluator
    progress: Progress
    store: CheckpointWriter | None
    """On rank 0 of a job that has a checkpoint folder."""
    saves: bool
    """Whether the job has a checkpoint folder; equal on all ranks."""
    bus: Bus
    stop: StopRequest
    heartbeat: Heartbeat
    pod_ranks: range
    """The ranks that share this pod."""


class Trainer:
    """Runs a :class:`Job` to its end, or until someone asks it to stop."""

    def __init__(self, job: Job) -> None:
        self._job, self._progress = job, job.progress
        self._agreement = Agreement(job.comm, (STOP, SAVE))
        self._streams = ExitStack()
        self._batches: Iterator[Batch] = iter(())
        self._epoch = -1
        self._began, self._earlier = time.monotonic(), job.progress.wall_seconds
        self._saved_step = job.progress.step if job.info.start_step else -1
        self._saved_at = self._mark = time.monotonic()
        self._window_steps = self._timed_steps = 0
        shares = [job.batch.share(rank) for rank in job.pod_ranks]
        self._pod_batch = sum(share.stop - share.start for share in shares)
        ends = [
            evaluation_share(len(job.splits.val), rank, job.comm.world_size)
            for rank in job.pod_ranks
        ]
        self._pod_evaluation = sum(map(len, ends))
        self._trace = Trace(
            job.config.profiler,
            job.accelerator,
            job.comm,
            job.heartbeat,
            job.info.output,
            job.info.attempt,
        )

    def run(self) -> dict[str, Any]:
        """Train; returns the summary. Raises Stopped after a save, NonFiniteLoss, RanksDiverged,
        DataError.
        """
        self._job.stop.arm()
        with self._trace, self._streams:
            while True:
                decided = self._agreement.decided()
                if STOP in decided or (self._evaluation_due() and not self._evaluate()):
                    self._stop()
                if self._progress.step >= self._job.length.total_steps:
                    return self._finish()
                if SAVE in decided or self._save_due():
                    self._save()
                self._agreement.propose(
                    {STOP: self._job.stop.requested(), SAVE: self._time_to_save()}
                )
                self._step()

    # One step.

    def _step(self) -> None:
        job, progress = self._job, self._progress
        rate = self._rate()
        with self._trace.step(progress.step + 1) as recorded:
            waited, computed = job.stepper.step(self._stream(), progress.step, rate)
        progress.step += 1
        job.heartbeat.step(progress.step)
        progress.samples_seen += job.config.batch.global_
        self._window_steps += 1
        self._timed_steps += 1
        job.bus.start(job.info)
        job.bus.step(
            StepRecord(progress.step, waited, computed, self._pod_batch, progress.samples_seen)
        )
        if recorded or progress.step - job.info.start_step == WARMUP_STEPS:
            self._mark, self._timed_steps = time.monotonic(), 0
        if progress.step % job.config.log_every_steps == 0:
            self._log(rate)

    def _rate(self) -> float:
        config = self._job.config
        return learning_rate(
            config.optimizer.learning_rate, config.schedule, self._job.length, self._progress.step
        )

    def _stream(self) -> Iterator[Batch]:
        job = self._job
        epoch, first = job.length.position(self._progress.step)
        if epoch != self._epoch:
            job.heartbeat.pause()
            last = min(
                job.length.steps_per_epoch,
                job.length.total_steps - epoch * job.length.steps_per_epoch,
            )
            numbers = micro_batches_of_epoch(
                job.batch, job.comm.rank, len(job.splits.train), job.config.seed, epoch, first, last
            )
            self._streams.close()
            stream = self._streams.enter_context(
                streamed(job.splits.train, numbers, epoch, job.accelerator.device)
            )
            self._batches = job.heartbeat.over(stream)
            self._epoch = epoch
        return self._batches

    # Reading the device.

    def _log(self, rate: float) -> None:
        """Read the sums of the interval; every rank must call it."""
        if not self._window_steps:
            return
        window, progress = self._job.stepper.read(), self._progress
        seconds = time.monotonic() - self._mark
        timed = self._timed_steps * self._job.config.batch.global_
        if not math.isfinite(window.loss):
            raise NonFiniteLoss(
                f"the loss became {window.loss} within the {self._window_steps} steps before step {progress.step} "
                f"(learning rate {rate:g}); lower optimizer.learningRate or lengthen schedule.warmupEpochs"
            )
        progress.skipped_samples += int(window.skipped)
        progress.skipped_steps += window.skipped_steps
        progress.train_seconds += seconds if timed else 0.0
        progress.train_samples += timed
        devices = of_ranks(self._job.accelerator, self._job.comm)
        record = self._record(window, rate, timed / seconds if seconds > 0 else 0.0, devices)
        progress.history.add_train(
            [
                record.step,
                record.loss,
                record.accuracy_top1,
                rate,
                round(record.images_per_second, 2),
            ]
        )
        self._job.bus.log(record)
        self._window_steps = self._timed_steps = 0
        self._mark = time.monotonic()

    def _record(
        self, window: StepStats, rate: float, speed: float, devices: tuple[Figures, ...]
    ) -> LogRecord:
        job, progress = self._job, self._progress
        counted = max(1.0, window.samples)
        left = (job.length.total_steps - progress.step) * job.config.batch.global_
        average = speed or progress.images_per_second
        return LogRecord(
            step=progress.step,
            epoch=progress.step / job.length.steps_per_epoch,
            loss=window.loss / counted,
            accuracy_top1=window.top1 / counted,
            accuracy_top5=window.top5 / counted,
            learning_rate=rate,
            images_per_second=average,
            step_seconds=(window.data_seconds + window.compute_seconds) / self._window_steps,
            data_wait_ratio=window.data_seconds
            / max(1e-9, window.data_seconds + window.compute_seconds),
            progress=progress.step / job.length.total_steps,
            remaining_seconds=left / average if average else 0.0,
            samples_seen=progress.samples_seen,
            skipped_samples=progress.skipped_samples,
            skipped_steps=progress.skipped_steps,
            devices=devices[job.pod_ranks.start : job.pod_ranks.stop],
            loss_scale=window.loss_scale,
        )

    # Evaluation.

    def _evaluation_due(self) -> bool:
        step, job = self._progress.step, self._job
        return self._progress.evaluated_step != step and job.length.evaluates_at(
            step, job.config.evaluation
        )

    def _evaluate(self) -> bool:
        """Measure and keep the best; False when a request to stop came first."""
        job, progress = self._job, self._progress
        job.heartbeat.pause()
        self._log(self._rate())
        checksums = job.state.checksums()
        if len(set(checksums)) > 1:
            raise RanksDiverged(
                f"after step {progress.step} the ranks hold different weights: checksums {checksums}"
            )
        job.state.average_statistics()
        result = job.evaluator.run(self._asked_to_stop)
        if result is not None:
            self._keep(result)
        self._mark = time.monotonic()
        return result is not None

    def _asked_to_stop(self) -> bool:
        """Asked before every batch of an evaluation, which so is a sign of life."""
        self._job.heartbeat.beat()
        return self._job.stop.requested()

    def _keep(self, result: Evaluation) -> None:
        job, progress = self._job, self._progress
        job.heartbeat.pause()
        is_best = result.accuracy_top1 > progress.best_accuracy
        if is_best:
            progress.best_accuracy, progress.best_step = result.accuracy_top1, progress.step
        progress.evaluated_step, progress.loss = progress.step, result.loss
        progress.accuracy_top1, progress.accuracy_top5 = result.accuracy_top1, result.accuracy_top5
        progress.history.evaluations.append(
            [progress.step, result.loss, result.accuracy_top1, result.accuracy_top5]
        )
        epoch = progress.step / job.length.steps_per_epoch
        job.bus.start(job.info)
        job.bus.evaluation(
            EvaluationRecord(
                step=progress.step,
                epoch=epoch,
                loss=result.loss,
                accuracy_top1=result.accuracy_top1,
                accuracy_top5=result.accuracy_top5,
                samples=result.samples,
                pod_samples=self._pod_evaluation,
                seconds=result.seconds,
                is_best=is_best,
                data_seconds=result.data_seconds,
                batch_seconds=result.batch_seconds,
            )
        )
        if (
            epoch > job.config.schedule.warmup_epochs + 1
            and result.accuracy_top1 <= 2 / job.splits.num_classes
        ):
            logger.warning(
                "accuracy is at chance level after %.1f epochs: this run is not learning", epoch
            )
        if is_best and progress.step < job.length.total_steps:
            self._save(best=True)

    # Saving and ending.

    def _time_to_save(self) -> bool:
        job = self._job
        every = job.config.checkpoint.every_seconds
        if job.store is None or not every or job.store.busy:
            return False
        return time.monotonic() - self._saved_at >= every

    def _save_due(self) -> bool:
        every, step = self._job.config.checkpoint.every_steps, self._progress.step
        return bool(every) and step > 0 and step % (every or 1) == 0 and step != self._saved_step

    def _save(self, *, best: bool = False, final: bool = False) -> None:
        """Copy the state and hand it to the writer; every rank must call it."""
        job, progress = self._job, self._progress
        if not job.saves:
            return
        job.heartbeat.pause()
        self._log(self._rate())
        if job.store is not None:
            job.store.reserve()
        snapshot = job.state.snapshot()
        self._saved_step, self._saved_at = progress.step, time.monotonic()
        progress.wall_seconds = self._wall_seconds()
        if job.store is not None and snapshot is not None:
            payload = payload_of(snapshot.tensors, progress, job.config, job.info, job.splits)
            job.store.save(
                payload, progress.step, best=best, final=final, complete=snapshot.complete
            )
        self._mark = time.monotonic()

    def _wall_seconds(self) -> float:
        return self._earlier + time.monotonic() - self._began

    def _settle(self) -> None:
        """Return once what was saved is on the disk, on every rank."""
        self._job.heartbeat.pause()
        if self._job.store is not None:
            self._job.store.wait()
        self._job.comm.barrier()

    def _stop(self) -> None:
        progress = self._progress
        if self._saved_step != progress.step and progress.step > 0:
            self._save()
        self._settle()
        self._end("Stopped", finished=False)
        where = (
            f"saved at step {progress.step}"
            if self._job.saves
            else "nothing saved: checkpoint.path is not set"
        )
        raise Stopped(f"stopped on request after {progress.step} steps; {where}")

    def _finish(self) -> dict[str, Any]:
        progress = self._progress
        progress.wall_seconds = self._wall_seconds()
        progress.summary = summary_of(progress, self._job.config, self._job.info, "Completed")
        self._save(best=progress.best_step == progress.step, final=True)
        self._settle()
        return self._end("Completed", finished=True)

    def _end(self, reason: str, *, finished: bool) -> dict[str, Any]:
        job, progress = self._job, self._progress
        if not finished:
            progress.wall_seconds = self._wall_seconds()
        # A finished job's figures are those in its final checkpoint, so that running it again
        # changes nothing.
        summary = (
            progress.summary if finished else summary_of(progress, job.config, job.info, reason)
        )
        job.bus.start(job.info)
        job.bus.end(EndRecord(summary, progress.history, finished))
        return summary
