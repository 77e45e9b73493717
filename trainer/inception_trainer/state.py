"""Weights, optimizer state and batch norm statistics of all ranks: out of the running job and back into it.

Each rank keeps its own batch norm statistics while it trains, because sharing them every step costs a collective.
For evaluation they are averaged. A checkpoint holds the average inside ``model``, which makes it usable anywhere,
and the statistics of every rank beside it, so that the same number of ranks continues bit by bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from inception_trainer.comm import Comm
from inception_trainer.errors import NonFiniteLoss

MOMENTUM = "momentum_buffer"


class TrainingState:
    """The tensors of a job; ``model`` is the bare network, never its wrapper for several ranks."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, comm: Comm) -> None:
        self.model, self._optimizer, self._comm = model, optimizer, comm

    def snapshot(self) -> dict[str, Any] | None:
        """Copies in host memory on rank 0, None elsewhere; every rank must call it. Changes nothing.

        Raises NonFiniteLoss on rank 0 rather than saving weights that cannot be used.
        """
        per_rank = self._comm.gather(self._statistics())
        if not self._comm.is_first:
            return None
        model = {name: _copy(value) for name, value in self.model.state_dict().items()}
        self._write(model, per_rank.mean(0))
        momentum = {name: _copy(buffer) for name, buffer in self._momentum()}
        if not all(torch.isfinite(torch.stack(torch._foreach_norm(list(_floats(model))))).tolist()):  # noqa: SLF001
            raise NonFiniteLoss("a weight became NaN or infinite; the last checkpoint is kept, lower the learning rate")
        return {"model": model, "optimizer": {"name": "SGD", "momentum": momentum}, "rank_statistics": per_rank}

    def share_buffers(self) -> None:
        """Give every rank rank 0's buffers: older DistributedDataParallels do not share them."""
        share(list(self.model.buffers()), self._comm)

    def restore_optimizer(self, momentum: Mapping[str, Tensor] | None, *, present: bool) -> None:
        """Give every rank rank 0's momentum; ``present`` (equal on all ranks) says whether there is one."""
        if not present:
            return
        parameters = dict(self.model.named_parameters())
        device = next(iter(parameters.values())).device
        flat = torch.empty(sum(p.numel() for p in parameters.values()), device=device)
        for name, part in _parts(parameters, flat):
            if momentum is not None:
                part.copy_(momentum[name])
        self._comm.broadcast(flat)
        for name, part in _parts(parameters, flat):
            self._optimizer.state[parameters[name]][MOMENTUM] = part

    def restore_statistics(self, per_rank: Tensor | None, saved_ranks: int) -> None:
        """Give each rank the statistics it had, when as many ranks as before continue; else the average stays."""
        if saved_ranks != self._comm.world_size:
            return
        size = self._statistics().numel()
        values = torch.empty(saved_ranks, size) if per_rank is None else per_rank.contiguous()
        self._comm.broadcast(values)
        self._write(self.model.state_dict(), values[self._comm.rank])

    def average_statistics(self) -> None:
        """Make the batch norm statistics equal on all ranks; every rank must call it."""
        if self._comm.world_size > 1:
            self._write(self.model.state_dict(), self._comm.gather(self._statistics()).mean(0))

    def checksums(self) -> list[int]:
        """One number per rank that differs when any bit of a parameter differs (up to collisions)."""
        words = [p.detach().view(torch.int32).sum(dtype=torch.int64) for p in self.model.parameters()]
        total = torch.stack(words).cpu()
        weights = torch.arange(1, len(total) + 1)
        rows: list[int] = self._comm.gather((total * weights).sum()[None]).flatten().tolist()
        return rows

    def _statistics(self) -> Tensor:
        buffers = [value for _, value in _statistics_of(self.model)]
        return torch.cat([buffer.flatten() for buffer in buffers]).cpu() if buffers else torch.zeros(0)

    def _write(self, state: Mapping[str, Tensor], flat: Tensor) -> None:
        offset = 0
        for name, value in _statistics_of(self.model):
            state[name].copy_(flat[offset : offset + value.numel()].view_as(value))
            offset += value.numel()

    def _momentum(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self.model.named_parameters():
            buffer = self._optimizer.state.get(parameter, {}).get(MOMENTUM)
            if buffer is not None:
                yield name, buffer


@torch.no_grad()
def share(tensors: Sequence[Tensor], comm: Comm) -> None:
    """Overwrite every rank's ``tensors`` with rank 0's; every rank must call it."""
    if comm.world_size == 1:
        return
    for kind in sorted({tensor.dtype for tensor in tensors}, key=str):
        same = [tensor for tensor in tensors if tensor.dtype == kind]
        flat = torch.cat([tensor.flatten() for tensor in same])
        comm.broadcast(flat)
        for tensor, part in zip(same, torch.split(flat, [tensor.numel() for tensor in same]), strict=True):
            tensor.copy_(part.view_as(tensor))


def _statistics_of(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((name, value) for name, value in model.named_buffers() if value.is_floating_point())


def _floats(state: Mapping[str, Tensor]) -> Iterator[Tensor]:
    return (value for value in state.values() if value.is_floating_point())


def _parts(parameters: Mapping[str, Tensor], flat: Tensor) -> Iterator[tuple[str, Tensor]]:
    # Fused optimizers walk raw memory: momentum must have the strides of its parameter, channels last included.
    offset = 0
    for name, parameter in parameters.items():
        yield name, flat.as_strided(parameter.shape, parameter.stride(), offset)
        offset += parameter.numel()


def _copy(value: Tensor) -> Tensor:
    return value.detach().to("cpu", copy=True)
