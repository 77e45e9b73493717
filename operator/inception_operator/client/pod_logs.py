"""What the pods of a job have written and go on writing, in new pods too."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from inception_operator.contract import names
from inception_operator.contract.types import Json

from .cluster import Cluster
from .errors import UNAVAILABLE, ClientError, CutError
from .figures import name_of, part
from .following import bear
from .log_filter import EVERY_LINE, Choice, LineFilter
from .outcome import is_ended
from .questions import Query
from .text import clean

POLL_SECONDS: Final = 2.0
LAST_SECONDS: Final = 10.0
"""How long the pods of a job that is over may be silent before they are left."""
GLANCE_SECONDS: Final = 0.2
READS: Final = 5
"""How often a log is asked for whose connection breaks each time."""
# A pod that is still being created has no log yet; the API server says so with a 400.
_NOT_YET: Final = 400
_DELETED: Final = 404
_OF_TRAINER: Final = (("container", names.CONTAINER),)
_ENDED: Final = frozenset(("Succeeded", "Failed"))


@dataclass(frozen=True)
class Line:
    """A line of a log."""

    pod: str
    time: str
    """When it was written, as the API server says it."""
    text: str

    @property
    def shown(self) -> str:
        """The text without what a terminal would obey."""
        # What a program draws over on its terminal comes as one line with returns in it.
        return clean(self.text).rstrip("\n").split("\n")[-1]


@dataclass(frozen=True)
class Reading:
    """What is wanted of the log of each pod."""

    choice: Choice = EVERY_LINE
    tail: int | None = None
    since: float | None = None

    @property
    def query(self) -> Query:
        """The parameters of the request."""
        if not self.choice.is_all:
            # Whose a line is, those before it may say: all of the log is needed.
            return _OF_TRAINER
        tail = [("tailLines", str(self.tail))] if self.tail is not None else []
        since = [("sinceSeconds", str(max(1, int(self.since))))] if self.since is not None else []
        return (*_OF_TRAINER, *tail, *since)

    @property
    def is_cut_here(self) -> bool:
        """Whether the beginning is left out here, and not by the API server."""
        return not self.choice.is_all and (self.tail is not None or self.since is not None)

    def shorten(self, lines: Iterable[Line]) -> Iterable[Line]:
        """The last of the lines that were chosen, where not all of them are wanted."""
        if self.choice.is_all:
            return lines
        if self.since is not None:
            begin = f"{datetime.now(UTC) - timedelta(seconds=self.since):%Y-%m-%dT%H:%M:%S}"
            lines = (line for line in lines if line.time >= begin)
        return lines if self.tail is None else deque(lines, maxlen=self.tail)


def select(pods: Sequence[Json], *, previous: bool) -> list[Json]:
    """The newest pod of each slot, or the one before it; by slot and incarnation they come."""
    found = []
    for _, group in itertools.groupby(pods, key=_slot):
        of_slot = list(group)
        if not previous:
            found.append(of_slot[-1])
        elif len(of_slot) > 1:
            found.append(of_slot[-2])
    return found


def chosen(pods: Sequence[Json], choice: Choice, *, previous: bool = False) -> list[Json]:
    """The pods whose logs may hold what is wanted."""
    if choice.attempt is not None and not previous:
        # One that is over may have run in pods that were replaced since.
        return list(pods)
    return select(pods, previous=previous)


def _slot(pod: Json) -> str:
    return str(part(pod, "metadata", "labels", names.LABEL_SLOT) or name_of(pod))


def split(line: bytes) -> tuple[str, str]:
    """The time in front of a line of the API server, and the line."""
    stamp, _, text = line.decode("utf-8", "replace").partition(" ")
    return stamp, text


class PodLog:
    """The log of one pod, read once or again and again; no line comes twice. No requests."""

    def __init__(self, pod: Json, reading: Reading) -> None:
        self.pod = name_of(pod)
        self._reading = reading
        self._filter = LineFilter(reading.choice, pod)
        self._last = ""
        self._before = ""
        self._kept: list[Line] | None = [] if reading.is_cut_here else None

    @property
    def unknown(self) -> int:
        """Lines left out because nothing says whose they are."""
        return self._filter.unknown

    def query(self, *, follow: bool) -> Query:
        """The parameters of the next request."""
        query = [*self._reading.query, ("timestamps", "true")]
        # What is left out of the log until now is known at its end only.
        if follow and self._kept is None:
            query.append(("follow", "true"))
        self._before = self._last
        if self._last:
            # Times are whole seconds there, so some lines come twice.
            query = [pair for pair in query if pair[0] not in ("tailLines", "sinceSeconds")]
            query.append(("sinceTime", f"{self._last[:19]}Z"))
        return query

    def take(self, raw: bytes) -> Iterator[Line]:
        """The next line of the answer, if it is new and wanted."""
        stamp, text = split(raw)
        if stamp <= self._before:
            return
        self._last = max(stamp, self._last)
        if not self._filter.wants(text):
            return
        line = Line(self.pod, stamp, text)
        if self._kept is None:
            yield line
        else:
            self._kept.append(line)

    def end(self) -> Iterable[Line]:
        """What was held back until the answer ended."""
        kept, self._kept = self._kept or [], None
        return self._reading.shorten(kept)


def read(
    cluster: Cluster, log: PodLog, *, follow: bool = False, silence: float | None = None
) -> Iterator[Line]:
    """The lines of a log since the last call, as they come.

    Where the connection breaks the rest is asked for; who follows a log does that anyhow.
    """
    path = cluster.core_path("pods", log.pod, "log")
    for tries_left in reversed(range(1 if follow else READS)):
        try:
            for raw in cluster.lines(path, log.query(follow=follow), seconds=silence):
                yield from log.take(raw)
            break
        except CutError:
            if not follow and not tries_left:
                raise
    yield from log.end()


def end_of_log(cluster: Cluster, pod: str, lines: int, size: int, silence: float) -> Iterator[str]:
    """The last lines of the log of a pod; no more than so many bytes, and for so many seconds."""
    query = [*_OF_TRAINER, ("tailLines", str(lines)), ("limitBytes", str(size))]
    # Asked of the server, and seen to: whoever answers may be of another mind.
    left, ends = size, time.monotonic() + silence
    for line in cluster.lines(cluster.core_path("pods", pod, "log"), query, silence):
        left -= len(line) + 1
        if left < 0 or time.monotonic() > ends:
            return
        yield line.decode("utf-8", "replace")


def is_starting(pod: Json) -> bool:
    """Whether a pod has no log yet."""
    return bool(part(pod, "status", "phase") == "Pending")


def has_ended(pod: Json) -> bool:
    """Whether a pod writes nothing more."""
    return part(pod, "status", "phase") in _ENDED


def is_too_early(error: ClientError) -> bool:
    """Whether a log is refused because its pod is still being created."""
    return getattr(error, "status", 0) == _NOT_YET


def is_away(error: ClientError) -> bool:
    """Whether a log is refused because its pod has been deleted."""
    return getattr(error, "status", 0) == _DELETED


def may_mend(error: ClientError) -> bool:
    """Whether a log is asked for again: its pod is being created, or node or API server is away."""
    return is_too_early(error) or error.code == UNAVAILABLE


@dataclass(frozen=True)
class Hearers:
    """Who is told the lines, and for which pods there are none; by several threads at a time."""

    line: Callable[[Line], object]
    remark: Callable[[str, ClientError], object]


class Follower:
    """One thread for each pod, until the job is over and all of them have said everything."""

    def __init__(
        self,
        cluster: Cluster,
        job: str,
        reading: Reading,
        hearers: Hearers,
        silence: float | None = None,
    ) -> None:
        self._cluster = cluster
        self._job = job
        self._reading = reading
        self._hearers = hearers
        self._silence = silence
        self._threads: dict[str, threading.Thread] = {}
        self._stopped = threading.Event()
        self._heard = 0.0
        self._broken: Exception | None = None

    def stop(self) -> None:
        """End it; a thread that waits for a line notices after so many seconds of silence."""
        self._stopped.set()

    def run(self, timeout: float | None = None) -> None:
        """Follow until the end of the job, or of the time; raises what a hearer raises."""
        self._run(timeout)
        if self._broken is not None:
            raise self._broken

    def _run(self, timeout: float | None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        lost_since: float | None = None
        while not self._stopped.is_set() and (deadline is None or time.monotonic() < deadline):
            try:
                # Asked first, so that pods made until then are among those found.
                over = is_ended(self._cluster.job(self._job))
                self._start(select(self._cluster.pods(self._job), previous=False))
                lost_since = None
            except ClientError as error:
                lost_since = bear(error, lost_since)
                over = False
            if over:
                break
            self._stopped.wait(POLL_SECONDS)
        else:
            return
        self._hear_out()
        self._stopped.set()

    def _hear_out(self) -> None:
        """Wait for what the pods of a job that is over have still to say."""
        self._heard = time.monotonic()
        for thread in self._threads.values():
            while thread.is_alive() and time.monotonic() - self._heard < LAST_SECONDS:
                thread.join(GLANCE_SECONDS)

    def _start(self, pods: Iterable[Json]) -> None:
        for pod in pods:
            uid = str(pod["metadata"].get("uid"))
            if uid in self._threads or is_starting(pod):
                continue
            thread = threading.Thread(target=self._follow, args=(pod,), daemon=True)
            self._threads[uid] = thread
            thread.start()

    def _follow(self, pod: Json) -> None:
        try:
            self._read_on(pod)
        except Exception as error:
            # Such as a terminal that is gone: nobody hears the other pods either.
            self._broken = error
            self._stopped.set()

    def _read_on(self, pod: Json) -> None:
        log = PodLog(pod, self._reading)
        is_told = False
        while not self._stopped.is_set():
            try:
                for line in read(self._cluster, log, follow=True, silence=self._silence):
                    self._heard = time.monotonic()
                    self._hearers.line(line)
            except ClientError as error:
                if not is_too_early(error) and not is_told:
                    self._hearers.remark(log.pod, error)
                    is_told = True
                if not may_mend(error):
                    return
            if self._has_ended(log.pod):
                return
            self._stopped.wait(POLL_SECONDS)

    def _has_ended(self, pod: str) -> bool:
        try:
            return has_ended(self._cluster.request("GET", self._cluster.core_path("pods", pod)))
        except ClientError as error:
            return not may_mend(error)
