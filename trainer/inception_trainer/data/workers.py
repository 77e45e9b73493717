"""Loader workers: processes that read and decode samples ahead, kept from one epoch to the next.

A worker is told only the number and the epoch of a sample, never an order or a random state, so the
same processes serve any epoch, and their number changes nothing that is seen.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor
from torch.utils import data as torch_data

from inception_trainer.errors import TrainerError

from .base import Batch

Key = tuple[int, int | None]
"""Index and epoch of a sample, the epoch None for evaluation."""
Sample = tuple[Tensor, int]
"""One image, uint8 ``[3, side, side]``, and its label."""


class Workers:
    """``count`` processes that read samples by their keys and join them to batches."""

    def __init__(
        self,
        read: Callable[[int, int | None], Sample],
        join: Callable[[list[Sample]], Batch],
        count: int,
    ):
        self._keys = _KeyBatches()
        loader: Any = torch_data.DataLoader(
            _SamplesByKey(_returning_errors(read)),
            batch_sampler=self._keys,
            num_workers=count,
            # Forked, whatever Python's default is: a worker is there at once, with torch imported.
            multiprocessing_context="fork",
            persistent_workers=True,
            collate_fn=_passing_errors(join),
            worker_init_fn=_ignore_sigterm,
        )
        self._loader = loader
        self._iterator: Any = None

    def batches(self, keys: Sequence[list[Key]]) -> Iterator[Batch]:
        """One batch per list of keys, in their order; all batches before must have been taken."""
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


class _KeyBatches(torch_data.Sampler[list[Key]]):
    """The lists of keys of the present epoch, as a batch sampler."""

    def __init__(self) -> None:
        self.batches: Sequence[list[Key]] = ()

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _SamplesByKey(torch_data.Dataset[Sample | TrainerError]):
    """Lets a DataLoader address samples by their keys."""

    def __init__(self, read: Callable[[int, int | None], Sample | TrainerError]) -> None:
        self._read = read

    def __getitem__(self, key: Key) -> Sample | TrainerError:
        return self._read(*key)


# What a worker raises arrives as a text with its traceback. Errors that are meant for people are
# handed over as they are.


def _returning_errors(
    read: Callable[[int, int | None], Sample],
) -> Callable[[int, int | None], Sample | TrainerError]:
    def read_or_error(index: int, epoch: int | None) -> Sample | TrainerError:
        try:
            return read(index, epoch)
        except TrainerError as error:
            return error

    return read_or_error


def _passing_errors(
    join: Callable[[list[Sample]], Batch],
) -> Callable[[list[Sample | TrainerError]], Batch | TrainerError]:
    def join_or_error(samples: list[Sample | TrainerError]) -> Batch | TrainerError:
        read: list[Sample] = []
        for sample in samples:
            if isinstance(sample, TrainerError):
                return sample
            read.append(sample)
        return join(read)

    return join_or_error


def _raising_errors(batches: Iterator[Batch | TrainerError]) -> Iterator[Batch]:
    for batch in batches:
        if isinstance(batch, TrainerError):
            raise batch
        yield batch


def _ignore_sigterm(_worker: int) -> None:
    # The whole process group gets SIGTERM; a graceful stop still needs the batches in flight.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
