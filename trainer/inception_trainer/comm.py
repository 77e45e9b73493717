"""Communication between the ranks of a run, through torch.distributed.

With one rank every call is free and no process group exists.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")
LETTING_GO_SECONDS = 0.05
"""What gloo's threads get to let go of the last tensors before the process group ends."""
TENSORS_KEPT = 32


class Comm:
    """The process group of a run.

    Small values in host memory are reduced and gathered through gloo, tensors of the device through
    the back end of its vendor.
    """

    def __init__(self, rank: int, world_size: int, backend: str) -> None:
        self.rank = rank
        self.world_size = world_size
        # Keep the last tensors alive: gloo's threads must not free one while destroy_process_group
        # holds the GIL, which freeing needs (deadlock).
        self._recent: deque[Tensor] = deque(maxlen=TENSORS_KEPT)
        if world_size > 1:
            dist.init_process_group(backend, rank=rank, world_size=world_size)

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which writes files."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Element-wise sum over the ranks of a CPU tensor, in place."""
        if self.world_size > 1:
            self._recent.append(values)
            dist.all_reduce(values)
        return values

    def gather(self, values: Tensor) -> Tensor:
        """``[world_size, *values.shape]`` in rank order, on every rank; CPU tensors."""
        if self.world_size == 1:
            return values[None]
        parts = [torch.empty_like(values) for _ in range(self.world_size)]
        self._recent.extend((*parts, values))
        dist.all_gather(parts, values)
        return torch.stack(parts)

    def broadcast(self, values: Tensor, source: int = 0) -> None:
        """Overwrite ``values`` with those of rank ``source``; any device."""
        if self.world_size > 1:
            dist.broadcast(values, source)

    def all_reduce(self, values: Tensor) -> None:
        """Overwrite ``values`` with their sum over all ranks; any device, which may still be at it
        when this returns.
        """
        if self.world_size > 1:
            dist.all_reduce(values)

    def exchange(self, sent: Tensor, received: Tensor, partner: int) -> None:
        """Send one tensor to another rank and overwrite the other with what that one sends; any
        device, as above.
        """
        pair = [dist.P2POp(dist.isend, sent, partner), dist.P2POp(dist.irecv, received, partner)]
        for work in dist.batch_isend_irecv(pair):
            work.wait()

    @torch.no_grad()
    def broadcast_tensors(self, tensors: Sequence[Tensor], source: int = 0) -> None:
        """Overwrite every rank's ``tensors`` with those of rank ``source``; every rank must call
        it.
        """
        if self.world_size == 1:
            return
        # One collective per type instead of one per tensor: a network has hundreds of them.
        for kind in sorted({tensor.dtype for tensor in tensors}, key=str):
            same = [tensor for tensor in tensors if tensor.dtype == kind]
            flat = torch.cat([tensor.flatten() for tensor in same])
            self.broadcast(flat, source)
            parts = torch.split(flat, [tensor.numel() for tensor in same])
            for tensor, part in zip(same, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def from_first(self, produce: Callable[[], T]) -> T:
        """Rank 0 produces a small picklable value, all ranks return it; its exception is raised on
        every rank.
        """
        return self.from_rank(0, produce)

    def from_rank(self, source: int, produce: Callable[[], T]) -> T:
        """Like :meth:`from_first`, from another rank."""
        if self.world_size == 1:
            return produce()
        # Both travel in one broadcast: ranks that wait for a value that never comes would hang.
        box: list[Any] = [None, None]
        if self.rank == source:
            try:
                box[0] = produce()
            except Exception as error:
                box[1] = error
        dist.broadcast_object_list(box, source, device=torch.device("cpu"))
        if box[1] is not None:
            raise box[1]
        value: T = box[0]
        return value

    def barrier(self) -> None:
        """Wait until every rank is here."""
        # dist.barrier() would go through the device's back end and synchronise the device.
        self.sum(torch.zeros(1))

    def close(self) -> None:
        """Leave the process group."""
        if self.world_size > 1 and dist.is_initialized():
            time.sleep(LETTING_GO_SECONDS)
            dist.destroy_process_group()
            self._recent.clear()


class Agreement:
    """Requests of single ranks that all ranks act on at the same step boundary.

    ``propose`` starts an all-reduce of this rank's requests, ``decided`` reads the one started
    before: it travels while a step computes, so agreeing costs no waiting, and a request takes
    effect one boundary later.
    """

    def __init__(self, comm: Comm, names: tuple[str, ...]) -> None:
        self._comm = comm
        self._names = names
        self._flags = torch.zeros(len(names), dtype=torch.int32)
        self._work: Any = None

    def propose(self, requests: dict[str, bool]) -> None:
        """Send this rank's requests; every rank must call this at the same boundary."""
        self._flags = torch.tensor([requests[name] for name in self._names], dtype=torch.int32)
        if self._comm.world_size > 1:
            self._work = dist.all_reduce(self._flags, dist.ReduceOp.MAX, async_op=True)

    def decided(self) -> frozenset[str]:
        """The names that any rank requested at the last proposal; nothing before the first."""
        if self._work is not None:
            self._work.wait()
            self._work = None
        flags = zip(self._names, self._flags.tolist(), strict=True)
        names = frozenset(name for name, flag in flags if flag)
        # Read once: a request that was acted on must not be found again.
        self._flags.zero_()
        return names
