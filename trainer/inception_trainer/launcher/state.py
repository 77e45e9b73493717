"""The launcher's decisions as a pure machine: ``step(machine, event, now)`` gives the next machine
and what to do.

An attempt passes through ``running`` (ranks exist) and ``killing`` (its processes are being
removed); the next one starts only after ``Emptied`` has said that no process of it is left. The
report's state is what the operator sees.
"""

import dataclasses
from dataclasses import dataclass

from .assignment import Assignment, is_new
from .exitcodes import ExitCode, Reason, signal_name
from .outcome import Outcome, Result, judge
from .report import Report, State

SERVER_TRIES = 3
BEGIN_SECONDS = 2.0
"""How long ranks that have nothing to save yet are given to notice a request to stop: they may be
waiting for peers.
"""


@dataclass(frozen=True)
class ServerReady:
    """The fork server has imported torch."""


@dataclass(frozen=True)
class ServerDied:
    """The fork server ended; ``broken`` says why it could not start, when trying again is in vain."""

    exit_code: int
    broken: str | None = None
    oom_killed: bool = False


@dataclass(frozen=True)
class Assigned:
    """The assignment file holds this."""

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


Event = ServerReady | ServerDied | Assigned | Ended | Emptied | Terminate | Tick


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
    """Remove every process of the attempt, until none is left."""


@dataclass(frozen=True)
class Exit:
    """End the launcher."""

    code: int


Command = StartServer | Start | AskStop | Kill | Exit


@dataclass(frozen=True)
class Machine:
    """All that the launcher knows. Times are monotonic except in the report."""

    report: Report
    warm_hold: float
    shutdown: float
    warm: bool = False
    server_deaths: int = 0
    accepted: Assignment | None = None
    pending: Assignment | None = None
    running: Assignment | None = None
    killing: bool = False
    unbegun: bool = False
    stop_by: float | None = None
    hold_until: float | None = None
    asked: bool = False
    terminating: bool = False
    over: bool = False


@dataclass(frozen=True)
class Now:
    """The moment of an event on both clocks."""

    monotonic: float
    wall: float


Step = tuple[Machine, tuple[Command, ...]]


def step(machine: Machine, event: Event, now: Now) -> Step:
    """Apply one event."""
    if machine.over:
        return machine, ()
    match event:
        case ServerReady():
            return _start_pending(_warm(machine, now), now)
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
            return _tick(_set(machine, asked=machine.asked or asked), now, begun)


def _set(machine: Machine, **changes: object) -> Machine:
    return dataclasses.replace(machine, **changes)  # type: ignore[arg-type]


def _report(machine: Machine, now: Now, state: State, attempt: int) -> Machine:
    report = Report(attempt=attempt, state=state, time=now.wall, host=machine.report.host)
    return _set(machine, report=report, hold_until=None)


def _warm(machine: Machine, now: Now) -> Machine:
    machine = _set(machine, warm=True, server_deaths=0)
    if machine.report.state is State.STARTING:
        machine = _report(machine, now, State.IDLE, machine.report.attempt)
    return machine


def _server_died(machine: Machine, event: ServerDied, now: Now) -> Step:
    machine = _set(machine, warm=False, server_deaths=machine.server_deaths + 1)
    message = event.broken or f"the fork server ended: {_ending(event.exit_code)}"
    if event.broken is not None or machine.server_deaths >= SERVER_TRIES:
        verdict = (ExitCode.NOT_FOUND, Reason.CANNOT_RUN)
        return _exit(_fail(machine, now, message, *verdict), ExitCode.NOT_FOUND)
    if machine.running is not None and not machine.killing:
        verdict = (ExitCode.KILLED, Reason.OOM_KILLED if event.oom_killed else Reason.SIGNAL)
        return _kill(_fail(machine, now, message, *verdict), StartServer())
    if machine.report.state is State.IDLE:
        machine = _report(machine, now, State.STARTING, machine.report.attempt)
    return machine, (StartServer(),)


def _ending(exit_code: int) -> str:
    return signal_name(-exit_code) if exit_code < 0 else f"exit code {exit_code}"


def _assigned(machine: Machine, assignment: Assignment, now: Now) -> Step:
    if machine.terminating or not is_new(assignment, machine.accepted):
        return machine, ()
    if assignment.end:
        return _terminate(_set(machine, accepted=assignment), now, graceful=assignment.graceful)
    machine = _set(machine, accepted=assignment, pending=assignment)
    if machine.running is None:
        return _start_pending(machine, now)
    if machine.killing:
        return machine, ()
    if not assignment.graceful:
        return _kill(machine)
    return _ask_stop(machine, now)


def _ask_stop(machine: Machine, now: Now) -> Step:
    if machine.stop_by is not None:
        return machine, ()
    return _set(machine, stop_by=now.monotonic + machine.shutdown), (AskStop(),)


def _kill(machine: Machine, *before: Command) -> Step:
    return _set(machine, killing=True, stop_by=None), (*before, Kill())


def _start_pending(machine: Machine, now: Now) -> Step:
    pending = machine.pending
    if pending is None or machine.running is not None:
        return machine, ()
    if pending.hold:
        state = State.IDLE if machine.warm else State.STARTING
        return _report(_set(machine, pending=None), now, state, pending.attempt), ()
    if not machine.warm:
        return _report(machine, now, State.STARTING, machine.report.attempt), ()
    machine = _set(machine, pending=None, running=pending)
    return _report(machine, now, State.RUNNING, pending.attempt), (Start(pending),)


def _ended(machine: Machine, outcome: Outcome, now: Now) -> Step:
    running = machine.running
    if running is None or machine.killing or outcome.attempt != running.attempt:
        return machine, ()
    if outcome.result is Result.SUCCEEDED:
        machine = _finish(machine, now, State.SUCCEEDED, ExitCode.DONE)
    elif outcome.result is Result.STOPPED or _swept_along(machine, outcome, now):
        machine = _finish(machine, now, State.STOPPED, ExitCode.STOPPED, Reason.STOPPED)
    else:
        verdict = judge(outcome, now.wall)
        machine = _fail(
            machine,
            now,
            verdict.message,
            verdict.exit_code,
            verdict.reason,
            verdict.rank,
            verdict.time,
        )
    return _kill(machine)


def _swept_along(machine: Machine, outcome: Outcome, now: Now) -> bool:
    """A rank that loses its peers while everything is being stopped is no failure."""
    return machine.terminating and judge(outcome, now.wall).reason is Reason.PEER_LOST


def _finish(
    machine: Machine, now: Now, state: State, code: int, reason: Reason | None = None
) -> Machine:
    attempt = machine.running.attempt if machine.running else machine.report.attempt
    machine = _report(machine, now, state, attempt)
    report = dataclasses.replace(machine.report, exit_code=int(code), reason=reason and str(reason))
    return _set(machine, report=report)


def _fail(
    machine: Machine,
    now: Now,
    message: str,
    code: int,
    reason: Reason,
    rank: int | None = None,
    time: float | None = None,
) -> Machine:
    machine = _finish(machine, now, State.FAILED, code, reason)
    moment = now.wall if time is None else time
    return _set(
        machine, report=dataclasses.replace(machine.report, message=message, rank=rank, time=moment)
    )


def _emptied(machine: Machine, now: Now) -> Step:
    if machine.running is None:
        return machine, ()
    report = machine.report
    if machine.terminating and report.state is State.RUNNING:
        machine = _finish(machine, now, State.STOPPED, ExitCode.STOPPED, Reason.STOPPED)
        early = "stopped before the ranks had begun"
        message = early if machine.unbegun else "the ranks did not stop in time and were killed"
        machine = _set(machine, report=dataclasses.replace(machine.report, message=message))
    machine = _set(machine, running=None, killing=False, unbegun=False, stop_by=None)
    if machine.pending is not None and not (
        machine.pending.hold and report.state is State.SUCCEEDED
    ):
        return _start_pending(machine, now)
    if machine.terminating or machine.report.state is State.SUCCEEDED:
        return _exit(machine, machine.report.exit_code or 0)
    return _tick(_set(machine, hold_until=now.monotonic + machine.warm_hold), now)


def _terminate(machine: Machine, now: Now, *, graceful: bool = True) -> Step:
    if machine.terminating:
        return (
            _kill(machine) if machine.running is not None and not machine.killing else (machine, ())
        )
    machine = _set(machine, terminating=True, pending=None)
    if machine.running is not None:
        if machine.killing:
            return machine, ()
        return _ask_stop(machine, now) if graceful else _kill(machine)
    if machine.report.exit_code is None:
        machine = _finish(machine, now, State.STOPPED, ExitCode.STOPPED, Reason.STOPPED)
    return _exit(machine, machine.report.exit_code or 0)


def _tick(machine: Machine, now: Now, begun: bool = True) -> Step:
    if machine.running is not None:
        if machine.stop_by is None or machine.killing:
            return machine, ()
        asked_at = machine.stop_by - machine.shutdown
        unbegun = not begun and now.monotonic >= asked_at + BEGIN_SECONDS
        late = unbegun or now.monotonic >= machine.stop_by
        return _kill(_set(machine, unbegun=unbegun)) if late else (machine, ())
    if machine.hold_until is None or machine.pending is not None:
        return machine, ()
    if machine.asked and now.monotonic < machine.hold_until:
        return machine, ()
    return _exit(machine, machine.report.exit_code or 0)


def _exit(machine: Machine, code: int) -> Step:
    return _set(machine, over=True), (Exit(int(code)),)
