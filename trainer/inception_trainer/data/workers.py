"""Loader workers: processes that read and decode samples ahead, kept from one epoch to the next.

A worker is told only the numbers and the epoch of the samples of a batch, never an order or a
random state, so the same processes serve any epoch, and their number changes nothing that is seen.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from torch.utils import data as torch_data

from inception_trainer.errors import TrainerError

from .base import Batch
from .counter_rng import Indices

Read = Callable[[Indices, int | None], Batch]

MOST_WORKERS = 16
"""Of a rank whose configuration names no number."""


def default_workers(cpus: float, *, computes_on_cpu: bool) -> int:
    """How many loader processes a rank gets that may use ``cpus``."""
    if computes_on_cpu:
        # A network that the CPU computes takes much longer for an image than a loader does.
        return max(1, min(2, int(cpus)))
    # One CPU feeds the device.
    return max(1, min(MOST_WORKERS, int(cpus) - 1))


class BatchKey(NamedTuple):
    """What one batch is made of."""

    indices: Indices
    epoch: int | None
    """None for evaluation."""


class Workers:
    """``count`` processes, each of which makes whole batches with ``read``."""

    def __init__(self, read: Read, count: int):
        self._keys: Any = _BatchKeys()
        make: Any = torch_data.DataLoader
        loader = make(
            _BatchesByKey(read),
            batch_sampler=self._keys,
            num_workers=count,
            # Forked, whatever Python's default is: a worker is there at once, with torch imported.
            multiprocessing_context="fork",
            persistent_workers=True,
            collate_fn=_as_it_is,
            worker_init_fn=_ignore_sigterm,
        )
        self._loader: Any = loader
        self._iterator: Any = None

    def batches(self, keys: Sequence[BatchKey]) -> Iterator[Batch]:
        """One batch per key, in their order; all batches before must have been taken."""
        # The DataLoader reads its sampler anew for every iterator: that is how the same processes
        # get the keys of the next epoch.
        self._keys.batches = keys
        self._iterator = iter(self._loader)
        return _raising_errors(self._iterator)

    def close(self) -> None:
        """End the processes now, not when the garbage collector finds them."""
        if self._iterator is not None:
            self._iterator._shutdown_workers()  # noqa: SLF001
            self._iterator = self._loader._iterator = None  # noqa: SLF001


class _BatchKeys(torch_data.Sampler[BatchKey]):
    """The keys of the present epoch, as a batch sampler."""

    def __init__(self) -> None:
        self.batches: Sequence[BatchKey] = ()

    def __iter__(self) -> Iterator[BatchKey]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _BatchesByKey(torch_data.Dataset[Batch | TrainerError]):
    """Lets a DataLoader address whole batches, so that what is drawn for their samples is drawn at
    once.
    """

    def __init__(self, read: Read) -> None:
        self._read = read

    def __getitem__(self, _index: int) -> Batch:
        raise NotImplementedError  # only whole batches are asked for

    def __getitems__(self, key: BatchKey) -> Batch | TrainerError:
        # What a worker raises arrives as a text with its traceback. Errors that are meant for
        # people are handed over as they are.
        try:
            return self._read(key.indices, key.epoch)
        except TrainerError as error:
            return error


def _as_it_is(batch: Batch | TrainerError) -> Batch | TrainerError:
    return batch


def _raising_errors(batches: Iterator[Batch | TrainerError]) -> Iterator[Batch]:
    for batch in batches:
        if isinstance(batch, TrainerError):
            raise batch
        yield batch


def _ignore_sigterm(_worker: int) -> None:
    # The whole process group gets SIGTERM; a graceful stop still needs the batches in flight.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
