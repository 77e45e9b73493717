"""Running average of the weights (EMA): what is evaluated, saved and used in the end, never what is
trained.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from inception_trainer.config.training import WeightAverageConfig


class WeightAverage:
    """A copy of the network whose floating-point tensors follow it; batch norm statistics are
    averaged too.
    """

    def __init__(self, model: nn.Module, config: WeightAverageConfig) -> None:
        assert config.decay is not None  # noqa: S101 - no average without a decay
        self._decay, self._every, self._source = config.decay, config.every_steps, model
        self.model = copy.deepcopy(model).requires_grad_(requires_grad=False).eval()

    @torch.no_grad()
    def reset(self) -> None:
        """Begin at the network's present weights."""
        for mine, its in zip(_tensors(self.model), _tensors(self._source), strict=True):
            mine.copy_(its)

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Follow, after ``steps`` optimizer steps of the job: what was averaged is a function of
        the step alone.
        """
        if steps % self._every:
            return
        mine, its = _tensors(self.model), _tensors(self._source)
        floats = [at for at, tensor in enumerate(mine) if tensor.is_floating_point()]
        share = 1 - decay_after(steps // self._every, self._decay)
        torch._foreach_lerp_([mine[at] for at in floats], [its[at] for at in floats], share)
        for at in set(range(len(mine))) - set(floats):
            mine[at].copy_(its[at])


def decay_after(updates: int, decay: float) -> float:
    """Smaller at first, so that the random initial weights are soon forgotten."""
    return min(decay, (1 + updates) / (10 + updates))


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
