"""A job as it changes, by a watch on the API server: one request for minutes of changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from inception_operator.contract.types import Json

from .cluster import Cluster
from .errors import NOT_FOUND, UNAVAILABLE, ClientError, TimedOutError
from .figures import name_of, part
from .outcome import is_ended, is_suspended
from .questions import Query

_WATCH_SECONDS: Final = 240
_PAUSE: Final = 1.0
# An API server that is upgraded is away for a minute.
_PATIENCE: Final = 120.0


@dataclass(frozen=True)
class Change:
    """What one line of a watch says: the job as it is now, or that it has been deleted."""

    job: Json
    is_end: bool = False


class Following:
    """What is asked next about a job that is followed, and for how long; no requests."""

    def __init__(self, name: str, timeout: float | None = None) -> None:
        self._name = name
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._uid = ""
        self._lost_since: float | None = None

    def is_same(self, job: Json) -> bool:
        """Whether the job is still the one that was first found, not a successor of its name."""
        self._lost_since = None
        found = str(job["metadata"].get("uid", ""))
        if self._uid and found != self._uid:
            return False
        self._uid = found
        return True

    def watch(self, job: Json) -> tuple[Query, float]:
        """The parameters of a watch from here on, and for how many seconds it may be silent."""
        seconds = self._seconds_left()
        query = [
            ("watch", "true"),
            ("fieldSelector", f"metadata.name={name_of(job)}"),
            ("resourceVersion", str(job["metadata"].get("resourceVersion", ""))),
            ("timeoutSeconds", str(max(1, int(seconds)))),
        ]
        return query, seconds + 5

    def is_gone(self, error: ClientError) -> bool:
        """Whether the job has been deleted; raises what does not mend itself."""
        if self._uid and error.code == NOT_FOUND:
            return True
        # A wrong kubeconfig does not mend itself, a server that has answered before does.
        if not self._uid:
            raise error
        self._lost_since = bear(error, self._lost_since)
        return False

    def pause(self) -> float:
        """Seconds until the next look; raises when the time is over."""
        self._seconds_left()
        return _PAUSE

    def _seconds_left(self) -> float:
        if self._deadline is None:
            return _WATCH_SECONDS
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimedOutError(f"{self._name}: the time is over")
        return min(left, _WATCH_SECONDS)


def change(line: bytes) -> Change | None:
    """What a line of a watch says; None when the job has to be asked for anew."""
    # pydantic takes time, and the client that has asked has imported it already.
    from inception_operator.contract.decoding import MalformedError, decode_event

    try:
        event = decode_event(line)
    except MalformedError:
        return None
    if part(event, "type") not in ("ADDED", "MODIFIED", "DELETED"):
        return None
    return Change(event["object"], event["type"] == "DELETED")


def changes(cluster: Cluster, name: str, timeout: float | None = None) -> Iterator[Json]:
    """The job as it is, and after every change. Ends when it has been deleted, with an error when
    the time is over.
    """
    following = Following(name, timeout)
    while True:
        try:
            job = cluster.job(name)
            if not following.is_same(job):
                return
            yield job
            query, seconds = following.watch(job)
            for line in cluster.lines(cluster.jobs_path(), query, seconds=seconds):
                found = change(line)
                if found is None:
                    break
                if found.is_end:
                    return
                yield found.job
        except ClientError as error:
            if following.is_gone(error):
                return
        time.sleep(following.pause())


def bear(error: ClientError, since: float | None) -> float:
    """Since when the server has been away; raises when that is too long, and any other error."""
    if error.code != UNAVAILABLE:
        raise error
    now = time.monotonic()
    if since is not None and now - since > _PATIENCE:
        raise error
    return now if since is None else since


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
    raise deleted(name)


def until_held(
    cluster: Cluster,
    name: str,
    timeout: float | None = None,
    *,
    given_up: Callable[[Json], bool] = is_ended,
) -> Json:
    """The job once it is suspended and none of its pods is left, or once it can be no more."""
    deadline = None if timeout is None else time.monotonic() + timeout
    left = timeout
    while True:
        job = until(cluster, name, lambda job: is_suspended(job) or given_up(job), left)
        # The status says so as soon as the pods are told to save; who waits wants their nodes.
        if not is_suspended(job) or not cluster.pods(name):
            return job
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimedOutError(f"{name}: the time is over, and its pods still save")
        time.sleep(_PAUSE)


def until_gone(cluster: Cluster, name: str) -> None:
    """Return once the job is not there any more."""
    try:
        for _ in changes(cluster, name):
            pass
    except ClientError as error:
        if error.code != NOT_FOUND:
            raise


def deleted(name: str) -> ClientError:
    """Who waited for a job waits in vain."""
    return ClientError(f"{name} has been deleted meanwhile", code=NOT_FOUND)
