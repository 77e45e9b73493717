"""Batch norms of another kind in the place of torch's, with the same parameters and buffers."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

Norm = TypeVar("Norm", bound=nn.BatchNorm2d)


def in_place_of(norm: nn.BatchNorm2d, kind: type[Norm]) -> Norm:
    """A norm of ``kind`` that takes over the parameters, the buffers and the mode of ``norm``."""
    # Made without memory of its own.
    with torch.device("meta"):
        made = kind(
            norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
        )
    made._parameters = norm._parameters  # noqa: SLF001
    made._buffers = norm._buffers  # noqa: SLF001
    return made.train(norm.training)
