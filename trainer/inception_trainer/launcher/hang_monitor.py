"""Watches over the ranks of one attempt: reads their heartbeats, has them show their stacks, says
which one hangs.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from . import rank, stacks
from .exitcodes import ExitCode
from .hang_detector import (
    HangDetector,
    HangEvidence,
    HeartbeatAge,
    RankHealth,
    of_heartbeat,
    of_progress,
    suspect,
)
from .outcome import Failure, Outcome, Result
from .stacks import Frame
from .wire import Request

LOOK_SECONDS = 0.2
SHOW_SECONDS = 2.0
"""How long ranks may take to show their stacks."""
HOLD_SECONDS = 3.0
"""How long hanging ranks are left alone: their end would end those of other nodes before they show
their stacks.
"""
_GONE = ("", "Z", "X")
_STOPPED_BY_SIGNAL = ("T", "t")
_STOPPED = (*_STOPPED_BY_SIGNAL, "D")
_FRAMES_TOLD = 12
_READ_BYTES = 1 << 16
_NEVER_SPOKE = sys.maxsize


@dataclass(frozen=True)
class Finding:
    """What is known about a rank that is asked for its stacks."""

    local_rank: int
    rank: int
    pid: int
    state: str
    life: RankHealth
    silence: float
    stack: tuple[Frame, ...] = ()
    text: str = ""

    @property
    def stopped(self) -> bool:
        """Tell whether it cannot show its stacks."""
        return self.state in _STOPPED

    @property
    def place(self) -> str:
        """Say how far it is."""
        pulse = self.life.pulse
        return (
            "before its first step"
            if pulse is None or not pulse.step
            else f"after step {pulse.step}"
        )


class HangMonitor:
    """Watching, then asking for the stacks, then holding still, then the verdict."""

    def __init__(self, request: Request, deadline: float) -> None:
        self._request, self._folder = request, Path(request.folder)
        self._bundled = not request.program
        self._dog = HangDetector(deadline, bundled=self._bundled)
        self._looked = self._asked_at = float("-inf")
        self._asked: dict[int, int] = {}
        self._texts: dict[int, str] = {}
        self._showing = self._hangs = self._told = self._stopping = False
        self._verdict: Outcome | None = None
        self._waits = False

    @property
    def verdict(self) -> Outcome | None:
        """Give the outcome as soon as the ranks are known to hang; `turn` gives it when it is time
        to act on it.
        """
        if self._verdict is None or not self._waits:
            return self._verdict
        # Ranks that only wait have no part in it: one that began to be silent somewhere else comes
        # before the present.
        failures = tuple(replace(failure, time=time.time()) for failure in self._verdict.failures)
        return replace(self._verdict, failures=failures)

    @property
    def step(self) -> int:
        """Give the furthest step that the ranks of this node have told, 0 before the first."""
        pulses = (life.pulse for life in self._dog.lives.values())
        return max((pulse.step or 0 for pulse in pulses if pulse is not None), default=0)

    @property
    def showing(self) -> bool:
        """Tell whether the ranks are just writing their stacks, and must not be killed yet."""
        return self._showing

    def turn(self, now: float) -> Outcome | None:
        """Go on; gives the outcome once when the attempt is to end as a hang."""
        if self._showing:
            self._collect(now)
        elif not self._asked and now - self._looked >= LOOK_SECONDS:
            self._look(now)
            if self._dog.hangs() and not self._stopping:
                self._hangs = True
                self._ask(now)
        elif self._verdict is not None and not self._told and now - self._asked_at >= HOLD_SECONDS:
            self._told = True
            return self.verdict
        return None

    def let_stop(self) -> None:
        """The ranks have been asked to save and stop, which takes its time and has a limit of its
        own.
        """
        self._stopping = True

    def part(self, now: float) -> None:
        """The ranks are about to be killed: those that seem to hang show their stacks first."""
        if not self._asked:
            self._look(now)
            if self._dog.may_hang():
                self._ask(now)

    def _look(self, now: float) -> None:
        self._looked = now
        states = {
            local: (pid, stacks.state_of(pid))
            for local, pid in rank.processes(self._folder).items()
        }
        ended = {local for local in states if rank.read_note(self._folder, local) is not None}
        living = {
            local: pid
            for local, (pid, state) in states.items()
            if state not in _GONE and local not in ended
        }
        stopped = {local for local in living if states[local][1] in _STOPPED_BY_SIGNAL}
        self._dog.look({local: self._pulse(local) for local in living}, now, stopped)
        self._pids = living

    def _pulse(self, local: int) -> HeartbeatAge | None:
        pulse = _read(rank.heartbeat_path(self._folder, local))
        if pulse is None and local == 0 and not self._bundled:
            # A program that tells only its progress is watched by that.
            return _read(self._request.progress_file, of_progress)
        return pulse

    def _ask(self, now: float) -> None:
        self._showing, self._asked_at, self._asked = True, now, dict(self._pids)
        for pid in self._asked.values():
            stacks.ask(pid)

    def _collect(self, now: float) -> None:
        texts = {local: stacks.read(self._folder, local) for local in self._asked}
        steady, self._texts = texts == self._texts, texts
        missing = [
            local for local, pid in self._asked.items() if not texts[local] and _can_show(pid)
        ]
        if (missing or not steady) and now - self._asked_at < SHOW_SECONDS:
            return
        self._showing = False
        findings = [self._finding(local) for local in sorted(self._asked)]
        _print(self._request.assignment.attempt, findings)
        if self._hangs and findings:
            self._verdict = self._judge(findings)

    def _finding(self, local: int) -> Finding:
        assignment, pid, text = self._request.assignment, self._asked[local], self._texts[local]
        number = assignment.node_rank * assignment.nproc_per_node + local
        life, state = self._dog.lives[local], stacks.state_of(pid)
        return Finding(
            local, number, pid, state, life, self._dog.silence(local), stacks.of_program(text), text
        )

    def _judge(self, findings: list[Finding]) -> Outcome:
        chosen = suspect([self._suspicion(finding) for finding in findings])
        finding = next(finding for finding in findings if finding.local_rank == chosen.local_rank)
        self._waits = chosen.waits
        began = time.time() - finding.silence
        failure = Failure(ExitCode.HANG, began, finding.rank, "Hang", describe(finding))
        return Outcome(self._request.assignment.attempt, Result.FAILED, (failure,))

    def _suspicion(self, finding: Finding) -> HangEvidence:
        pulse = finding.life.pulse
        unknown = -1 if self._bundled else _NEVER_SPOKE
        count = unknown if pulse is None else pulse.count
        waits = not finding.stopped and stacks.waits_for_peers(finding.stack)
        return HangEvidence(finding.local_rank, finding.stopped, count, waits)


def begun(request: Request) -> bool:
    """Tell whether a rank of this node may have something to save: a foreign one from its start on."""
    folder = Path(request.folder)
    ranks = rank.processes(folder)
    if request.program:
        return bool(ranks)
    pulses = (_read(rank.heartbeat_path(folder, local)) for local in ranks)
    return any(pulse is not None and pulse.count > 0 for pulse in pulses)


def describe(finding: Finding) -> str:
    """Say in one line what hangs and where, then show the inner frames."""
    head = f"no step for {finding.silence:.0f} s: rank {finding.rank} "
    if finding.stopped:
        kind = (
            "in a system call that does not return"
            if finding.state == "D"
            else "stopped by a signal"
        )
        return f"{head}is {kind} {finding.place}"
    if not finding.stack:
        return f"{head}hangs {finding.place} and shows no stack"
    verb = "waits for its peers" if stacks.waits_for_peers(finding.stack) else "hangs"
    rest = "".join(f"\n  {frame}" for frame in finding.stack[1:_FRAMES_TOLD])
    return f"{head}{verb} {finding.place} in {finding.stack[0]}{rest}"


def _can_show(pid: int) -> bool:
    state = stacks.state_of(pid)
    return state not in _GONE and state not in _STOPPED


def _read(
    path: Path, understand: Callable[[str, str], HeartbeatAge] = of_heartbeat
) -> HeartbeatAge | None:
    try:
        with path.open("rb") as file:
            changed = os.fstat(file.fileno()).st_mtime_ns
            return understand(file.read(_READ_BYTES).decode("utf-8", "replace"), str(changed))
    except OSError:
        return None


def _print(attempt: int, findings: Iterable[Finding]) -> None:
    for finding in findings:
        shown = finding.text.rstrip() or "(it cannot show its stacks)"
        heading = f"attempt {attempt}, rank {finding.rank}, process {finding.pid} in state {finding.state or 'gone'}"
        silence = f"no sign of life for {finding.silence:.0f} s, {finding.place}"
        print(
            f"inception-launcher: stacks of {heading}: {silence}\n{shown}",
            file=sys.stderr,
            flush=True,
        )
