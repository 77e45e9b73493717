"""Counts the batches that batch norms have seen, all in one operation.

Each norm would add one to a counter of its own: a hundred kernels or more for a hundred numbers,
which an accelerator takes as long to start as to do something useful.
"""

from __future__ import annotations

from types import TracebackType

import torch
from torch import Tensor, nn

COUNTER = "num_batches_tracked"


class NormCounters:
    """A context manager for the forward pass of ``model`` in training: meanwhile norms have no
    counter to add to, and afterwards all have counted one batch.
    """

    def __init__(self, model: nn.Module) -> None:
        # A norm without a momentum weighs by its counter, and so must count itself.
        self._norms = [
            module
            for module in model.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)  # noqa: SLF001
            and module.num_batches_tracked is not None
            and module.momentum is not None
            # Torch's raises an error where it has no counter.
            and not isinstance(module, nn.SyncBatchNorm)
        ]
        self._taken: list[tuple[nn.Module, Tensor]] = []

    def __enter__(self) -> NormCounters:
        for norm in self._norms:
            # One that is frozen does not count.
            counter = norm._buffers[COUNTER]  # noqa: SLF001
            if norm.training and counter is not None:
                self._taken.append((norm, counter))
                norm._buffers[COUNTER] = None  # noqa: SLF001
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for norm, counter in self._taken:
            norm._buffers[COUNTER] = counter  # noqa: SLF001
        if error is None and self._taken:
            torch._foreach_add_([counter for _, counter in self._taken], 1)
        self._taken.clear()
