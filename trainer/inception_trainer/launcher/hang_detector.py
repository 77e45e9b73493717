"""The watchdog's decisions: which ranks are silent for too long, and which of them the others wait
for. No I/O.

A rank is watched from its first sign of life on; one of the bundled trainer from its start. Where a
rank says so, and while the bundled trainer starts, it may stay silent `PATIENCE` times as long.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

PATIENCE = 10
"""How many deadlines the start of an attempt, an evaluation or a checkpoint may take."""
LONGEST_GAP_SECONDS = 5.0
"""Between two looks; time beyond it, in which the launcher too stood still, is not held against the
ranks.
"""
DEFAULT_SECONDS = 1800.0
"""The deadline of the bundled trainer unless the job names one."""
LEAVING_SHARE = 0.5
"""Ranks that are to be killed anyway show their stacks first when they have been silent for this
share of it.
"""


@dataclass(frozen=True)
class HeartbeatAge:
    """What a rank's heartbeat file says; ``mark`` changes with every sign of life."""

    mark: str = ""
    step: int | None = None
    count: int = 0
    patient: bool = False


@dataclass(frozen=True)
class RankHealth:
    """A living rank as the watchdog knows it; ``since`` is when its last sign of life was noticed."""

    pulse: HeartbeatAge | None
    since: float
    stopped: bool = False


@dataclass(frozen=True)
class HangEvidence:
    """What speaks for a rank being the one that the others wait for."""

    local_rank: int
    stopped: bool
    """Stopped by a signal, or in a system call that cannot be interrupted."""
    count: int
    """Signs of life so far: the fewest are the last in line."""
    waits: bool
    """Its stack says that it waits for its peers."""


def of_heartbeat(text: str, changed: str) -> HeartbeatAge:
    """Read a heartbeat file, ``<step> <count> long`` as far as it goes; ``changed`` tells one write
    from another.
    """
    fields = text.split()
    numbers = [int(field) for field in fields[:2] if field.isascii() and field.isdigit()]
    step = numbers[0] if numbers else None
    return HeartbeatAge(
        f"{changed} {text}", step, numbers[-1] if numbers else 0, fields[2:3] == ["long"]
    )


def of_progress(text: str, changed: str) -> HeartbeatAge:
    """Read the progress file of a program that leaves no other sign of life."""
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    step = content.get("step") if isinstance(content, dict) else None
    number = step if isinstance(step, int) and step >= 0 else None
    return HeartbeatAge(f"{changed} {text}", number, number or 0)


def deadline_of(wanted: float | None, bundled: bool) -> float | None:
    """Give the deadline of an attempt: the job's, else the default of the bundled trainer, else
    none.
    """
    if wanted is not None:
        return wanted
    return DEFAULT_SECONDS if bundled else None


def suspect(suspicions: Sequence[HangEvidence]) -> HangEvidence:
    """Pick the rank to blame: stopped, then behind the others, then busy with something else than
    waiting.
    """
    return min(suspicions, key=lambda one: (not one.stopped, one.count, one.waits, one.local_rank))


class HangDetector:
    """Watches the ranks of one attempt on this node."""

    def __init__(self, deadline: float, *, bundled: bool) -> None:
        self.deadline = deadline
        self._bundled = bundled
        self._clock = 0.0
        self._looked: float | None = None
        self.lives: dict[int, RankHealth] = {}

    def look(
        self, pulses: Mapping[int, HeartbeatAge | None], now: float, stopped: Collection[int] = ()
    ) -> None:
        """Note the signs of life of the ranks that are alive, and which of them are stopped; forget
        the others.
        """
        gap = 0.0 if self._looked is None else now - self._looked
        self._clock += min(gap, LONGEST_GAP_SECONDS)
        self._looked = now
        self.lives = {
            local: self._life(local, pulse, local in stopped) for local, pulse in pulses.items()
        }

    def _life(self, local: int, pulse: HeartbeatAge | None, stopped: bool) -> RankHealth:
        known = self.lives.get(local)
        if known is not None and (
            pulse is None or (known.pulse is not None and pulse.mark == known.pulse.mark)
        ):
            return replace(known, stopped=stopped)
        return RankHealth(pulse, self._clock, stopped)

    def silence(self, local: int) -> float:
        """Tell for how many seconds a rank has given no sign of life."""
        return self._clock - self.lives[local].since

    def hangs(self) -> bool:
        """Tell whether a rank has been silent for longer than it may."""
        return any(
            self.silence(local) >= self.deadline * _patience(life)
            for local, life in self._watched()
        )

    def may_hang(self) -> bool:
        """Tell whether a rank has been silent for so long that its stack is of interest before it
        is killed.
        """
        return any(
            self.silence(local) >= self.deadline * LEAVING_SHARE for local, _ in self._watched()
        )

    def _watched(self) -> list[tuple[int, RankHealth]]:
        return [
            (local, life)
            for local, life in self.lives.items()
            if life.pulse is not None or self._bundled
        ]


def _patience(life: RankHealth) -> int:
    # What is stopped is not slow.
    slow = life.pulse is None or life.pulse.patient
    return PATIENCE if slow and not life.stopped else 1
