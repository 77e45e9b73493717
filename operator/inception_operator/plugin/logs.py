"""``logs``: what the pods of a job have written, each line with its pod in front."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import click

from inception_operator.contract import names
from inception_operator.contract.types import Json

from .api import Cluster, Query
from .errors import CliError
from .figures import part
from .following import bear
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


@click.command("logs")
@cluster_options
@job_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends, in new pods too.")
@click.option("-p", "--previous", is_flag=True, help="Of the pods that were replaced last.")
@click.option("--tail", type=click.IntRange(0), metavar="LINES", help="Only the last of each pod.")
@click.option("--since", type=Duration(), metavar="TIME", help="Only from this time on: 10m.")
@click.option("--timestamps", is_flag=True, help="With the time of each line.")
@click.option("--no-prefix", is_flag=True, help="Without the pod in front of each line.")
def logs(
    cluster: Cluster,
    name: str,
    follow: bool,
    previous: bool,
    tail: int | None,
    since: float | None,
    timestamps: bool,
    no_prefix: bool,
) -> None:
    """Print the logs of all pods of a job.

    Each line has its pod in front.
    """
    cluster.job(name)
    query = list(_OF_TRAINER)
    query += [("tailLines", str(tail))] if tail is not None else []
    query += [("sinceSeconds", str(max(1, int(since))))] if since is not None else []
    printer = _Printer(timestamps, not no_prefix)
    if follow:
        if previous:
            raise click.UsageError(
                "--previous and --follow do not go together: a replaced pod writes nothing more"
            )
        follow_logs(cluster, name, query, printer)
        return
    pods = select(cluster.pods(name), previous=previous)
    if not pods:
        raise CliError(*_nothing(name, previous))
    printed = [_print(cluster, pod, query, printer) for pod in pods]
    if not any(printed):
        raise CliError(f"no pod of {name} has a log", f"`{program()} describe {name}` says why.")


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


def _print(cluster: Cluster, pod: Json, query: Query, printer: _Printer) -> bool:
    """Print the log of a pod; False when it has none."""
    name = name_of(pod)
    try:
        for stamp, text in _lines(cluster, name, query):
            printer(name, stamp, text)
    except CliError as error:
        tell(f"[{clean_line(name)}] no log: {error.message}")
        return False
    return True


def follow_logs(
    cluster: Cluster,
    name: str,
    query: Query = _OF_TRAINER,
    printer: _Printer | None = None,
    timeout: float | None = None,
) -> None:
    """Print the logs of a job until it ends, or until the time is over."""
    printer = printer or _Printer(timestamps=False, prefix=True)
    _Follower(cluster, name, query, printer).run(timeout)


class _Follower:
    """One thread for each pod, until the job is over and all of them have said everything."""

    def __init__(self, cluster: Cluster, job: str, query: Query, printer: _Printer) -> None:
        self._cluster = cluster
        self._job = job
        self._query = query
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
            thread = threading.Thread(target=self._follow, args=(name_of(pod),), daemon=True)
            self._threads[uid] = thread
            thread.start()

    def _follow(self, pod: str) -> None:
        last = ""
        while True:
            query = [*self._query, ("follow", "true")]
            if last:
                # Times are whole seconds there, so some lines come twice.
                query = [pair for pair in query if pair[0] not in ("tailLines", "sinceSeconds")]
                query.append(("sinceTime", f"{last[:19]}Z"))
            try:
                for stamp, text in _lines(self._cluster, pod, query):
                    if stamp > last:
                        last = stamp
                        self._printer(pod, stamp, text)
            except CliError as error:
                if getattr(error, "status", 0) != _NOT_YET:
                    tell(f"[{clean_line(pod)}] {error.message}")
                    return
            if self._has_ended(pod):
                return
            time.sleep(_POLL_SECONDS)

    def _has_ended(self, pod: str) -> bool:
        try:
            found = self._cluster.request("GET", self._cluster.core_path("pods", pod))
        except CliError:
            return True
        return part(found, "status", "phase") in _ENDED
