"""Decides which ranks are silent for too long, and which of them the others wait for. No I/O.

``hang_monitor`` reads the heartbeats and acts on what is decided here. A rank is watched from its
first heartbeat on; one of the bundled trainer from its start. How long it may be silent is what the
job says (``GivenDeadline``), else what its own steps have taken (``LearnedDeadline``).
"""

import math
import re
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from . import json_text

PATIENCE = 10
"""How many deadlines the start of an attempt, an evaluation or a checkpoint may take."""
MARGIN = 10
"""How many times as long as the slowest before it a step may take where nobody names a deadline."""
STEP_FLOOR_SECONDS = 60.0
"""The least learned deadline: file servers and switches recover within it, and people do not wait
much longer for the news.
"""
PAUSE_FLOORS = 10
"""How many floors a pause takes at least that was announced (an evaluation, a checkpoint, a
compilation): ten minutes.
"""
START_FLOORS = 30
"""The same for the way to the first step, half an hour: to list a large data set on a cold file
server takes longer than any pause afterwards, and an attempt that is ended there gets no further
the next time. And for every silence of a program that announces none: it may be an evaluation.
"""
REMEMBERED = 1000
"""Signs of life whose distances a learned deadline looks back on; with short steps, minutes."""
FEW = 10
"""Until so many are known, pauses count too: the first steps are announced as such, and may be the
only ones from which to learn how slow steps are here.
"""
LONGEST_GAP_SECONDS = 5.0
"""Between two looks; time beyond it, in which the launcher too stood still, is not held against the
ranks.
"""
SUSPICIOUS_SHARE = 0.5
"""Ranks that are to be killed anyway show their stacks first when they have been silent for this
share of the deadline.
"""
# Python refuses to read numbers of thousands of digits, with an error.
_NUMBER = re.compile("[0-9]{1,20}")


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
    paced: bool = False
    """It says of every heartbeat whether the next one may."""


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
    numbers = [int(field) for field in fields[:2] if _NUMBER.fullmatch(field)]
    return Heartbeat(
        mark=f"{changed} {text}",
        step=numbers[0] if numbers else None,
        count=numbers[-1] if numbers else 0,
        patient=fields[2:3] == ["long"],
        paced=fields[2:3] in (["long"], ["step"]),
    )


def parse_progress(text: str, changed: str) -> Heartbeat:
    """Read the progress file of a program that leaves no heartbeat file as if it were one."""
    try:
        content = json_text.decode(text)
    except ValueError:
        content = None
    step = content.get("step") if isinstance(content, dict) else None
    number = step if isinstance(step, int) and step >= 0 else None
    return Heartbeat(mark=f"{changed} {text}", step=number, count=number or 0)


class Deadline(Protocol):
    """For how many seconds a rank may give no sign of life."""

    @property
    def of_step(self) -> float:
        """Give the limit for a rank that is at work."""

    def seconds(self, health: RankHealth) -> float:
        """Give the limit for a rank as it is now."""

    def learn(self, before: RankHealth, silence: float) -> None:
        """Note that a rank gave a sign of life after so many seconds."""


class GivenDeadline:
    """What the job says, and ``PATIENCE`` times as much for starts and announced pauses."""

    def __init__(self, seconds: float) -> None:
        self.of_step = seconds

    def seconds(self, health: RankHealth) -> float:
        """Give the limit for a rank as it is now."""
        # What is stopped is not slow, whatever it announced.
        slow = not health.stopped and (health.heartbeat is None or health.heartbeat.patient)
        return self.of_step * (PATIENCE if slow else 1)

    def learn(self, before: RankHealth, silence: float) -> None:
        """Nothing: the job knows."""


class LearnedDeadline:
    """``MARGIN`` times the slowest of the last steps on this node, but never less than a floor."""

    def __init__(self, floor: float = STEP_FLOOR_SECONDS) -> None:
        self._floor = floor
        self._steps: deque[float] = deque(maxlen=REMEMBERED)
        self._pauses: deque[float] = deque(maxlen=REMEMBERED)

    @property
    def of_step(self) -> float:
        """Give the limit for a rank that is at work."""
        few = len(self._steps) < FEW
        known = [*self._steps, *self._pauses] if few else self._steps
        return max(self._floor, MARGIN * max(known, default=0.0))

    def seconds(self, health: RankHealth) -> float:
        """Give the limit for a rank as it is now."""
        heartbeat = health.heartbeat
        if health.stopped:
            # What is stopped is not slow, whatever it announced.
            return self.of_step
        pause = max(self._floor * PAUSE_FLOORS, MARGIN * max(self._pauses, default=0.0))
        if heartbeat is None or (heartbeat.paced and heartbeat.step == 0):
            return max(self._floor * START_FLOORS, pause)
        if heartbeat.patient:
            return pause
        if heartbeat.paced:
            return self.of_step
        # It may tell of itself once in an epoch: before the second time there is nothing to go by.
        return max(self.of_step, self._floor * START_FLOORS) if self._steps else math.inf

    def learn(self, before: RankHealth, silence: float) -> None:
        """Note that a rank gave a sign of life after so many seconds."""
        heartbeat = before.heartbeat
        if heartbeat is None or (heartbeat.paced and heartbeat.count == 0):
            # What comes before the first batch does not come again.
            return
        (self._pauses if heartbeat.patient else self._steps).append(silence)


def choose_deadline(of_job: float | None, floor: float) -> Deadline | None:
    """Take what the job says, 0 for none at all, else a deadline that learns."""
    if of_job is None:
        return LearnedDeadline(floor)
    return GivenDeadline(of_job) if of_job > 0 else None


def choose_blamed(ranks: Sequence[HangEvidence]) -> HangEvidence:
    """Pick the rank to blame: stopped, then behind the others, then busy with something else than
    waiting.
    """
    # One silent rank makes all of them silent within a step, since each waits for it in the next
    # all-reduce: who was silent first tells less than who has come least far.
    return min(ranks, key=lambda rank: (not rank.stopped, rank.count, rank.waits, rank.local_rank))


class HangDetector:
    """Knows the silence of every rank of one attempt on this node."""

    def __init__(self, deadline: Deadline, *, bundled: bool) -> None:
        self._deadline = deadline
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
        self._deadline.learn(before, self._clock - before.since)
        if heartbeat.step is None and before.heartbeat is not None:
            # A program that opens the file anew for every step has just emptied it, and may be
            # stopped there: how far it has come is known all the same.
            heartbeat = replace(before.heartbeat, mark=heartbeat.mark)
        return RankHealth(heartbeat, self._clock, stopped)

    def silence(self, local: int) -> float:
        """Tell for how many seconds a rank has given no heartbeat."""
        return self._clock - self.ranks[local].since

    def hangs(self) -> bool:
        """Tell whether a rank has been silent for longer than it may."""
        return any(
            self.silence(local) >= self._deadline.seconds(health)
            for local, health in self._watched()
        )

    def may_hang(self) -> bool:
        """Tell whether a rank has been silent for so long that its stack is of interest before it
        is killed.
        """
        return any(
            self.silence(local) >= self._deadline.of_step * SUSPICIOUS_SHARE
            for local, _ in self._watched()
        )

    def _watched(self) -> list[tuple[int, RankHealth]]:
        # A foreign program that never gives a heartbeat may not know of them.
        return [
            (local, health)
            for local, health in self.ranks.items()
            if health.heartbeat is not None or self._bundled
        ]
