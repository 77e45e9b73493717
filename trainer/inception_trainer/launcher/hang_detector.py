"""Decides which ranks are silent for too long, and which of them the others wait for. No I/O.

``hang_monitor`` reads the heartbeats and acts on what is decided here. A rank is watched from its
first heartbeat on; one of the bundled trainer from its start. Where a rank says so, and while the
bundled trainer starts, it may stay silent ``PATIENCE`` times as long.
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
SUSPICIOUS_SHARE = 0.5
"""Ranks that are to be killed anyway show their stacks first when they have been silent for this
share of the deadline.
"""


@dataclass(frozen=True)
class Heartbeat:
    """What a rank's heartbeat file says."""

    mark: str = ""
    """Differs after every write, also of the same text."""
    step: int | None = None
    count: int = 0
    """Heartbeats so far: batches and steps."""
    patient: bool = False
    """The rank announced that the next one may take long."""


@dataclass(frozen=True)
class RankHealth:
    """A living rank: its last heartbeat, and since when (seconds of the detector's clock)."""

    heartbeat: Heartbeat | None
    since: float
    stopped: bool = False
    """By a signal (SIGSTOP, a debugger)."""


@dataclass(frozen=True)
class HangEvidence:
    """What speaks for a rank being the one that the others wait for."""

    local_rank: int
    stopped: bool
    """Stopped by a signal, or in a system call that cannot be interrupted."""
    count: int
    """Heartbeats so far: the rank with the fewest is the furthest behind."""
    waits: bool
    """Its stack says that it waits for its peers."""


def parse_heartbeat(text: str, changed: str) -> Heartbeat:
    """Read a heartbeat file, ``<step> <count> long`` as far as it goes; ``changed`` tells one write
    from another.
    """
    fields = text.split()
    numbers = [int(field) for field in fields[:2] if field.isascii() and field.isdigit()]
    return Heartbeat(
        mark=f"{changed} {text}",
        step=numbers[0] if numbers else None,
        count=numbers[-1] if numbers else 0,
        patient=fields[2:3] == ["long"],
    )


def parse_progress(text: str, changed: str) -> Heartbeat:
    """Read the progress file of a program that leaves no heartbeat file as if it were one."""
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    step = content.get("step") if isinstance(content, dict) else None
    number = step if isinstance(step, int) and step >= 0 else None
    return Heartbeat(mark=f"{changed} {text}", step=number, count=number or 0)


def hang_deadline(of_job: float | None, bundled: bool) -> float | None:
    """Give the seconds of silence that make a hang: the job's, else the default of the bundled
    trainer, else none.
    """
    if of_job is not None:
        return of_job
    # How long a step of somebody else's program may take is not ours to guess.
    return DEFAULT_SECONDS if bundled else None


def choose_blamed(ranks: Sequence[HangEvidence]) -> HangEvidence:
    """Pick the rank to blame: stopped, then behind the others, then busy with something else than
    waiting.
    """
    # One silent rank makes all of them silent within a step, since each waits for it in the next
    # all-reduce: who was silent first tells less than who has come least far.
    return min(ranks, key=lambda rank: (not rank.stopped, rank.count, rank.waits, rank.local_rank))


class HangDetector:
    """Knows the silence of every rank of one attempt on this node."""

    def __init__(self, deadline: float, *, bundled: bool) -> None:
        self.deadline = deadline
        self._bundled = bundled
        # A clock of its own, which does not run on while the launcher itself is stopped: after a
        # frozen node or a paused virtual machine no rank has had time to give a sign of life.
        self._clock = 0.0
        self._observed_at: float | None = None
        self.ranks: dict[int, RankHealth] = {}
        """The living ranks, by local rank."""

    def observe(
        self,
        heartbeats: Mapping[int, Heartbeat | None],
        now: float,
        stopped: Collection[int] = (),
    ) -> None:
        """Note the heartbeats of the ranks that are alive, and which of them are stopped; forget
        the others.
        """
        if self._observed_at is not None:
            self._clock += min(now - self._observed_at, LONGEST_GAP_SECONDS)
        self._observed_at = now
        self.ranks = {
            local: self._health(local, heartbeat, local in stopped)
            for local, heartbeat in heartbeats.items()
        }

    def _health(self, local: int, heartbeat: Heartbeat | None, stopped: bool) -> RankHealth:
        before = self.ranks.get(local)
        if before is None:
            return RankHealth(heartbeat, self._clock, stopped)
        mark = before.heartbeat.mark if before.heartbeat is not None else None
        if heartbeat is None or heartbeat.mark == mark:
            return replace(before, stopped=stopped)
        return RankHealth(heartbeat, self._clock, stopped)

    def silence(self, local: int) -> float:
        """Tell for how many seconds a rank has given no heartbeat."""
        return self._clock - self.ranks[local].since

    def hangs(self) -> bool:
        """Tell whether a rank has been silent for longer than it may."""
        return any(
            self.silence(local) >= self.deadline * _patience(health)
            for local, health in self._watched()
        )

    def may_hang(self) -> bool:
        """Tell whether a rank has been silent for so long that its stack is of interest before it
        is killed.
        """
        return any(
            self.silence(local) >= self.deadline * SUSPICIOUS_SHARE for local, _ in self._watched()
        )

    def _watched(self) -> list[tuple[int, RankHealth]]:
        # A foreign program that never gives a heartbeat may not know of them.
        return [
            (local, health)
            for local, health in self.ranks.items()
            if health.heartbeat is not None or self._bundled
        ]


def _patience(health: RankHealth) -> int:
    if health.stopped:
        # What is stopped is not slow, whatever it announced.
        return 1
    starts = health.heartbeat is None
    return PATIENCE if starts or (health.heartbeat and health.heartbeat.patient) else 1
