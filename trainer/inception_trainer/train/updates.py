"""From gradients to new weights: loss scaling, clipping, the optimizer, the running average."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from inception_trainer.config.training import TrainingConfig
from inception_trainer.device import Accelerator

from .ema import WeightAverage
from .optimizers import make_optimizer


class OptimizerStep:
    """Owns everything that changes weights. Nothing here waits for the device, but for FP16 with
    RMSProp.
    """

    def __init__(self, config: TrainingConfig, model: nn.Module, accelerator: Accelerator) -> None:
        self.name = config.optimizer.name
        self.optimizer = make_optimizer(config.optimizer, model, accelerator.device)
        self.average = (
            None
            if config.weight_average.decay is None
            else WeightAverage(model, config.weight_average)
        )
        self.scaler = accelerator.loss_scaler()
        self._accelerator = accelerator
        self._parameters, self._clip = list(model.parameters()), config.optimizer.clip_norm
        self._skipped = torch.zeros((), device=accelerator.device)

    def backward(self, loss: Tensor) -> None:
        """Add to the gradients."""
        torch.autograd.backward(loss if self.scaler is None else self.scaler.scale(loss))

    def apply(self, rate: float, steps: int) -> None:
        """Change the weights and forget the gradients; the job has then done ``steps`` steps."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        if self.scaler is not None or self._clip is not None:
            norm = nn.utils.clip_grad_norm_(self._parameters, self._clip or math.inf)
            if self.scaler is not None:
                self._skipped += ~torch.isfinite(norm)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(steps)
        self._accelerator.end_of_step()

    def read_loss_scale(self) -> float | None:
        """What FP16 losses are multiplied by; waits for the device."""
        return None if self.scaler is None else float(self.scaler.get_scale())

    def read_skipped(self) -> int:
        """Steps since the last call whose FP16 gradients overflowed and changed nothing; waits for
        the device.
        """
        skipped = int(self._skipped.item())
        self._skipped.zero_()
        return skipped
