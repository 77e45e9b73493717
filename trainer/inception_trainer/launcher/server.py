"""The launcher's HTTP server: /status and /assignment for the operator, /readyz and /healthz for
the kubelet.

Whoever reaches the port may ask; only the operator is told what the ranks wrote to stderr, and only
who has the key may deliver an assignment.

The main loop publishes its report on a ``Board``; the server's threads only read, and leave there
what was delivered. A launcher whose main loop stands still therefore still answers, and says on
/healthz that it is not well.
"""

import hmac
import re
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from . import json_text, rank_times
from .assignment import Assignment, InvalidAssignmentError, parse
from .listener import Handler, Listener
from .report import Report, State, with_progress

KEY_HEADER = "Inception-Key"
STALL_SECONDS = 30.0
"""A main loop that has not turned for so long is stuck."""
HEARD_SECONDS = 1.5
"""How long an end that the operator has read of does not show in /readyz. It decides within tenths
of a second, and a kubelet that is busy with a change of readiness brings the next assignment up to
a second later.
"""
PROGRESS_BYTES = 1 << 14
"""What a program may say about its progress; a report that grows beyond measure would be read by
nobody.
"""


@dataclass(frozen=True)
class AttemptFiles:
    """Where the ranks of an attempt tell of themselves: the file with their progress, and the
    folder with the heartbeats; ``first_rank`` is the global rank of local rank 0.
    """

    progress: Path
    folder: Path
    first_rank: int


class Board:
    """Where the main loop publishes the report and the server's threads read it."""

    def __init__(self, report: Report) -> None:
        self._lock = threading.Lock()
        self._report = report
        self._files: AttemptFiles | None = None
        self._beat = time.monotonic()
        self._reached = (0, 0)
        """An attempt and the furthest step of its ranks."""
        self.asked = False
        """The operator has read /status."""
        self._heard: Report | None = None
        self._heard_at = 0.0
        """What it read then, and when it read this for the first time."""
        self._accepted = Assignment(0)
        self._delivered: Assignment | None = None
        """An assignment that the main loop has yet to take."""

    def publish(self, report: Report, files: AttemptFiles | None) -> None:
        """Publish a report and name the files in which the ranks of its attempt tell more."""
        with self._lock:
            self._report = report
            self._files = files

    def accept(self, assignment: Assignment) -> None:
        """Note the newest assignment so far, which says how the next one may be delivered."""
        with self._lock:
            self._accepted = assignment

    def opens(self, key: str) -> bool:
        """Tell whether who shows this key may deliver an assignment."""
        with self._lock:
            newest = self._delivered or self._accepted
        return newest.opens(key)

    def deliver(self, assignment: Assignment) -> None:
        """Leave an assignment for the main loop."""
        with self._lock:
            self._delivered = assignment

    def take(self) -> Assignment | None:
        """Give the assignment that was delivered since the last time."""
        with self._lock:
            delivered, self._delivered = self._delivered, None
        return delivered

    def reach(self, attempt: int, step: int) -> bool:
        """Note how far the ranks of an attempt are, for programs that tell no more; true at its
        first step.
        """
        with self._lock:
            before = self._reached[1] if self._reached[0] == attempt else 0
            self._reached = (attempt, max(before, step))
        return step > 0 and not before

    def beat(self) -> None:
        """Note that the main loop is turning."""
        self._beat = time.monotonic()

    @property
    def healthy(self) -> bool:
        """Tell whether the main loop has turned lately."""
        return time.monotonic() - self._beat < STALL_SECONDS

    @property
    def ready(self) -> bool:
        """Tell what /readyz answers."""
        with self._lock:
            report, is_heard = self._report, self._heard is self._report
            waits = time.monotonic() < self._heard_at + HEARD_SECONDS
        # Of an end alone: who starts is not ready, however often it is asked.
        has_ended = report.state in (State.FAILED, State.STOPPED) and not report.leaving
        return report.ready or (has_ended and is_heard and waits)

    def heard(self, *, proven: bool) -> None:
        """Note that the operator reads the published report; without a token to show, it may be
        anybody.
        """
        self.asked = True
        with self._lock:
            if proven and self._heard is not self._report:
                self._heard, self._heard_at = self._report, time.monotonic()

    def report(self) -> Report:
        """Give the published report with the latest progress."""
        with self._lock:
            report = self._report
            files = self._files
            attempt, step = self._reached
        if step and attempt == report.attempt:
            report = replace(report, step=step)
        if files is None:
            return report
        # Read outside of the lock: the files may lie on a volume that answers slowly, and the main
        # loop must not wait for them.
        if report.state is State.RUNNING:
            report = replace(report, ranks=rank_times.read(files.folder, files.first_rank))
        return with_progress(report, _read(files.progress))


class Server(Listener):
    """Serves a board."""

    def __init__(self, port: int, board: Board, token: str = "") -> None:
        self.board = board
        self.token = token
        super().__init__(port, _Handler)

    def start(self) -> None:
        """Serve in a thread of its own."""
        threading.Thread(target=self.serve_forever, args=(0.1,), name="http", daemon=True).start()

    def stop(self) -> None:
        """Stop serving and close the port."""
        self.shutdown()
        self.server_close()


class _Handler(Handler):
    server: Server

    def get(self, path: str) -> None:
        board = self.server.board
        match path:
            case "/status":
                report = board.report()
                if self._is_operator():
                    board.heard(proven=bool(self.server.token))
                else:
                    report = replace(report, message=None)
                self.answer(200, report.to_bytes(), "application/json")
            case "/readyz":
                self._say(board.ready)
            case "/healthz":
                self._say(board.healthy)
            case _:
                self.answer(404, b"not found\n", "text/plain")

    def post(self, path: str) -> None:
        # From the operator, which is quicker than the kubelet.
        board = self.server.board
        if path != "/assignment":
            self.answer(404, b"not found\n", "text/plain")
        elif not board.opens(self.headers.get(KEY_HEADER, "")):
            # A stranger, or an operator that began after the last assignment: the file will tell.
            self.answer(403, b"not the key of the next assignment\n", "text/plain")
        elif (assignment := self._assignment()) is None:
            self.answer(400, b"not an assignment\n", "text/plain")
        else:
            board.deliver(assignment)
            self.answer(202, b"", "text/plain")

    def _assignment(self) -> Assignment | None:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,4}", length):
            return None
        try:
            return parse(self.rfile.read(int(length)).decode())
        except (UnicodeDecodeError, InvalidAssignmentError):
            return None

    def _is_operator(self) -> bool:
        token = self.server.token
        if not token:
            return True
        shown = self.headers.get("Authorization", "")
        expected = f"Bearer {token}"
        return hmac.compare_digest(shown.encode("utf-8", "replace"), expected.encode())

    def _say(self, good: bool) -> None:
        self.answer(200 if good else 503, b"ok\n" if good else b"no\n", "text/plain")


def _read(path: Path) -> object:
    try:
        with path.open("rb") as file:
            text = file.read(PROGRESS_BYTES + 1)
        return json_text.decode(text) if len(text) <= PROGRESS_BYTES else None
    except (OSError, ValueError):
        return None
