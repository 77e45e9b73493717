"""``logs``: what the pods of a job have written, each line with its pod in front."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import click

from inception_operator.contract import names
from inception_operator.contract.types import Json

from .api import Cluster, Query
from .errors import CliError
from .figures import part
from .following import bear
from .log_filter import EVERY_LINE, Choice, LineFilter, ranks_of
from .options import Duration, cluster_options, job_argument
from .outcome import exit_code
from .output import name_of
from .terminal import clean, clean_line, is_coloured, program, say, tell

_COLOURS: Final = ("cyan", "green", "magenta", "yellow", "blue", "red")
_POLL_SECONDS: Final = 2.0
# A pod that is still being created has no log yet; the API server says so with a 400.
_NOT_YET: Final = 400
_OF_TRAINER: Final = (("container", names.CONTAINER),)
_ENDED: Final = frozenset(("Succeeded", "Failed"))


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

    def shorten(self, lines: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
        """The last of the lines that were chosen, where not all of them are wanted."""
        if self.choice.is_all:
            return lines
        if self.since is not None:
            begin = f"{datetime.now(UTC) - timedelta(seconds=self.since):%Y-%m-%dT%H:%M:%S}"
            lines = (line for line in lines if line[0] >= begin)
        return lines if self.tail is None else deque(lines, maxlen=self.tail)


@click.command("logs")
@cluster_options
@job_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends, in new pods too.")
@click.option("-p", "--previous", is_flag=True, help="Of the pods that were replaced last.")
@click.option("--rank", type=click.IntRange(0), metavar="N", help="Only of this rank.")
@click.option("--attempt", type=click.IntRange(1), metavar="N", help="Only of this attempt.")
@click.option("--tail", type=click.IntRange(0), metavar="LINES", help="Only the last of each pod.")
@click.option("--since", type=Duration(), metavar="TIME", help="Only from this time on: 10m.")
@click.option("--timestamps", is_flag=True, help="With the time of each line.")
@click.option("--no-prefix", is_flag=True, help="Without the pod in front of each line.")
def logs(
    cluster: Cluster,
    name: str,
    follow: bool,
    previous: bool,
    rank: int | None,
    attempt: int | None,
    tail: int | None,
    since: float | None,
    timestamps: bool,
    no_prefix: bool,
) -> None:
    """Print the logs of all pods of a job.

    Each line has its pod in front. Lines that do not say their rank are shown with every rank of
    their pod.
    """
    cluster.job(name)
    choice = Choice(rank, attempt)
    reading = Reading(choice, tail, since)
    printer = _Printer(timestamps, not no_prefix)
    if follow:
        if previous:
            raise click.UsageError(
                "--previous and --follow do not go together: a replaced pod writes nothing more"
            )
        follow_logs(cluster, name, reading, printer)
        return
    pods = cluster.pods(name)
    # An attempt that is over may have run in pods that were replaced since.
    chosen = pods if attempt is not None and not previous else select(pods, previous=previous)
    if not chosen:
        raise CliError(*_nothing(name, previous))
    printed = [_print(cluster, pod, reading, printer) for pod in chosen]
    if all(count is None for count in printed):
        raise CliError(f"no pod of {name} has a log", f"`{program()} describe {name}` says why.")
    if not choice.is_all and not any(printed):
        raise CliError(f"no line of {choice} is in the logs of {name}", _ranks_there(chosen))


def _ranks_there(pods: Sequence[Json]) -> str:
    """Which ranks the pods have now, for who has asked for another one."""
    texts = []
    for pod in pods:
        if (assigned := ranks_of(pod)) is not None:
            attempt, ranks = assigned
            span = f"{ranks[0]} to {ranks[-1]}" if len(ranks) > 1 else f"{ranks[0]}"
            texts.append(f"{name_of(pod)} has rank {span} in attempt {attempt}")
    return "; ".join([*texts, "without --rank and --attempt all lines are shown"]) + "."


def _nothing(name: str, previous: bool) -> tuple[str, str]:
    if previous:
        return (
            f"no pod of {name} was replaced, or those that were are gone",
            "An attempt in the same pods is in their log, without --previous.",
        )
    return f"{name} has no pods", f"`{program()} describe {name}` says why."


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


def _slot(pod: Json) -> str:
    return str(part(pod, "metadata", "labels", names.LABEL_SLOT) or name_of(pod))


class _Printer:
    """Lines of several pods, one at a time; each pod has a colour of its own."""

    def __init__(self, timestamps: bool, prefix: bool) -> None:
        self._timestamps = timestamps
        self._prefix = prefix
        self._lock = threading.Lock()
        self._colours: dict[str, str] = {}

    def __call__(self, pod: str, time_of: str, text: str) -> None:
        """Print one line."""
        # What a program draws over on its terminal comes as one line with returns in it.
        shown = clean(text).rstrip("\n").split("\n")[-1]
        if self._timestamps:
            shown = f"{time_of} {shown}"
        with self._lock:
            say(f"{self._head(pod)}{shown}")

    def _head(self, pod: str) -> str:
        if not self._prefix:
            return ""
        colour = self._colours.setdefault(pod, _COLOURS[len(self._colours) % len(_COLOURS)])
        head = f"[{clean_line(pod)}]"
        return f"{click.style(head, fg=colour) if is_coloured() else head} "


def split(line: bytes) -> tuple[str, str]:
    """The time in front of a line of the API server, and the line."""
    stamp, _, text = line.decode("utf-8", "replace").partition(" ")
    return stamp, text


def _lines(cluster: Cluster, pod: str, query: Query) -> Iterator[tuple[str, str]]:
    path = cluster.core_path("pods", pod, "log")
    return map(split, cluster.lines(path, [*query, ("timestamps", "true")]))


def _print(cluster: Cluster, pod: Json, reading: Reading, printer: _Printer) -> int | None:
    """Print the log of a pod; how many lines, and None when it has no log."""
    name = name_of(pod)
    chosen = LineFilter(reading.choice, pod)
    count = 0
    try:
        lines = (line for line in _lines(cluster, name, reading.query) if chosen.wants(line[1]))
        for stamp, text in reading.shorten(lines):
            printer(name, stamp, text)
            count += 1
    except CliError as error:
        tell(f"[{clean_line(name)}] no log: {error.message}")
        return None
    if chosen.unknown:
        tell(
            f"[{clean_line(name)}] {chosen.unknown} lines are left out: nothing says of which "
            "attempt or rank they are"
        )
    return count


def follow_logs(
    cluster: Cluster,
    name: str,
    reading: Reading | None = None,
    printer: _Printer | None = None,
    timeout: float | None = None,
) -> None:
    """Print the logs of a job until it ends, or until the time is over."""
    printer = printer or _Printer(timestamps=False, prefix=True)
    _Follower(cluster, name, reading or Reading(), printer).run(timeout)


class _PodLog:
    """The log of one pod, read again and again; no line comes twice."""

    def __init__(self, cluster: Cluster, pod: Json, reading: Reading) -> None:
        self._cluster = cluster
        self._pod = name_of(pod)
        self._reading = reading
        self._filter = LineFilter(reading.choice, pod)
        self._last = ""
        self._is_first = True

    def news(self) -> Iterator[tuple[str, str]]:
        """The lines since the last call, as they come."""
        reading = self._reading
        whole = self._is_first and not reading.choice.is_all
        if whole and (reading.tail is not None or reading.since is not None):
            # What is left out of the log until now is known at its end only.
            found = list(reading.shorten(self._wanted(reading.query)))
            self._is_first = False
            yield from found
            return
        query = [*reading.query, ("follow", "true")]
        if self._last:
            # Times are whole seconds there, so some lines come twice.
            query = [pair for pair in query if pair[0] not in ("tailLines", "sinceSeconds")]
            query.append(("sinceTime", f"{self._last[:19]}Z"))
        yield from self._wanted(query)

    def _wanted(self, query: Query) -> Iterator[tuple[str, str]]:
        for stamp, text in _lines(self._cluster, self._pod, query):
            if stamp > self._last:
                self._last = stamp
                if self._filter.wants(text):
                    yield stamp, text


class _Follower:
    """One thread for each pod, until the job is over and all of them have said everything."""

    def __init__(self, cluster: Cluster, job: str, reading: Reading, printer: _Printer) -> None:
        self._cluster = cluster
        self._job = job
        self._reading = reading
        self._printer = printer
        self._threads: dict[str, threading.Thread] = {}

    def run(self, timeout: float | None) -> None:
        """Follow until the end of the job, or of the time."""
        deadline = None if timeout is None else time.monotonic() + timeout
        lost_since: float | None = None
        while deadline is None or time.monotonic() < deadline:
            try:
                # Asked first, so that pods made until then are among those found.
                over = exit_code(self._cluster.job(self._job)) is not None
                self._start(select(self._cluster.pods(self._job), previous=False))
                lost_since = None
            except CliError as error:
                lost_since = bear(error, lost_since)
                over = False
            if over:
                break
            time.sleep(_POLL_SECONDS)
        else:
            return
        for thread in self._threads.values():
            thread.join(_POLL_SECONDS * 5)

    def _start(self, pods: Iterable[Json]) -> None:
        for pod in pods:
            uid = str(pod["metadata"].get("uid"))
            if uid in self._threads or part(pod, "status", "phase") == "Pending":
                continue
            thread = threading.Thread(target=self._follow, args=(pod,), daemon=True)
            self._threads[uid] = thread
            thread.start()

    def _follow(self, pod: Json) -> None:
        name, log = name_of(pod), _PodLog(self._cluster, pod, self._reading)
        while True:
            try:
                for stamp, text in log.news():
                    self._printer(name, stamp, text)
            except CliError as error:
                if getattr(error, "status", 0) != _NOT_YET:
                    tell(f"[{clean_line(name)}] {error.message}")
                    return
            if self._has_ended(name):
                return
            time.sleep(_POLL_SECONDS)

    def _has_ended(self, pod: str) -> bool:
        try:
            found = self._cluster.request("GET", self._cluster.core_path("pods", pod))
        except CliError:
            return True
        return part(found, "status", "phase") in _ENDED
