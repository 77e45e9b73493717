"""What every run sets up before its own work, whatever its mode: log, output folder, sinks,
requests to stop, accelerator.

The process group is made later, by :meth:`RunSetup.join_ranks`: ranks that wait for one another use
the time to read their files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from inception_trainer import device, sinks
from inception_trainer.affinity import cpus_of_rank
from inception_trainer.comm import Comm
from inception_trainer.config.settings import Settings
from inception_trainer.config.training import TrainingConfig
from inception_trainer.data import Splits
from inception_trainer.data.workers import default_workers
from inception_trainer.device import Accelerator
from inception_trainer.errors import StorageFailed
from inception_trainer.log import configure
from inception_trainer.reporting import outputs
from inception_trainer.reporting.records import Bus
from inception_trainer.stopping import StopRequest


@dataclass
class RunSetup:
    """The parts of a run that do not depend on its mode; the modes derive their own from it."""

    config: TrainingConfig
    settings: Settings
    accelerator: Accelerator
    stop: StopRequest
    bus: Bus
    output: Path | None
    """Where this rank may leave files; made when it is asked for."""

    def join_ranks(self) -> Comm:
        """The process group; returns when all ranks are there."""
        settings = self.settings
        return Comm(settings.rank, settings.world_size, self.accelerator.process_group_backend)


@contextmanager
def set_up_run(
    config: TrainingConfig, settings: Settings, output_url: str | None
) -> Iterator[RunSetup]:
    """Set a run up as the rank that ``settings`` says; at the end all sinks are closed."""
    # Ranks know their attempt's number from the launcher; without one it is the first.
    configure(settings.job, settings.attempt or 1, settings.rank)
    with outputs.folder(output_url, first=settings.rank == 0) as output:
        bus = Bus(sinks.build(settings, output, config.mode, config.tracking))
        try:
            stop = StopRequest(settings.stop_file)
            stop.install()
            accelerator = device.resolve(config.accelerator, config.precision, settings)
            config = with_workers(config, settings, computes_on_cpu=accelerator.is_cpu)
            yield RunSetup(config, settings, accelerator, stop, bus, output)
        finally:
            bus.close()


def with_workers(
    config: TrainingConfig, settings: Settings, *, computes_on_cpu: bool
) -> TrainingConfig:
    """The configuration with ``data.workers`` filled in by the CPUs that this rank may use."""
    if config.data.workers is not None:
        return config
    workers = default_workers(cpus_of_rank(settings), computes_on_cpu=computes_on_cpu)
    return replace(config, data=replace(config.data, workers=workers))


def check_same_data(comm: Comm, splits: Splits) -> None:
    """Raise StorageFailed on every rank when they have not found equally many images and classes,
    as where files still arrive on a node: they would wait for one another in different steps.
    """
    own = (len(splits.train), len(splits.val), splits.num_classes)
    found: list[list[int]] = comm.gather(torch.tensor(own)).tolist()
    for rank, counts in enumerate(found):
        if counts != found[0]:
            raise StorageFailed(
                f"data.path: ranks find different data: rank 0 {_told(found[0])}, rank {rank} "
                f"{_told(counts)}; it must be the same on all nodes, and complete before a job "
                "begins"
            )


def _told(counts: list[int]) -> str:
    training, validation, classes = counts
    return f"{training} training and {validation} validation images of {classes} classes"
