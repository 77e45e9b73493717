"""The batches that this rank trains on, epoch after epoch, from the middle of one if needed.

:mod:`inception_trainer.data.sampler` says which samples they are, the dataset reads them,
:mod:`.prefetch` brings them near the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from types import TracebackType

import torch

from inception_trainer.comm import Comm
from inception_trainer.data import Batch, Dataset
from inception_trainer.data.sampler import BatchPlan, LengthPlan, micro_batches_of_epoch
from inception_trainer.heartbeat import Heartbeat

from .prefetch import stream_batches


class TrainingBatches:
    """Opens the stream of an epoch when its first step is asked for; a context manager."""

    def __init__(
        self,
        dataset: Dataset,
        batch: BatchPlan,
        length: LengthPlan,
        seed: int,
        comm: Comm,
        device: torch.device,
        heartbeat: Heartbeat,
    ) -> None:
        self._dataset = dataset
        self._batch = batch
        self._length = length
        self._seed = seed
        self._rank = comm.rank
        self._device = device
        self._heartbeat = heartbeat
        self._epoch = -1
        self._stream: Iterator[Batch] = iter(())
        self._open_streams = ExitStack()

    def __enter__(self) -> TrainingBatches:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open_streams.__exit__(kind, error, trace)

    def from_step(self, step: int) -> Iterator[Batch]:
        """The micro-batches from the job's optimizer step number ``step`` to the end of its epoch.

        Steps must be asked for in their order; the first one may be any.
        """
        epoch, step_of_epoch = self._length.position(step)
        if epoch != self._epoch:
            # A permutation of all samples and new loader workers may take longer than a step.
            self._heartbeat.pause()
            self._open(epoch, step_of_epoch)
        return self._stream

    def prepare(self, step: int) -> None:
        """Let the batches from ``step`` on be read, if that is in another epoch, while something
        else goes on.
        """
        epoch, step_of_epoch = self._length.position(step)
        if step < self._length.total_steps and epoch != self._epoch:
            self._open(epoch, step_of_epoch)

    def _open(self, epoch: int, step_of_epoch: int) -> None:
        numbers = micro_batches_of_epoch(
            self._batch,
            self._rank,
            len(self._dataset),
            self._seed,
            epoch,
            step_of_epoch,
            self._length.last_step_of(epoch),
        )
        # The epoch before is closed first, so that its loader workers can be used again.
        self._open_streams.close()
        stream = stream_batches(self._dataset, numbers, epoch, self._device)
        self._stream = self._heartbeat.over(self._open_streams.enter_context(stream))
        self._epoch = epoch
