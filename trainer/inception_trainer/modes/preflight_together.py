"""What mode Preflight tries with all ranks at once: clocks, sums over all of them, and messages
between pairs.

The time of a sum is that of the slowest rank on every rank. Which one that is shows in the
pairs: each rank meets several others, and its best time is its own.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from inception_trainer.comm import Comm

from .common import Run
from .preflight_local import Finding, wait_for

CLOCK_LIMIT = 1.0
"""Seconds. The operator finds the root cause of a failure by when the pods say that they failed."""
CLOCK_ROUNDS = 7
SMALLEST_MESSAGE = 4096
GROWTH = 16
REPEATS = 4
"""Of each message; the best counts, so the first may set up the connection."""
PARTNERS = 3
PATTERN = 127
TURNS = 8
"""Values are below 135, so that sums of any number of ranks are exact in single precision."""
_NETWORK = (
    "Look for errors of the network device and of the links between devices on this node, and keep "
    "it out (`kubectl cordon`) until it is repaired."
)


def clock(run: Run) -> Finding:
    """Compare the clocks of all ranks at one moment."""
    offsets = []
    for _ in range(CLOCK_ROUNDS):
        run.comm.barrier()
        now = torch.tensor([time.time()], dtype=torch.float64)
        times = run.comm.gather(now).flatten().tolist()
        offsets.append(times[run.comm.rank] - statistics.median_low(times))
    # One round may be late on a busy node; the clock itself is as wrong in all of them.
    offset = statistics.median(offsets)
    figures = {"offsetSeconds": offset}
    if abs(offset) <= CLOCK_LIMIT:
        return Finding("clock", figures)
    problem = (
        f"the clock is {abs(offset):.1f} s {'ahead of' if offset > 0 else 'behind'} the others"
    )
    return Finding("clock", figures, problem, "Set up NTP (chrony, systemd-timesyncd) on the node.")


def all_reduce(run: Run) -> Finding:
    """Sums over all ranks, of growing messages; the speed is that of the bus (as of nccl-tests)."""
    comm = run.comm
    if comm.world_size == 1:
        return Finding("allReduce", skipped="there is one rank")
    steps = []
    wrong = 0
    turns = sum(rank % TURNS for rank in range(comm.world_size))
    for size in sizes(run.config.preflight.exchange_mebibytes << 20):
        pattern = _pattern(size, run)
        values = torch.empty_like(pattern)

        seconds = _best(
            run,
            partial(torch.add, pattern, comm.rank % TURNS, out=values),
            partial(comm.all_reduce, values),
            values,
        )
        wrong += not _is_equal(values, pattern * comm.world_size + turns)
        share = 2 * (comm.world_size - 1) / comm.world_size
        steps.append([size, seconds, share * size / max(seconds, 1e-9) / 1e9])
    figures = {"busGigabytesPerSecond": steps[-1][2], "sizes": steps}
    if not wrong:
        return Finding("allReduce", figures)
    problem = f"{wrong} of {len(steps)} sums over all ranks came out wrong"
    return Finding("allReduce", figures, problem, _NETWORK)


def sizes(largest: int) -> list[int]:
    """Bytes of the messages, up to the largest."""
    found = []
    size = SMALLEST_MESSAGE
    while size < largest:
        found.append(size)
        size *= GROWTH
    return [*found, largest]


def link(run: Run) -> Finding:
    """Messages to and from one other rank at a time, in another pod where there is one."""
    comm = run.comm
    if comm.world_size == 1:
        return Finding("link", skipped="there is one rank")
    size = run.config.preflight.exchange_mebibytes << 20
    pattern = _pattern(size, run)
    sent, received = pattern + comm.rank % TURNS, torch.empty_like(pattern)
    seconds: list[float] = []
    wrong = []
    for number in range(rounds(comm.world_size, run.settings.local_world_size)):
        comm.barrier()
        partner = partner_of(comm, run.settings.local_world_size, number)
        if partner is None:
            continue
        exchange = partial(comm.exchange, sent, received, partner)
        seconds.append(_best(run, received.zero_, exchange, received, together=False))
        if not _is_equal(received, pattern + partner % TURNS):
            wrong.append(partner)
    comm.barrier()
    if not seconds:
        return Finding("link", skipped="there was no partner left")
    best = min(seconds)
    figures = {"gigabytesPerSecond": size / max(best, 1e-9) / 1e9, "seconds": best}
    if not wrong:
        return Finding("link", figures)
    ranks = ", ".join(map(str, wrong))
    return Finding("link", figures, f"messages of rank {ranks} came out wrong", _NETWORK)


def rounds(world: int, local: int) -> int:
    """How often each rank meets another one: at most PARTNERS times, never the same one twice."""
    count = _places(world, local)[0]
    return min(PARTNERS, count if count % 2 else count - 1)


def partner_of(comm: Comm, local: int, number: int) -> int | None:
    """Whom this rank meets in a round; None in a round in which it is left over.

    Of several pods it is the rank of the same number in another pod: within one, messages would not
    go through the network.
    """
    count, width = _places(comm.world_size, local)
    met = _opponent(comm.rank // width, count, number)
    return None if met is None else met * width + comm.rank % width


def _places(world: int, local: int) -> tuple[int, int]:
    """How many places meet one another, and how many ranks each of them has."""
    if local < world and world % local == 0:
        return world // local, local
    return world, 1


def _opponent(place: int, count: int, number: int) -> int | None:
    """The circle method of tournaments: in ``count - 1`` rounds everybody meets everybody once."""
    seats = count + count % 2
    last = seats - 1
    if place == last:
        # Whom the others leave over: 2 x = number (mod last), and last is odd.
        met = number * (seats // 2) % last
    else:
        met = (number - place) % last
        met = last if met == place else met
    return met if met < count else None


def _pattern(size: int, run: Run) -> Tensor:
    """Bytes of single precision in which every place is like few others."""
    numbers = torch.arange(size // 4, device=run.accelerator.device)
    return (numbers % PATTERN).to(torch.float32)


def _best(
    run: Run,
    prepare: Callable[[], object],
    send: Callable[[], object],
    values: Tensor,
    *,
    together: bool = True,
) -> float:
    """The least seconds of several tries."""
    seconds = []
    for _ in range(REPEATS):
        prepare()
        wait_for(values, run.accelerator)
        if together:
            run.comm.barrier()
        began = time.perf_counter()
        send()
        wait_for(values, run.accelerator)
        seconds.append(time.perf_counter() - began)
        run.heartbeat.beat()
    return min(seconds)


def _is_equal(values: Tensor, expected: Tensor) -> bool:
    return bool((values == expected).all())
