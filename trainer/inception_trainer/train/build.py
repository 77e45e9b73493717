"""Puts a run together in the order that is fastest and safe: files are read while the ranks find
one another.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from inception_trainer import device, models, sinks
from inception_trainer.checkpoint.base import Checkpoint, CheckpointWriter
from inception_trainer.checkpoint.folder import FolderCheckpoints, check_fingerprint
from inception_trainer.checkpoint.object_store import ObjectStoreCheckpoints
from inception_trainer.checkpoint.results import full_fingerprint
from inception_trainer.comm import Comm
from inception_trainer.config.normalization import Normalization, choose
from inception_trainer.config.settings import Settings
from inception_trainer.config.training import TrainingConfig
from inception_trainer.data import Splits, open_splits
from inception_trainer.device import Accelerator
from inception_trainer.errors import InputMissing
from inception_trainer.heartbeat import Heartbeat
from inception_trainer.log import configure, logger
from inception_trainer.reporting import outputs
from inception_trainer.reporting.progress import Progress
from inception_trainer.reporting.records import Bus, EndRecord, RunInfo
from inception_trainer.stopping import StopRequest
from inception_trainer.stores import Remote, place
from inception_trainer.weights.load import load_weights, local_file

from .compiling import executed
from .evaluation import Evaluator
from .loop import Job, Trainer
from .schedule import BatchPlan, LengthPlan, batch_plan
from .state import TrainingState, parts_of
from .step import Normalise, TrainStep, parallel
from .syncnorm import synchronize
from .updates import OptimizerStep

T = TypeVar("T")
LARGEST_EVALUATION_BATCH = 256
GRACE_SECONDS = 2.0
"""How long a failing rank waits for a checkpoint that is being written."""


class Background(Generic[T]):
    """A function running in a thread; ``result`` waits, and raises what it raised."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._outcome: list[tuple[T | None, BaseException | None]] = []
        self._thread = threading.Thread(
            target=self._run, args=(function,), name="loader", daemon=True
        )
        self._thread.start()

    def _run(self, function: Callable[[], T]) -> None:
        try:
            self._outcome.append((function(), None))
        except BaseException as error:
            self._outcome.append((None, error))

    def result(self) -> T:
        """What the function returned."""
        self._thread.join()
        value, error = self._outcome[0]
        if error is not None:
            raise error
        return value  # type: ignore[return-value]


@dataclass(frozen=True)
class ResumePoint:
    """Where this process begins, equal on all ranks but for ``payload``, which only rank 0 holds."""

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
    """What it holds of the optimizer."""
    has_average: bool = False
    scaler: dict[str, Any] | None = None
    """State of the loss scale."""
    payload: Checkpoint | None = None


@dataclass(frozen=True)
class RunContext:
    """What a run has before it has a network."""

    config: TrainingConfig
    settings: Settings
    accelerator: Accelerator
    stop: StopRequest
    store: CheckpointWriter | None
    splits: Splits
    comm: Comm
    bus: Bus
    start: ResumePoint
    info: RunInfo
    batch: BatchPlan
    length: LengthPlan


def run(config: TrainingConfig, settings: Settings) -> dict[str, Any]:
    """Train as ``config`` says, as the rank that ``settings`` says; returns the summary.

    Raises the errors of :mod:`inception_trainer.errors`; Stopped after a graceful stop.
    """
    configure(settings.job, settings.attempt or 1, settings.rank)
    with outputs.folder(config.output.path, first=settings.rank == 0) as output:
        return _run(config, settings, output)


def _run(config: TrainingConfig, settings: Settings, output: Path | None) -> dict[str, Any]:
    bus = Bus(sinks.build(settings, output))
    store = _store(config, settings, bus)
    try:
        around = _surroundings(config, settings, bus, store, output)
        with closing(around.splits):
            summary = _finished_before(around) or Trainer(_job(around)).run()
        around.comm.close()
        return summary
    except BaseException:
        if store is not None:
            with suppress(BaseException):
                store.wait(GRACE_SECONDS)
        raise
    finally:
        bus.close()


def _store(config: TrainingConfig, settings: Settings, bus: Bus) -> CheckpointWriter | None:
    if settings.rank != 0 or config.checkpoint.path is None:
        return None
    root, keep = place(config.checkpoint.path), config.checkpoint.keep
    if isinstance(root, Remote):
        return ObjectStoreCheckpoints(root, settings.attempt, keep, bus.checkpoint)
    return FolderCheckpoints(root, settings.attempt, keep, bus.checkpoint)


def _surroundings(
    config: TrainingConfig,
    settings: Settings,
    bus: Bus,
    store: CheckpointWriter | None,
    output: Path | None,
) -> RunContext:
    stop = StopRequest(settings.stop_file)
    stop.install()
    batch = batch_plan(config.batch, settings.world_size)
    model = models.canonical(config.model.name)
    accelerator = device.resolve(config.accelerator, config.precision, settings)
    loading = Background(lambda: _load(store, settings))
    splits = open_splits(config)
    length = LengthPlan.of(config, len(splits.train))
    comm = Comm(settings.rank, settings.world_size, accelerator.process_group_backend)
    start = _agree(comm, loading, config, splits)
    info = RunInfo(
        job=settings.job,
        attempt=start.attempt,
        model=model,
        parameters=0,
        precision=accelerator.precision,
        device=accelerator.device.type,
        profile=accelerator.profile,
        backend=accelerator.backend if comm.world_size > 1 else "none",
        rank=comm.rank,
        world_size=comm.world_size,
        steps_per_epoch=length.steps_per_epoch,
        total_steps=length.total_steps,
        epochs=length.epochs,
        global_batch=batch.global_batch,
        start_step=start.progress.step,
        config=config.as_dict(),
        output=output,
        evaluated=_evaluated(start.progress),
        train_samples=len(splits.train),
        evaluation_samples=len(splits.val),
    )
    return RunContext(
        config, settings, accelerator, stop, store, splits, comm, bus, start, info, batch, length
    )


def _evaluated(progress: Progress) -> tuple[float, float] | None:
    return (
        (progress.accuracy_top1, progress.accuracy_top5) if progress.evaluated_step >= 0 else None
    )


def _load(store: CheckpointWriter | None, settings: Settings) -> tuple[int, Checkpoint | None]:
    if store is None:
        return settings.attempt or 1, None
    try:
        return store.acquire(), store.load()
    except OSError as error:
        raise InputMissing(
            f"checkpoint.path: {store.root} cannot be used: {error.strerror or error}"
        ) from None


def _agree(
    comm: Comm,
    loading: Background[tuple[int, Checkpoint | None]],
    config: TrainingConfig,
    splits: Splits,
) -> ResumePoint:
    """What rank 0 found in the checkpoint folder becomes known to all, errors included."""

    def found() -> ResumePoint:
        attempt, payload = loading.result()
        if payload is None:
            return ResumePoint(attempt, Progress(), resumes=False)
        check_fingerprint(
            payload["fingerprint"], full_fingerprint(config, splits), config.checkpoint.path
        )
        progress = Progress.from_dict(payload["progress"])
        return ResumePoint(
            attempt,
            progress,
            resumes=True,
            saved_ranks=payload["world_size"],
            normalization=Normalization.from_dict(payload["preprocessing"]),
            weights=payload.get("weights"),
            optimizer_parts=parts_of(payload["optimizer"]),
            has_average="average" in payload,
            scaler=payload.get("scaler"),
        )

    start = comm.from_first(found)
    if start.resumes:
        start.progress.history.restarts.append(start.progress.step)
    return dataclasses.replace(start, payload=loading.result()[1])


def _finished_before(around: RunContext) -> dict[str, Any] | None:
    """The stored result of a job that needs no more steps, after handing it to the sinks again."""
    progress = around.start.progress
    if (
        not progress.summary
        or progress.evaluated_step != progress.step
        or progress.step != around.length.total_steps
    ):
        return None
    progress.history.restarts.pop()
    logger.info("finished before, at step %d: nothing to do", progress.step)
    around.bus.start(dataclasses.replace(around.info, parameters=progress.summary["parameters"]))
    around.bus.end(EndRecord(progress.summary, progress.history, finished=True))
    around.comm.barrier()
    return progress.summary


def _job(around: RunContext) -> Job:
    config, comm, accelerator, splits = (
        around.config,
        around.comm,
        around.accelerator,
        around.splits,
    )
    network, normalization, weights = _network(around)
    updater = OptimizerStep(config, network, accelerator)
    state = TrainingState(network, updater, comm)
    run = executed(network, config.execution, accelerator.device)
    wrapped = parallel(run, accelerator, comm, around.batch.micro_batches)
    state.share_buffers()
    _restore(state, around)
    normalise = Normalise(normalization, accelerator.device)
    stepper = TrainStep(wrapped, updater, accelerator, normalise, around.batch, config, comm)
    largest = max(part.stop - part.start for part in around.batch.micro_slices(comm.world_size - 1))
    evaluated = network if updater.average is None else updater.average.model
    evaluator = Evaluator(
        evaluated,
        splits.val,
        accelerator,
        normalise,
        comm,
        min(LARGEST_EVALUATION_BATCH, 2 * largest),
    )
    parameters = sum(p.numel() for p in network.parameters())
    info = dataclasses.replace(
        around.info, parameters=parameters, normalization=normalization, weights=weights
    )
    _announce(around, info)
    first = comm.rank - around.settings.local_rank
    return Job(
        config=config,
        info=info,
        accelerator=accelerator,
        comm=comm,
        splits=splits,
        batch=around.batch,
        length=around.length,
        state=state,
        stepper=stepper,
        evaluator=evaluator,
        progress=around.start.progress,
        store=around.store,
        saves=config.checkpoint.path is not None,
        bus=around.bus,
        stop=around.stop,
        heartbeat=Heartbeat(around.settings.heartbeat_file),
        pod_ranks=range(first, first + around.settings.local_world_size),
    )


def _network(around: RunContext) -> tuple[nn.Module, Normalization, str | None]:
    """The network on its device, what its inputs are normalised with, and the layout its weights
    came in.
    """
    network = _built(around)
    config, start, splits = around.config, around.start, around.splits
    loaded = None
    if config.model.weights is not None and not start.resumes:
        source, new = config.model.weights, config.model.classifier == "New"
        loaded = around.comm.from_first(
            lambda: load_weights(
                network, around.info.model, local_file(source), new_classifier=new
            ),
        )
    chosen = choose(
        config.data.normalization, splits.normalization, loaded.normalization if loaded else None
    )
    if config.model.batch_norm == "Synchronized" and around.comm.world_size > 1:
        synchronize(network)
    network = network.to(around.accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network, start.normalization or chosen, loaded.layout if loaded else start.weights


def _built(around: RunContext) -> nn.Module:
    """The network. Initial values are only computed where they will be used: on rank 0 of a new
    job.
    """
    config, start = around.config, around.start
    classes = max(around.splits.num_classes, config.data.num_classes or 0)
    auxiliary = bool(config.loss.auxiliary_weight)
    if start.payload is None and around.comm.is_first:
        torch.manual_seed(config.seed)
        return models.create(
            config.model.name, classes, auxiliary=auxiliary, dropout=config.model.dropout
        )
    with torch.device("meta"):
        network = models.create(
            config.model.name, classes, auxiliary=auxiliary, dropout=config.model.dropout
        )
    if start.payload is None:
        return network.to_empty(device="cpu")
    network.load_state_dict(start.payload["model"], assign=True)
    return network


def _restore(state: TrainingState, around: RunContext) -> None:
    start = around.start
    payload = start.payload
    average = payload.get("average") if payload else None
    state.begin_average(average, present=start.has_average, saved_ranks=start.saved_ranks)
    if not start.resumes:
        return
    state.restore_optimizer(payload and payload["optimizer"], start.optimizer_parts)
    state.restore_scaler(start.scaler)
    state.restore_statistics(
        None if payload is None else payload["rank_statistics"], start.saved_ranks
    )
    logger.info(
        "continuing at step %d (%d samples seen), saved by %d ranks",
        start.progress.step,
        start.progress.samples_seen,
        start.saved_ranks,
    )


def _announce(around: RunContext, info: RunInfo) -> None:
    config, length, batch = around.config, around.length, around.batch
    share = batch.micro_slices(0)[0]
    logger.info(
        "%s (%s parameters) on %d x %s (%s), %s, back end %s",
        info.model,
        f"{info.parameters:,}",
        info.world_size,
        info.device,
        around.accelerator.name,
        info.precision,
        info.backend,
    )
    logger.info(
        "batch %d = %d ranks x %d micro-batches of up to %d, peak learning rate %g, %d steps per epoch, %d steps",
        batch.global_batch,
        info.world_size,
        batch.micro_batches,
        share.stop - share.start,
        config.optimizer.learning_rate,
        length.steps_per_epoch,
        length.total_steps,
    )
    if not config.checkpoint.path:
        logger.warning("checkpoint.path is not set: this run cannot be continued")
