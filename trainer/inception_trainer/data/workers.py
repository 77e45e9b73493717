"""Loader processes that decode ahead, and stay for the next epoch."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor
from torch.utils import data as torch_data

from .base import Batch

Key = tuple[int, int | None]
"""Index and epoch of a sample: all that a worker needs to know, so it can serve any epoch."""
Sample = tuple[Tensor, int]


class Workers:
    """``count`` processes that read samples by their keys and join them to batches."""

    def __init__(
        self,
        read: Callable[[int, int | None], Sample],
        join: Callable[[list[Sample]], Batch],
        count: int,
    ):
        self._keys = _Keys()
        loader: Any = torch_data.DataLoader(
            _Keyed(read),
            batch_sampler=self._keys,
            num_workers=count,
            # Forked, whatever Python's default is: a worker is there at once, with torch imported.
            multiprocessing_context="fork",
            persistent_workers=True,
            collate_fn=join,
            worker_init_fn=_ignore_sigterm,
        )
        self._loader = loader
        self._iterator: Any = None

    def batches(self, keys: Sequence[list[Key]]) -> Iterator[Batch]:
        """One batch per list of keys, in their order. The batches before must all have been taken."""
        self._keys.batches = keys
        self._iterator = iter(self._loader)
        iterator: Iterator[Batch] = self._iterator
        return iterator

    def close(self) -> None:
        """End the processes now, not when the garbage collector finds them."""
        if self._iterator is not None:
            self._iterator._shutdown_workers()  # noqa: SLF001
            self._iterator = self._loader._iterator = None  # noqa: SLF001


class _Keys(torch_data.Sampler[list[Key]]):
    """The lists of keys of the present epoch."""

    def __init__(self) -> None:
        self.batches: Sequence[list[Key]] = ()

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _Keyed(torch_data.Dataset[Sample]):
    """Lets a DataLoader address samples by their keys."""

    def __init__(self, read: Callable[[int, int | None], Sample]) -> None:
        self._read = read

    def __getitem__(self, key: Key) -> Sample:
        return self._read(*key)


def _ignore_sigterm(_worker: int) -> None:
    # The whole process group gets SIGTERM; a graceful stop still needs the batches in flight.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
