"""The launcher's state machine: ``step(machine, event, now)`` gives the next machine and commands.

Pure: no I/O, no clock. ``main`` turns signals, files and messages into events and carries out the
commands. The ranks of one attempt go through the states of ``Ranks``; the next attempt starts only
after ``Emptied`` has said that no process of the one before is left. The report inside the machine
is what the operator sees.
"""

import dataclasses
from dataclasses import dataclass
from enum import Enum, auto

from .assignment import Assignment, is_new
from .contract import refusal
from .exitcodes import ExitCode, Reason, signal_name
from .outcome import Outcome, Result, judge
from .report import Report, State

SERVER_TRIES = 3
"""After so many deaths in a row the fork server is given up."""
BEGIN_SECONDS = 2.0
"""How long ranks that have nothing to save yet are given to notice a request to stop: they may be
waiting for peers.
"""
STOPPED_EARLY = "stopped before the ranks had begun"
STOPPED_LATE = "the ranks did not stop in time and were killed"


@dataclass(frozen=True)
class ServerReady:
    """The fork server has imported torch, and takes orders at once or as soon as it is warm."""


@dataclass(frozen=True)
class ServerWarm:
    """The fork server has imported everything."""


@dataclass(frozen=True)
class ServerDied:
    """The fork server ended; ``broken`` says why it could not start, where trying again is vain."""

    exit_code: int
    broken: str | None = None
    oom_killed: bool = False


@dataclass(frozen=True)
class Assigned:
    """The assignment file has changed to this."""

    assignment: Assignment


@dataclass(frozen=True)
class Ended:
    """The ranks of an attempt have ended, or are about to be killed for one that has."""

    outcome: Outcome


@dataclass(frozen=True)
class Emptied:
    """No process of the attempt is left."""


@dataclass(frozen=True)
class Terminate:
    """SIGTERM reached the launcher."""


@dataclass(frozen=True)
class Tick:
    """Time has passed; ``asked``: somebody has read /status; ``begun``: a rank may have something
    to save.
    """

    asked: bool
    begun: bool = True


Event = ServerReady | ServerWarm | ServerDied | Assigned | Ended | Emptied | Terminate | Tick


@dataclass(frozen=True)
class StartServer:
    """Start the fork server."""


@dataclass(frozen=True)
class Start:
    """Start the ranks of an attempt."""

    assignment: Assignment


@dataclass(frozen=True)
class AskStop:
    """Ask the ranks to save and stop."""


@dataclass(frozen=True)
class Kill:
    """Remove every process of the attempt, until none is left; ``after_copy``: its ranks live, and
    the next attempt wants to go on from what they know.
    """

    after_copy: bool = False


@dataclass(frozen=True)
class Exit:
    """End the launcher with this exit code."""

    code: int


Command = StartServer | Start | AskStop | Kill | Exit


class Ranks(Enum):
    """What becomes of the ranks of the current attempt; in this order."""

    NONE = auto()
    """No process of any attempt exists."""
    RUNNING = auto()
    STOPPING = auto()
    """Asked to save and stop, until ``Machine.stop_by``."""
    KILLING = auto()
    """The attempt is over; its processes are killed until ``Emptied``."""


class Lifetime(Enum):
    """How long the launcher itself goes on."""

    SERVING = auto()
    TERMINATING = auto()
    """Ends as soon as its ranks have: SIGTERM came, or the operator ended the job."""
    OVER = auto()
    """``Exit`` was commanded; nothing counts any more."""


@dataclass(frozen=True)
class Machine:
    """All that the launcher knows. Times are monotonic seconds, except in the report."""

    report: Report
    keep_warm: float
    """Seconds that the launcher outlives a failed attempt, waiting for the next assignment."""
    shutdown: float
    """Seconds that ranks may take to save and stop."""
    lifetime: Lifetime = Lifetime.SERVING
    preloaded: bool = False
    """The fork server lives and has imported torch."""
    server_deaths: int = 0
    accepted: Assignment | None = None
    """The newest assignment so far."""
    pending: Assignment | None = None
    """The accepted assignment, until its ranks can start."""
    running: Assignment | None = None
    """The assignment whose ranks exist; none exactly while ``ranks`` is NONE."""
    ranks: Ranks = Ranks.NONE
    stop_by: float = 0.0
    stop_message: str = STOPPED_LATE
    """What to report of ranks that SIGTERM reached and that had to be killed."""
    warm_until: float | None = None
    """When a launcher without ranks and without an assignment ends; None: it waits on."""
    operator_listens: bool = False
    """Somebody has read /status, so the end of an attempt will be noticed."""

    @property
    def terminating(self) -> bool:
        """Tell whether no further attempt may start."""
        return self.lifetime is not Lifetime.SERVING


@dataclass(frozen=True)
class Now:
    """The moment of an event on both clocks."""

    monotonic: float
    wall: float


Step = tuple[Machine, tuple[Command, ...]]


def step(machine: Machine, event: Event, now: Now) -> Step:
    """Apply one event; gives the next machine and the commands, to be carried out in order."""
    if machine.lifetime is Lifetime.OVER:
        return machine, ()
    match event:
        case ServerReady():
            return _start_pending(_server_ready(machine, now), now)
        case ServerWarm():
            return _set(machine, server_deaths=0), ()
        case ServerDied():
            return _server_died(machine, event, now)
        case Assigned(assignment):
            return _assigned(machine, assignment, now)
        case Ended(outcome):
            return _ended(machine, outcome, now)
        case Emptied():
            return _emptied(machine, now)
        case Terminate():
            return _terminate(machine, now)
        case Tick(asked, begun):
            machine = _set(machine, operator_listens=machine.operator_listens or asked)
            return _tick(machine, now, begun)


def _set(machine: Machine, **changes: object) -> Machine:
    return dataclasses.replace(machine, **changes)  # type: ignore[arg-type]


def _report(machine: Machine, now: Now, state: State, attempt: int) -> Machine:
    report = Report(
        attempt=attempt,
        state=state,
        time=now.wall,
        host=machine.report.host,
        leaving=machine.terminating,
    )
    return _set(machine, report=report, warm_until=None)


def _server_ready(machine: Machine, now: Now) -> Machine:
    machine = _set(machine, preloaded=True)
    if machine.report.state is State.STARTING:
        machine = _report(machine, now, State.IDLE, machine.report.attempt)
    return machine


def _server_died(machine: Machine, event: ServerDied, now: Now) -> Step:
    deaths = machine.server_deaths + 1
    machine = _set(machine, preloaded=False, server_deaths=deaths)
    message = event.broken or f"the fork server ended: {_ending(event.exit_code)}"
    if event.broken is not None or deaths >= SERVER_TRIES:
        machine = _fail(machine, now, message, ExitCode.NOT_FOUND, Reason.CANNOT_RUN)
        return _exit(machine, ExitCode.NOT_FOUND)
    if machine.ranks in (Ranks.RUNNING, Ranks.STOPPING):
        # Agent and ranks have asked the kernel to be killed with their parent, so they are dying
        # too; that the fork server died is the cause, not what they say meanwhile.
        reason = Reason.OOM_KILLED if event.oom_killed else Reason.SIGNAL
        machine = _fail(machine, now, message, ExitCode.KILLED, reason)
        return _kill(machine, StartServer())
    if machine.report.state is State.IDLE:
        machine = _report(machine, now, State.STARTING, machine.report.attempt)
    return machine, (StartServer(),)


def _ending(exit_code: int) -> str:
    return signal_name(-exit_code) if exit_code < 0 else f"exit code {exit_code}"


def _assigned(machine: Machine, assignment: Assignment, now: Now) -> Step:
    if machine.terminating or not is_new(assignment, machine.accepted):
        return machine, ()
    machine = _set(machine, accepted=assignment)
    if assignment.end:
        return _terminate(machine, now, graceful=assignment.graceful)
    machine = _set(machine, pending=assignment)
    if machine.ranks is Ranks.NONE:
        return _start_pending(machine, now)
    if machine.ranks is Ranks.KILLING:
        return machine, ()
    if not assignment.graceful:
        return _set(machine, ranks=Ranks.KILLING), (Kill(after_copy=True),)
    return _ask_stop(machine, now)


def _ask_stop(machine: Machine, now: Now) -> Step:
    if machine.ranks is Ranks.STOPPING:
        # A second request does not move the limit.
        return machine, ()
    stop_by = now.monotonic + machine.shutdown
    return _set(machine, ranks=Ranks.STOPPING, stop_by=stop_by), (AskStop(),)


def _kill(machine: Machine, *before: Command) -> Step:
    return _set(machine, ranks=Ranks.KILLING), (*before, Kill())


def _start_pending(machine: Machine, now: Now) -> Step:
    pending = machine.pending
    if pending is None or machine.ranks is not Ranks.NONE:
        return machine, ()
    if not pending.fits:
        return _refuse(_set(machine, pending=None), pending, now)
    if pending.standby:
        state = State.IDLE if machine.preloaded else State.STARTING
        return _report(_set(machine, pending=None), now, state, pending.attempt), ()
    if not machine.preloaded:
        # The attempt in the report is the acknowledgement of an assignment, so it stays the old
        # one until the ranks really start.
        return _report(machine, now, State.STARTING, machine.report.attempt), ()
    machine = _set(machine, pending=None, running=pending, ranks=Ranks.RUNNING)
    return _report(machine, now, State.RUNNING, pending.attempt), (Start(pending),)


def _refuse(machine: Machine, assignment: Assignment, now: Now) -> Step:
    """Say that the operator's words cannot be understood, and wait for others."""
    machine = _report(machine, now, State.FAILED, assignment.attempt)
    report = dataclasses.replace(
        machine.report,
        exit_code=int(ExitCode.CONFIG),
        reason=str(Reason.CONTRACT_MISMATCH),
        message=refusal(assignment.contract),
    )
    return _tick(_set(machine, report=report, warm_until=now.monotonic + machine.keep_warm), now)


def _ended(machine: Machine, outcome: Outcome, now: Now) -> Step:
    running = machine.running
    if running is None or outcome.attempt != running.attempt:
        return machine, ()
    if machine.ranks is Ranks.KILLING:
        # The first word counts: killed ranks fail too, and the agent's own end comes after its
        # outcome.
        return machine, ()
    if outcome.result is Result.SUCCEEDED:
        return _kill(_finish(machine, now, State.SUCCEEDED, ExitCode.DONE))
    if outcome.result is Result.STOPPED or _lost_peers_while_stopping(machine, outcome, now):
        return _kill(_stopped(machine, now))
    verdict = judge(outcome, now.wall)
    machine = _fail(machine, now, verdict.message, verdict.exit_code, verdict.reason)
    report = dataclasses.replace(machine.report, rank=verdict.rank, time=verdict.time)
    # After another failure the agent has ended the ranks already, those of a hang live.
    kill = Kill(after_copy=verdict.reason is Reason.HANG)
    return _set(machine, report=report, ranks=Ranks.KILLING), (kill,)


def _lost_peers_while_stopping(machine: Machine, outcome: Outcome, now: Now) -> bool:
    """A rank that loses its peers while everything is being stopped is no failure."""
    return machine.terminating and judge(outcome, now.wall).reason is Reason.PEER_LOST


def _finish(
    machine: Machine, now: Now, state: State, code: int, reason: Reason | None = None
) -> Machine:
    attempt = machine.running.attempt if machine.running else machine.report.attempt
    machine = _report(machine, now, state, attempt)
    word = None if reason is None else str(reason)
    report = dataclasses.replace(machine.report, exit_code=int(code), reason=word)
    return _set(machine, report=report)


def _stopped(machine: Machine, now: Now) -> Machine:
    return _finish(machine, now, State.STOPPED, ExitCode.STOPPED, Reason.STOPPED)


def _fail(machine: Machine, now: Now, message: str, code: int, reason: Reason) -> Machine:
    machine = _finish(machine, now, State.FAILED, code, reason)
    return _set(machine, report=dataclasses.replace(machine.report, message=message))


def _emptied(machine: Machine, now: Now) -> Step:
    if machine.ranks is Ranks.NONE:
        return machine, ()
    # Whether they had succeeded before they were removed; _stopped changes the report.
    succeeded = machine.report.state is State.SUCCEEDED
    if machine.terminating and machine.report.state is State.RUNNING:
        machine = _stopped(machine, now)
        report = dataclasses.replace(machine.report, message=machine.stop_message)
        machine = _set(machine, report=report)
    machine = _set(machine, running=None, ranks=Ranks.NONE, stop_message=STOPPED_LATE)
    # A slot that has succeeded ends even if it is put on standby; only a further attempt needs it.
    if machine.pending is not None and not (machine.pending.standby and succeeded):
        return _start_pending(machine, now)
    if machine.terminating or succeeded:
        return _exit_with_report(machine)
    return _tick(_set(machine, warm_until=now.monotonic + machine.keep_warm), now)


def _terminate(machine: Machine, now: Now, *, graceful: bool = True) -> Step:
    again = machine.terminating
    if not again:
        # Said at once, not with the end of the ranks: the next attempt must not be given to this
        # launcher, and once they have ended there may be no time left to say so.
        report = dataclasses.replace(machine.report, leaving=True)
        if report.exit_code is None:
            report = dataclasses.replace(report, time=now.wall)
        lifetime = Lifetime.TERMINATING
        machine = _set(machine, lifetime=lifetime, pending=None, report=report)
    match machine.ranks:
        case Ranks.KILLING:
            return machine, ()
        case Ranks.RUNNING | Ranks.STOPPING:
            # Who sends SIGTERM twice does not want to wait.
            return _ask_stop(machine, now) if graceful and not again else _kill(machine)
        case Ranks.NONE:
            if again:
                return machine, ()
            if machine.report.exit_code is None:
                machine = _stopped(machine, now)
            return _exit_with_report(machine)


def _tick(machine: Machine, now: Now, begun: bool = True) -> Step:
    if machine.ranks is Ranks.STOPPING:
        asked_at = machine.stop_by - machine.shutdown
        if not begun and now.monotonic >= asked_at + BEGIN_SECONDS:
            return _kill(_set(machine, stop_message=STOPPED_EARLY))
        return _kill(machine) if now.monotonic >= machine.stop_by else (machine, ())
    if machine.ranks is not Ranks.NONE:
        return machine, ()
    if machine.warm_until is None or machine.pending is not None:
        return machine, ()
    # An operator that never read /status cannot know of this end but by that of the pod.
    if machine.operator_listens and now.monotonic < machine.warm_until:
        return machine, ()
    return _exit_with_report(machine)


def _exit_with_report(machine: Machine) -> Step:
    return _exit(machine, machine.report.exit_code or ExitCode.DONE)


def _exit(machine: Machine, code: int) -> Step:
    return _set(machine, lifetime=Lifetime.OVER), (Exit(int(code)),)
