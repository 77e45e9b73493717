"""The main loop: turns signals, files, sockets and time into events of ``state`` and carries out
its commands.
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

from . import boot, hang_detector, linux, notify, rank, settings, state, wire
from .assignment import Assignment, InvalidAssignmentError, parse
from .exitcodes import ExitCode, Reason, signal_name
from .hang_monitor import HangMonitor, begun
from .outcome import Failure, Outcome, Result
from .report import Report, State, termination_message
from .server import Board, Server
from .settings import Settings
from .stderr import Tails

TURN_SECONDS = 0.05
BUSY_TURN_SECONDS = 0.01
LAST_SWEEP_SECONDS = 5.0

log = logging.getLogger("inception-launcher")


class AssignmentFile:
    """The file the kubelet projects; read whole each time, for the kubelet swaps a link and never
    writes in place.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._text = ""

    def poll(self) -> Assignment | None:
        """Give the assignment when the content has changed; a torn or wrong one is logged and
        passed over.
        """
        try:
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None
        if text == self._text:
            return None
        self._text = text
        try:
            return parse(text)
        except InvalidAssignmentError as error:
            log.warning("assignment ignored: %s", error)
            return None


class Launcher:
    """One launcher: the machine, and the processes and files it rules."""

    def __init__(self, options: Settings) -> None:
        self.options = options
        report = Report(time=time.time(), host=options.host)
        self.machine = state.Machine(report, warm_hold=options.warm_hold, shutdown=options.shutdown)
        self.board = Board(report)
        self.code: int | None = None
        self._file = AssignmentFile(options.assignment)
        self._folder = Path(_temporary_folder())
        self._request: wire.Request | None = None
        self._tails: Tails | None = None
        self._vigil: HangMonitor | None = None
        self._group: int | None = None
        self._starting = False
        self._sweeping = False
        self._terminate = 0
        self._oom_kills = 0
        self._server: subprocess.Popen[bytes] | None = None
        self._channel: Any = None
        self._broken: str | None = None
        self._wake = _wake_pipe()

    def run(self) -> int:
        """Turn until the machine says that it is over."""
        linux.become_subreaper()
        for note in self.options.notes:
            log.warning("%s", note)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        http = Server(self.options.port, self.board)
        http.start()
        try:
            self._start_server()
            while self.code is None:
                self._turn()
        finally:
            self._leave()
            http.stop()
        return self.code

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._terminate += 1

    def _turn(self) -> None:
        self._wait()
        self.board.beat()
        self._reap()
        if (assignment := self._file.poll()) is not None:
            self._feed(state.Assigned(assignment))
        while self._terminate:
            self._terminate -= 1
            self._feed(state.Terminate())
        self._watch()
        if self._sweeping and self._sweep():
            self._sweeping = False
            self._vigil = None
            self._feed(state.Emptied())
        self._feed(state.Tick(self.board.asked, self._begun()))

    def _wait(self) -> None:
        pipes = self._tails.sources if self._tails is not None else ()
        sources = [self._wake, *pipes, *([self._channel] if self._channel else [])]
        ready, _, _ = select.select(
            sources, [], [], BUSY_TURN_SECONDS if self._sweeping else TURN_SECONDS
        )
        if self._wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 4096)
        if self._tails is not None:
            self._tails.pump(ready)
        if self._channel in ready:
            self._hear()

    def _watch(self) -> None:
        if self._vigil is None or self._request is None:
            return
        verdict = self._vigil.turn(time.monotonic())
        if self.board.reach(self._request.assignment.attempt, self._vigil.step):
            # Whether an attempt got anywhere decides how long the next one waits, and this pod may
            # be gone by then.
            self._ring()
        if verdict is not None:
            self._ended(verdict)

    def _begun(self) -> bool:
        """Tell whether the ranks have begun; looked up only while they are being stopped."""
        return self._request is None or self.machine.stop_by is None or begun(self._request)

    def _hear(self) -> None:
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
            case "broken":
                self._broken = message["message"]
            case "agent":
                self._starting, self._group = False, message["pid"]
            case "outcome":
                self._ended(Outcome.from_dict(message["outcome"]))
            case "exit":
                self._starting, self._group = False, None
                self._agent_ended(message["attempt"], message["exitCode"])

    def _agent_ended(self, attempt: int, code: int) -> None:
        """Its outcome came before; this counts only for an agent that died without one."""
        message = (
            f"the agent ended: {signal_name(-code)}"
            if code < 0
            else f"the agent ended: exit code {code}"
        )
        self._ended(
            Outcome(attempt, Result.FAILED, (Failure(code or 1, time.time(), message=message),))
        )

    def _ended(self, outcome: Outcome) -> None:
        hang = self._vigil.verdict if self._vigil is not None else None
        if hang is not None and hang.attempt == outcome.attempt and outcome.result is Result.FAILED:
            # What happens to ranks that hang is its consequence.
            outcome = hang
        else:
            outcome = self._with_tails(outcome)
        struck = linux.oom_kills() > self._oom_kills
        self._feed(state.Ended(dataclasses.replace(outcome, oom_killed=struck)))

    def _with_tails(self, outcome: Outcome) -> Outcome:
        request, tails = self._request, self._tails
        if request is None or tails is None or request.assignment.attempt != outcome.attempt:
            return outcome
        tails.drain()
        failures = (
            dataclasses.replace(
                failure,
                tail="" if failure.rank is None else tails.tail(request.local(failure.rank)),
            )
            for failure in outcome.failures
        )
        return dataclasses.replace(outcome, failures=tuple(failures))

    def _reap(self) -> None:
        for pid, code in linux.reap().items():
            if self._server is not None and pid == self._server.pid:
                self._server.returncode = code
                self._server = None
                while self._channel is not None:
                    self._hear()
                self._starting, self._group = False, None
                struck = linux.oom_kills() > self._oom_kills
                self._feed(state.ServerDied(code, self._broken, struck))

    def _feed(self, event: state.Event) -> None:
        before = self.machine.report
        now = state.Now(time.monotonic(), time.time())
        self.machine, commands = state.step(self.machine, event, now)
        for command in commands:
            self._do(command)
        if self.machine.report != before:
            self._publish()

    def _publish(self) -> None:
        report = self.machine.report
        current = self._request is not None and self._request.assignment.attempt == report.attempt
        progress = self._request.progress_file if self._request is not None and current else None
        self.board.publish(report, progress)
        if report.state in (State.FAILED, State.STOPPED):
            self._ring()
        cause = (
            ""
            if report.exit_code is None
            else f" {report.reason or ''} exit code {report.exit_code}"
        )
        where = "" if report.rank is None else f" rank {report.rank}"
        log.info(
            "attempt %d: %s%s%s %s",
            report.attempt,
            report.state,
            cause,
            where,
            report.message or "",
        )

    def _ring(self) -> None:
        address = self._request.assignment.bell if self._request is not None else None
        if address and self.options.job:
            notify.ring(address, self.options.job, self.options.host)

    def _do(self, command: state.Command) -> None:
        match command:
            case state.StartServer():
                self._start_server()
            case state.Start(assignment):
                self._start(assignment)
            case state.AskStop():
                self._ask_stop()
            case state.Kill():
                self._sweeping = True
                if self._vigil is not None:
                    self._vigil.part(time.monotonic())
            case state.Exit(code):
                self.code = code

    def _start_server(self) -> None:
        self._close_channel()
        self._broken = None
        self._oom_kills = linux.oom_kills()
        ours, theirs = wire.pair()
        command = boot.command(theirs.fileno(), foreign=bool(self.options.program))
        self._server = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
        )
        theirs.close()
        self._channel = ours

    def _start(self, assignment: Assignment) -> None:
        self._forget()
        folder = tempfile.mkdtemp(prefix=f"attempt-{assignment.attempt}-", dir=self._folder)
        self._request = wire.Request(assignment, folder, self.options.program, self.options.job)
        self._tails = Tails(Path(folder), assignment.nproc_per_node)
        deadline = hang_detector.deadline_of(
            self.options.progress_deadline, bundled=not self.options.program
        )
        self._vigil = HangMonitor(self._request, deadline) if deadline is not None else None
        self._oom_kills = linux.oom_kills()
        try:
            wire.send(self._channel, "start", request=self._request.to_dict())
            self._starting = True
        except (OSError, AttributeError):
            # The fork server has just died; its end is noticed as that of a child and fails this
            # attempt.
            log.warning("attempt %d: the fork server is gone", assignment.attempt)

    def _forget(self) -> None:
        """Let go of what belongs to the attempt before."""
        if self._tails is not None:
            self._tails.close()
            self._tails = None
        if self._request is not None:
            shutil.rmtree(self._request.folder, ignore_errors=True)

    def _ask_stop(self) -> None:
        if self._request is None:
            return
        self._request.stop_file.touch()
        if self._vigil is not None:
            self._vigil.let_stop()
        if self.options.program:
            for pid in rank.processes(Path(self._request.folder)).values():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)

    def _sweep(self) -> bool:
        """Kill what is left of the attempt; true when nothing was left and nothing can appear any
        more.

        An agent that was asked for may be born late, and its end may be told late, when the next
        one runs already.
        """
        if self._vigil is not None and self._vigil.showing:
            return False
        spare = [self._server.pid] if self._server is not None else []
        left = linux.descendants(os.getpid(), spare)
        if left and self._group is not None:
            linux.kill_group(self._group)
        linux.kill(left)
        return not left and not self._starting and self._group is None

    def _leave(self) -> None:
        """Remove every process and file, and say the last word."""
        if self.code is not None:
            write_termination(self.options.termination_log, self.board.report())
        self._close_channel()
        end = time.monotonic() + LAST_SWEEP_SECONDS
        while (left := linux.descendants(os.getpid())) and time.monotonic() < end:
            linux.kill(left)
            time.sleep(BUSY_TURN_SECONDS)
            linux.reap()
        linux.reap()
        self._forget()
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
    report, path = Report(host=os.uname().nodename), Settings.termination_log
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
