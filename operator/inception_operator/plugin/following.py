"""A job as it changes, by a watch on the API server: one request for minutes of changes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Final

from inception_operator.contract.types import Json

from .api import Cluster
from .errors import NOT_FOUND, TIMED_OUT, UNAVAILABLE, CliError
from .output import name_of

_WATCH_SECONDS: Final = 240
_PAUSE: Final = 1.0
# An API server that is upgraded is away for a minute.
_PATIENCE: Final = 120.0


def changes(cluster: Cluster, name: str, timeout: float | None = None) -> Iterator[Json]:
    """The job as it is, and after every change. Ends when it has been deleted, with an error when
    the time is over.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    uid = ""
    lost_since: float | None = None
    while True:
        try:
            job = cluster.job(name)
            lost_since = None
            found = str(job["metadata"].get("uid", ""))
            if uid and found != uid:
                return
            uid = found
            yield job
            for change in _watch(cluster, job, _seconds_left(deadline, name)):
                if change is None:
                    return
                yield change
        except CliError as error:
            if uid and error.code == NOT_FOUND:
                return
            # A wrong kubeconfig does not mend itself, a server that has answered before does.
            if not uid:
                raise
            lost_since = bear(error, lost_since)
        _seconds_left(deadline, name)
        time.sleep(_PAUSE)


def bear(error: CliError, since: float | None) -> float:
    """Since when the server has been away; raises when that is too long, and any other error."""
    if error.code != UNAVAILABLE:
        raise error
    now = time.monotonic()
    if since is not None and now - since > _PATIENCE:
        raise error
    return now if since is None else since


def _seconds_left(deadline: float | None, name: str) -> float:
    if deadline is None:
        return _WATCH_SECONDS
    left = deadline - time.monotonic()
    if left <= 0:
        raise CliError(f"{name}: the time is over", code=TIMED_OUT)
    return min(left, _WATCH_SECONDS)


def _watch(cluster: Cluster, job: Json, seconds: float) -> Iterator[Json | None]:
    """The changes of a job for a while; None when it has been deleted."""
    query = [
        ("watch", "true"),
        ("fieldSelector", f"metadata.name={name_of(job)}"),
        ("resourceVersion", str(job["metadata"].get("resourceVersion", ""))),
        ("timeoutSeconds", str(max(1, int(seconds)))),
    ]
    for line in cluster.lines(cluster.jobs_path(), query, seconds=seconds + 5):
        try:
            event = json.loads(line)
        except ValueError:
            return
        if event.get("type") == "DELETED":
            yield None
        if event.get("type") not in ("ADDED", "MODIFIED"):
            return
        yield event["object"]


def until(
    cluster: Cluster,
    name: str,
    done: Callable[[Json], bool],
    timeout: float | None = None,
    seen: Callable[[Json], None] = lambda _: None,
) -> Json:
    """The job once ``done`` says so; ``seen`` is shown every change."""
    for job in changes(cluster, name, timeout):
        seen(job)
        if done(job):
            return job
    raise CliError(f"{name} has been deleted meanwhile", code=NOT_FOUND)
