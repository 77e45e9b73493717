"""Snapshots of the training's tensors (weights, optimizer state, batch norm statistics of all
ranks), and their way back after a restart.

Each rank keeps its own batch norm statistics while it trains, because averaging them every step
costs a collective. For evaluation they are averaged. A checkpoint holds the average inside
``model``, which makes it usable anywhere, and the statistics of every rank beside it, so that the
same number of ranks continues bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from inception_trainer.comm import Comm
from inception_trainer.device.transfers import HostCopies
from inception_trainer.errors import NonFiniteLoss

from .optimizers import BEGIN_WITH_ONES, STATE_PARTS, STEPS
from .step import OptimizerStep

OPTIMIZER_PARTS = ("momentum", "squares", STEPS)
"""What a checkpoint may keep of an optimizer, by the names there."""


@dataclass(frozen=True)
class Snapshot:
    """The tensors of one moment in host memory, valid until the next snapshot is taken."""

    tensors: dict[str, Any]
    complete: Callable[[], None]
    """To be called before ``tensors`` are read, by any thread: waits for the copies, checks them.

    Raises NonFiniteLoss rather than letting weights be saved that cannot be used.
    """


class TrainingState:
    """The tensors of a job; ``model`` is the bare network, never its wrapper for several ranks."""

    def __init__(self, model: nn.Module, optimizer_step: OptimizerStep, comm: Comm) -> None:
        self.model = model
        self._optimizer_step = optimizer_step
        self._comm = comm
        average = optimizer_step.average
        self._average = None if average is None else average.model
        self._copies = HostCopies()

    def snapshot(self) -> Snapshot | None:
        """Copies in host memory on rank 0, None elsewhere; every rank must call it. Changes
        nothing.

        The memory is that of the snapshot before, which nobody may read any more.
        """
        networks = {"model": self.model}
        if self._average is not None:
            networks["average"] = self._average
        statistics = {
            name: self._comm.gather(_read_statistics(network)) for name, network in networks.items()
        }
        if not self._comm.is_first:
            return None
        states = {
            name: self._copies.take(name, network.state_dict())
            for name, network in networks.items()
        }
        optimizer = {
            part: self._copies.take(part, dict(self._buffers(part))) for part in OPTIMIZER_PARTS
        }
        wait_for_copies = self._copies.mark()

        def complete() -> None:
            wait_for_copies()
            for name, network in networks.items():
                # The copies hold rank 0's statistics; what is saved is the mean of all ranks'.
                _write_statistics(network, states[name], statistics[name].mean(0))
            _check_finite(states["model"])

        tensors: dict[str, Any] = {
            "model": states["model"],
            "rank_statistics": statistics["model"],
            "optimizer": {"name": self._optimizer_step.name, **optimizer},
        }
        if self._average is not None:
            tensors["average"] = {
                "model": states["average"],
                "rank_statistics": statistics["average"],
            }
        if self._optimizer_step.scaler is not None:
            tensors["scaler"] = self._optimizer_step.scaler.state_dict()
        return Snapshot(tensors, complete)

    def learned(self) -> dict[str, Tensor]:
        """All tensors that an optimizer step changes, themselves and not copies: they are equal on
        all ranks. ``<part>/<name>``, the parts as in a checkpoint.
        """
        parts: dict[str, dict[str, Tensor]] = {"model": dict(self.model.named_parameters())}
        parts |= {part: dict(self._buffers(part)) for part in OPTIMIZER_PARTS}
        if self._average is not None:
            parts["average"] = dict(self._average.named_parameters())
        return {
            f"{part}/{name}": tensor.detach()
            for part, tensors in parts.items()
            for name, tensor in tensors.items()
        }

    def statistics(self) -> dict[str, Tensor]:
        """All batch norm statistics and their counters, themselves and not copies: those of this
        rank. Named as in :meth:`learned`.
        """
        networks = {"model": self.model, "average": self._average}
        return {
            f"{part}/{name}": tensor
            for part, network in networks.items()
            if network is not None
            for name, tensor in network.named_buffers()
        }

    def optimizer_state(self) -> dict[str, Any]:
        """What a copy holds of the optimizer beside tensors, as plain values."""
        state: dict[str, Any] = {"optimizer": self._optimizer_step.name}
        if self._optimizer_step.scaler is not None:
            state["scaler"] = self._optimizer_step.scaler.state_dict()
        return state

    def begin_average(
        self,
        saved: Mapping[str, Any] | None,
        *,
        present: bool,
        saved_ranks: int,
        source: int = 0,
    ) -> None:
        """Begin the running average at the network's weights, or where a checkpoint has one
        (``present``, on all ranks) at the ``saved`` one that rank ``source`` holds.
        """
        average = self._optimizer_step.average
        if average is None:
            return
        average.reset()
        if not present:
            return
        if saved is not None:
            average.model.load_state_dict(saved["model"])
        tensors = [*average.model.parameters(), *average.model.buffers()]
        self._comm.broadcast_tensors(tensors, source)
        per_rank = None if saved is None else saved["rank_statistics"]
        self._restore_statistics(average.model, per_rank, saved_ranks)

    def restore_scaler(self, saved: Mapping[str, Any] | None) -> None:
        """Go on with the loss scale of the checkpoint, which all ranks hold, where there is one."""
        if self._optimizer_step.scaler is not None and saved is not None:
            self._optimizer_step.scaler.load_state_dict(dict(saved))

    def restore_optimizer(
        self, saved: Mapping[str, Any] | None, parts: Sequence[str], source: int = 0
    ) -> None:
        """Give every rank the optimizer state that rank ``source`` has in ``saved``; ``parts``
        (equal on all ranks) says what of it.
        """
        parameters = {
            name: parameter
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad
        }
        for part in parts:
            like: Mapping[str, Tensor] = parameters
            if part == STEPS:
                # Numbers that the optimizer counts with in the host's memory.
                like = {name: torch.empty(()) for name in parameters}
            size = sum(value.numel() for value in like.values())
            # What was frozen before is not in the checkpoint, and begins afresh.
            first = float((self._optimizer_step.name, part) in BEGIN_WITH_ONES)
            # One vector for the buffers of all parameters, which then stay views of it.
            flat = torch.full((size,), first, device=next(iter(like.values())).device)
            buffers = dict(_views_like(like, flat))
            if saved is not None:
                for name, buffer in buffers.items():
                    if name in saved[part]:
                        buffer.copy_(saved[part][name])
            self._comm.broadcast(flat, source)
            for name, buffer in buffers.items():
                state = self._optimizer_step.optimizer.state[parameters[name]]
                state[STATE_PARTS[self._optimizer_step.name][part]] = buffer

    def restore_statistics(self, per_rank: Tensor | None, saved_ranks: int) -> None:
        """Give each rank the batch norm statistics it had, when as many ranks as before continue;
        else the average stays.

        ``per_rank`` ``[saved_ranks, total]`` on rank 0, None elsewhere.
        """
        self._restore_statistics(self.model, per_rank, saved_ranks)

    def _restore_statistics(
        self, model: nn.Module, per_rank: Tensor | None, saved_ranks: int
    ) -> None:
        if saved_ranks != self._comm.world_size:
            return
        if per_rank is None:
            per_rank = torch.empty(saved_ranks, _read_statistics(model).numel())
        per_rank = per_rank.contiguous()
        self._comm.broadcast(per_rank)
        _write_statistics(model, model.state_dict(), per_rank[self._comm.rank])

    def restore_own_statistics(self, own: Tensor | None) -> int:
        """Give each rank its ``own`` batch norm statistics, all of its networks' in one vector;
        those that have none get the mean of the others. Every rank must call it.

        Returns how many have none. Where nobody has any, those stay that came with the networks.
        """
        networks = [model for model in (self.model, self._average) if model is not None]
        sizes = [_read_statistics(model).numel() for model in networks]
        if own is not None and own.numel() != sum(sizes):
            own = None
        known = torch.tensor([float(own is not None)])
        values = torch.zeros(sum(sizes)) if own is None else own
        rows = self._comm.gather(torch.cat((known, values)))
        having = rows[rows[:, 0] > 0, 1:]
        if len(having):
            values = having.mean(0) if own is None else own
            for model, part in zip(networks, torch.split(values, sizes), strict=True):
                _write_statistics(model, model.state_dict(), part)
        return len(rows) - len(having)

    def average_statistics(self) -> None:
        """Make the batch norm statistics equal on all ranks; every rank must call it."""
        if self._comm.world_size == 1:
            return
        for model in (self.model, self._average):
            if model is not None:
                mean = self._comm.gather(_read_statistics(model)).mean(0)
                _write_statistics(model, model.state_dict(), mean)

    def checksums(self) -> list[int]:
        """One number per rank that differs when any bit of a parameter differs (up to
        collisions).
        """
        parameters = [parameter.detach() for parameter in self.model.parameters()]
        # Many accelerators add up int64 slowly, wrongly or not at all.
        if parameters[0].device.type not in ("cpu", "cuda"):
            parameters = [parameter.cpu() for parameter in parameters]
        # Bits as integers: sums of floats would depend on the order of adding up.
        sums = torch.stack(
            [parameter.view(torch.int32).sum(dtype=torch.int64) for parameter in parameters]
        ).cpu()
        # Weighted by position, or two parameters that swapped their values would go unnoticed.
        checksum = (sums * torch.arange(1, len(sums) + 1)).sum()
        of_ranks: list[int] = self._comm.gather(checksum[None]).flatten().tolist()
        return of_ranks

    def release(self) -> None:
        """Give back the memory of all tensors, whoever else holds them: the training is over."""
        networks = [network for network in (self.model, self._average) if network is not None]
        tensors = [tensor for one in networks for tensor in (*one.parameters(), *one.buffers())]
        for tensor in tensors:
            tensor.grad = None
            tensor.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        self._optimizer_step.optimizer.state.clear()

    def _buffers(self, part: str) -> Iterator[tuple[str, Tensor]]:
        """The optimizer's tensors of one kind by the names of their parameters."""
        key = STATE_PARTS[self._optimizer_step.name].get(part)
        for name, parameter in self.model.named_parameters():
            buffer = self._optimizer_step.optimizer.state.get(parameter, {}).get(key)
            if buffer is not None:
                yield name, buffer


def parts_of(optimizer: Mapping[str, Any]) -> tuple[str, ...]:
    """Which of the optimizer's tensors a checkpoint holds."""
    return tuple(part for part in OPTIMIZER_PARTS if optimizer.get(part))


def _read_statistics(model: nn.Module) -> Tensor:
    """All running means and variances in one vector ``[total]`` in host memory."""
    buffers = [value.flatten() for _, value in _named_statistics(model)]
    return torch.cat(buffers).cpu() if buffers else torch.zeros(0)


def _write_statistics(model: nn.Module, state: Mapping[str, Tensor], flat: Tensor) -> None:
    """The reverse: the vector ``[total]`` into ``state``, a state_dict of ``model``."""
    offset = 0
    for name, value in _named_statistics(model):
        state[name].copy_(flat[offset : offset + value.numel()].view_as(value))
        offset += value.numel()


def _named_statistics(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    # The counters of batch norm are integers, and equal on all ranks.
    return ((name, value) for name, value in model.named_buffers() if value.is_floating_point())


def _check_finite(state: Mapping[str, Tensor]) -> None:
    floats = [value for value in state.values() if value.is_floating_point()]
    # A norm is infinite or NaN as soon as one value is, and reads each tensor once.
    norms = torch.stack(torch._foreach_norm(floats))  # noqa: SLF001
    if not torch.isfinite(norms).all():
        raise NonFiniteLoss(
            "a weight became NaN or infinite; the last checkpoint is kept, lower the learning rate"
        )


def _views_like(parameters: Mapping[str, Tensor], flat: Tensor) -> Iterator[tuple[str, Tensor]]:
    """``flat`` ``[total]`` cut into tensors with the shapes and strides of ``parameters``."""
    # Fused optimizers walk raw memory: momentum must have the strides of its parameter, channels
    # last included.
    offset = 0
    for name, parameter in parameters.items():
        yield name, flat.as_strided(parameter.shape, parameter.stride(), offset)
        offset += parameter.numel()
