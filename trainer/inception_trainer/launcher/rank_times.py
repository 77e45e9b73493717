"""Where the steps of each rank went, as far as it tells: the last numbers of its heartbeat file.

In synchronous training every rank takes as long for a step as the slowest of them. What tells who
that is, is the *own time*: how long a rank takes until its gradients are ready, before it waits for
those of the others. All are sums since the rank began, so that whoever reads them twice has the
mean of the steps in between.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FIRST_FIELD = 3
"""After the steps done, the signs of life and the pace."""
_READ_BYTES = 1 << 10
_PREFIX = "heartbeat-"


@dataclass(frozen=True)
class RankTimes:
    """Sums over the steps of one rank; ``rank`` is the global one."""

    rank: int
    steps: int
    """How many steps were timed."""
    step_seconds: float
    own_seconds: float
    """Until its gradients were ready."""
    wait_seconds: float
    """From there until those of all ranks had come."""

    def to_dict(self) -> dict[str, Any]:
        """Make the JSON object of the report."""
        return {
            "rank": self.rank,
            "steps": self.steps,
            "stepSeconds": self.step_seconds,
            "ownSeconds": self.own_seconds,
            "waitSeconds": self.wait_seconds,
        }


def parse(text: str, global_rank: int) -> RankTimes | None:
    """Read a heartbeat file; ``None`` where it says nothing of times."""
    fields = text.split()[_FIRST_FIELD:]
    if len(fields) < 4 or not (fields[0].isascii() and fields[0].isdigit()):
        return None
    try:
        seconds = [float(field) for field in fields[1:4]]
    except ValueError:
        return None
    if not all(math.isfinite(value) and value >= 0 for value in seconds):
        return None
    return RankTimes(global_rank, int(fields[0]), *seconds)


def read(folder: Path, first_rank: int) -> tuple[RankTimes, ...]:
    """Read what the ranks of this node tell; ``first_rank`` is the global one of local rank 0."""
    return tuple(sorted(_read(folder, first_rank), key=lambda times: times.rank))


def _read(folder: Path, first_rank: int) -> Iterator[RankTimes]:
    for path in folder.glob(f"{_PREFIX}*"):
        local = path.name.removeprefix(_PREFIX)
        if not local.isdigit():
            continue
        try:
            with path.open(encoding="ascii", errors="replace") as file:
                text = file.read(_READ_BYTES)
        except OSError:
            # It goes with its attempt.
            continue
        times = parse(text, first_rank + int(local))
        if times is not None:
            yield times
