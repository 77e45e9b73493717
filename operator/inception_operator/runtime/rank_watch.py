"""Asks the launchers of running jobs where the steps of their ranks go, to find stragglers.

Every look costs one request to each pod of a job. They are so many at most in a second, whatever
the number of jobs: with more pods each is looked at less often. What the looks show is judged in
`decide.stragglers`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from typing_extensions import override

from inception_operator.contract.types import Json, PodView, RankVerdict
from inception_operator.decide import stragglers
from inception_operator.decide.questions import wants_ranks
from inception_operator.decide.stragglers import Told, Watch
from inception_operator.pod.view import view

from .rounds import CONCURRENCY, MAX_SKIPPED_ROUNDS, Rounds, attempt_of
from .workqueue import Key

REQUESTS_PER_SECOND = 100


@dataclass(frozen=True)
class _State:
    """What is kept about one job: ``skip`` is how many rounds it is left out after ``failures`` in
    a row, because its ranks tell nothing.
    """

    watch: Watch
    failures: int = 0
    skip: int = 0


class RankWatch(Rounds[_State]):
    """The verdict on the ranks of each running job."""

    def verdict(self, key: Key) -> RankVerdict | None:
        """What is known of the ranks of the present attempt; None for nothing yet."""
        resource = self._jobs.get(key)
        state = self._states.get(key, resource) if resource is not None else None
        if resource is None or state is None or state.watch.attempt != attempt_of(resource):
            return None
        return state.watch.verdict

    @override
    async def look_at_all(self) -> None:
        """One round over all running jobs; nothing is kept about others."""
        for key in self._states.keys() - set(self._jobs.running()):
            self.forget(key)
        await super().look_at_all()

    @override
    async def look(self, key: Key) -> int:
        """Look at one job, unless it is left out in this round; gives how many pods were asked."""
        resource = self._jobs.get(key)
        pods = self._members(key, resource) if resource is not None else []
        if resource is None or not pods:
            self.forget(key)
            return 0
        attempt = attempt_of(resource)
        state = self._states.get(key, resource)
        if state is None or state.watch.attempt != attempt:
            state = _State(stragglers.begin(attempt, resource["status"]))
        if state.skip > 0:
            self._states.put(key, resource, replace(state, skip=state.skip - 1))
            return 0
        answers = await asyncio.gather(*(self._ask(pod, attempt) for pod in pods))
        told = [each for answer in answers for each in answer]
        watch = stragglers.look(state.watch, told, datetime.now(UTC))
        # A program that tells nothing, or pods that nobody reaches.
        failures = 0 if told else state.failures + 1
        skip = min(MAX_SKIPPED_ROUNDS, 2 ** min(failures, 10) - 1)
        self._states.put(key, resource, _State(watch, failures, skip))
        if _named(watch) != _named(state.watch):
            self._notify(key)
        return len(pods)

    async def _ask(self, pod: PodView, attempt: int) -> list[Told]:
        async with self._slots:
            report = await self._probe.report(pod.ip or "", pod.uid)
            # In its place nobody is asked for a while: that bounds the requests of a second.
            await asyncio.sleep(CONCURRENCY / REQUESTS_PER_SECOND)
        # A launcher still reports the attempt before while its ranks start.
        if report is None or report.attempt != attempt:
            return []
        return [Told(times, pod.name, pod.node or "") for times in report.ranks]

    def _members(self, key: Key, resource: Json) -> list[PodView]:
        """The pods to ask; none of a job that has but one rank."""
        pods = (view(raw) for raw in self._pods.pods(key))
        return [pod for pod in pods if pod is not None and wants_ranks(resource, pod)]


def _named(watch: Watch) -> tuple[int, str] | None:
    straggler = watch.straggler
    return None if straggler is None else (straggler.rank, straggler.pod)
