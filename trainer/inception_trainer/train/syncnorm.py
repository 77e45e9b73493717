"""Batch norm over the samples of all ranks (``model.batchNorm: Synchronized``).

Torch's own SyncBatchNorm runs on a few types of device only, and there it is the one to use: its
kernels read the images once where this one reads them several times. The one here needs nothing
but two collectives per layer and step, so N ranks compute what one rank computes with the whole
batch on any accelerator.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from inception_trainer.errors import ConfigError

from .freezing import FrozenBatchNorm
from .norms import in_place_of

TORCHS_DEVICES = ("cuda",)
"""Types of devices that torch's SyncBatchNorm has kernels for and that were named by it for years;
whether those of vendors do the same is not known.
"""
AXES = (0, 2, 3)
"""Of ``[n, c, h, w]``, all but the channels."""


class SynchronizedBatchNorm(nn.BatchNorm2d):
    """A BatchNorm2d whose mean and variance in training are over all ranks; evaluation is that of
    its base class.
    """

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> SynchronizedBatchNorm:
        """A synchronized norm in place of ``norm``, with the same parameters and buffers."""
        return in_place_of(norm, cls)

    @override
    def forward(self, input: Tensor) -> Tensor:
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
        output, mean, variance, count = _NormaliseOverRanks.apply(
            input, self.weight, self.bias, self.eps
        )
        self._update_statistics(mean, variance, count)
        result: Tensor = output
        return result

    @torch.no_grad()
    def _update_statistics(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        assert self.running_mean is not None  # noqa: S101 - the networks' norms keep statistics
        assert self.running_var is not None  # noqa: S101
        weight = 0.1 if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, weight)
        # As in torch, the running variance is the unbiased one, the one normalised with is not.
        self.running_var.lerp_(variance * (count / (count - 1)), weight)
        # While a step computes, the counters of all norms are taken away and counted together.
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


class _NormaliseOverRanks(torch.autograd.Function):
    """In fp32 whatever the input's type; every rank must call it, in the same order."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x ``[n, c, h, w]`` of this rank to an output like x; and mean and biased variance ``[c]``
        and the number of elements (no axis) over all ranks.
        """
        own_variance, own_mean = torch.var_mean(x.float(), AXES, correction=0)
        size = own_mean.new_full((1,), x.numel() / x.shape[1])
        # [ranks, 2 c + 1]: one collective instead of three.
        everyone = torch.stack(_gathered(torch.cat((own_variance, own_mean, size))))
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
        output = _affine(x, inverse * weight, bias - mean * inverse * weight)
        return output.to(x.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Gradients of input, weight and bias; those of the parameters are this rank's part only,
        because DistributedDataParallel sums them.
        """
        x, weight, mean, inverse, count = ctx.saved_tensors
        gradient = gradients[0].float()
        centred = _affine(x, inverse, -mean * inverse)
        own = torch.stack((gradient.sum(AXES), (gradient * centred).sum(AXES)))
        total = own.clone()
        dist.all_reduce(total)
        # The mean and the variance depend on every input of every rank.
        offset = total[0] / count
        slope = total[1] / count
        change = (gradient - centred * _wide(slope) - _wide(offset)) * _wide(inverse * weight)
        return change.to(x.dtype), own[1], own[0], None


def _gathered(values: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values)
    return parts


def _wide(values: Tensor) -> Tensor:
    """``[c]`` as ``[c, 1, 1]``, to be used with ``[n, c, h, w]``."""
    return values[:, None, None]


def _affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return x.float() * _wide(scale) + _wide(shift)


STAYS = (SynchronizedBatchNorm, FrozenBatchNorm)
"""Norms that need not be replaced."""


def synchronize_batch_norms(network: nn.Module, device: torch.device) -> None:
    """Replace every BatchNorm2d inside ``network`` by a synchronized one for ``device``, which
    takes over its parameters.
    """
    synchronized = _torchs if device.type in TORCHS_DEVICES else SynchronizedBatchNorm.of
    # Listed first: replacing children while modules() walks over them would lose some.
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.BatchNorm2d:
                setattr(parent, name, synchronized(child))
            elif isinstance(child, nn.BatchNorm2d) and not isinstance(child, STAYS):
                raise ConfigError(
                    "model.batchNorm: Synchronized does not go with this network, whose norms are "
                    f"of the kind {type(child).__name__}; choose PerRank"
                )


def _torchs(norm: nn.BatchNorm2d) -> nn.Module:
    made: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(norm)  # type: ignore[no-untyped-call]
    return made
