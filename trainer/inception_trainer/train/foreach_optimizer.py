"""What our own optimizers have in common: a step for each group, of many tensors at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

MOMENTUM = "momentum_buffer"
"""Key of the state that :meth:`ForeachOptimizer._subtract` keeps; that of torch's SGD, too."""


class ForeachOptimizer(torch.optim.Optimizer):
    """An optimizer whose :meth:`_update` changes all tensors of a group at once."""

    @override
    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                gradients = [parameter.grad for parameter in parameters]
                self._update(parameters, gradients, group)

    def _update(
        self, parameters: list[Tensor], gradients: list[Tensor], group: dict[str, Any]
    ) -> None:
        """Change the parameters. The gradients may be worked on in place, which saves one copy of
        the weights in memory: they are cleared afterwards.
        """
        raise NotImplementedError

    def _state(
        self,
        parameters: list[Tensor],
        name: str,
        initial: Callable[[Tensor], Tensor] = torch.zeros_like,
    ) -> list[Tensor]:
        for parameter in parameters:
            if name not in self.state[parameter]:
                self.state[parameter][name] = initial(parameter)
        return [self.state[parameter][name] for parameter in parameters]

    def _subtract(
        self, parameters: list[Tensor], changes: list[Tensor], group: dict[str, Any]
    ) -> None:
        """Change the parameters, by a running sum of the changes where there is momentum; the rate
        is in the changes.
        """
        if group["momentum"]:
            buffers = self._state(parameters, MOMENTUM)
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, changes)
            changes = buffers
        torch._foreach_sub_(parameters, changes)
