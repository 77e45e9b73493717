"""A job on a cluster, for programs with an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from inception_operator.client.errors import NOT_FOUND, ClientError
from inception_operator.client.figures import name_of, state
from inception_operator.client.following import deleted
from inception_operator.client.outcome import is_ended
from inception_operator.client.place import SDK_MANAGER
from inception_operator.client.pod_logs import Line, PodLog, Reading
from inception_operator.contract.types import Json

from . import history, job_logs
from .async_cluster import AsyncCluster
from .async_following import LogFollower, changes, read
from .failure import result_of
from .fields import Status
from .metrics import Metric, metric_of
from .views import LogLine, Progress, Result

if TYPE_CHECKING:
    from pandas import DataFrame


class AsyncJob:
    """A job that exists, by its name; the verbs are those of `Job`.

    Its connections belong to one event loop. Close them, or use ``async with``.
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
        self._cluster = AsyncCluster(kubeconfig, context, namespace, SDK_MANAGER)
        self._seen: list[Progress] = []

    @classmethod
    def on(cls, cluster: AsyncCluster, name: str) -> Self:
        """A job over connections that exist."""
        job = cls(name)
        job._cluster = cluster
        return job

    @classmethod
    async def all(
        cls,
        *,
        labels: str = "",
        namespace: str | None = None,
        kubeconfig: str | None = None,
        context: str | None = None,
    ) -> list[Self]:
        """The jobs of a namespace; they share their connections, so it is enough to close one."""
        cluster = AsyncCluster(kubeconfig, context, namespace, SDK_MANAGER)
        try:
            found = await cluster.ask(cluster.questions.jobs(selector=labels))
        except BaseException:
            await cluster.close()
            raise
        if not found:
            await cluster.close()
        return [cls.on(cluster, name_of(job)) for job in found]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncJob({self.name!r})"

    async def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        await self._cluster.close()

    @property
    def namespace(self) -> str:
        """Where it is."""
        return self._cluster.namespace

    async def resource(self) -> Json:
        """All of it, as the API has it."""
        return await self._cluster.job(self.name)

    async def status(self) -> Status:
        """Its status, as the API has it; empty at first."""
        status: Any = (await self.resource()).get("status") or {}
        return cast("Status", status)

    async def state(self) -> str:
        """Pending, Starting, Running, Restarting, Suspended, Succeeded, Failed or Rejected."""
        return state(await self.resource())

    async def progress(self) -> Progress:
        """How far it is now."""
        return Progress.of(await self.resource())

    async def watch(self, timeout: float | None = None) -> AsyncGenerator[Progress, None]:  # noqa: ASYNC109
        """How far it is, now and after every change, until it has ended or is rejected."""
        last: Progress | None = None
        async with aclosing(changes(self._cluster, self.name, timeout)) as resources:
            async for resource in resources:
                progress = Progress.of(resource)
                if progress != last:
                    last = progress
                    self._seen.append(progress)
                    yield progress
                if is_ended(resource):
                    return
        raise deleted(self.name)

    async def result(self, timeout: float | None = None) -> Result:  # noqa: ASYNC109
        """Wait for its end, and take what came of it; raises TrainingFailed or TimedOutError."""
        async with aclosing(changes(self._cluster, self.name, timeout)) as resources:
            async for resource in resources:
                if is_ended(resource):
                    return result_of(resource)
        raise deleted(self.name)

    async def logs(
        self,
        *,
        follow: bool = False,
        rank: int | None = None,
        attempt: int | None = None,
        tail: int | None = None,
        since: float | None = None,
    ) -> AsyncGenerator[LogLine, None]:
        """The lines of its pods; with ``follow`` until it ends, in new pods too."""
        wanted = job_logs.reading(rank, attempt, tail, since)
        if follow:
            await self.resource()
            lines = LogFollower(self._cluster, self.name, wanted).lines()
        else:
            pods = job_logs.chosen(self._cluster, self.name, await self._pods(), wanted)
            lines = self._written(pods, wanted)
        async with aclosing(lines):
            async for line in lines:
                yield LogLine.of(line)

    async def metrics(self, *, follow: bool = False) -> AsyncGenerator[Metric, None]:
        """The figures that the bundled trainer has logged; with ``follow`` until it ends."""
        if follow:
            await self.resource()
            lines = LogFollower(self._cluster, self.name, Reading()).lines()
        else:
            lines = self._written(await self._pods(), Reading())
        async with aclosing(lines):
            async for line in lines:
                if (metric := metric_of(line)) is not None:
                    yield metric

    async def history(
        self, *, files: str | Path | None = None, prometheus: str | None = None
    ) -> DataFrame:
        """Its figures over time as a frame of pandas; see `Job.history`."""
        if files is not None:
            return history.frame(await asyncio.to_thread(history.of_files, files))
        if prometheus is not None:
            resource = await self.resource()
            rows = await asyncio.to_thread(history.of_prometheus, resource, prometheus)
            return history.frame(rows)
        found: list[Metric] = []
        refusal: ClientError | None = None
        try:
            async for metric in self.metrics():
                found.append(metric)  # noqa: PERF401 - those before an error count
        except ClientError as error:
            refusal = error
        return history.frame(history.rows_of(self.name, found, self._seen, refusal))

    async def suspend(self) -> None:
        """Let it save its state and free its nodes; `resume` goes on from there."""
        await self._cluster.ask(self._cluster.questions.suspend(self.name))

    async def resume(self) -> None:
        """Go on after `suspend`."""
        await self._cluster.ask(self._cluster.questions.suspend(self.name, False))

    async def scale(self, nodes: int) -> None:
        """Give it another number of nodes; see `Job.scale`."""
        await self._cluster.ask(self._cluster.questions.scale(self.name, nodes))

    async def cancel(self) -> None:
        """End it for good after it has saved its state, and keep it: Failed, DeadlineExceeded."""
        await self._cluster.ask(self._cluster.questions.cancel(self.name))

    async def delete(self, *, wait: bool = False) -> None:
        """Delete it and its pods, with ``wait`` until they are gone. Checkpoints stay."""
        await self._cluster.ask(self._cluster.questions.delete(self.name, waits=wait))
        if wait:
            try:
                async for _ in changes(self._cluster, self.name):
                    pass
            except ClientError as error:
                if error.code != NOT_FOUND:
                    raise

    async def _pods(self) -> list[Json]:
        pods = await self._cluster.pods(self.name)
        if not pods:
            # A job that is not there is said in other words.
            await self.resource()
        return pods

    async def _written(self, pods: Iterable[Json], wanted: Reading) -> AsyncGenerator[Line, None]:
        refusal: ClientError | None = None
        for pod in pods:
            try:
                async with aclosing(read(self._cluster, PodLog(pod, wanted))) as lines:
                    async for line in lines:
                        yield line
            except ClientError as error:
                if not job_logs.is_missing(error):
                    refusal = error
        if refusal is not None:
            raise refusal
