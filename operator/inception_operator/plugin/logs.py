"""``logs``: what the pods of a job have written, each line with its pod in front."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

import click

from inception_operator.client.cluster import Cluster
from inception_operator.client.errors import ClientError
from inception_operator.client.figures import name_of
from inception_operator.client.log_filter import Choice, ranks_of
from inception_operator.client.pod_logs import (
    Follower,
    Hearers,
    Line,
    PodLog,
    Reading,
    chosen,
    read,
)
from inception_operator.client.text import clean_line
from inception_operator.contract.types import Json

from .options import Duration, cluster_options, job_argument
from .terminal import is_coloured, say, tell

_COLOURS: Final = ("cyan", "green", "magenta", "yellow", "blue", "red")


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
    says_why = f"`{cluster.command(f'describe {name}')}` says why."
    pods = chosen(cluster.pods(name), choice, previous=previous)
    if not pods:
        raise ClientError(*_nothing(name, previous, says_why))
    printed = [_print(cluster, pod, reading, printer) for pod in pods]
    if all(count is None for count in printed):
        raise ClientError(f"no pod of {name} has a log", says_why)
    if not choice.is_all and not any(printed):
        raise ClientError(f"no line of {choice} is in the logs of {name}", _ranks_there(pods))


def _ranks_there(pods: Sequence[Json]) -> str:
    """Which ranks the pods have now, for who has asked for another one."""
    texts = []
    for pod in pods:
        if (assigned := ranks_of(pod)) is not None:
            attempt, ranks = assigned
            span = f"{ranks[0]} to {ranks[-1]}" if len(ranks) > 1 else f"{ranks[0]}"
            texts.append(f"{name_of(pod)} has rank {span} in attempt {attempt}")
    return "; ".join([*texts, "without --rank and --attempt all lines are shown"]) + "."


def _nothing(name: str, previous: bool, says_why: str) -> tuple[str, str]:
    if previous:
        return (
            f"no pod of {name} was replaced, or those that were are gone",
            "An attempt in the same pods is in their log, without --previous.",
        )
    return f"{name} has no pods", says_why


class _Printer:
    """Lines of several pods, one at a time; each pod has a colour of its own."""

    def __init__(self, timestamps: bool, prefix: bool) -> None:
        self._timestamps = timestamps
        self._prefix = prefix
        self._lock = threading.Lock()
        self._colours: dict[str, str] = {}

    def __call__(self, line: Line) -> None:
        """Print one line."""
        shown = f"{line.time} {line.shown}" if self._timestamps else line.shown
        with self._lock:
            say(f"{self._head(line.pod)}{shown}")

    def _head(self, pod: str) -> str:
        if not self._prefix:
            return ""
        colour = self._colours.setdefault(pod, _COLOURS[len(self._colours) % len(_COLOURS)])
        head = f"[{clean_line(pod)}]"
        return f"{click.style(head, fg=colour) if is_coloured() else head} "


def _print(cluster: Cluster, pod: Json, reading: Reading, printer: _Printer) -> int | None:
    """Print the log of a pod; how many lines, and None when it has no log."""
    log = PodLog(pod, reading)
    count = 0
    try:
        for line in read(cluster, log):
            printer(line)
            count += 1
    except ClientError as error:
        tell(f"[{clean_line(log.pod)}] no log: {error.message}")
        return None
    if log.unknown:
        tell(
            f"[{clean_line(log.pod)}] {log.unknown} lines are left out: nothing says of which "
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
    hearers = Hearers(printer or _Printer(timestamps=False, prefix=True), _no_log)
    Follower(cluster, name, reading or Reading(), hearers).run(timeout)


def _no_log(pod: str, error: ClientError) -> None:
    tell(f"[{clean_line(pod)}] {error.message}")
