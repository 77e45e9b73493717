"""One pass over a training, with the API server and the decision faked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from inception_operator.contract.errors import (
    ConflictError,
    NotFoundError,
    RejectedError,
    UnavailableError,
)
from inception_operator.contract.names import CONTAINER
from inception_operator.contract.types import (
    Json,
    Observation,
    Plan,
    PodView,
    Progress,
    RankVerdict,
)
from inception_operator.decide.reconcile import Context
from inception_operator.runtime.apply import Applier
from inception_operator.runtime.client import Client
from inception_operator.runtime.containment import Containment
from inception_operator.runtime.controller import AGAIN_BASE, Controller
from inception_operator.runtime.courier import Courier
from inception_operator.runtime.events import EventPoster
from inception_operator.runtime.job_cache import JobCache
from inception_operator.runtime.metrics import Metrics
from inception_operator.runtime.node_watch import LeavingNodes
from inception_operator.runtime.nodes import Nodes
from inception_operator.runtime.observer import Observer
from inception_operator.runtime.pod_cache import PodCache
from inception_operator.runtime.pod_events import PodEvents
from inception_operator.runtime.probe import Probe
from inception_operator.runtime.rank_watch import RankWatch
from inception_operator.runtime.scraper import Scraper
from inception_operator.runtime.workqueue import ERROR_BASE, Key, WorkQueue
from operator_objects import job, pod

KEY = ("ns", "job")
CREATE = ({"metadata": {"name": "job-0-1"}, "spec": {"containers": []}},)


class FakeClient(Client):
    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.refused: str | None = None
        self.meanwhile: Callable[[], object] = lambda: None
        self.statuses: list[Json] = []
        self.current: Json | None = job(version=20)

    async def apply_status(self, _resource: Any, body: Json) -> Json:
        if self.refused in body["status"]:
            raise RejectedError(422, f"status.{self.refused}: Too long")
        self.meanwhile()
        if self.fault:
            raise self.fault
        self.statuses.append(body["status"])
        return job(version=10 + len(self.statuses), **body["status"])

    async def create(self, _resource: Any, _namespace: str, _body: Json) -> Json:
        if self.fault:
            raise self.fault
        return pod(version=11)

    async def get(self, _resource: Any, _namespace: str, _name: str) -> Json:
        if self.current is None:
            raise NotFoundError(404, "gone")
        return self.current


class NoProgress:
    def __init__(self) -> None:
        self.forgotten: list[Key] = []

    def progress(self, _key: Key) -> Progress | None:
        return None

    def forget(self, key: Key) -> None:
        self.forgotten.append(key)


class NoVerdict:
    def __init__(self) -> None:
        self.forgotten: list[Key] = []

    def verdict(self, _key: Key) -> RankVerdict | None:
        return None

    def forget(self, key: Key) -> None:
        self.forgotten.append(key)


class Scripted(Controller):
    """A controller that decides what `script` says, and remembers what it saw."""

    script: list[Plan | Exception]
    seen: list[Observation]

    def decide(self, observation: Observation) -> Plan:
        self.seen.append(observation)
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step


class Scene:
    """A controller whose decision is the next of `plans`."""

    def __init__(self, *plans: Plan | Exception) -> None:
        self.client = FakeClient()
        self.jobs = JobCache()
        self.metrics = Metrics()
        self.queue = WorkQueue()
        containment = Containment(self.metrics.count_error)
        self.pods = PodCache(self.client, self.queue.add, containment)
        self.progress = NoProgress()
        self.probe = Probe(self.queue.add, clock=time.monotonic)
        self.jobs.update(job())
        nodes = Nodes(self.client, time.monotonic)
        events = PodEvents(self.client, time.monotonic)
        self.ranks = NoVerdict()
        told = cast(Scraper, self.progress), cast(RankWatch, self.ranks)
        observer = Observer(self.pods, self.probe, *told, nodes, events, LeavingNodes())
        events = EventPoster(self.client, containment, "me")
        courier = Courier(self.probe.deliver)
        applier = Applier(self.client, self.jobs, self.pods, events, self.metrics, courier, "me")
        context = Context(profiles={}, image="image")
        self.controller = Scripted(
            self.jobs, observer, applier, self.queue, self.metrics, containment, context
        )
        seen: list[Observation] = []
        self.controller.script = list(plans)
        self.controller.seen = self.seen = seen

    async def handle(self) -> float | None:
        try:
            return await self.controller.handle(KEY)
        finally:
            self.queue.close()
            await self.probe.close()

    def counted(self, result: str) -> float:
        return (
            self.metrics.registry.get_sample_value(
                "inception_operator_reconcile_total", {"result": result}
            )
            or 0.0
        )

    @property
    def in_controller_runtime(self) -> dict[str, float]:
        """What a dashboard for controller-runtime shows of the passes."""
        return {
            sample.labels["result"]: sample.value
            for family in self.metrics.standard.collect()
            for sample in family.samples
            if sample.name == "controller_runtime_reconcile_total" and sample.value
        }


async def test_an_empty_plan_is_the_end() -> None:
    scene = Scene(Plan())
    assert await scene.handle() is None
    assert scene.counted("success") == 1


async def test_a_date_in_the_plan_is_kept() -> None:
    scene = Scene(Plan(requeue_after=0.01))
    assert await scene.handle() is None
    assert scene.counted("waiting") == 1
    scene.queue.add_after(("ns", "other"), 0.02)
    assert await asyncio.wait_for(scene.queue.get(), 5) == KEY
    scene.queue.close()


async def test_a_change_is_followed_by_another_look_and_counts_as_a_transition() -> None:
    scene = Scene(Plan(status={"state": "Running"}))
    assert await scene.handle() == AGAIN_BASE
    value = scene.metrics.registry.get_sample_value(
        "inception_operator_job_transitions_total", {"state": "Running"}
    )
    assert value == 1


async def test_pods_and_reports_reach_the_decision_in_order() -> None:
    scene = Scene(Plan())
    for name in ("job-1-1", "job-0-2", "job-0-1"):
        scene.pods.merge(pod(name))
    await scene.handle()
    assert [view.name for view in scene.seen[0].pods] == ["job-0-1", "job-0-2", "job-1-1"]


async def test_the_end_that_a_pod_tells_of_is_dated_by_our_own_clock() -> None:
    scene = Scene(*[Plan()] * 3)
    terminated = {"exitCode": 1, "finishedAt": "2020-01-01T00:00:00Z"}
    before = datetime.now(UTC)
    for version, state in enumerate(({"waiting": {}}, *[{"terminated": terminated}] * 2), 2):
        raw = pod(version=version)
        raw["status"] = {"containerStatuses": [{"name": CONTAINER, "state": state}]}
        scene.pods.merge(raw)
        await scene.controller.handle(KEY)
    scene.queue.close()
    await scene.probe.close()
    none, first, again = (seen.pods[0].heard for seen in scene.seen)
    assert none is None
    assert first is not None
    assert before <= first <= datetime.now(UTC)
    assert again == first


async def test_a_pod_that_notifies_is_asked_though_it_looks_well() -> None:
    scene = Scene(Plan(), Plan(), Plan())
    scene.pods.merge(pod("job-0-1"))
    asked: list[str] = []
    silent = True

    async def refresh(_key: Key, pods: Collection[PodView], _notified: Mapping[str, float]) -> bool:
        asked.extend(view.name for view in pods)
        return True

    scene.probe.refresh = refresh  # type: ignore[method-assign]
    scene.probe.is_silent = lambda _key, _uid: silent  # type: ignore[method-assign]
    assert not scene.controller.notify("ns", "job", "job-7-1"), "no such pod"
    assert scene.controller.notify("ns", "job", "job-0-1")
    assert await asyncio.wait_for(scene.queue.get(), 5) == KEY
    await scene.controller.handle(KEY)
    silent = False
    await scene.controller.handle(KEY)
    await scene.handle()
    assert asked == ["job-0-1"] * 2, "until it has been heard"


async def test_a_decision_that_fails_is_told_to_the_author_and_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene(*(ZeroDivisionError(str(number)) for number in range(3)), Plan())
    assert await scene.controller.handle(KEY) == ERROR_BASE
    (status,) = scene.client.statuses
    assert status["state"] == "Rejected"
    (condition,) = status["conditions"]
    assert (condition["type"], condition["status"]) == ("Accepted", "False")
    assert condition["reason"] == "InternalError"
    assert "ZeroDivisionError at test_operator_controller.py:" in condition["message"]
    assert await scene.controller.handle(KEY) == ERROR_BASE
    assert await scene.controller.handle(KEY) == ERROR_BASE
    assert len(scene.client.statuses) == 1, "it is said already"
    assert len([r for r in caplog.records if "ZeroDivisionError" in r.getMessage()]) == 1
    errors = "inception_operator_internal_errors_total"
    assert scene.metrics.registry.get_sample_value(errors, {"where": "decision"}) == 3
    assert await scene.handle() is None
    assert scene.counted("error") == 3


async def test_a_status_that_is_refused_is_told_in_one_that_is_not() -> None:
    scene = Scene(Plan(status={"state": "Running", "rootCause": {"reason": "x"}}))
    scene.client.refused = "rootCause"
    assert await scene.handle() == ERROR_BASE
    (status,) = scene.client.statuses
    assert status["conditions"][0]["reason"] == "InternalError"
    assert "status.rootCause: Too long" in status["conditions"][0]["message"]


async def test_a_job_that_is_over_is_not_told_of_errors() -> None:
    scene = Scene(ZeroDivisionError())
    over = {"type": "Succeeded", "status": "True", "reason": "Completed", "message": ""}
    scene.jobs.update(job(version=5, conditions=[over]))
    assert await scene.handle() == ERROR_BASE
    assert not scene.client.statuses


async def test_a_stale_view_is_read_afresh_and_nothing_is_counted() -> None:
    scene = Scene(Plan(status={"state": "Failed"}))
    scene.client.fault = ConflictError(409, "changed")
    assert await scene.handle() == AGAIN_BASE
    known = scene.jobs.get(KEY)
    assert known is not None
    assert known["metadata"]["resourceVersion"] == "20"
    assert scene.counted("conflict") == 1
    name = "inception_operator_job_transitions_total"
    assert scene.metrics.registry.get_sample_value(name, {"state": "Failed"}) == 0


async def test_a_training_that_vanished_is_forgotten() -> None:
    scene = Scene(Plan(status={"state": "Failed"}))
    scene.client.fault = NotFoundError(404, "gone")
    assert await scene.handle() is None
    assert scene.jobs.get(KEY) is None
    assert scene.progress.forgotten == scene.ranks.forgotten == [KEY]


async def test_the_successor_of_a_job_that_vanished_is_not_forgotten() -> None:
    scene = Scene(Plan(status={"state": "Failed"}), Plan(create=CREATE))
    scene.client.fault = NotFoundError(404, "gone")
    scene.client.meanwhile = lambda: scene.jobs.update(job(version=30, uid="successor"))
    assert await scene.handle() is None
    assert scene.jobs.get(KEY) is not None
    # A pod that is not found, for instance in a namespace that is about to go, is no lost job.
    with pytest.raises(NotFoundError):
        await scene.handle()
    assert scene.jobs.get(KEY) is not None
    assert scene.progress.forgotten == []


async def test_a_job_made_anew_under_the_same_name_inherits_nothing() -> None:
    scene = Scene(Plan(create=CREATE), Plan(), Plan())
    scene.pods.merge(pod("job-1-1", uid="old", version=2))
    scene.pods.remove(KEY, "job-1-1", "old")
    scene.client.fault = RejectedError(403, "exceeded quota")
    await scene.handle()
    await scene.handle()
    scene.jobs.update(job(version=30, uid="successor"))
    await scene.handle()
    _, second, successor = scene.seen
    assert (second.rejection, list(second.gone)) == ("exceeded quota", [1])
    assert (successor.rejection, list(successor.gone)) == (None, [])


async def test_a_training_that_is_being_deleted_is_left_alone() -> None:
    scene = Scene()
    ending = job(version=2)
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    scene.jobs.update(ending)
    assert await scene.handle() is None
    assert scene.seen == []


async def test_a_refusal_is_told_to_the_next_decision_until_a_pod_is_made() -> None:
    plans = [Plan(create=CREATE)] * 3 + [Plan()]
    scene = Scene(*plans)
    scene.client.fault = RejectedError(403, "exceeded quota")
    assert await scene.handle() == AGAIN_BASE, "the status has yet to say so"
    assert await scene.handle() == ERROR_BASE
    scene.client.fault = None
    assert await scene.handle() == AGAIN_BASE
    await scene.handle()
    assert [seen.rejection for seen in scene.seen] == [
        None,
        "exceeded quota",
        "exceeded quota",
        None,
    ]
    assert scene.counted("rejected") == 2


@pytest.mark.parametrize(
    ("plan", "fault", "expected"),
    [
        (Plan(), None, "success"),
        (Plan(requeue_after=60), None, "requeue_after"),
        (Plan(status={"state": "Running"}), None, "requeue"),
        (Plan(status={"state": "Running"}, requeue_after=60), None, "requeue"),
        (Plan(status={"state": "Running"}), ConflictError(409, "changed"), "requeue"),
        (Plan(status={"state": "Running"}), NotFoundError(404, "gone"), "success"),
        (Plan(create=CREATE), RejectedError(403, "exceeded quota"), "requeue"),
        (ZeroDivisionError(), None, "error"),
    ],
    ids=["done", "dated", "changed", "changed and dated", "stale", "gone", "refused", "a bug"],
)
async def test_a_pass_is_told_by_what_controller_runtime_would_do_after_it(
    plan: Plan | Exception, fault: Exception | None, expected: str
) -> None:
    scene = Scene(plan)
    scene.client.fault = fault
    await scene.handle()
    assert scene.in_controller_runtime == {expected: 1}


async def test_an_api_server_that_is_away_is_a_failed_pass_in_controller_runtime_too() -> None:
    scene = Scene(Plan(status={"state": "Running"}))
    scene.client.fault = UnavailableError(0, "no answer")
    with pytest.raises(UnavailableError):
        await scene.handle()
    assert scene.in_controller_runtime == {"error": 1}
