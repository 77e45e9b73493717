"""Puts a training together from the configuration, in the order that is fastest and safe, and runs
it: mode Train.

Files are read while the ranks find one another: a restarted rank has its checkpoint and its data in
memory when the last rank arrives.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from torch import nn

from inception_trainer import models
from inception_trainer.checkpoint.base import CheckpointWriter
from inception_trainer.checkpoint.folder import FolderCheckpoints
from inception_trainer.checkpoint.memory import MemoryFolder, open_folder
from inception_trainer.checkpoint.memory_statistics import StatisticsFile
from inception_trainer.checkpoint.object_store import ObjectStoreCheckpoints
from inception_trainer.checkpoint.owner import Owner
from inception_trainer.comm import Comm
from inception_trainer.config import continuation
from inception_trainer.config.catalog import facts
from inception_trainer.config.data import IMAGE_FILES
from inception_trainer.config.normalization import Normalization, choose
from inception_trainer.config.settings import Settings
from inception_trainer.config.training import TrainingConfig
from inception_trainer.data import Splits, open_splits
from inception_trainer.data.identity import fingerprint
from inception_trainer.data.sampler import BatchPlan, LengthPlan, batch_plan
from inception_trainer.errors import ConfigError
from inception_trainer.heartbeat import Heartbeat
from inception_trainer.log import logger
from inception_trainer.reporting.records import Bus, EndRecord, RunInfo
from inception_trainer.stores import Remote, place

from . import memory_full
from .batches import TrainingBatches
from .boundary import ordered
from .compiling import compile_for_evaluation
from .device_augment import defer_to_device
from .ema import WeightAverage
from .ending import early_end
from .evaluation import Evaluator
from .last_copy import LastCopySignal
from .loop import Trainer, TrainingRun
from .memory import MemoryCopies
from .network import (
    build_network,
    check_batch_norms,
    count_classes,
    count_parameters,
    prepare_for_training,
)
from .results import found, memory_header, run_info
from .resume import ResumePoint, Search, agree_on_start, announce_changes, restore_state
from .setup import RunSetup, check_same_data, set_up_run
from .state import TrainingState
from .step import Normalise, OptimizerStep, TrainStep

LARGEST_EVALUATION_BATCH = 256
GRACE_SECONDS = 2.0
"""How long a failing rank waits for a checkpoint that is being written."""


@dataclass(frozen=True)
class TrainingPlan:
    """What a training has before it has a network."""

    setup: RunSetup
    store: CheckpointWriter | None
    """On rank 0 of a job that has a checkpoint folder."""
    memory: MemoryFolder | None
    splits: Splits
    fingerprints: dict[str, str]
    """Of the splits."""
    comm: Comm
    batch: BatchPlan
    length: LengthPlan
    start: ResumePoint


def run(config: TrainingConfig, settings: Settings) -> dict[str, Any]:
    """Train as ``config`` says, as the rank that ``settings`` says; returns the summary.

    Raises the errors of :mod:`inception_trainer.errors`; Stopped after a graceful stop.
    """
    # Before sinks and others start threads.
    last_copy = LastCopySignal() if keeps_copies(config, settings) else None
    with set_up_run(config, settings, config.output.path) as setup:
        store = open_store(config, settings, setup.bus)
        memory = open_memory(config, settings)
        with _finish_write_on_failure(store):
            plan = _plan(setup, store, memory)
            # Loader workers end before the process group does: they have its sockets open.
            with closing(plan.splits):
                summary = _finished_before(plan)
                if summary is None:
                    summary = _train(plan, last_copy)
            plan.comm.close()
            return summary


def _train(plan: TrainingPlan, last_copy: LastCopySignal | None) -> dict[str, Any]:
    accelerator = plan.setup.accelerator
    try:
        training = build_training(plan)
    except RuntimeError as error:
        if not memory_full.is_meant(error, accelerator):
            raise
        raise memory_full.of_network(plan.setup.config, accelerator, str(error)) from error
    if last_copy is not None:
        last_copy.call(training.memory.leave)
    try:
        return Trainer(training).run()
    except RuntimeError as error:
        if not memory_full.is_meant(error, accelerator):
            raise
        words = str(error)
    # Only here, when no exception holds the tensors of the step any more.
    raise memory_full.of_training(training, words)


@contextmanager
def _finish_write_on_failure(store: CheckpointWriter | None) -> Iterator[None]:
    """Give a write that is under way the time to end well when the training fails."""
    try:
        yield
    except BaseException:
        if store is not None:
            with suppress(BaseException):
                store.wait(GRACE_SECONDS)
        raise


def open_store(config: TrainingConfig, settings: Settings, bus: Bus) -> CheckpointWriter | None:
    """Where rank 0 keeps checkpoints: a folder or an object store; None on the other ranks and
    without ``checkpoint.path``.
    """
    if settings.rank != 0 or config.checkpoint.path is None:
        return None
    root = place(config.checkpoint.path)
    keep = config.checkpoint.keep
    attempt = settings.attempt
    owner = Owner.of(attempt, settings.job, settings.job_uid, settings.job_created)
    store: CheckpointWriter
    if isinstance(root, Remote):
        store = ObjectStoreCheckpoints(root, attempt, keep, bus.checkpoint, owner)
    else:
        store = FolderCheckpoints(root, attempt, keep, bus.checkpoint, owner)
    store.failed = bus.checkpoint_failed
    if settings.other_checkpoints is not None:
        store.other = place(settings.other_checkpoints)
    return store


def keeps_copies(config: TrainingConfig, settings: Settings) -> bool:
    """Whether the pod is to keep copies in memory; outside of the operator's pods nobody can say of
    which job they would be.
    """
    return config.checkpoint.memory == "Auto" and bool(settings.job_uid and settings.attempt)


def open_memory(config: TrainingConfig, settings: Settings) -> MemoryFolder | None:
    """Where the pod keeps copies in memory; None where there are none."""
    if not keeps_copies(config, settings):
        return None
    return open_folder(settings.job_uid, settings.attempt or 1)


def _plan(
    setup: RunSetup, store: CheckpointWriter | None, memory: MemoryFolder | None
) -> TrainingPlan:
    config = setup.config
    batch = batch_plan(config.batch, setup.settings.world_size)
    # These three take as long as the longest of them, not as all together.
    search = Search(store, memory, setup.settings)
    splits = open_splits(config)
    length = LengthPlan.of(config, len(splits.train))
    own_fingerprints = _fingerprints(splits) if setup.settings.rank == 0 else {}
    comm = setup.join_ranks()
    check_same_data(comm, splits)
    # Those of one rank: files may still be arriving at the disks of others.
    fingerprints = comm.from_first(lambda: own_fingerprints)
    now = continuation.current(config, found(splits, fingerprints))
    start = agree_on_start(comm, search, now)
    announce_changes(start, config, length)
    if not start.resumes:
        start.progress.step = length.first_step
    memory = take_over_memory(memory, search, start, setup.settings)
    return TrainingPlan(setup, store, memory, splits, fingerprints, comm, batch, length, start)


def _fingerprints(splits: Splits) -> dict[str, str]:
    return {"training": fingerprint(splits.train), "validation": fingerprint(splits.val)}


def take_over_memory(
    memory: MemoryFolder | None, search: Search, start: ResumePoint, settings: Settings
) -> MemoryFolder | None:
    """Make this attempt the one that writes to the pod's memory; None where it cannot."""
    if memory is None or settings.local_rank != 0:
        return memory
    kept = search.memory.result().copy
    try:
        memory.take_over(start.progress.step, kept, settings.local_world_size)
    except OSError as error:
        logger.warning("no memory copies: %s: %s", memory.path, error)
        return None
    return memory


def _finished_before(plan: TrainingPlan) -> dict[str, Any] | None:
    """The stored summary of a job that needs no more steps, after handing it to the sinks again."""
    progress = plan.start.progress
    is_evaluated = progress.evaluated_step == progress.step
    # The summary may be of fewer epochs, which others followed after.
    is_summed_up = progress.summary.get("steps") == progress.step
    if not is_summed_up or not is_evaluated:
        return None
    ended = early_end(progress, plan.setup.config.evaluation)
    if progress.step < plan.length.total_steps and ended is None:
        return None
    if plan.start.from_memory or not plan.start.is_settled:
        # What a finished job leaves on the disk was perhaps still being written.
        return None
    progress.history.restarts.pop()
    logger.info("finished before, at step %d: nothing to do", progress.step)
    bus = plan.setup.bus
    bus.start(_run_info(plan, progress.summary["parameters"]))
    bus.end(EndRecord(progress.summary, progress.history, finished=True))
    plan.comm.barrier()
    return progress.summary


def _run_info(plan: TrainingPlan, parameters: int) -> RunInfo:
    progress = plan.start.progress
    evaluated = None
    if progress.evaluated_step >= 0:
        evaluated = (progress.accuracy_top1, progress.accuracy_top5)
    info = run_info(
        plan.setup,
        plan.comm,
        plan.length,
        model=models.canonical(plan.setup.config.model.name),
        parameters=parameters,
        global_batch=plan.batch.global_batch,
        attempt=plan.start.attempt,
        start_step=progress.step,
    )
    return dataclasses.replace(
        info,
        evaluated=evaluated,
        train_samples=len(plan.splits.train),
        evaluation_samples=len(plan.splits.val),
        repeated_steps=progress.repeated_steps,
    )


def build_training(plan: TrainingPlan) -> TrainingRun:
    """Everything that the training loop needs, in the state of the checkpoint if there is one."""
    config, accelerator, comm = plan.setup.config, plan.setup.accelerator, plan.comm
    heartbeat = Heartbeat(plan.setup.settings.heartbeat_file)
    defer_to_device(plan.splits.train, config, accelerator.device)
    batches = _batches(plan, heartbeat)
    # A permutation of all samples, new loader workers and the network may take longer than a step.
    heartbeat.pause()
    # The workers need as long for their first batch as the network does to be there.
    batches.prepare(plan.start.progress.step)
    network, normalization, weights = _network(plan)
    check_batch_norms(network, config, comm.world_size, plan.batch.smallest_micro_batch)
    # The optimizer gets the parameters of the bare network: those of its wrappers are the same.
    optimizer_step = OptimizerStep(config, network, accelerator)
    state = TrainingState(network, optimizer_step, comm)
    trained = prepare_for_training(
        network, config.execution, accelerator, comm, plan.batch.micro_batches
    )
    restore_state(state, plan.start)
    normalise = Normalise(normalization, accelerator.device, accelerator.compute_type)
    info = dataclasses.replace(
        _run_info(plan, count_parameters(network)),
        normalization=normalization,
        class_names=plan.splits.class_names,
        data_fingerprints=plan.fingerprints,
        weights=weights,
    )
    _announce(plan, info)
    memory = _memory_copies(plan, state, info)
    evaluator, raw_evaluator = _evaluators(plan, network, optimizer_step.average, normalise)
    return TrainingRun(
        **vars(plan.setup),
        info=info,
        comm=comm,
        splits=plan.splits,
        batch=plan.batch,
        length=plan.length,
        batches=batches,
        state=state,
        train_step=TrainStep(
            trained,
            optimizer_step,
            accelerator,
            normalise,
            plan.batch,
            config,
            comm,
            memory.begin_update,
            _mixed_steps(config, plan.length),
        ),
        evaluator=evaluator,
        raw_evaluator=raw_evaluator,
        progress=plan.start.progress,
        store=plan.store,
        starts_saved=plan.start.resumes and not plan.start.from_memory,
        memory=memory,
        heartbeat=heartbeat,
    )


def _batches(plan: TrainingPlan, heartbeat: Heartbeat) -> TrainingBatches:
    setup = plan.setup
    return TrainingBatches(
        plan.splits.train,
        plan.batch,
        plan.length,
        setup.config.seed,
        plan.comm,
        setup.accelerator.device,
        heartbeat,
    )


def _mixed_steps(config: TrainingConfig, length: LengthPlan) -> int:
    """How many first steps mix images: all but those of ``augmentation.mixOffEpochs``."""
    return length.horizon - length.steps_per_epoch * (config.augmentation.mix_off_epochs or 0)


def _memory_copies(plan: TrainingPlan, state: TrainingState, info: RunInfo) -> MemoryCopies:
    setup, folder = plan.setup, plan.memory
    copies = MemoryCopies(state, setup.accelerator.device, setup.bus.memory_copy)
    if folder is None:
        return copies
    settings = setup.settings
    try:
        statistics = StatisticsFile(
            folder.statistics(settings.local_rank),
            folder.attempt,
            settings.rank,
            settings.world_size,
            list(ordered(state.statistics()).values()),
        )
    except OSError as error:
        logger.warning("no memory copies: %s: %s", folder.path, error.strerror)
        return copies
    copies.begin(
        folder,
        statistics,
        memory_header(setup.config, info, plan.splits),
        plan.start.progress,
        writes=settings.local_rank == 0,
    )
    return copies


def _network(plan: TrainingPlan) -> tuple[nn.Module, Normalization, str | None]:
    """The network on its device, what its inputs are normalised with, and the layout its weights
    came in.
    """
    config, start = plan.setup.config, plan.start
    classes = count_classes(config, plan.splits)
    weights = config.loss.class_weights
    if weights is not None and len(weights) != classes:
        raise ConfigError(
            f"loss.classWeights: {len(weights)} weights for {classes} classes; give one for each"
        )
    network, loaded = build_network(
        config,
        classes,
        plan.comm,
        plan.setup.accelerator.device,
        saved=None if start.payload is None else start.payload["model"],
        resumes=start.resumes,
        source=start.source,
    )
    of_weights = loaded.normalization if loaded else None
    if of_weights is None and config.data.kind in IMAGE_FILES:
        of_weights = facts(config.model.name).normalization
    normalization = choose(config.data.normalization, plan.splits.normalization, of_weights)
    # A resumed job goes on with what it began with, whatever a newer version would choose.
    return network, start.normalization or normalization, loaded.layout if loaded else start.weights


def _evaluators(
    plan: TrainingPlan, network: nn.Module, average: WeightAverage | None, normalise: Normalise
) -> tuple[Evaluator, Evaluator | None]:
    """Of the averaged network where there is one; then also of the other one, if asked for."""
    if average is None:
        return _evaluator(plan, network, normalise), None
    asked = plan.setup.config.evaluation.raw_weights
    raw = _evaluator(plan, network, normalise) if asked else None
    return _evaluator(plan, average.model, normalise), raw


def _evaluator(plan: TrainingPlan, network: nn.Module, normalise: Normalise) -> Evaluator:
    """Measures a network on the validation split."""
    # Without gradients twice the training's batch needs less memory than training itself.
    batch = min(LARGEST_EVALUATION_BATCH, 2 * plan.batch.largest_micro_batch)
    return Evaluator(
        compile_for_evaluation(
            network, plan.setup.config.execution, plan.setup.accelerator.device, {batch}
        ),
        plan.splits.val,
        plan.setup.accelerator,
        normalise,
        plan.comm,
        batch,
    )


def _announce(plan: TrainingPlan, info: RunInfo) -> None:
    config = plan.setup.config
    first = plan.batch.micro_slices(0)[0]
    logger.info(
        "%s (%s parameters) on %d x %s (%s), %s, back end %s",
        info.model,
        f"{info.parameters:,}",
        info.world_size,
        info.device,
        plan.setup.accelerator.name,
        info.precision,
        info.backend,
    )
    logger.info(
        "batch %d = %d ranks x %d micro-batches of up to %d, peak learning rate %g, "
        "%d steps per epoch, %d steps",
        info.global_batch,
        info.world_size,
        plan.batch.micro_batches,
        first.stop - first.start,
        config.optimizer.learning_rate,
        info.steps_per_epoch,
        info.total_steps,
    )
    if not config.checkpoint.path:
        logger.warning(
            "checkpoint.path is not set: this run cannot be continued%s",
            "" if plan.memory is None else " once all of its pods are gone",
        )
