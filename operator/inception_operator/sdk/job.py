"""A job on a cluster, for programs that wait."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from inception_operator.client import pod_logs
from inception_operator.client.cluster import Cluster
from inception_operator.client.errors import ClientError
from inception_operator.client.figures import name_of, state
from inception_operator.client.following import changes, deleted, until, until_gone
from inception_operator.client.outcome import is_ended
from inception_operator.client.place import SDK_MANAGER
from inception_operator.contract.types import Json

from . import history, job_logs
from .failure import result_of
from .fields import Status
from .metrics import Metric, metric_of
from .views import LogLine, Progress, Result

if TYPE_CHECKING:
    from pandas import DataFrame


class Job:
    """A job that exists, by its name.

    By default on the cluster and in the namespace that kubectl works with. Every method asks the
    API server anew. It can be used with ``with``, which closes its connections at the end.
    """

    def __init__(
        self,
        name: str,
        *,
        namespace: str | None = None,
        kubeconfig: str | None = None,
        context: str | None = None,
    ) -> None:
        self.name = name
        self._cluster = Cluster(kubeconfig, context, namespace, SDK_MANAGER)
        self._seen: list[Progress] = []

    @classmethod
    def on(cls, cluster: Cluster, name: str) -> Self:
        """A job over connections that exist."""
        job = cls(name)
        job._cluster = cluster
        return job

    @classmethod
    def all(
        cls,
        *,
        labels: str = "",
        namespace: str | None = None,
        kubeconfig: str | None = None,
        context: str | None = None,
    ) -> list[Self]:
        """The jobs of a namespace; ``labels`` is a selector such as ``team=vision``."""
        cluster = Cluster(kubeconfig, context, namespace, SDK_MANAGER)
        return [cls.on(cluster, name_of(job)) for job in cluster.jobs(selector=labels)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Job({self.name!r})"

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        self._cluster.close()

    @property
    def namespace(self) -> str:
        """Where it is."""
        return self._cluster.namespace

    def resource(self) -> Json:
        """All of it, as the API has it."""
        return self._cluster.job(self.name)

    def status(self) -> Status:
        """Its status, as the API has it; empty at first."""
        status: Any = self.resource().get("status") or {}
        return cast("Status", status)

    def state(self) -> str:
        """Pending, Starting, Running, Restarting, Suspended, Succeeded, Failed or Rejected."""
        return state(self.resource())

    def progress(self) -> Progress:
        """How far it is now."""
        return Progress.of(self.resource())

    def watch(self, timeout: float | None = None) -> Iterator[Progress]:
        """How far it is, now and after every change, until it has ended or is rejected.

        Raises TimedOutError after ``timeout`` seconds; the job goes on.
        """
        last: Progress | None = None
        for resource in changes(self._cluster, self.name, timeout):
            progress = Progress.of(resource)
            if progress != last:
                last = progress
                self._seen.append(progress)
                yield progress
            if is_ended(resource):
                return
        raise deleted(self.name)

    def result(self, timeout: float | None = None) -> Result:
        """Wait for its end, and take what came of it.

        Raises TrainingFailed when it fails or is rejected, TimedOutError after ``timeout`` seconds.
        """
        return result_of(until(self._cluster, self.name, is_ended, timeout))

    def logs(
        self,
        *,
        follow: bool = False,
        rank: int | None = None,
        attempt: int | None = None,
        tail: int | None = None,
        since: float | None = None,
    ) -> Iterator[LogLine]:
        """The lines of its pods; with ``follow`` until it ends, in new pods too.

        ``tail`` is how many of each pod, ``since`` how many seconds back.
        """
        wanted = job_logs.reading(rank, attempt, tail, since)
        if follow:
            self.resource()
            lines = job_logs.followed(self._cluster, self.name, wanted)
        else:
            pods = job_logs.chosen(self._cluster, self.name, self._pods(), wanted)
            lines = job_logs.written(self._cluster, pods, wanted)
        yield from map(LogLine.of, lines)

    def metrics(self, *, follow: bool = False) -> Iterator[Metric]:
        """The figures that the bundled trainer has logged, step by step; with ``follow`` until it
        ends.
        """
        if follow:
            self.resource()
            lines = job_logs.followed(self._cluster, self.name, pod_logs.Reading())
        else:
            # Those of pods that were replaced, too, as long as they are there.
            lines = job_logs.written(self._cluster, self._pods(), pod_logs.Reading())
        yield from (metric for line in lines if (metric := metric_of(line)) is not None)

    def history(
        self, *, files: str | Path | None = None, prometheus: str | None = None
    ) -> DataFrame:
        """Its figures over time as a frame of pandas.

        From the folder ``files`` of its run, the Prometheus at a URL, or else the logs of its pods;
        where no pod has any, from what this object has watched.
        """
        if files is not None:
            return history.frame(history.of_files(files))
        if prometheus is not None:
            return history.frame(history.of_prometheus(self.resource(), prometheus))
        found: list[Metric] = []
        refusal: ClientError | None = None
        try:
            found.extend(self.metrics())
        except ClientError as error:
            refusal = error
        return history.frame(history.rows_of(self.name, found, self._seen, refusal))

    def suspend(self) -> None:
        """Let it save its state and free its nodes; `resume` goes on from there."""
        self._cluster.ask(self._cluster.questions.suspend(self.name))

    def resume(self) -> None:
        """Go on after `suspend`."""
        self._cluster.ask(self._cluster.questions.suspend(self.name, False))

    def scale(self, nodes: int) -> None:
        """Give it another number of nodes: an elastic job while it runs, any other one while it is
        suspended.
        """
        self._cluster.ask(self._cluster.questions.scale(self.name, nodes))

    def cancel(self) -> None:
        """End it for good after it has saved its state, and keep it: Failed, DeadlineExceeded."""
        self._cluster.ask(self._cluster.questions.cancel(self.name))

    def delete(self, *, wait: bool = False) -> None:
        """Delete it and its pods, with ``wait`` until they are gone. Checkpoints stay."""
        self._cluster.ask(self._cluster.questions.delete(self.name, waits=wait))
        if wait:
            until_gone(self._cluster, self.name)

    def _pods(self) -> list[Json]:
        pods = self._cluster.pods(self.name)
        if not pods:
            # A job that is not there is said in other words.
            self.resource()
        return pods
