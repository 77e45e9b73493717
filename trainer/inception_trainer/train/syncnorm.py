"""Batch norm over the samples of all ranks: ``model.batchNorm: Synchronized``.

Torch's own SyncBatchNorm runs on a few types of device only; this one needs nothing but two
collectives per layer and step, so N ranks compute what one rank computes with the whole batch on
any accelerator.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

AXES = (0, 2, 3)


class SynchronizedBatchNorm(nn.BatchNorm2d):
    """Takes the place of a BatchNorm2d and shares its parameters and buffers; evaluation is the
    same as its.
    """

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> SynchronizedBatchNorm:
        """One that goes on from ``norm``."""
        with torch.device("meta"):
            made = cls(
                norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
            )
        made._parameters, made._buffers, made.training = (
            norm._parameters,
            norm._buffers,
            norm.training,
        )  # noqa: SLF001
        return made

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in torch
        """Normalised by mean and variance over all ranks while training."""
        if not self.training:
            return functional.batch_norm(
                input,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                training=False,
                eps=self.eps,
            )
        output, mean, variance, count = _Normalise.apply(input, self.weight, self.bias, self.eps)
        self._remember(mean, variance, count)
        result: Tensor = output
        return result

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        assert self.running_mean is not None  # noqa: S101 - the networks' norms keep statistics
        assert self.running_var is not None  # noqa: S101
        assert self.num_batches_tracked is not None  # noqa: S101
        share = 0.1 if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (count / (count - 1)), share)
        self.num_batches_tracked.add_(1)


class _Normalise(torch.autograd.Function):
    """In fp32 whatever the input's type; every rank must call it, in the same order."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Output, and over all ranks: mean, biased variance, number of values."""
        own = torch.var_mean(x.float(), AXES, correction=0)
        size = own[0].new_full((1,), x.numel() / x.shape[1])
        everyone = torch.stack(_gathered(torch.cat((*own, size))))
        sizes = everyone[:, -1:]
        variances, means = everyone[:, :-1].chunk(2, 1)
        count = sizes.sum()
        mean = (means * sizes).sum(0) / count
        # Moments about the common mean, from those about each rank's: no difference of large
        # numbers.
        variance = ((variances + (means - mean).square()) * sizes).sum(0) / count
        inverse = torch.rsqrt(variance + eps)
        ctx.save_for_backward(x, weight, mean, inverse, count)
        ctx.mark_non_differentiable(mean, variance, count)
        return (
            _affine(x, inverse * weight, bias - mean * inverse * weight).to(x.dtype),
            mean,
            variance,
            count,
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Gradients of input, weight and bias; those of the parameters are this rank's share."""
        x, weight, mean, inverse, count = ctx.saved_tensors
        gradient = gradients[0].float()
        centred = _affine(x, inverse, -mean * inverse)
        shares = torch.stack((gradient.sum(AXES), (gradient * centred).sum(AXES)))
        total = shares.clone()
        dist.all_reduce(total)
        slope, offset = total[1] / count, total[0] / count
        change = (gradient - centred * _wide(slope) - _wide(offset)) * _wide(inverse * weight)
        return change.to(x.dtype), shares[1], shares[0], None


def _gathered(values: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values)
    return parts


def _wide(values: Tensor) -> Tensor:
    return values[:, None, None]


def _affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return x.float() * _wide(scale) + _wide(shift)


def synchronize(network: nn.Module) -> None:
    """Replace every BatchNorm2d inside ``network`` by a synchronized one with the same parameters."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.BatchNorm2d:
                setattr(parent, name, SynchronizedBatchNorm.of(child))
