"""Pods that do not start: what their events say, when these are asked for, and what people read."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cluster_sim import CONTEXT, Sim, job
from inception_operator.contract.errors import ApiError, RejectedError, UnavailableError
from inception_operator.contract.types import Observation, Plan, PodView
from inception_operator.decide.questions import wants_events
from inception_operator.decide.reconcile import reconcile
from inception_operator.pod.events import MAX_TEXT, trouble
from inception_operator.runtime.pod_events import MOST_PODS, PodEvents

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECRET = 'MountVolume.SetUp failed for volume "token" : secret "missing" not found'
VAGUE = "Unable to attach or mount volumes=[token]: timed out waiting for the condition"
KEY = ("ns", "job")


def event(reason: str, message: str = "", seconds: int = 0, **fields: Any) -> dict[str, Any]:
    time = (NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    base = {"type": "Warning", "reason": reason, "message": message, "lastTimestamp": time}
    return {**base, **fields}


@pytest.mark.parametrize(
    ("events", "text"),
    [
        ([], None),
        ([event("FailedMount", SECRET)], f"FailedMount: {SECRET}"),
        ([event("FailedMount", SECRET), event("FailedMount", VAGUE, 9)], f"FailedMount: {SECRET}"),
        ([event("FailedMount", VAGUE)], f"FailedMount: {VAGUE}"),
        (
            [event("FailedMount", SECRET), event("FailedCreatePodSandBox", "no network", 5)],
            "FailedCreatePodSandBox: no network",
        ),
        ([event("FailedMount", SECRET), event("Pulling", "image", 1, type="Normal")], None),
        ([event("FailedMount", SECRET), event("Pulling", "image", 0, type="Normal")], None),
        (
            [event("Pulling", "image", type="Normal"), event("FailedAttachVolume", "disk", 1)],
            "FailedAttachVolume: disk",
        ),
        ([event("Scheduled", "assigned", 1, type="Normal")], None),
        ([event("FailedScheduling", "no node fits")], None),
        (
            [
                event("FailedMount", "old", 5),
                event("FailedAttachVolume", "new", lastTimestamp=None)
                | {"series": {"lastObservedTime": "2026-01-01T12:00:09.000000Z"}},
            ],
            "FailedAttachVolume: new",
        ),
        ([event("FailedMount", "a\n b\t" + "x" * 2000)], ("FailedMount: a b " + "x" * 2000)[:1024]),
        ([{"type": "Warning", "series": 3, "eventTime": 7}], "None: without a message"),
    ],
    ids=[
        *("nothing", "a Secret", "the first is clearer", "only the vague one", "latest"),
        *("over", "over in the same second", "trouble afterwards", "no trouble"),
        *("of the scheduler", "series", "long", "malformed"),
    ],
)
def test_what_events_say(events: list[dict[str, Any]], text: str | None) -> None:
    assert trouble(events) == text
    assert trouble(events[::-1]) == text
    assert text is None or len(text) <= MAX_TEXT


def pod(number: int = 0, **fields: Any) -> PodView:
    base: dict[str, Any] = {
        "name": f"job-{number}-1",
        "uid": f"uid-{number}",
        "slot": number,
        "incarnation": 1,
        "node": "node-a",
        "created": NOW - timedelta(seconds=10),
        "waiting_reason": "ContainerCreating",
    }
    return PodView(**(base | fields))


ACTIVE: dict[str, Any] = {"metadata": {}, "spec": {}}


@pytest.mark.parametrize(
    ("resource", "fields", "wanted"),
    [
        (ACTIVE, {}, True),
        (ACTIVE, {"waiting_reason": None}, True),
        (ACTIVE, {"waiting_reason": "PodInitializing"}, True),
        (ACTIVE, {"waiting_reason": "ImagePullBackOff"}, False),
        (ACTIVE, {"created": NOW - timedelta(seconds=9)}, False),
        (ACTIVE, {"created": None}, False),
        (ACTIVE, {"node": None}, False),
        (ACTIVE, {"unschedulable_message": "no node fits"}, False),
        (ACTIVE, {"phase": "Running"}, False),
        (ACTIVE, {"deleting": True}, False),
        ({"metadata": {}, "spec": {"runPolicy": {"suspend": True}}}, {}, False),
    ],
    ids=[
        *("stuck", "no container yet", "init container", "says it itself", "young", "unknown age"),
        *("no node", "unschedulable", "running", "deleted", "suspended"),
    ],
)
def test_events_are_asked_for_only_where_nothing_else_says_why(
    resource: dict[str, Any], fields: dict[str, Any], wanted: bool
) -> None:
    assert wants_events(resource, pod(**fields), NOW) is wanted


class Api:
    """Answers questions for events."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = [event("FailedMount", SECRET)]
        self.error: ApiError | None = None
        self.asked: list[tuple[str, str]] = []

    async def list_page(
        self, _kind: object, query: dict[str, str], *, namespace: str, limit: int
    ) -> dict[str, Any]:
        assert limit <= 100
        self.asked.append((namespace, query["fieldSelector"]))
        if self.error is not None:
            raise self.error
        return {"items": self.events}


@pytest.fixture
def api() -> Api:
    return Api()


async def test_a_pod_is_asked_after_less_and_less_often(api: Api) -> None:
    time = [0.0]
    events = PodEvents(api, lambda: time[0])  # type: ignore[arg-type]
    moments = []
    for second in range(1200):
        time[0] = float(second)
        before = len(api.asked)
        await events.refresh(KEY, [pod()])
        if len(api.asked) > before:
            moments.append(second)
    assert moments == [0, 10, 30, 70, 150, 310, 610, 910]
    assert set(api.asked) == {("ns", "involvedObject.uid=uid-0")}
    assert events.trouble(KEY, "uid-0") == f"FailedMount: {SECRET}"


async def test_a_pod_that_has_started_is_forgotten(api: Api) -> None:
    events = PodEvents(api, lambda: 0.0)  # type: ignore[arg-type]
    await events.refresh(KEY, [pod()])
    await events.refresh(KEY, [])
    assert events.trouble(KEY, "uid-0") is None
    await events.refresh(KEY, [pod()])
    events.forget(KEY)
    assert events.trouble(KEY, "uid-0") is None


async def test_few_pods_of_a_large_job_are_asked_after(api: Api) -> None:
    events = PodEvents(api, lambda: 0.0)  # type: ignore[arg-type]
    await events.refresh(KEY, [pod(number) for number in range(100)])
    assert len(api.asked) == MOST_PODS


@pytest.mark.parametrize("error", [RejectedError(403, "forbidden"), UnavailableError(0, "gone")])
async def test_without_an_answer_the_last_one_stays(api: Api, error: ApiError) -> None:
    time = [0.0]
    events = PodEvents(api, lambda: time[0])  # type: ignore[arg-type]
    await events.refresh(KEY, [pod()])
    api.error, time[0] = error, 20.0
    await events.refresh(KEY, [pod()])
    assert len(api.asked) == 2
    assert events.trouble(KEY, "uid-0") == f"FailedMount: {SECRET}"


def seen(sim: Sim, **fields: Any) -> Observation:
    """The pods of the simulated cluster, with what the edge has found out about the first one."""
    found = sim.observe()
    first, *others = found.pods
    return replace(found, pods=(replace(first, **fields), *others))


def gathering(seconds: float = 10) -> Sim:
    sim = Sim(job(2))
    sim.operate()
    sim.tick(seconds)
    return sim


def pods_ready(sim: Sim, plan: Plan) -> tuple[str, str]:
    _, reason, message = sim.pods_ready(plan.status)
    return reason, message


def test_the_condition_and_an_event_quote_the_kubelet() -> None:
    sim = gathering()
    plan = reconcile(seen(sim, trouble=f"FailedMount: {SECRET}"), CONTEXT)
    text = f"pod job-0-1: FailedMount: {SECRET}"
    assert pods_ready(sim, plan) == ("PodStartFailed", text)
    assert [(each.type, each.reason, each.message) for each in plan.events] == [
        ("Warning", "PodStartFailed", text)
    ]
    assert plan.requeue_after == 15, "no watch event tells of the next one"


def test_what_was_wrong_is_not_said_of_a_pod_that_has_started() -> None:
    sim = gathering()
    sim.start(sim.pod(0))
    plan = reconcile(seen(sim, trouble=f"FailedMount: {SECRET}"), CONTEXT)
    assert "FailedMount" not in str(plan.status)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "pod job-0-1 is on node node-0-1 and has not started yet"),
        ({"node": None}, "no scheduler has looked at pod job-0-1"),
        (
            {"node": None, "conditions": (("PodScheduled", "False"),)},
            "pod job-0-1 is held back by its scheduling gates",
        ),
    ],
    ids=["silent kubelet", "no scheduler", "gates"],
)
def test_a_pod_of_which_nobody_says_anything_is_named(fields: dict[str, Any], text: str) -> None:
    sim = gathering()
    plan = reconcile(seen(sim, **fields), CONTEXT)
    reason, message = pods_ready(sim, plan)
    assert reason == "WaitingForPods"
    assert message.startswith(f"0 of 2 pods ready; {text}")
    assert plan.events == ()


def test_a_young_pod_is_looked_at_when_it_is_overdue() -> None:
    sim = gathering(6)
    assert sim.operate().status is not None
    plan = sim.operate()
    assert plan.requeue_after == 4
    assert plan.status is None
