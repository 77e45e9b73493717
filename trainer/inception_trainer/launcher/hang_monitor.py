"""Watches the ranks of one attempt: reads their heartbeats, has them show their stacks, says which
one hangs.

``hang_detector`` decides, ``stacks`` asks for the stacks; ``main`` calls ``HangMonitor.turn`` in
every turn and ends the attempt when that gives an outcome.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum, auto
from pathlib import Path

from . import rank, stacks
from .exitcodes import ExitCode
from .hang_detector import (
    Deadline,
    HangDetector,
    HangEvidence,
    Heartbeat,
    RankHealth,
    choose_blamed,
    parse_heartbeat,
    parse_progress,
)
from .outcome import Failure, Outcome, Result
from .stacks import Frame
from .wire import Request

LOOK_SECONDS = 0.2
"""Between two looks at the heartbeats."""
SHOW_SECONDS = 2.0
"""How long ranks may take to show their stacks."""
LINGER_SECONDS = 3.0
"""How long hanging ranks are left alone: their end would end those of other nodes before they show
their stacks.
"""
# Letters of /proc/<pid>/stat. A signal cannot reach a process in D (it waits for a device or a file
# server in the kernel), and one in T acts on nothing but SIGKILL and SIGCONT.
_GONE = ("", "Z", "X")
_STOPPED_BY_SIGNAL = ("T", "t")
_CANNOT_ANSWER = (*_STOPPED_BY_SIGNAL, "D")
_FRAMES_TOLD = 12
_READ_BYTES = 1 << 16
_NEVER_SPOKE = sys.maxsize


class _Phase(Enum):
    """What the monitor is doing; it goes downwards only."""

    WATCHING = auto()
    SHOWING_HANG = auto()
    """Ranks hang and write their stacks."""
    SHOWING_LAST = auto()
    """Ranks are about to be killed for another reason and write their stacks first."""
    HANGING = auto()
    """The outcome is known; ranks of other nodes may still be writing theirs."""
    DONE = auto()


@dataclass(frozen=True)
class Finding:
    """What is known about a rank that is asked for its stacks."""

    local_rank: int
    rank: int
    pid: int
    state: str
    """The kernel's letter for what the process does."""
    health: RankHealth
    silence: float
    stack: tuple[Frame, ...] = ()
    text: str = ""
    """All that it has shown, of all threads."""

    @property
    def stopped(self) -> bool:
        """Tell whether it cannot show its stacks."""
        return self.state in _CANNOT_ANSWER

    @property
    def progress(self) -> str:
        """Say how far it has come."""
        heartbeat = self.health.heartbeat
        if heartbeat is None or not heartbeat.step:
            return "before its first step"
        return f"after step {heartbeat.step}"


class HangMonitor:
    """Watches, then asks for the stacks, then waits for other nodes, then gives the outcome."""

    def __init__(self, request: Request, deadline: Deadline) -> None:
        self._request = request
        self._folder = Path(request.folder)
        self._bundled = not request.program
        self._detector = HangDetector(deadline, bundled=self._bundled)
        self._phase = _Phase.WATCHING
        self._stop_requested = False
        self._looked_at = float("-inf")
        self._asked_at = float("-inf")
        self._pids: dict[int, int] = {}
        """Living ranks at the last look; those that are asked for stacks once they are."""
        self._texts: dict[int, str] = {}
        self._outcome: Outcome | None = None
        self._blamed: int | None = None
        self._blamed_waits = False

    @property
    def verdict(self) -> Outcome | None:
        """Give the outcome as soon as the ranks are known to hang; ``turn`` gives it when it is
        time to act on it.
        """
        if self._outcome is None or not self._blamed_waits:
            return self._outcome
        # Ranks that only wait for peers have no part in it. The operator takes the earliest failure
        # of all nodes for the cause, so theirs is dated to the present: a rank of another node that
        # hangs somewhere else began before.
        present = time.time()
        failures = tuple(replace(failure, time=present) for failure in self._outcome.failures)
        return replace(self._outcome, failures=failures)

    @property
    def hanging(self) -> int | None:
        """Give the local rank that hangs; None as long as none does, or where all wait for ranks of
        other nodes.
        """
        return None if self._blamed_waits else self._blamed

    @property
    def step(self) -> int:
        """Give the furthest step that the ranks of this node have told, 0 before the first."""
        heartbeats = [health.heartbeat for health in self._detector.ranks.values()]
        steps = [heartbeat.step or 0 for heartbeat in heartbeats if heartbeat is not None]
        return max(steps, default=0)

    @property
    def showing(self) -> bool:
        """Tell whether the ranks are just writing their stacks, and must not be killed yet."""
        return self._phase in (_Phase.SHOWING_HANG, _Phase.SHOWING_LAST)

    def turn(self, now: float) -> Outcome | None:
        """Go on; gives the outcome once when the attempt is to end as a hang."""
        match self._phase:
            case _Phase.WATCHING:
                self._watch(now)
            case _Phase.SHOWING_HANG | _Phase.SHOWING_LAST:
                self._collect_stacks(now)
            case _Phase.HANGING if now - self._asked_at >= LINGER_SECONDS:
                self._phase = _Phase.DONE
                return self.verdict
        return None

    def let_stop(self) -> None:
        """Watch no longer for hangs: the ranks have been asked to save and stop, which takes its
        time and has a limit of its own.
        """
        self._stop_requested = True

    def before_kill(self, now: float) -> None:
        """Have ranks that seem to hang show their stacks before they are killed."""
        if self._phase is not _Phase.WATCHING:
            return
        self._look(now)
        if self._detector.may_hang():
            self._ask_for_stacks(now, _Phase.SHOWING_LAST)

    def _watch(self, now: float) -> None:
        if now - self._looked_at < LOOK_SECONDS:
            return
        self._look(now)
        if self._detector.hangs() and not self._stop_requested:
            self._ask_for_stacks(now, _Phase.SHOWING_HANG)

    def _look(self, now: float) -> None:
        self._looked_at = now
        self._pids = living(self._request)
        stopped = {
            local for local, pid in self._pids.items() if stacks.state_of(pid) in _STOPPED_BY_SIGNAL
        }
        heartbeats = {local: self._heartbeat(local) for local in self._pids}
        self._detector.observe(heartbeats, now, stopped)

    def _heartbeat(self, local: int) -> Heartbeat | None:
        heartbeat = _read(rank.heartbeat_path(self._folder, local))
        if heartbeat is None and local == 0 and not self._bundled:
            # A program that tells only its progress is watched by that.
            return _read(self._request.progress_file, parse_progress)
        return heartbeat

    def _ask_for_stacks(self, now: float, phase: _Phase) -> None:
        self._phase = phase
        self._asked_at = now
        for pid in self._pids.values():
            stacks.ask(pid)

    def _collect_stacks(self, now: float) -> None:
        texts = {local: stacks.read(self._folder, local) for local in self._pids}
        # faulthandler writes frame by frame: a text is complete when it grows no more.
        growing = texts != self._texts
        self._texts = texts
        missing = any(not texts[local] and _can_show(pid) for local, pid in self._pids.items())
        if (missing or growing) and now - self._asked_at < SHOW_SECONDS:
            return
        findings = [self._finding(local) for local in sorted(self._pids)]
        _print(self._request.assignment.attempt, findings)
        if self._phase is _Phase.SHOWING_HANG:
            self._blame_one_of(findings)
            self._phase = _Phase.HANGING
        else:
            self._phase = _Phase.DONE

    def _finding(self, local: int) -> Finding:
        pid = self._pids[local]
        text = self._texts[local]
        return Finding(
            local_rank=local,
            rank=self._request.global_rank(local),
            pid=pid,
            state=stacks.state_of(pid),
            health=self._detector.ranks[local],
            silence=self._detector.silence(local),
            stack=stacks.of_program(text),
            text=text,
        )

    def _blame_one_of(self, findings: list[Finding]) -> None:
        blamed = choose_blamed([self._evidence(finding) for finding in findings])
        finding = next(finding for finding in findings if finding.local_rank == blamed.local_rank)
        self._blamed = blamed.local_rank
        self._blamed_waits = blamed.waits
        began = time.time() - finding.silence
        failure = Failure(ExitCode.HANG, began, finding.rank, "Hang", describe(finding))
        attempt = self._request.assignment.attempt
        self._outcome = Outcome(attempt, Result.FAILED, (failure,))

    def _evidence(self, finding: Finding) -> HangEvidence:
        heartbeat = finding.health.heartbeat
        # The bundled trainer always gives heartbeats, so a rank without one is the furthest behind;
        # in a program of others perhaps only one rank gives any, and silence means nothing.
        without = -1 if self._bundled else _NEVER_SPOKE
        return HangEvidence(
            local_rank=finding.local_rank,
            stopped=finding.stopped,
            count=without if heartbeat is None else heartbeat.count,
            waits=not finding.stopped and stacks.waits_for_peers(finding.stack),
        )


def living(request: Request) -> dict[int, int]:
    """Give the process numbers of the ranks that have not ended, by local rank."""
    folder = Path(request.folder)
    # A rank with a note has finished; its process may take a while to unload torch.
    return {
        local: pid
        for local, pid in rank.processes(folder).items()
        if stacks.state_of(pid) not in _GONE and rank.read_note(folder, local) is None
    }


def begun(request: Request) -> bool:
    """Tell whether a rank of this node may have something to save.

    One of the bundled trainer has that from its first heartbeat on, one of others from its start.
    """
    folder = Path(request.folder)
    ranks = rank.processes(folder)
    if request.program:
        return bool(ranks)
    heartbeats = (_read(rank.heartbeat_path(folder, local)) for local in ranks)
    return any(heartbeat is not None and heartbeat.count > 0 for heartbeat in heartbeats)


def describe(finding: Finding) -> str:
    """Say in one line what hangs and where, then show the inner frames."""
    head = f"no step for {finding.silence:.0f} s: rank {finding.rank} "
    if finding.state == "D":
        return f"{head}is in a system call that does not return {finding.progress}"
    if finding.stopped:
        return f"{head}is stopped by a signal {finding.progress}"
    if not finding.stack:
        return f"{head}hangs {finding.progress} and shows no stack"
    verb = "waits for its peers" if stacks.waits_for_peers(finding.stack) else "hangs"
    rest = "".join(f"\n  {frame}" for frame in finding.stack[1:_FRAMES_TOLD])
    return f"{head}{verb} {finding.progress} in {finding.stack[0]}{rest}"


def _can_show(pid: int) -> bool:
    state = stacks.state_of(pid)
    return state not in _GONE and state not in _CANNOT_ANSWER


def _read(
    path: Path, understand: Callable[[str, str], Heartbeat] = parse_heartbeat
) -> Heartbeat | None:
    try:
        with path.open("rb") as file:
            changed = os.fstat(file.fileno()).st_mtime_ns
            return understand(file.read(_READ_BYTES).decode("utf-8", "replace"), str(changed))
    except OSError:
        return None


def _print(attempt: int, findings: Iterable[Finding]) -> None:
    for finding in findings:
        shown = finding.text.rstrip() or "(it cannot show its stacks)"
        process = f"process {finding.pid} in state {finding.state or 'gone'}"
        silence = f"no sign of life for {finding.silence:.0f} s, {finding.progress}"
        heading = f"attempt {attempt}, rank {finding.rank}, {process}: {silence}"
        print(f"inception-launcher: stacks of {heading}\n{shown}", file=sys.stderr, flush=True)
