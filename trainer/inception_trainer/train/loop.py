"""The training loop: step, log, evaluate, save, stop.

All ranks run the same loop. What they must do together (stop, save, evaluate) is decided at the
boundary between two steps, by the step's number or by an agreement of all ranks.
"""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import Any

from inception_trainer.affinity import cpus_of_rank
from inception_trainer.checkpoint.base import CheckpointWriter
from inception_trainer.comm import Agreement, Comm
from inception_trainer.data import Splits
from inception_trainer.data.sampler import BatchPlan, LengthPlan, evaluation_indices
from inception_trainer.device import StepTimes
from inception_trainer.errors import NonFiniteLoss, RanksDiverged, Stopped
from inception_trainer.heartbeat import Heartbeat
from inception_trainer.log import logger
from inception_trainer.reporting.progress import Progress
from inception_trainer.reporting.records import (
    EndRecord,
    LogRecord,
    RunInfo,
    StepRecord,
)

from .batches import TrainingBatches
from .ending import COMPLETED, describe_end, early_end
from .evaluation import Evaluation, Evaluator, looks_like_guessing
from .intervals import LogInterval, SaveClock
from .loader_limit import LoaderLimit
from .memory import MemoryCopies
from .profiler import Trace
from .results import (
    checkpoint_content,
    evaluation_record,
    log_record,
    pod_devices,
    pod_ranks,
    training_summary,
)
from .schedule import learning_rate
from .setup import RunSetup
from .state import TrainingState
from .step import StepStats, TrainStep

STOP, SAVE, COPY = "stop", "save", "copy"
WARMUP_STEPS = 2
"""First steps of a process that no speed counts: memory is allocated, kernels are chosen."""


@dataclass
class TrainingRun(RunSetup):
    """Everything a training is made of, put together by :mod:`.build`."""

    info: RunInfo
    comm: Comm
    splits: Splits
    batch: BatchPlan
    length: LengthPlan
    batches: TrainingBatches
    state: TrainingState
    train_step: TrainStep
    evaluator: Evaluator
    raw_evaluator: Evaluator | None
    """Of the network itself, where ``evaluator`` measures its average and both are asked for."""
    progress: Progress
    store: CheckpointWriter | None
    """On rank 0 of a job that has a checkpoint folder."""
    starts_saved: bool
    """Whether the state at the start is that of a checkpoint in that folder."""
    memory: MemoryCopies
    heartbeat: Heartbeat


class Trainer:
    """Runs a :class:`TrainingRun` to its end, or until someone asks it to stop."""

    def __init__(self, run: TrainingRun) -> None:
        self._run = run
        self._progress = run.progress
        self._agreement = Agreement(run.comm, (STOP, SAVE, COPY))
        # As if this process had run since the first attempt began: the time of all of them.
        self._began = time.monotonic() - run.progress.wall_seconds
        self._interval = LogInterval()
        self._loader = LoaderLimit(run.config.data, cpus_of_rank(run.settings))
        checkpoint = run.config.checkpoint
        saved_step = run.progress.step if run.starts_saved else -1
        epoch = run.length.steps_per_epoch
        rhythms = (
            checkpoint.every_steps,
            epoch * (checkpoint.every_epochs or 0),
            epoch * (checkpoint.keep_every_epochs or 0),
        )
        self._saves = SaveClock(saved_step, rhythms, checkpoint.every_seconds)
        ranks = pod_ranks(run, run.comm)
        self._pod_batch = run.batch.samples_of(ranks)
        self._pod_evaluation = sum(
            len(evaluation_indices(len(run.splits.val), rank, run.comm.world_size))
            for rank in ranks
        )
        self._trace = Trace(
            run.config.profiler,
            run.accelerator,
            run.comm,
            run.heartbeat,
            run.info.output,
            run.info.attempt,
        )

    def run(self) -> dict[str, Any]:
        """Train; returns the summary. Raises Stopped after a save, NonFiniteLoss, RanksDiverged,
        DataError.
        """
        # From here on there is something to save, so a signal is only remembered.
        self._run.stop.arm()
        # Innermost: the first to see an error, before loader workers are waited for.
        with self._trace, self._run.batches, self._run.memory as memory:
            while True:
                decided = self._agreement.decided()
                if STOP in decided or (self._evaluation_due() and not self._evaluate()):
                    self._stop()
                reason = self._end_reason()
                if reason is not None:
                    return self._finish(reason)
                if SAVE in decided or self._saves.is_due_after(self._progress.step):
                    self._save()
                if COPY in decided:
                    memory.copy()
                # Travels while the step computes; all ranks read it at the next boundary.
                self._agreement.propose(
                    {
                        STOP: self._run.stop.requested(),
                        SAVE: self._time_to_save(),
                        COPY: self._run.comm.is_first and memory.is_due(),
                    }
                )
                self._step()

    # One step.

    def _step(self) -> None:
        run, progress = self._run, self._progress
        rate = self._rate()
        with self._trace.step(progress.step + 1) as recorded:
            batches = run.batches.from_step(progress.step)
            began = time.perf_counter()
            run.train_step.step(batches, progress.step, rate)
            host_seconds = time.perf_counter() - began
            progress.step += 1
            progress.samples_seen += run.config.batch.global_
            progress.wall_seconds = self._wall_seconds()
            run.memory.finished(progress)
        run.heartbeat.step(progress.step)
        self._interval.add_step()
        # After the first step: sinks that are slow to start must not delay it.
        run.bus.start(run.info)
        run.bus.step(
            StepRecord(progress.step, host_seconds, self._pod_batch, progress.samples_seen)
        )
        self._tell_times(run.train_step.take_times())
        if recorded or progress.step - run.info.start_step == WARMUP_STEPS:
            # A device that is still at work on these steps would do so in the time of the next.
            self._tell_times(run.train_step.finish_times())
            self._interval.forget_time()
        if progress.step % run.config.log_every_steps == 0:
            self._log(rate)

    def _rate(self) -> float:
        config = self._run.config
        peak = config.optimizer.learning_rate
        return learning_rate(peak, config.schedule, self._run.length, self._progress.step)

    # Reading the device.

    def _tell_times(self, steps: list[StepTimes]) -> None:
        for times in steps:
            self._run.bus.step_times(times)
            if times.own_seconds is not None and times.wait_seconds is not None:
                whole = times.data_seconds + times.compute_seconds
                self._run.heartbeat.add_times(whole, times.own_seconds, times.wait_seconds)

    def _log(self, rate: float) -> None:
        """Read the sums of the interval; every rank must call it."""
        interval, progress = self._interval, self._progress
        if not interval.steps:
            return
        # Waits for the device, so the seconds are read after it.
        stats = self._run.train_step.read()
        seconds = interval.seconds()
        self._tell_times(self._run.train_step.take_times())
        if self._run.comm.is_first:
            self._loader.check(stats)
        timed_samples = interval.timed_steps * self._run.config.batch.global_
        if not math.isfinite(stats.loss):
            raise NonFiniteLoss(
                f"the loss became {stats.loss} within the {interval.steps} steps before step "
                f"{progress.step} (learning rate {rate:g}); lower optimizer.learningRate or "
                "lengthen schedule.warmupEpochs"
            )
        progress.skipped_samples += int(stats.skipped)
        progress.skipped_steps += stats.skipped_steps
        progress.train_seconds += seconds if timed_samples else 0.0
        progress.train_samples += timed_samples
        record = self._record(stats, rate, timed_samples / seconds if seconds > 0 else 0.0)
        progress.history.add_train(
            [
                record.step,
                record.loss,
                record.accuracy_top1,
                rate,
                round(record.images_per_second, 2),
            ]
        )
        self._run.bus.log(record)
        self._run.memory.noted(progress)
        interval.restart()

    def _record(self, stats: StepStats, rate: float, speed: float) -> LogRecord:
        run, progress = self._run, self._progress
        record = log_record(
            stats,
            run.info,
            step=progress.step,
            learning_rate=rate,
            # An interval without timed steps shows the mean of the job.
            images_per_second=speed or progress.images_per_second,
            step_seconds=(stats.data_seconds + stats.compute_seconds) / self._interval.steps,
            samples_seen=progress.samples_seen,
            devices=pod_devices(run, run.comm),
        )
        # What was skipped is counted over all attempts.
        return dataclasses.replace(
            record,
            skipped_samples=progress.skipped_samples,
            skipped_steps=progress.skipped_steps,
        )

    # Evaluation.

    def _evaluation_due(self) -> bool:
        step = self._progress.step
        # A resumed run may stand at a step that was evaluated before it was saved.
        if self._progress.evaluated_step == step:
            return False
        return self._run.length.evaluates_at(step, self._run.config.evaluation)

    def _evaluate(self) -> bool:
        """Measure and keep the best; False when a request to stop came first."""
        run, progress = self._run, self._progress
        run.heartbeat.pause()
        self._log(self._rate())
        # The cheapest moment to find a rank whose memory or links corrupt its weights.
        checksums = run.state.checksums()
        if len(set(checksums)) > 1:
            raise RanksDiverged(
                f"after step {progress.step} the ranks hold different weights: "
                f"checksums {checksums}"
            )
        run.state.average_statistics()
        run.batches.prepare(progress.step)
        result = run.evaluator.run(self._asked_to_stop)
        if result is not None and run.raw_evaluator is not None:
            raw = run.raw_evaluator.run(self._asked_to_stop)
            progress.raw_accuracy_top1 = None if raw is None else raw.accuracy_top1
            # Both or neither: stopped between them, the next attempt measures both again.
            result = None if raw is None else result
        if result is not None:
            self._keep(result)
        run.memory.changed(progress)
        self._interval.restart()
        return result is not None

    def _asked_to_stop(self) -> bool:
        """Asked before every batch of an evaluation, which thereby is a sign of life."""
        self._run.heartbeat.beat()
        return self._run.stop.requested()

    def _keep(self, result: Evaluation) -> None:
        """Put the result into the progress, tell the sinks, and save the network if it is the
        best.
        """
        run, progress = self._run, self._progress
        run.heartbeat.pause()
        is_best = result.accuracy_top1 > progress.best_accuracy
        if is_best:
            progress.best_accuracy = result.accuracy_top1
            progress.best_step = progress.step
        progress.evaluated_step = progress.step
        progress.loss = result.loss
        progress.accuracy_top1 = result.accuracy_top1
        progress.accuracy_top5 = result.accuracy_top5
        progress.history.evaluations.append(
            [progress.step, result.loss, result.accuracy_top1, result.accuracy_top5]
        )
        run.bus.start(run.info)
        epoch = progress.step / run.length.steps_per_epoch
        record = evaluation_record(
            result,
            step=progress.step,
            epoch=epoch,
            pod_samples=self._pod_evaluation,
            is_best=is_best,
        )
        run.bus.evaluation(
            dataclasses.replace(record, raw_accuracy_top1=progress.raw_accuracy_top1)
        )
        begun = epoch > run.config.schedule.warmup_epochs + 1
        if begun and looks_like_guessing(result, run.splits.num_classes):
            logger.warning(
                "accuracy is at chance level after %.1f epochs: this run is not learning", epoch
            )
        # At the end the final save keeps it as the best, too.
        if is_best and self._end_reason() is None:
            self._save(best=True)

    # Saving and ending.

    def _time_to_save(self) -> bool:
        store = self._run.store
        # While a write is under way the next save would wait for it, and all ranks with it.
        return store is not None and self._saves.is_time() and not store.busy

    def _save(self, *, best: bool = False, final: bool = False) -> None:
        """Copy the state and hand it to the writer; every rank must call it."""
        run, progress = self._run, self._progress
        if run.config.checkpoint.path is None:
            return
        run.heartbeat.pause()
        self._log(self._rate())
        if run.store is not None:
            # The snapshot goes into the memory of the one before, which may still be written.
            run.store.reserve()
        snapshot = run.state.snapshot()
        self._saves.saved(progress.step)
        progress.wall_seconds = self._wall_seconds()
        if run.store is not None and snapshot is not None:
            content = checkpoint_content(
                snapshot.tensors, progress, run.config, run.info, run.splits
            )
            run.store.save(
                content,
                progress.step,
                best=best,
                final=final,
                kept_epoch=self._kept_epoch(),
                complete=snapshot.complete,
            )
        self._interval.restart()

    def _kept_epoch(self) -> int | None:
        """The number of epochs done where ``checkpoint.keepEveryEpochs`` keeps their state."""
        every = self._run.config.checkpoint.keep_every_epochs
        epochs, begun = divmod(self._progress.step, self._run.length.steps_per_epoch)
        return epochs if every and epochs and not begun and epochs % every == 0 else None

    def _wall_seconds(self) -> float:
        """What all attempts together have taken."""
        return time.monotonic() - self._began

    def _settle(self) -> None:
        """Return once what was saved is on the disk, on every rank."""
        self._run.heartbeat.pause()
        if self._run.store is not None:
            self._run.store.wait()
        self._run.comm.barrier()

    def _stop(self) -> None:
        progress = self._progress
        if self._saves.step != progress.step and progress.step > 0:
            self._save()
        self._settle()
        progress.wall_seconds = self._wall_seconds()
        self._end(self._summary("Stopped"), finished=False)
        where = "nothing saved: checkpoint.path is not set"
        if self._run.config.checkpoint.path is not None:
            where = f"saved at step {progress.step}"
        raise Stopped(f"stopped on request after {progress.step} steps; {where}")

    def _end_reason(self) -> str | None:
        """Why the training ends here as done, None where it goes on; equal on all ranks."""
        if self._progress.step >= self._run.length.total_steps:
            return COMPLETED
        return early_end(self._progress, self._run.config.evaluation)

    def _finish(self, reason: str) -> dict[str, Any]:
        progress = self._progress
        if reason != COMPLETED:
            logger.info("%s", describe_end(reason, progress, self._run.config.evaluation))
        progress.wall_seconds = self._wall_seconds()
        progress.summary = self._summary(reason)
        self._save(best=progress.best_step == progress.step, final=True)
        self._settle()
        # The figures are those in the final checkpoint, so that running the job again changes
        # nothing.
        self._end(progress.summary, finished=True)
        return progress.summary

    def _summary(self, exit_reason: str) -> dict[str, Any]:
        run = self._run
        return training_summary(self._progress, run.config, run.info, exit_reason)

    def _end(self, summary: dict[str, Any], *, finished: bool) -> None:
        run = self._run
        run.bus.start(run.info)
        # Of the steps since the last log interval.
        self._tell_times(run.train_step.finish_times())
        run.bus.end(EndRecord(summary, self._progress.history, finished))
