"""What the modes besides Train have in common: set-up, steps that the sinks hear of, requests to
stop, and a summary.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from inception_trainer import models
from inception_trainer.comm import Agreement, Comm
from inception_trainer.config import preprocessing
from inception_trainer.config.catalog import facts
from inception_trainer.config.normalization import Normalization, choose
from inception_trainer.config.settings import Settings
from inception_trainer.config.training import TrainingConfig
from inception_trainer.data.sampler import LengthPlan
from inception_trainer.errors import DataError, Stopped
from inception_trainer.heartbeat import Heartbeat
from inception_trainer.log import logger
from inception_trainer.reporting.progress import History
from inception_trainer.reporting.records import EndRecord, RunInfo, StepRecord
from inception_trainer.stores import is_url
from inception_trainer.train import memory_full, results
from inception_trainer.train.network import count_parameters
from inception_trainer.train.setup import RunSetup, set_up_run
from inception_trainer.weights.exported_network import ExportedNetwork
from inception_trainer.weights.trained_network import TrainedModel

STOP = "stop"
MANY_CLASSES = 1000
"""Of a network whose size counts where the configuration does not name a number."""


@dataclass
class Run(RunSetup):
    """One run of a mode, on one rank."""

    comm: Comm
    heartbeat: Heartbeat
    began: float = field(default_factory=time.monotonic)
    samples_seen: int = 0

    def begin(self, network: nn.Module, model: str, total_steps: int, batch: int) -> RunInfo:
        """Tell the sinks what runs; a step is one batch of every rank, ``batch`` samples in all."""
        info = results.run_info(
            self,
            self.comm,
            LengthPlan.one_epoch(total_steps),
            model=model,
            parameters=count_parameters(network),
            global_batch=batch,
            attempt=self.settings.attempt or 1,
        )
        self.stop.arm()
        self.bus.start(info)
        return info

    def step(self, step: int, samples: int, phase: str, host_seconds: float = 0.0) -> None:
        """One batch of every rank is done, ``samples`` in all."""
        self.heartbeat.step(step)
        self.samples_seen += samples
        # Ranks take samples in turn, so this pod's part is known without asking them.
        pod = round(samples * self.settings.local_world_size / self.comm.world_size)
        self.bus.step(StepRecord(step, host_seconds, pod, self.samples_seen, phase))

    def place_of(self, path: Path) -> str:
        """Where people find a file of the output folder, which may be the mirror of a store."""
        url = output_url(self.config)
        return f"{url}/{path.name}" if url is not None and is_url(url) else str(path)

    def summary(self, info: RunInfo, **figures: Any) -> dict[str, Any]:
        """The content of summary.json: what every mode has, and its own ``figures``."""
        return results.summary(
            self.config,
            info,
            steps=info.total_steps,
            samples_seen=self.samples_seen,
            wall_seconds=time.monotonic() - self.began,
            deviceName=self.accelerator.name,
            **figures,
        )


class Boundary:
    """Lets all ranks leave at the same batch when one of them is asked to stop."""

    def __init__(self, run: Run) -> None:
        self._stop = run.stop
        self._agreement = Agreement(run.comm, (STOP,))

    def check(self) -> None:
        """Every rank must call it once per batch; raises Stopped one batch after the request."""
        if self._agreement.decided():
            raise stopped()
        self._agreement.propose({STOP: self._stop.requested()})

    def settle(self) -> None:
        """Wait for the last agreement: the process group must not be left with work in flight."""
        self._agreement.decided()


def stopped() -> Stopped:
    """The end of a mode that was asked to stop: there is nothing to save, a new run begins anew."""
    return Stopped("stopped on request; this mode keeps nothing and begins anew")


def with_preprocessing(config: TrainingConfig, trained: TrainedModel | None) -> TrainingConfig:
    """The configuration with what evaluation does to an image: what the user wrote, else what the
    weights were evaluated with, else defaults. Says where they differ.
    """
    evaluated_with = trained.evaluated_with if trained else {}
    if trained and trained.model != models.canonical(config.model.name):
        # A default or a recipe has the size of another network.
        own_size = {"image_size": facts(trained.model).image_size}
        evaluated_with = {**own_size, **evaluated_with}
    data, differences = preprocessing.following(config.data, evaluated_with, config.written)
    for difference in differences:
        # What the user asks for may be a mistake, the other is none.
        logger.log(logging.WARNING if difference.written else logging.INFO, "%s", difference)
    if not data.image_size:
        own = facts(trained.model if trained else config.model.name).image_size
        data = dataclasses.replace(data, image_size=own)
    return dataclasses.replace(config, data=data)


def choose_normalization(
    config: TrainingConfig, trained: TrainedModel | None, of_data: Normalization
) -> Normalization:
    """How pixels become inputs; says where that is not what the weights were evaluated with."""
    name, of_weights = config.data.normalization, trained.normalization if trained else None
    chosen = choose(name, of_data, of_weights)
    # Files of others say nothing: there only the layout was recognised.
    if of_weights is None or trained is None or not trained.evaluated_with:
        return chosen
    if chosen.same_as(of_weights):
        return of_weights
    written = "data.normalization" in config.written
    difference = preprocessing.Difference(
        "data.normalization", chosen.name, of_weights.name, written
    )
    logger.log(logging.WARNING if written else logging.INFO, "%s", difference)
    return chosen if written else of_weights


def rank_batch(run: Run) -> int:
    """Images that a rank of a mode without training takes at once."""
    # Other than in training, a batch that does not divide is no error: it changes no result.
    return run.config.batch.per_device or max(1, run.config.batch.global_ // run.comm.world_size)


def input_type(run: Run, network: nn.Module) -> torch.dtype:
    """What images are normalised to: an exported file has a type of its own, which may be wider
    than that of this run.
    """
    is_exported = isinstance(network, ExportedNetwork)
    return torch.float32 if is_exported else run.accelerator.compute_type


def not_finite(run: Run, path: Path | None) -> DataError:
    """The error for a network whose logits are NaN or infinite, which are no classes."""
    precision = run.accelerator.precision
    remedy = "it holds such weights"
    if precision == "FP16":
        remedy = "FP16 may be too narrow for it: set precision to BF16 or FP32"
    return DataError(
        f"model.weights: {path} gives logits that are NaN or infinite (precision {precision}); "
        f"{remedy}"
    )


def execute(
    config: TrainingConfig, settings: Settings, work: Callable[[Run], dict[str, Any]]
) -> dict[str, Any]:
    """Set a run up, do ``work`` and report its summary."""
    with set_up_run(config, settings, output_url(config)) as setup:
        comm = setup.join_ranks()
        # The launcher watches a rank from here on: waiting for peers is no hang.
        run = Run(**vars(setup), comm=comm, heartbeat=Heartbeat(settings.heartbeat_file))
        summary = _in_memory(run, work)
        run.heartbeat.pause()
        run.bus.end(EndRecord(summary, History(), finished=True))
        comm.barrier()
        comm.close()
        return summary


def _in_memory(run: Run, work: Callable[[Run], dict[str, Any]]) -> dict[str, Any]:
    """Do ``work``; a device without memory for it ends the run with the remedy."""
    try:
        return work(run)
    except RuntimeError as error:
        if not memory_full.is_meant(error, run.accelerator):
            raise
        raise memory_full.of_mode(
            run.config, run.accelerator, rank_batch(run), str(error)
        ) from error


def output_url(config: TrainingConfig) -> str | None:
    """A folder of its own per mode, so that nothing overwrites the summary of the training; None
    where nothing is to be left.
    """
    if not config.output.path or config.mode == "Preflight":
        return None
    return f"{config.output.path.rstrip('/')}/{config.mode.lower()}"
