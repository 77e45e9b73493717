"""Weights, optimizer state and batch norm statistics of all ranks: out of the running job and back
into it.

Each rank keeps its own batch norm statistics while it trains, because sharing them every step costs
a collective. For evaluation they are averaged. A checkpoint holds the average inside ``model``,
which makes it usable anywhere, and the statistics of every rank beside it, so that the same number
of ranks continues bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from inception_trainer.comm import Comm
from inception_trainer.errors import NonFiniteLoss

from .hostcopy import HostCopies
from .optimizers import MOMENTUM, SQUARES
from .updates import OptimizerStep

OPTIMIZER_PARTS = {"momentum": MOMENTUM, "squares": SQUARES}
"""Tensors of the optimizer that a checkpoint keeps, by their names there."""


@dataclass(frozen=True)
class Snapshot:
    """The tensors of one moment in host memory; they stay valid until the next snapshot is taken."""

    tensors: dict[str, Any]
    complete: Callable[[], None]
    """To be called before ``tensors`` are read, by any thread: waits for the copies and checks
    them.

    Raises NonFiniteLoss rather than letting weights be saved that cannot be used.
    """


class TrainingState:
    """The tensors of a job; ``model`` is the bare network, never its wrapper for several ranks."""

    def __init__(self, model: nn.Module, updater: OptimizerStep, comm: Comm) -> None:
        self.model, self._updater, self._comm = model, updater, comm
        self._average = None if updater.average is None else updater.average.model
        self._copies = HostCopies()

    def snapshot(self) -> Snapshot | None:
        """Copies in host memory on rank 0, None elsewhere; every rank must call it. Changes
        nothing.

        The memory is that of the snapshot before, which nobody may read any more.
        """
        parts = (
            {"model": self.model}
            if self._average is None
            else {"model": self.model, "average": self._average}
        )
        statistics = {part: self._comm.gather(_statistics(model)) for part, model in parts.items()}
        if not self._comm.is_first:
            return None
        states = {
            part: self._copies.take(part, model.state_dict()) for part, model in parts.items()
        }
        optimizer = {
            part: self._copies.take(part, dict(self._buffers(part))) for part in OPTIMIZER_PARTS
        }
        arrived = self._copies.mark()

        def complete() -> None:
            arrived()
            for part, model in parts.items():
                # The copies hold rank 0's statistics; what is saved is the mean of all ranks'.
                _write(model, states[part], statistics[part].mean(0))
            _check_finite(states["model"])

        scaler = self._updater.scaler
        tensors = {
            "model": states["model"],
            "rank_statistics": statistics["model"],
            "optimizer": {"name": self._updater.name, **optimizer},
        }
        if self._average is not None:
            tensors["average"] = {
                "model": states["average"],
                "rank_statistics": statistics["average"],
            }
        if scaler is not None:
            tensors["scaler"] = scaler.state_dict()
        return Snapshot(tensors, complete)

    def share_buffers(self) -> None:
        """Give every rank rank 0's buffers: older DistributedDataParallels do not share them."""
        share(list(self.model.buffers()), self._comm)

    def begin_average(
        self, saved: Mapping[str, Any] | None, *, present: bool, saved_ranks: int
    ) -> None:
        """Begin the running average at the network's weights, or at the ``saved`` one that rank 0
        has.
        """
        average = self._updater.average
        if average is None:
            return
        average.reset()
        if not present:
            return
        if saved is not None:
            average.model.load_state_dict(saved["model"])
        share([*average.model.parameters(), *average.model.buffers()], self._comm)
        self._restore_statistics(
            average.model, None if saved is None else saved["rank_statistics"], saved_ranks
        )

    def restore_scaler(self, saved: Mapping[str, Any] | None) -> None:
        """Go on with the loss scale of the checkpoint, which all ranks hold, where there is one."""
        if self._updater.scaler is not None and saved is not None:
            self._updater.scaler.load_state_dict(dict(saved))

    def restore_optimizer(self, saved: Mapping[str, Any] | None, parts: Sequence[str]) -> None:
        """Give every rank the optimizer state that rank 0 ``saved``; ``parts`` (equal on all ranks)
        says what of it.
        """
        parameters = dict(self.model.named_parameters())
        device = next(iter(parameters.values())).device
        for part in parts:
            flat = torch.empty(sum(p.numel() for p in parameters.values()), device=device)
            for name, values in _parts(parameters, flat):
                if saved is not None:
                    values.copy_(saved[part][name])
            self._comm.broadcast(flat)
            for name, values in _parts(parameters, flat):
                self._updater.optimizer.state[parameters[name]][OPTIMIZER_PARTS[part]] = values

    def restore_statistics(self, per_rank: Tensor | None, saved_ranks: int) -> None:
        """Give each rank the statistics it had, when as many ranks as before continue; else the
        average stays.
        """
        self._restore_statistics(self.model, per_rank, saved_ranks)

    def _restore_statistics(
        self, model: nn.Module, per_rank: Tensor | None, saved_ranks: int
    ) -> None:
        if saved_ranks != self._comm.world_size:
            return
        size = _statistics(model).numel()
        values = torch.empty(saved_ranks, size) if per_rank is None else per_rank.contiguous()
        self._comm.broadcast(values)
        _write(model, model.state_dict(), values[self._comm.rank])

    def average_statistics(self) -> None:
        """Make the batch norm statistics equal on all ranks; every rank must call it."""
        if self._comm.world_size == 1:
            return
        for model in (self.model, self._average):
            if model is not None:
                _write(model, model.state_dict(), self._comm.gather(_statistics(model)).mean(0))

    def checksums(self) -> list[int]:
        """One number per rank that differs when any bit of a parameter differs (up to collisions)."""
        words = [
            p.detach().view(torch.int32).sum(dtype=torch.int64) for p in self.model.parameters()
        ]
        total = torch.stack(words).cpu()
        weights = torch.arange(1, len(total) + 1)
        rows: list[int] = self._comm.gather((total * weights).sum()[None]).flatten().tolist()
        return rows

    def _buffers(self, part: str) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self.model.named_parameters():
            buffer = self._updater.optimizer.state.get(parameter, {}).get(OPTIMIZER_PARTS[part])
            if buffer is not None:
                yield name, buffer


def parts_of(optimizer: Mapping[str, Any]) -> tuple[str, ...]:
    """Which of the optimizer's tensors a checkpoint holds."""
    return tuple(part for part in OPTIMIZER_PARTS if optimizer.get(part))


@torch.no_grad()
def share(tensors: Sequence[Tensor], comm: Comm) -> None:
    """Overwrite every rank's ``tensors`` with rank 0's; every rank must call it."""
    if comm.world_size == 1:
        return
    for kind in sorted({tensor.dtype for tensor in tensors}, key=str):
        same = [tensor for tensor in tensors if tensor.dtype == kind]
        flat = torch.cat([tensor.flatten() for tensor in same])
        comm.broadcast(flat)
        for tensor, part in zip(
            same, torch.split(flat, [tensor.numel() for tensor in same]), strict=True
        ):
            tensor.copy_(part.view_as(tensor))


def _statistics(model: nn.Module) -> Tensor:
    buffers = [value for _, value in _statistics_of(model)]
    return torch.cat([buffer.flatten() for buffer in buffers]).cpu() if buffers else torch.zeros(0)


def _write(model: nn.Module, state: Mapping[str, Tensor], flat: Tensor) -> None:
    offset = 0
    for name, value in _statistics_of(model):
        state[name].copy_(flat[offset : offset + value.numel()].view_as(value))
        offset += value.numel()


def _statistics_of(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((name, value) for name, value in model.named_buffers() if value.is_floating_point())


def _check_finite(state: Mapping[str, Tensor]) -> None:
    floats = [value for value in state.values() if value.is_floating_point()]
    if not all(torch.isfinite(torch.stack(torch._foreach_norm(floats))).tolist()):  # noqa: SLF001
        raise NonFiniteLoss(
            "a weight became NaN or infinite; the last checkpoint is kept, lower the learning rate"
        )


def _parts(parameters: Mapping[str, Tensor], flat: Tensor) -> Iterator[tuple[str, Tensor]]:
    # Fused optimizers walk raw memory: momentum must have the strides of its parameter, channels
    # last included.
    offset = 0
    for name, parameter in parameters.items():
        yield name, flat.as_strided(parameter.shape, parameter.stride(), offset)
        offset += parameter.numel()
