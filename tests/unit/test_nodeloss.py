"""A node that is gone: when its pods count as lost, what replaces them, what is deleted by
force.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cluster_sim import CONTEXT, Sim, job
from inception_operator.contract.errors import (
    ApiError,
    NotFoundError,
    RejectedError,
    SpecError,
    UnavailableError,
)
from inception_operator.contract.types import PodView
from inception_operator.decide import quiet
from inception_operator.decide.liveness import POLL, lost_at
from inception_operator.decide.questions import wants_node
from inception_operator.decide.starting import PATIENCE
from inception_operator.runtime.nodes import Nodes
from inception_operator.spec.failure_policy import NodeLoss
from inception_operator.spec.job import parse

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
FORCE = {"nodeLostSeconds": 20, "nodeLostPolicy": "ForceDeletePods"}
RUNNING = {"metadata": {}, "spec": {"failurePolicy": {"nodeLostSeconds": 20}}}


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


WAITING: dict[str, Any] = {
    "phase": "Pending",
    "reachable": None,
    "ready_changed": None,
    "unreachable_since": None,
}
WAITING |= {"created": ago(20)}


def pod(**fields: Any) -> PodView:
    base: dict[str, Any] = {
        "name": "job-0-1",
        "uid": "u",
        "slot": 0,
        "incarnation": 1,
        "phase": "Running",
        "node": "n",
    }
    base |= {
        "reachable": False,
        "node_lost_since": ago(50),
        "ready_changed": ago(40),
        "unreachable_since": ago(30),
    }
    return PodView(**(base | fields))


@pytest.mark.parametrize(
    ("fields", "due"),
    [
        ({}, ago(10)),
        ({"unreachable_since": ago(60)}, ago(20)),
        ({"node_lost_since": ago(5)}, NOW + timedelta(seconds=15)),
        ({"ready": True}, None),
        ({"reachable": True}, None),
        ({"reachable": None}, None),
        ({"node_lost_since": None}, None),
        ({"deleting": True, "reachable": None, "unreachable_since": None}, ago(20)),
        ({"deleting": True, "node_lost_since": None}, None),
        (WAITING, NOW),
        (WAITING | {"created": ago(60)}, ago(30)),
        (WAITING | {"node_lost_since": None}, None),
    ],
    ids=[
        *(
            "silent last",
            "unready last",
            "node last",
            "ready",
            "answers",
            "not asked",
            "node well",
            "deleting",
            "well",
        ),
        *("not started", "waiting for long", "not started, node well"),
    ],
)
def test_all_witnesses_must_agree_for_so_long(fields: dict[str, Any], due: datetime | None) -> None:
    assert lost_at(NodeLoss(20), pod(**fields)) == due
    assert lost_at(NodeLoss(), pod(**fields)) is None


@pytest.mark.parametrize(
    ("policy", "loss"),
    [({}, NodeLoss()), ({"nodeLostSeconds": 20}, NodeLoss(20)), (FORCE, NodeLoss(20, force=True))],
    ids=["nothing", "time", "force"],
)
def test_fields(policy: dict[str, Any], loss: NodeLoss) -> None:
    assert parse(job(1, failurePolicy=policy)).node_loss == loss


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (
            {"nodeLostPolicy": "ForceDeletePods"},
            "nodeLostPolicy: ForceDeletePods needs nodeLostSeconds",
        ),
        ({"nodeLostSeconds": 5, "nodeLostPolicy": "Forget"}, "nodeLostPolicy: Forget is unknown"),
        ({"nodeLostSeconds": 0}, "nodeLostSeconds: 0 is not a number from 1"),
    ],
    ids=["no time", "unknown", "zero"],
)
def test_fields_that_cannot_be_are_refused(policy: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        parse(job(1, failurePolicy=policy))


@pytest.mark.parametrize(
    ("resource", "fields", "wanted"),
    [
        (RUNNING, {}, True),
        (RUNNING, {"deleting": True, "reachable": None}, True),
        (RUNNING, {"ready": True}, False),
        (RUNNING, {"reachable": True}, False),
        (RUNNING, {"exit_code": 1}, False),
        (RUNNING, {"node": None}, False),
        ({"metadata": {}, "spec": {}}, {}, False),
        (RUNNING, WAITING, True),
        (RUNNING, WAITING | {"created": ago(19)}, False),
        (RUNNING, WAITING | {"created": None}, False),
        (RUNNING, WAITING | {"node": None}, False),
    ],
    ids=[
        *("silent", "deleting", "ready", "answers", "ended", "not scheduled", "not asked for"),
        *("not started", "about to start", "of unknown age", "waits for a node"),
    ],
)
def test_nodes_are_asked_for_only_where_it_matters(
    resource: dict[str, Any], fields: Any, wanted: bool
) -> None:
    assert wants_node(resource, pod(**fields), NOW) is wanted


def lost(**policy: Any) -> Sim:
    """Two nodes at work, of which the second is lost."""
    sim = Sim(job(2, failurePolicy=policy))
    sim.run_until("Running")
    sim.events.clear()
    sim.lose_node(sim.pod(1))
    sim.operate()
    return sim


def test_pod_of_a_lost_node_is_replaced_when_its_time_is_over() -> None:
    sim = lost(nodeLostSeconds=20)
    sim.tick(19)
    assert sim.operate().requeue_after == 1
    assert sim.counters == (1, 0, 0)
    sim.tick(1)
    plan = sim.operate()
    assert sim.counters == (2, 1, 0)
    cause = sim.status["rootCause"]
    assert (cause["reason"], cause["pod"], cause["node"]) == ("NodeLost", "job-1-1", "node-1-1")
    assert (
        cause["message"] == "the node has not been ready for 20 s and the launcher does not answer"
    )
    assert plan.delete == {"job-1-1": 10}
    assert [p["metadata"]["name"] for p in plan.create] == ["job-1-2"]
    sim.run_until("Running")
    assert sorted(sim.pods) == ["job-0-1", "job-1-1", "job-1-2"], (
        "its kubelet is gone, so the old pod stays"
    )


def test_a_long_time_goes_before_silence() -> None:
    sim = lost(nodeLostSeconds=90)
    sim.tick(60)
    sim.operate()
    assert sim.counters == (1, 0, 0)
    sim.find_node(sim.pod(1))
    sim.operate()
    sim.tick(60)
    sim.operate()
    assert sim.counters == (1, 0, 0), "the node came back in time"


def test_without_the_field_silence_decides() -> None:
    sim = lost()
    sim.tick(30)
    sim.operate()
    assert sim.status["rootCause"]["reason"] == "NotResponding"


def test_by_force_nothing_is_left() -> None:
    sim = lost(**FORCE)
    sim.tick(20)
    assert sim.operate().delete == {"job-1-1": 0}
    sim.run_until("Running")
    assert sorted(sim.pods) == ["job-0-1", "job-1-2"]


@pytest.mark.parametrize("suspended", [False, True])
def test_pods_that_stay_terminating_are_deleted_by_force(suspended: bool) -> None:
    sim = Sim(job(2, failurePolicy=FORCE))
    sim.run_until("Running")
    leaving = sim.pod(1)
    if suspended:
        sim.suspend(True)
    else:
        sim.delete(leaving)
    sim.operate()
    sim.lose_node(leaving)
    sim.operate()
    sim.tick(19)
    assert sim.operate().requeue_after == 1
    assert leaving.name in sim.pods
    sim.tick(1)
    sim.operate()
    assert leaving.name not in sim.pods


def test_pod_of_the_attempt_that_gathers_is_lost_too() -> None:
    sim = Sim(job(2, failurePolicy={"nodeLostSeconds": 20}))
    sim.operate()
    sim.start(sim.pod(1))
    sim.lose_node(sim.pod(1))
    sim.operate()
    sim.tick(20)
    sim.operate()
    assert sim.counters == (2, 1, 0)
    assert sim.status["rootCause"]["reason"] == "NodeLost"
    sim.run_until("Running")


def test_pod_that_never_starts_on_a_lost_node_is_given_up() -> None:
    sim = Sim(job(2, failurePolicy={"nodeLostSeconds": 20}))
    sim.operate()
    sim.start(sim.pod(0))
    sim.lose_node(sim.pod(1))
    sim.tick(19)
    assert sim.operate().requeue_after == 1
    assert sim.counters == (1, 0, 0)
    sim.tick(1)
    sim.operate()
    assert sim.counters == (2, 1, 0)
    cause = sim.status["rootCause"]
    assert (cause["reason"], cause["pod"]) == ("NodeLost", "job-1-1")
    assert cause["message"] == "the node has not been ready for 20 s and the pod has not started"
    sim.run_until("Running")
    assert sim.pod(0).name == "job-0-1"


def test_pod_of_an_earlier_attempt_that_never_started_is_given_up_too() -> None:
    sim = Sim(job(3, failurePolicy={"nodeLostSeconds": 20}))
    sim.operate()
    sim.start(sim.pod(0))
    sim.start(sim.pod(1))
    sim.lose_node(sim.pod(1))
    sim.operate()
    sim.tick(15)
    sim.operate()
    sim.lose_node(sim.pod(2))
    sim.tick(5)
    sim.operate()
    assert (sim.counters, sim.pod(2).name) == ((2, 1, 0), "job-2-1")
    sim.tick(15)
    sim.operate()
    assert (sim.counters, sim.pod(2).name) == ((2, 1, 0), "job-2-2")
    sim.run_until("Running")


def test_pods_that_do_not_start_are_looked_after_while_their_nodes_are_well() -> None:
    sim = Sim(job(2, failurePolicy={"nodeLostSeconds": 20}))
    sim.operate()
    # What is to be said of them comes first, then their events are asked for.
    assert sim.operate().requeue_after == quiet.QUIET.total_seconds()
    sim.tick(6)
    assert sim.operate().requeue_after == PATIENCE.total_seconds() - 6
    sim.tick(6)
    assert sim.operate().requeue_after == 20 - 12
    sim.tick(13)
    assert sim.operate().requeue_after == POLL
    assert sim.counters == (1, 0, 0)


def test_jobs_are_told_when_the_operator_may_not_read_nodes() -> None:
    def accepted(**policy: Any) -> str:
        sim = Sim(job(2, failurePolicy=policy))
        sim.context = replace(CONTEXT, sees_nodes=False)
        sim.operate()
        sim.tick(10)
        sim.operate()
        return str(sim.full_condition("Accepted")["message"])

    assert accepted(nodeLostSeconds=20).endswith(
        "nodeLostSeconds has no effect: this operator may not read nodes"
    )
    assert accepted() == "the spec can be carried out"


class Api:
    """Answers questions for nodes."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.asked = answer, 0

    async def get(self, _resource: object, _namespace: object, _name: str) -> dict[str, Any]:
        self.asked += 1
        if isinstance(self.answer, ApiError):
            raise self.answer
        return {"status": {"conditions": [{"type": "Ready", **self.answer}]}}


SINCE = {"lastTransitionTime": "2026-01-01T12:00:00Z"}


@pytest.mark.parametrize(
    ("answer", "since"),
    [
        ({"status": "Unknown", **SINCE}, NOW),
        ({"status": "False", **SINCE}, NOW),
        ({"status": "True", **SINCE}, None),
        (RejectedError(403, "forbidden"), None),
        (UnavailableError(0, "no answer"), None),
    ],
    ids=["unknown", "not ready", "ready", "no right", "no answer"],
)
async def test_since_when_a_node_is_not_ready(answer: Any, since: datetime | None) -> None:
    nodes = Nodes(Api(answer), lambda: 0.0)  # type: ignore[arg-type]
    await nodes.refresh({"n"})
    assert nodes.lost_since("n") == since
    assert nodes.lost_since("other") is None
    assert nodes.lost_since(None) is None


async def test_a_node_that_was_removed_is_lost_and_an_outage_changes_nothing() -> None:
    api, time = Api(NotFoundError(404, "gone")), [0.0]
    nodes = Nodes(api, lambda: time[0])  # type: ignore[arg-type]
    await nodes.refresh({"n"})
    since = nodes.lost_since("n")
    assert since is not None
    for answer in (UnavailableError(0, "no answer"), NotFoundError(404, "gone")):
        time[0] += 3
        api.answer = answer
        await nodes.refresh({"n"})
        assert nodes.lost_since("n") == since


async def test_a_node_is_asked_for_once_in_a_while() -> None:
    api, time = Api({"status": "True", **SINCE}), [0.0]
    nodes = Nodes(api, lambda: time[0])  # type: ignore[arg-type]
    for moment, asked in ((0.0, 1), (1.9, 1), (2.1, 2)):
        time[0] = moment
        await nodes.refresh({"n"})
        assert api.asked == asked
