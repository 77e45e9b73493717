"""What the modes besides Train share: ranks, sinks, requests to stop, and how a result is reported."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from inception_trainer import __version__, device, sinks
from inception_trainer.comm import Agreement, Comm
from inception_trainer.config.catalog import facts
from inception_trainer.config.settings import Settings
from inception_trainer.config.training import TrainingConfig
from inception_trainer.device import Accelerator
from inception_trainer.errors import Stopped
from inception_trainer.heartbeat import Heartbeat
from inception_trainer.log import configure
from inception_trainer.reporting import outputs
from inception_trainer.reporting.progress import History
from inception_trainer.reporting.records import Bus, EndRecord, RunInfo, StepRecord
from inception_trainer.stopping import StopRequest
from inception_trainer.weights.trained_network import TrainedModel

STOP = "stop"


@dataclass
class Run:
    """One run of a mode, on one rank."""

    config: TrainingConfig
    settings: Settings
    accelerator: Accelerator
    comm: Comm
    stop: StopRequest
    bus: Bus
    heartbeat: Heartbeat
    output: Path | None
    """Where this rank may leave files; made when it is asked for."""
    began: float = field(default_factory=time.monotonic)
    samples_seen: int = 0
    info: RunInfo | None = None

    def begin(self, network: nn.Module, model: str, total_steps: int, batch: int) -> RunInfo:
        """Tell the sinks what runs; a step is one batch of every rank, ``batch`` samples in all."""
        config, comm = self.config, self.comm
        info = RunInfo(
            job=self.settings.job,
            attempt=self.settings.attempt or 1,
            model=model,
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            precision=self.accelerator.precision,
            device=self.accelerator.device.type,
            profile=self.accelerator.profile,
            backend=self.accelerator.backend if comm.world_size > 1 else "none",
            rank=comm.rank,
            world_size=comm.world_size,
            steps_per_epoch=max(1, total_steps),
            total_steps=max(1, total_steps),
            epochs=1,
            global_batch=batch,
            start_step=0,
            config=config.as_dict(),
            output=self.output,
        )
        self.info = info
        self.stop.arm()
        self.bus.start(info)
        return info

    def step(
        self, step: int, samples: int, phase: str, waited: float = 0.0, computed: float = 0.0
    ) -> None:
        """One batch of every rank is done, ``samples`` in all."""
        self.heartbeat.step(step)
        self.samples_seen += samples
        pod = round(samples * self.settings.local_world_size / self.comm.world_size)
        self.bus.step(StepRecord(step, waited, computed, pod, self.samples_seen, phase))

    def summary(self, info: RunInfo, **figures: Any) -> dict[str, Any]:
        """The content of summary.json: what every mode has, and its own ``figures``."""
        return {
            "job": info.job,
            "mode": self.config.mode,
            "exitReason": "Completed",
            "model": info.model,
            "recipe": self.config.recipe,
            "steps": info.total_steps,
            "samplesSeen": self.samples_seen,
            "evaluatedStep": -1,
            **figures,
            "wallSeconds": round(time.monotonic() - self.began, 3),
            "attempts": info.attempt,
            "parameters": info.parameters,
            "precision": info.precision,
            "worldSize": info.world_size,
            "device": info.device,
            "deviceName": self.accelerator.name,
            "profile": info.profile,
            "backend": info.backend,
            "versions": {"trainer": __version__, "torch": str(torch.__version__)},
        }


class Boundary:
    """Lets all ranks leave at the same batch when one of them is asked to stop."""

    def __init__(self, run: Run) -> None:
        self._stop, self._agreement = run.stop, Agreement(run.comm, (STOP,))

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


def sized(config: TrainingConfig, trained: TrainedModel | None) -> TrainingConfig:
    """With ``data.imageSize`` filled in: what was asked for, what the weights were trained on, or
    the network's own.
    """
    own = facts(trained.model if trained else config.model.name).image_size
    side = config.data.image_size or (trained.image_size if trained else None) or own
    return dataclasses.replace(config, data=dataclasses.replace(config.data, image_size=side))


def execute(
    config: TrainingConfig, settings: Settings, work: Callable[[Run], dict[str, Any]]
) -> dict[str, Any]:
    """Set a run up, do ``work`` and report its summary."""
    configure(settings.job, settings.attempt or 1, settings.rank)
    with outputs.folder(url_of(config), first=settings.rank == 0) as output:
        return _execute(config, settings, work, output)


def _execute(
    config: TrainingConfig,
    settings: Settings,
    work: Callable[[Run], dict[str, Any]],
    output: Path | None,
) -> dict[str, Any]:
    bus = Bus(sinks.build(settings, output, config.mode))
    try:
        stop = StopRequest(settings.stop_file)
        stop.install()
        accelerator = device.resolve(config.accelerator, config.precision, settings)
        comm = Comm(settings.rank, settings.world_size, accelerator.process_group_backend)
        run = Run(
            config,
            settings,
            accelerator,
            comm,
            stop,
            bus,
            Heartbeat(settings.heartbeat_file),
            output,
        )
        summary = work(run)
        run.heartbeat.pause()
        bus.end(EndRecord(summary, History(), finished=True))
        comm.barrier()
        comm.close()
        return summary
    finally:
        bus.close()


def url_of(config: TrainingConfig) -> str | None:
    """A folder of its own per mode, so that nothing overwrites the summary of the training."""
    return f"{config.output.path.rstrip('/')}/{config.mode.lower()}" if config.output.path else None
