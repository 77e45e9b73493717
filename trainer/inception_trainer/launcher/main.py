"""The main loop: turns signals, files, sockets and time into events of ``state`` and carries out
its commands.

One thread does all of it, so that nothing needs a lock and every decision sees the same world; only
the HTTP server has threads of its own. Nothing here may wait: a turn takes milliseconds.
"""

import contextlib
import dataclasses
import logging
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from . import forkserver, last_copy, linux, notify, rank, settings, state, wire
from .assignment import Assignment, AssignmentFile
from .exitcodes import ExitCode, Reason, signal_name
from .hang_detector import choose_deadline
from .hang_monitor import HangMonitor, begun, living
from .outcome import Failure, Outcome, Result
from .report import Report, State, termination_message
from .server import AttemptFiles, Board, Server
from .settings import Settings
from .stderr import Tails

TURN_SECONDS = 0.05
BUSY_TURN_SECONDS = 0.01
"""While processes are being killed: the next attempt waits for the last of them."""
TRACKER_SECONDS = 2.0
"""How long resource trackers may take once all else of an attempt is gone; tenths of a second do.
"""
LAST_SWEEP_SECONDS = 5.0
"""How long the launcher, about to exit, goes on killing what is left."""

log = logging.getLogger("inception-launcher")


class Launcher:
    """One launcher: the state machine, and the processes and files that follow its commands."""

    def __init__(self, options: Settings) -> None:
        self.options = options
        report = Report(time=time.time(), host=options.host)
        self.machine = state.Machine(report, options.keep_warm, options.shutdown)
        self.board = Board(report)
        # Before there is any, for whoever made the pod.
        self.board.accept(Assignment(0, next_key=options.next_key))
        self.code: int | None = None
        """The exit code, once the machine has said that it is over."""
        self._file = AssignmentFile(options.assignment)
        self._folder = Path(_temporary_folder())
        self._request: wire.Request | None = None
        self._tails: Tails | None = None
        self._hang_monitor: HangMonitor | None = None
        self._agent_requested = False
        """The fork server was asked for an agent and has not said yet that it exists."""
        self._agent: int | None = None
        """Process number and process group of the agent."""
        self._killing = False
        self._copy_until = float("-inf")
        """Until when ranks that are to be killed may write a last copy of their state."""
        self._trackers_until = float("-inf")
        """Until when resource trackers may remove what the killed have left in shared memory."""
        self._sigterms = 0
        """Signals that are not yet told to the machine."""
        self._oom_kills = 0
        """Count of the memory cgroup when the attempt began."""
        self._server: subprocess.Popen[bytes] | None = None
        self._channel: Any = None
        """Our end of the socket to the fork server."""
        self._broken: str | None = None
        """Why the fork server could not import torch."""
        self._wake = _wake_pipe()

    def run(self) -> int:
        """Turn until the machine says that it is over."""
        linux.become_subreaper()
        for note in self.options.notes:
            log.warning("%s", note)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        # Ignored by default, and then the wake-up pipe would not be written to either.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        http = self._serve()
        try:
            self._start_server()
            while self.code is None:
                self._turn()
        finally:
            self._clean_up()
            http.stop()
        return self.code

    def _serve(self) -> Server:
        port = self.options.port
        try:
            http = Server(port, self.board, self.options.token)
        except OSError as error:
            who = "another container of the pod, or with hostNetwork a program of the node"
            raise OSError(
                error.errno,
                f"port {port} of the launcher: {error.strerror} by {who}",
            ) from error
        http.start()
        return http

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        # Only counted: a handler may run between any two instructions of a turn.
        self._sigterms += 1

    def _turn(self) -> None:
        self._wait()
        self.board.beat()
        self._reap()
        for assignment in (self.board.take(), self._file.poll()):
            if assignment is not None:
                self._feed(state.Assigned(assignment))
        while self._sigterms:
            self._sigterms -= 1
            self._feed(state.Terminate())
        self._watch_for_hangs()
        if self._killing and self._kill_processes():
            self._killing = False
            self._hang_monitor = None
            self._feed(state.Emptied())
        self._feed(state.Tick(self.board.asked, self._begun()))

    def _wait(self) -> None:
        """Wait until something is to be read or the next turn is due, and read it."""
        sources: list[Any] = [self._wake]
        if self._tails is not None:
            sources += self._tails.sources
        if self._channel is not None:
            sources.append(self._channel)
        seconds = BUSY_TURN_SECONDS if self._killing else TURN_SECONDS
        ready, _, _ = select.select(sources, [], [], seconds)
        if self._wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 4096)
        if self._tails is not None:
            self._tails.pump(ready)
        if self._channel in ready:
            self._receive()

    def _watch_for_hangs(self) -> None:
        if self._hang_monitor is None or self._request is None:
            return
        verdict = self._hang_monitor.turn(time.monotonic())
        if self.board.reach(self._request.assignment.attempt, self._hang_monitor.step):
            # Whether an attempt got anywhere decides how long the next one waits, and this pod may
            # be gone by then.
            self._notify_operator()
        if verdict is not None:
            self._ended(verdict)

    def _begun(self) -> bool:
        """Tell whether the ranks have begun; looked up only while they are being stopped."""
        if self._request is None or self.machine.ranks is not state.Ranks.STOPPING:
            return True
        return begun(self._request)

    def _receive(self) -> None:
        """Read one message of the fork server or of an agent."""
        try:
            message = wire.receive(self._channel)
        except ConnectionError:
            message = None
        if message is None:
            # Its end is noticed as that of a child.
            self._close_channel()
            return
        match message["kind"]:
            case "ready":
                self._feed(state.ServerReady())
                if self.machine.running is None:
                    # An attempt may wait for this launcher alone, and the kubelet's probe comes
                    # once a second.
                    self._notify_operator()
            case "warm":
                self._feed(state.ServerWarm())
            case "broken":
                self._broken = message["message"]
            case "agent":
                self._agent_requested = False
                self._agent = message["pid"]
            case "outcome":
                self._ended(Outcome.from_dict(message["outcome"]))
            case "exit":
                self._forget_agent()
                self._agent_ended(message["attempt"], message["exitCode"])

    def _agent_ended(self, attempt: int, code: int) -> None:
        """Fail the attempt of an agent that has died without an outcome."""
        # Where there was one it came before, and the machine ignores this.
        ending = signal_name(-code) if code < 0 else f"exit code {code}"
        failure = Failure(code or 1, time.time(), message=f"the agent ended: {ending}")
        self._ended(Outcome(attempt, Result.FAILED, (failure,)))

    def _ended(self, outcome: Outcome) -> None:
        hang = self._hang_monitor.verdict if self._hang_monitor is not None else None
        if hang is not None and hang.attempt == outcome.attempt and outcome.result is Result.FAILED:
            # What happens to ranks that hang is its consequence.
            outcome = hang
        else:
            outcome = self._with_tails(outcome)
        self._feed(state.Ended(dataclasses.replace(outcome, oom_killed=self._oom_killed())))

    def _oom_killed(self) -> bool:
        """Tell whether the OOM killer struck in this pod's memory cgroup during the attempt."""
        return linux.oom_kills() > self._oom_kills

    def _with_tails(self, outcome: Outcome) -> Outcome:
        """Add the last lines of each failed rank's stderr."""
        request = self._request
        tails = self._tails
        if request is None or tails is None or request.assignment.attempt != outcome.attempt:
            return outcome
        tails.drain()
        failures = []
        for failure in outcome.failures:
            if failure.rank is not None:
                tail = tails.tail(request.local_rank(failure.rank))
                failure = dataclasses.replace(failure, tail=tail)
            failures.append(failure)
        return dataclasses.replace(outcome, failures=tuple(failures))

    def _reap(self) -> None:
        # All children, orphans of the ranks included: nobody else would wait for them.
        for pid, code in linux.reap().items():
            if self._server is not None and pid == self._server.pid:
                # Popen would wait for it again and find nothing.
                self._server.returncode = code
                self._server = None
                self._hear_last_words()
                self._forget_agent()
                self._feed(state.ServerDied(code, self._broken, self._oom_killed()))

    def _hear_last_words(self) -> None:
        """Read what the dead fork server had sent, "broken" for one, and close the socket."""
        # Not to its end, which comes when the last agent, rank and loader worker that hold the
        # other end are gone.
        while self._channel is not None and select.select([self._channel], [], [], 0)[0]:
            self._receive()
        self._close_channel()

    def _forget_agent(self) -> None:
        self._agent_requested = False
        self._agent = None

    def _feed(self, event: state.Event) -> None:
        """Tell the machine of an event and do what it commands."""
        before = self.machine.report
        now = state.Now(time.monotonic(), time.time())
        self.machine, commands = state.step(self.machine, event, now)
        if self.machine.accepted is not None:
            self.board.accept(self.machine.accepted)
        for command in commands:
            self._carry_out(command)
        if self.machine.report != before:
            self._publish()

    def _publish(self) -> None:
        report = self.machine.report
        request = self._request
        files: AttemptFiles | None = None
        if request is not None and request.assignment.attempt == report.attempt:
            files = AttemptFiles(request.progress_file, Path(request.folder), request.first_rank)
        self.board.publish(report, files)
        if report.leaving or report.state in (State.FAILED, State.STOPPED):
            self._notify_operator()
        words = [f"attempt {report.attempt}: {report.state}"]
        if report.leaving:
            words.append("and about to end")
        if report.exit_code is not None:
            words.append(f"{report.reason or ''} exit code {report.exit_code}")
        if report.rank is not None:
            words.append(f"rank {report.rank}")
        if request is not None and files is not None and report.state is State.RUNNING:
            # `kubectl inception logs` reads it: lines of a program need not say whose they are.
            last = request.global_rank(request.assignment.nproc_per_node - 1)
            words.append(f"ranks {request.first_rank} to {last} of {request.assignment.world_size}")
        log.info("%s %s", " ".join(words), report.message or "")

    def _notify_operator(self) -> None:
        request = self._request
        address = self.options.notify_address
        if request is not None:
            address = request.assignment.notify_address or address
        if address and self.options.job:
            notify.notify(address, self.options.job, self.options.host)

    def _carry_out(self, command: state.Command) -> None:
        match command:
            case state.StartServer():
                self._start_server()
            case state.Start(assignment):
                self._start(assignment)
            case state.AskStop():
                self._ask_stop()
            case state.Kill(after_copy):
                self._killing = True
                self._trackers_until = time.monotonic() + TRACKER_SECONDS
                if after_copy:
                    self._take_last_copies()
                if self._hang_monitor is not None:
                    self._hang_monitor.before_kill(time.monotonic())
            case state.Exit(code):
                self.code = code

    def _start_server(self) -> None:
        self._close_channel()
        self._broken = None
        self._oom_kills = linux.oom_kills()
        ours, theirs = wire.pair()
        command = forkserver.command_line(theirs.fileno(), foreign=bool(self.options.program))
        # A session of its own: a Ctrl+C at a terminal is for the launcher alone, which then has the
        # ranks save.
        self._server = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
        )
        theirs.close()
        self._channel = ours

    def _start(self, assignment: Assignment) -> None:
        """Ask the fork server for an agent that runs the ranks of an assignment."""
        self._close_attempt()
        folder = tempfile.mkdtemp(prefix=f"attempt-{assignment.attempt}-", dir=self._folder)
        self._request = wire.Request(assignment, folder, self.options.program, self.options.job)
        self._tails = Tails(Path(folder), assignment.nproc_per_node)
        deadline = choose_deadline(self.options.progress_deadline, self.options.hang_floor)
        if deadline is None:
            self._hang_monitor = None
        else:
            self._hang_monitor = HangMonitor(self._request, deadline)
        self._oom_kills = linux.oom_kills()
        try:
            wire.send(self._channel, "start", request=self._request.to_dict())
            self._agent_requested = True
        except (OSError, AttributeError):
            # The fork server has just died; its end is noticed as that of a child and fails this
            # attempt.
            log.warning("attempt %d: the fork server is gone", assignment.attempt)

    def _close_attempt(self) -> None:
        """Close the pipes of the attempt before and remove its files."""
        if self._tails is not None:
            self._tails.close()
            self._tails = None
        if self._request is not None:
            shutil.rmtree(self._request.folder, ignore_errors=True)

    def _ask_stop(self) -> None:
        if self._request is None:
            return
        self._request.stop_file.touch()
        if self._hang_monitor is not None:
            self._hang_monitor.let_stop()
        if self.options.program:
            # The bundled trainer looks for the file, so that all its ranks stop after the same
            # step; other programs know nothing but the signal.
            for pid in rank.processes(Path(self._request.folder)).values():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)

    def _take_last_copies(self) -> None:
        """Have the ranks of the bundled trainer keep what they know before they are killed."""
        if self._request is None or self.options.program:
            return
        ranks = living(self._request)
        hanging = self._hang_monitor.hanging if self._hang_monitor is not None else None
        if hanging in ranks:
            # The others wait for it, and answer as soon as it is gone.
            linux.kill([ranks.pop(hanging)])
        last_copy.ask_for(ranks.values())
        self._copy_until = time.monotonic() + last_copy.SECONDS

    def _kill_processes(self) -> bool:
        """Kill what is left of the attempt; true when nothing was left and nothing can appear any
        more.
        """
        if self._hang_monitor is not None and self._hang_monitor.showing:
            return False
        if time.monotonic() < self._copy_until and self._request and living(self._request):
            return False
        spare = [self._server.pid] if self._server is not None else []
        left = linux.descendants(os.getpid(), spare)
        trackers = linux.trackers(left)
        if left != trackers:
            self._trackers_until = time.monotonic() + TRACKER_SECONDS
        elif time.monotonic() >= self._trackers_until:
            trackers = set()
        if left and not trackers and self._agent is not None:
            linux.kill_group(self._agent)
        # One by one as well, and in the next turn again: a process may have left the group, and may
        # have forked since it was listed.
        linux.kill(left - trackers)
        # An agent that was asked for may be forked late, and its end may be told late, when the
        # next one runs already.
        return not left and not self._agent_requested and self._agent is None

    def _clean_up(self) -> None:
        """Remove every process and file, and write the termination message."""
        if self.code is not None:
            write_termination(self.options.termination_log, self.board.report())
        self._close_channel()
        end = time.monotonic() + LAST_SWEEP_SECONDS
        while (left := linux.descendants(os.getpid())) and time.monotonic() < end:
            linux.kill(left)
            time.sleep(BUSY_TURN_SECONDS)
            linux.reap()
        linux.reap()
        self._close_attempt()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _close_channel(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None


def _failure(
    report: Report, message: str, code: int = ExitCode.ERROR, reason: Reason = Reason.ERROR
) -> Report:
    return dataclasses.replace(
        report,
        state=State.FAILED,
        exit_code=int(code),
        reason=str(reason),
        message=message,
        time=time.time(),
    )


def write_termination(path: Path, report: Report) -> None:
    """Write the termination message; a file that cannot be written is only logged."""
    try:
        path.write_bytes(termination_message(report))
    except OSError as error:
        log.warning("no termination message: %s", error)


def _temporary_folder() -> str:
    try:
        return tempfile.mkdtemp(prefix="inception-")
    except OSError:
        # A read-only root file system: the pod's shared memory is always writable, for torch's own
        # files too.
        os.environ["TMPDIR"] = tempfile.tempdir = "/dev/shm"  # noqa: S108
        return tempfile.mkdtemp(prefix="inception-")


def _wake_pipe() -> int:
    """Give a descriptor that becomes readable when a signal has come."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader


def main(argv: Sequence[str]) -> int:
    """Run the launcher; returns the exit code of the contract."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", stream=sys.stderr
    )
    # For failures before the settings are read.
    report = Report(host=os.uname().nodename)
    path = Settings.termination_log
    try:
        options = settings.read(argv, os.environ)
        path = options.termination_log
        launcher = Launcher(options)
        report = launcher.machine.report
        return launcher.run()
    except settings.SettingsError as error:
        log.error("%s", error)
        write_termination(path, _failure(report, str(error), ExitCode.USAGE, Reason.USAGE_ERROR))
        return ExitCode.USAGE
    except Exception as error:
        log.exception("the launcher failed")
        write_termination(
            path, _failure(report, f"the launcher failed: {type(error).__name__}: {error}")
        )
        return ExitCode.ERROR


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
