"""Exponential moving average of the weights (EMA, ``weightAverage``): what is evaluated, saved and
used in the end, never what is trained.

Not torch's ``AveragedModel``: that one counts its updates in a buffer, and its first update copies
instead of averaging, so a resumed run would have to restore the count. Here both are functions of
the optimizer step.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from inception_trainer.config.training import WeightAverageConfig

Pair = tuple[list[Tensor], list[Tensor]]


class WeightAverage:
    """A copy of the network whose floating-point tensors follow it, batch norm statistics too."""

    def __init__(self, model: nn.Module, config: WeightAverageConfig) -> None:
        assert config.decay is not None  # noqa: S101 - no average without a decay
        self._decay = config.decay
        self._every_steps = config.every_steps
        self._source = model
        self.model = copy.deepcopy(model).requires_grad_(requires_grad=False).eval()

    @torch.no_grad()
    def reset(self) -> None:
        """Begin at the network's present weights."""
        pairs = zip(_tensors(self.model), _tensors(self._source), strict=True)
        for average, current in pairs:
            average.copy_(current)

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Follow the network, after ``steps`` optimizer steps of the job."""
        if steps % self._every_steps:
            return
        weight = 1 - decay_after(steps // self._every_steps, self._decay)
        floats, counters = self._pairs()
        # One kernel for many tensors: a loop would cost a launch for each of several hundred.
        torch._foreach_lerp_(*floats, weight)
        # Counters of batch norm have no mean.
        if counters[0]:
            torch._foreach_copy_(*counters)

    def _pairs(self) -> tuple[Pair, Pair]:
        """Averages and present values: of what has a mean, and of counters."""
        pairs = [*zip(_tensors(self.model), _tensors(self._source), strict=True)]
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        others = [pair for pair in pairs if not pair[0].is_floating_point()]
        return _unzipped(floats), _unzipped(others)


def decay_after(updates: int, decay: float) -> float:
    """The decay of update number ``updates``: smaller at first, so that the random initial weights
    are soon forgotten (as in TensorFlow's ExponentialMovingAverage).
    """
    return min(decay, (1 + updates) / (10 + updates))


def _unzipped(pairs: list[tuple[Tensor, Tensor]]) -> Pair:
    return [average for average, _ in pairs], [current for _, current in pairs]


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
