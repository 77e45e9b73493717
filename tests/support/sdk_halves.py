"""Both halves of the Python SDK by the same verbs: the asynchronous one, run to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from inception_operator.sdk import AsyncJob, Job, Training


class Waiting:
    """The half that waits, as it is."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []

    def submit(self, training: Training, **place: Any) -> Any:
        """Start a training."""
        return self._kept(training.submit(**place))

    def job(self, name: str, **place: Any) -> Any:
        """A job that is there."""
        return self._kept(Job(name, **place))

    def all(self, **place: Any) -> list[str]:
        """The names of the jobs."""
        found = Job.all(**place)
        for job in found:
            self._kept(job)
        return [job.name for job in found]

    def close(self) -> None:
        """Close all connections."""
        for job in self._jobs:
            job.close()

    def _kept(self, job: Job) -> Job:
        self._jobs.append(job)
        return job


class Looping:
    """The half for an event loop, with a loop of the test's."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._jobs: list[AsyncJob] = []

    def submit(self, training: Training, **place: Any) -> Any:
        """Start a training."""
        return self._kept(self._run(training.submit_async(**place)))

    def job(self, name: str, **place: Any) -> Any:
        """A job that is there."""
        return self._kept(AsyncJob(name, **place))

    def all(self, **place: Any) -> list[str]:
        """The names of the jobs."""
        found = self._run(AsyncJob.all(**place))
        for job in found:
            self._kept(job)
        return [job.name for job in found]

    def close(self) -> None:
        """Close all connections, and the loop."""
        for job in self._jobs:
            self._run(job.close())
        self._run(self._loop.shutdown_asyncgens())
        self._loop.close()

    def _kept(self, job: AsyncJob) -> Any:
        self._jobs.append(job)
        return _Run(job, self._run)

    def _run(self, awaitable: Any) -> Any:
        return self._loop.run_until_complete(awaitable)


class _Run:
    """A job whose coroutines and asynchronous iterators are run."""

    def __init__(self, job: AsyncJob, run: Callable[[Any], Any]) -> None:
        self._job = job
        self._run = run

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._job, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            made = found(*arguments, **options)
            return self._items(made) if hasattr(made, "__anext__") else self._run(made)

        return call

    def _items(self, iterator: Any) -> Iterator[Any]:
        try:
            while True:
                try:
                    yield self._run(anext(iterator))
                except StopAsyncIteration:
                    return
        finally:
            self._run(iterator.aclose())
