"""A job and its logs as they change, for an event loop; `client.following` and `client.pod_logs`
say what is asked next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from inception_operator.client import pod_logs
from inception_operator.client.errors import ClientError, CutError
from inception_operator.client.following import Following, bear, change
from inception_operator.client.outcome import is_ended
from inception_operator.client.pod_logs import Line, PodLog, Reading
from inception_operator.contract.types import Json

from .async_cluster import AsyncCluster


async def changes(
    cluster: AsyncCluster,
    name: str,
    timeout: float | None = None,  # noqa: ASYNC109 - it ends a watch, not a wait
) -> AsyncGenerator[Json, None]:
    """The job as it is, and after every change. Ends when it has been deleted, with an error when
    the time is over.
    """
    following = Following(name, timeout)
    while True:
        try:
            job = await cluster.job(name)
            if not following.is_same(job):
                return
            yield job
            query, seconds = following.watch(job)
            path = cluster.questions.jobs_path()
            async with aclosing(cluster.lines(path, query, seconds)) as lines:
                async for line in lines:
                    found = change(line)
                    if found is None:
                        break
                    if found.is_end:
                        return
                    yield found.job
        except ClientError as error:
            if following.is_gone(error):
                return
        await asyncio.sleep(following.pause())


async def read(
    cluster: AsyncCluster, log: PodLog, *, follow: bool = False
) -> AsyncGenerator[Line, None]:
    """The lines of a log since the last call, as they come."""
    path = cluster.questions.core_path("pods", log.pod, "log")
    for tries_left in reversed(range(1 if follow else pod_logs.READS)):
        try:
            async with aclosing(cluster.lines(path, log.query(follow=follow))) as lines:
                async for raw in lines:
                    for line in log.take(raw):
                        yield line
            break
        except CutError:
            if not follow and not tries_left:
                raise
    for line in log.end():
        yield line


class LogFollower:
    """One task for each pod, until the job is over and all of them have said everything."""

    def __init__(self, cluster: AsyncCluster, job: str, reading: Reading) -> None:
        self._cluster = cluster
        self._job = job
        self._reading = reading
        self._said: asyncio.Queue[Line | Exception | None] = asyncio.Queue()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._heard = 0.0

    async def lines(self) -> AsyncGenerator[Line, None]:
        """The lines of all pods as they come; raises what keeps it from reading them."""
        looking = asyncio.create_task(self._look(), name=f"logs of {self._job}")
        try:
            while (said := await self._said.get()) is not None:
                if isinstance(said, Exception):
                    raise said
                yield said
        finally:
            tasks = [looking, *self._tasks.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self) -> None:
        try:
            await self._start_all()
            await self._hear_out()
        except Exception as error:
            self._said.put_nowait(error)
        self._said.put_nowait(None)

    async def _hear_out(self) -> None:
        """Wait for what the pods of a job that is over have still to say."""
        self._heard = time.monotonic()
        left = set(self._tasks.values())
        while left and time.monotonic() - self._heard < pod_logs.LAST_SECONDS:
            _, left = await asyncio.wait(left, timeout=pod_logs.GLANCE_SECONDS)

    async def _start_all(self) -> None:
        lost_since: float | None = None
        over = False
        while not over:
            try:
                # Asked first, so that pods made until then are among those found.
                over = is_ended(await self._cluster.job(self._job))
                self._start(await self._cluster.pods(self._job))
                lost_since = None
            except ClientError as error:
                lost_since = bear(error, lost_since)
                over = False
            if not over:
                await asyncio.sleep(pod_logs.POLL_SECONDS)

    def _start(self, pods: list[Json]) -> None:
        for pod in pod_logs.select(pods, previous=False):
            uid = str(pod["metadata"].get("uid"))
            if uid not in self._tasks and not pod_logs.is_starting(pod):
                task = asyncio.create_task(self._follow(pod), name=f"log of {uid}")
                self._tasks[uid] = task

    async def _follow(self, pod: Json) -> None:
        log = PodLog(pod, self._reading)
        while True:
            try:
                async for line in read(self._cluster, log, follow=True):
                    self._heard = time.monotonic()
                    self._said.put_nowait(line)
            except ClientError as error:
                if not pod_logs.may_mend(error):
                    if not pod_logs.is_away(error):
                        self._said.put_nowait(error)
                    return
            if await self._has_ended(log.pod):
                return
            await asyncio.sleep(pod_logs.POLL_SECONDS)

    async def _has_ended(self, pod: str) -> bool:
        try:
            return pod_logs.has_ended(await self._cluster.pod(pod))
        except ClientError as error:
            return not pod_logs.may_mend(error)
