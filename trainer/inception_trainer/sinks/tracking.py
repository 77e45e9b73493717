"""Experiment trackers: what :mod:`.mlflow` and :mod:`.wandb` have in common.

A tracker is a program of others that may be slow, away or broken, which must not hold up the
training. So the records go into a bounded queue, and a thread of its own hands them over, tries
again for as long as the tracker does not answer, and is left behind at the end if it still hangs.

All attempts of a job are one run. What belongs into it is also kept as lines in a file of the
output folder, the journal: points that a killed attempt or an outage held back are handed over by
the next one. A tracker says which steps it has, and these are not handed over again.
"""

from __future__ import annotations

import importlib
import json
import re
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from typing_extensions import override

from inception_trainer.log import logger
from inception_trainer.reporting.outputs import append_lines, replace_file
from inception_trainer.reporting.records import (
    EndRecord,
    EvaluationRecord,
    LogRecord,
    RunInfo,
    Sink,
)

from . import scalars

MOST_POINTS = 10_000
"""Points that wait in memory; the oldest go first."""
BATCH = 100
"""Points that are handed over at once."""
RETRY_SECONDS = 30.0
"""How long a tracker that failed is left alone."""
CLOSE_SECONDS = 10.0
"""How long the end of a run waits for a tracker."""
LAST_TRY_SECONDS = 2.0
"""How long it waits for one that has not answered before."""

RUN = re.compile("[0-9a-f]{32}")
"""What names a run outside the cluster."""

Stored = dict[str, int]
"""The last step of each curve that a tracker has."""


class Unusable(Exception):  # noqa: N818 - it says what there is
    """This tracker will not work in this process however often it is tried; the text says why."""


class Outcome(Enum):
    """How this attempt ended, as far as the run is concerned."""

    FINISHED = "finished"
    STOPPED = "stopped"
    """On request: another attempt goes on."""
    FAILED = "failed"


@dataclass(frozen=True)
class Point:
    """Values of some curves at a step."""

    step: int
    seconds: float
    """When they were measured, since 1970: a point that is sent twice is the same both times."""
    values: dict[str, float]

    def beyond(self, stored: Stored) -> Point | None:
        """What of it is not stored yet."""
        new = {tag: x for tag, x in self.values.items() if self.step > stored.get(tag, -1)}
        return Point(self.step, self.seconds, new) if new else None


class Tracker(Protocol):
    """One kind of tracker. Called by one thread only; every method may block or raise."""

    name: str
    remedy: str
    """What to look at where it does not answer."""

    def open(self, info: RunInfo, run: str) -> Stored:
        """Go on with the run that ``run`` identifies, or begin it; raises Unusable."""

    def write(self, points: list[Point]) -> None:
        """Add points, in the order of their steps."""

    def finish(self, outcome: Outcome) -> None:
        """Say how it ended, and keep what has been written."""


class Tracking(Sink):
    """Hands curves to a tracker from a thread of its own."""

    def __init__(self, tracker: Tracker, job_uid: str = "", output: Path | None = None) -> None:
        self._tracker = tracker
        self._job_uid = job_uid
        self._output = output
        self._journal: Journal | None = None
        self._arrived: deque[Point] = deque(maxlen=MOST_POINTS)
        self._unsent: deque[Point] = deque(maxlen=MOST_POINTS)
        self._dropped = 0
        self._stored: Stored | None = None
        """None while the run is not open."""
        self._due_at = 0.0
        """On the monotonic clock: when a tracker that failed is tried again."""
        self._warned = False
        self._outcome = Outcome.FAILED
        self._wake = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    @override
    def start(self, info: RunInfo) -> None:
        run = self._identify(info)
        self._thread = threading.Thread(
            target=self._work, args=(info, run), name=f"{self._tracker.name}-tracker", daemon=True
        )
        self._thread.start()

    @override
    def log(self, record: LogRecord) -> None:
        self._put(record.step, scalars.of_training(record))

    @override
    def evaluation(self, record: EvaluationRecord) -> None:
        self._put(record.step, scalars.of_evaluation(record))

    @override
    def end(self, record: EndRecord) -> None:
        self._outcome = Outcome.FINISHED if record.finished else Outcome.STOPPED

    @override
    def close(self) -> None:
        """Wait for the tracker, but not for long."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is None:
            return
        # One that has not answered before is not worth much waiting.
        seconds = LAST_TRY_SECONDS if self._warned else CLOSE_SECONDS
        self._thread.join(seconds)
        if self._thread.is_alive():
            # It is a daemon: the process ends without it.
            logger.warning(
                "%s has not taken everything within %.0f s, and the run ends without it%s",
                self._tracker.name,
                seconds,
                "" if self._journal is None else f"; the points are in {self._journal.path}",
            )

    def _put(self, step: int, values: dict[str, float]) -> None:
        point = Point(step, time.time(), values)
        self._keep(point)
        with self._wake:
            self._dropped += len(self._arrived) == MOST_POINTS
            self._arrived.append(point)
            self._wake.notify()

    def _keep(self, point: Point) -> None:
        # Not in the thread: it may be held up when the process is killed.
        try:
            if self._journal is not None:
                self._journal.add([point])
        except OSError as error:
            logger.warning("no more points for %s are kept: %s", self._tracker.name, error)
            self._journal = None

    # In the thread.

    def _work(self, info: RunInfo, run: str) -> None:
        try:
            closing = False
            while not closing:
                closing = self._take(self._patience())
                if closing or time.monotonic() >= self._due_at:
                    self._try(info, run, closing=closing)
        except Unusable as error:
            logger.warning("%s is switched off: %s", self._tracker.name, error)

    def _patience(self) -> float | None:
        """How long to wait for points; None: until there are some."""
        return None if self._stored is not None else max(0.0, self._due_at - time.monotonic())

    def _take(self, timeout: float | None) -> bool:
        """Take what has arrived, or will within the time; whether the run is closing."""
        with self._wake:
            self._wake.wait_for(lambda: self._arrived or self._closing, timeout)
            points = list(self._arrived)
            self._arrived.clear()
            closing = self._closing
            self._dropped += max(0, len(self._unsent) + len(points) - MOST_POINTS)
        self._unsent.extend(points)
        return closing

    def _try(self, info: RunInfo, run: str, *, closing: bool) -> None:
        try:
            stored = self._open(info, run) if self._stored is None else self._stored
            self._write(self._unsent, stored)
            self._unsent.clear()
            if closing:
                self._tell_losses()
                self._tracker.finish(self._outcome)
        except Unusable:
            raise
        except Exception as error:
            self._failed(error)

    def _tell_losses(self) -> None:
        if self._dropped:
            words = "%s was away or too slow: %d points were lost"
            logger.warning(words, self._tracker.name, self._dropped)

    def _open(self, info: RunInfo, run: str) -> Stored:
        stored = self._tracker.open(info, run)
        # What the journal has begins earlier than what is in memory.
        journal = self._journal
        if journal is not None:
            self._write(journal.points(), stored)
            with self._wake:
                self._dropped = 0
        self._stored = stored
        if self._warned:
            logger.info("%s answers again", self._tracker.name)
        self._warned = False
        return stored

    def _write(self, points: Iterable[Point], stored: Stored) -> None:
        rest = iter(points)
        while batch := list(islice(rest, BATCH)):
            new = [point for each in batch if (point := each.beyond(stored)) is not None]
            if new:
                self._tracker.write(new)
            for point in new:
                stored |= dict.fromkeys(point.values, point.step)

    def _failed(self, error: Exception) -> None:
        # It is asked anew which steps it has: a request that failed may have been heard.
        self._stored = None
        self._due_at = time.monotonic() + RETRY_SECONDS
        if not self._warned:
            words = " ".join(f"{type(error).__name__}: {error}".split())
            logger.warning(
                "%s does not work: %.300s; the training goes on without it, and it is tried again "
                "every %.0f s. %s",
                self._tracker.name,
                words,
                RETRY_SECONDS,
                self._tracker.remedy,
            )
        self._warned = True

    def _identify(self, info: RunInfo) -> str:
        """What identifies the run over all attempts, and opens its journal."""
        folder = None if self._output is None else self._output / "tracking"
        run = self._job_uid
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
                name = self._tracker.name.lower()
                run = run or _remembered(folder, name, anew=info.start_step == 0)
                self._journal = Journal(folder / f"{name}-{run}.jsonl")
        except OSError as error:
            logger.warning("%s: %s", folder, error.strerror)
        return run or uuid.uuid4().hex


class Journal:
    """Points as lines of JSON, in a file that all attempts add to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last: Stored = {}
        for point in self.points():
            self._last |= dict.fromkeys(point.values, point.step)

    def add(self, points: Iterable[Point]) -> None:
        """Append those that are not there: a restart repeats some."""
        new = [point for each in points if (point := each.beyond(self._last)) is not None]
        with append_lines(self.path) as file:
            for point in new:
                file.write(json.dumps([point.step, point.seconds, point.values]) + "\n")
                self._last |= dict.fromkeys(point.values, point.step)

    def points(self) -> Iterator[Point]:
        """All of them; a line that a killed process has not written to its end is left out."""
        if not self.path.exists():
            return
        with self.path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                with suppress(ValueError, TypeError):
                    step, seconds, values = json.loads(line)
                    yield Point(step, seconds, values)


def needed(module: str, package: str) -> Any:
    """A module of a package that images need not have; raises Unusable where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Unusable(
            f"the image lacks the Python package {package} ({error}); add it "
            "(docs/trainer/results.md, Experiment trackers) or leave out the section tracking"
        ) from None


def _remembered(folder: Path, name: str, *, anew: bool) -> str:
    """The name of a run outside the cluster; a training that begins anew is another run."""
    path = folder / f"{name}-run.txt"
    run = None if anew else _known(path) or _of_newest_journal(folder, name)
    if run is None:
        run = uuid.uuid4().hex
    if _known(path) != run:
        replace_file(path, f"{run}\n")
    return run


def _known(path: Path) -> str | None:
    """The name in the file; None where there is none, or a node that died left only a part."""
    found = None
    if path.exists():
        found = RUN.fullmatch(path.read_text(encoding="ascii", errors="replace").strip())
    return found and found[0]


def _of_newest_journal(folder: Path, name: str) -> str | None:
    journals = [path for path in folder.glob(f"{name}-*.jsonl") if _run_of(path, name)]
    newest = max(journals, key=lambda path: path.stat().st_mtime_ns, default=None)
    return None if newest is None else _run_of(newest, name)


def _run_of(journal: Path, name: str) -> str | None:
    found = RUN.fullmatch(journal.stem.removeprefix(f"{name}-"))
    return found and found[0]
