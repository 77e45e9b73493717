"""The logs of a job as an iterator."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from inception_operator.client import pod_logs
from inception_operator.client.cluster import Cluster
from inception_operator.client.errors import NOT_FOUND, ClientError
from inception_operator.client.log_filter import Choice
from inception_operator.client.place import Place
from inception_operator.client.pod_logs import Follower, Hearers, Line, PodLog, Reading
from inception_operator.contract.types import Json


@dataclass(frozen=True)
class _Fatal:
    """What ends the following of all pods."""

    error: Exception


SILENCE_SECONDS: Final = 30.0
"""After so many seconds without a line a log is asked for anew: whoever reads may have stopped."""


def reading(
    rank: int | None, attempt: int | None, tail: int | None, since: float | None
) -> Reading:
    """What is wanted of the log of each pod."""
    return Reading(Choice(rank, attempt), tail, since)


def chosen(place: Place, name: str, pods: Sequence[Json], wanted: Reading) -> Sequence[Json]:
    """The pods whose logs are read: the newest of each slot; for one attempt, older ones too."""
    if not pods:
        raise ClientError(
            f"{name} has no pods", f"`{place.command(f'describe {name}')}` says why.", NOT_FOUND
        )
    return pod_logs.chosen(pods, wanted.choice)


def written(cluster: Cluster, pods: Iterable[Json], wanted: Reading) -> Iterator[Line]:
    """What the pods have written until now, one after the other; then raises what kept it from
    reading one of them.
    """
    refusal: ClientError | None = None
    for pod in pods:
        try:
            yield from pod_logs.read(cluster, PodLog(pod, wanted))
        except ClientError as error:
            if not is_missing(error):
                refusal = error
    if refusal is not None:
        raise refusal


def is_missing(error: ClientError) -> bool:
    """Whether a pod has no log yet, or none any more."""
    return pod_logs.is_too_early(error) or pod_logs.is_away(error)


def followed(cluster: Cluster, name: str, wanted: Reading) -> Iterator[Line]:
    """What the pods write until the job has ended."""
    said: queue.SimpleQueue[Line | ClientError | _Fatal | None] = queue.SimpleQueue()
    hearers = Hearers(said.put, lambda _, error: said.put(error))
    follower = Follower(cluster, name, wanted, hearers, SILENCE_SECONDS)

    def run() -> None:
        try:
            follower.run()
        except Exception as error:
            # Not as one of a pod: the API server itself has been away for too long.
            said.put(_Fatal(error))
        said.put(None)

    threading.Thread(target=run, name=f"logs of {name}", daemon=True).start()
    try:
        while (heard := said.get()) is not None:
            if isinstance(heard, Line):
                yield heard
            elif isinstance(heard, _Fatal):
                raise heard.error
            elif not (is_missing(heard) or pod_logs.may_mend(heard)):
                raise heard
    finally:
        follower.stop()
