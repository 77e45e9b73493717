"""Pods as the API server serves them, as the reflector keeps them, and as decisions see them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import reports
from inception_operator.contract import assignment, report
from inception_operator.contract.types import Assignment, Json, PodView, Report
from inception_operator.decide import slots
from inception_operator.pod.view import trim_pod, view

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def pod(status: Json | None = None, **metadata: Any) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "job-1-2",
            "namespace": "ns",
            "uid": "u",
            "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T12:00:00Z",
            "managedFields": [{"a": "b" * 1000}],
            "labels": {
                "training.inception.dev/job": "job",
                "training.inception.dev/slot": "1",
                "training.inception.dev/incarnation": "2",
                "team": "a",
            },
            "annotations": {
                "note": "x",
                "training.inception.dev/assignment": '{"attempt": 2, "nnodes": 0}',
            },
            "ownerReferences": [
                {"kind": "Other", "uid": "o"},
                {"kind": "InceptionTraining", "uid": "j", "controller": True},
            ],
            **metadata,
        },
        "spec": {"nodeName": "node-a", "containers": [{"name": "trainer"}]},
        "status": {"phase": "Running", "podIP": "10.0.0.9", **(status or {})},
    }


def seen(raw: Json, *answer: Any) -> PodView:
    """The view of the trimmed pod, which must be that of the whole one."""
    small = trim_pod(raw)
    found = view(small, *answer)
    assert found == view(raw, *answer)
    assert trim_pod(small) == small
    assert found is not None
    return found


def container(**state: Any) -> Json:
    return {
        "containerStatuses": [
            {"name": "side", "state": {"running": {}}},
            {"name": "trainer", "state": state},
        ]
    }


def test_plain() -> None:
    found = seen(
        pod(
            {
                "conditions": [
                    {
                        "type": "Ready",
                        "status": "True",
                        "lastTransitionTime": "2026-01-01T12:00:05Z",
                    }
                ]
            }
        )
    )
    assert (found.name, found.slot, found.incarnation, found.node, found.ip) == (
        "job-1-2",
        1,
        2,
        "node-a",
        "10.0.0.9",
    )
    assert (found.phase, found.ready, found.deleting, found.owner_uid) == (
        "Running",
        True,
        False,
        "j",
    )
    assert (found.created, found.ready_changed) == (NOON, NOON + timedelta(seconds=5))
    assert found.assignment == Assignment(2)
    assert (found.report, found.reachable) == (None, None)


@pytest.mark.parametrize(
    ("text", "nodes"),
    [("a,b", {"a", "b"}), ("", set()), ("x" * 5000, set()), (None, set())],
)
def test_the_nodes_that_a_pod_was_made_to_keep_away_from(text: str | None, nodes: set[str]) -> None:
    raw = pod()
    if text is not None:
        raw["metadata"]["annotations"]["training.inception.dev/excluded-nodes"] = text
    assert seen(raw).excluded_nodes == nodes


def test_trimmed_pod_is_small() -> None:
    small = trim_pod(pod())
    assert small["metadata"].keys() >= {
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "labels",
        "annotations",
    }
    assert "managedFields" not in small["metadata"]
    assert small["metadata"]["annotations"].keys() == {"training.inception.dev/assignment"}
    assert len(json.dumps(small)) < 800


@pytest.mark.parametrize(
    "name", ["job", "job-1", "job-x-1", "job-1-x", "job--1", "job-1-0", "job-01-1", "job-1-²"]
)
def test_names_that_are_not_ours(name: str) -> None:
    assert view(pod(name=name)) is None


@pytest.mark.parametrize(
    "labels", [None, {}, {"training.inception.dev/slot": "7"}], ids=["gone", "empty", "changed"]
)
def test_the_name_counts_and_not_the_labels(labels: Json | None) -> None:
    found = seen(pod(labels=labels))
    assert (found.slot, found.incarnation, found.labels) == (1, 2, labels or {})


@pytest.mark.parametrize(
    ("manager", "owners", "orphan_of"),
    [
        ("inception-operator", [], "j"),
        ("inception-operator", [{"kind": "InceptionTraining", "uid": "j"}], "j"),
        ("inception-operator", [{"kind": "Other", "uid": "o", "controller": True}], None),
        ("kubectl-create", [], None),
    ],
    ids=["no owner", "not the controller", "taken over", "a copy by hand"],
)
def test_a_pod_that_lost_its_owner(manager: str, owners: list[Json], orphan_of: str | None) -> None:
    labels = {"training.inception.dev/job-uid": "j"}
    found = seen(pod(labels=labels, ownerReferences=owners, managedFields=[{"manager": manager}]))
    assert found.orphan_of == orphan_of


def test_deletion() -> None:
    found = seen(pod(deletionTimestamp="2026-01-01T12:02:00Z", deletionGracePeriodSeconds=120))
    assert (found.deleting, found.deletion_requested) == (True, NOON)
    assert found.deletion_deadline == NOON + timedelta(seconds=120)


@pytest.mark.parametrize("seconds", [10**15, 2**63 - 1])
def test_a_grace_period_without_end_is_no_error(seconds: int) -> None:
    found = seen(pod(deletionTimestamp="2026-01-01T12:00:00Z", deletionGracePeriodSeconds=seconds))
    assert found.deletion_deadline == NOON
    assert found.deletion_requested == NOON - timedelta(days=365)


def test_ended_container_and_its_report() -> None:
    last = Report(
        2, "Failed", exit_code=7, reason="Error", message="m", time=NOON, metrics={"loss": 1.0}
    )
    terminated = {"exitCode": 7, "reason": "Error", "finishedAt": "2026-01-01T12:00:00Z"}
    state = container(terminated={**terminated, "message": json.dumps(reports.to_json(last))})
    found = seen(pod({**state, "phase": "Failed"}), Report(2, "Running"), True)
    assert found.report == last
    assert (found.exit_code, found.terminated_reason, found.finished, found.message) == (
        7,
        "Error",
        NOON,
        None,
    )


def test_a_side_car_does_not_keep_a_slot_from_ending() -> None:
    found = seen(
        pod({**container(terminated={"exitCode": 0, "reason": "Completed"}), "phase": "Running"})
    )
    assert slots.finished(found)
    assert not slots.finished(seen(pod({**container(running={}), "phase": "Running"})))


@pytest.mark.parametrize("ready", [True, False])
def test_a_side_car_that_has_ended_does_not_hide_a_trainer_that_is_ready(ready: bool) -> None:
    status: dict[str, Any] = {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady"}],
        "containerStatuses": [
            {"name": "side", "ready": False, "state": {"terminated": {"exitCode": 0}}},
            {"name": "trainer", "ready": ready, "state": {"running": {}}},
        ],
    }
    found = seen(pod(status))
    assert (found.ready, found.trainer_ready) == (False, ready)
    status["conditions"] = [{"type": "Ready", "status": "True"}]
    found = seen(pod(status))
    assert (found.ready, found.trainer_ready) == (True, False)


def test_termination_message_of_another_program() -> None:
    found = seen(
        pod(container(terminated={"exitCode": 1, "message": "Traceback: x"})),
        Report(2, "Running"),
        False,
    )
    assert (found.message, found.report, found.reachable) == (
        "Traceback: x",
        Report(2, "Running"),
        False,
    )


def test_waiting_container() -> None:
    found = seen(pod(container(waiting={"reason": "ErrImagePull", "message": "no such image"})))
    assert (found.waiting_reason, found.waiting_message) == ("ErrImagePull", "no such image")


@pytest.mark.parametrize(
    ("state", "phase", "field", "value"),
    [
        (
            {"waiting": {"reason": "ImagePullBackOff", "message": "m"}},
            "Pending",
            "waiting_reason",
            "ImagePullBackOff",
        ),
        ({"terminated": {"exitCode": 3, "message": "m"}}, "Failed", "exit_code", 3),
        ({"terminated": {"exitCode": 3, "message": "m"}}, "Pending", "exit_code", None),
        ({"terminated": {"exitCode": 0}}, "Pending", "exit_code", None),
    ],
    ids=["waits", "failed", "is tried again", "done"],
)
def test_init_container(state: Json, phase: str, field: str, value: Any) -> None:
    status = container(waiting={"reason": "PodInitializing"})
    found = seen(
        pod({**status, "phase": phase, "initContainerStatuses": [{"name": "init", "state": state}]})
    )
    assert getattr(found, field) == value


@pytest.mark.parametrize(
    ("condition", "field", "value"),
    [
        (
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "m"},
            "unschedulable_message",
            "m",
        ),
        (
            {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"},
            "unschedulable_message",
            None,
        ),
        ({"type": "PodScheduled", "status": "True"}, "unschedulable_message", None),
        (
            {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"},
            "disruption_reason",
            "EvictionByEvictionAPI",
        ),
        ({"type": "DisruptionTarget", "status": "False", "reason": "x"}, "disruption_reason", None),
    ],
    ids=["unschedulable", "gated", "scheduled", "disrupted", "not disrupted"],
)
def test_conditions(condition: Json, field: str, value: str | None) -> None:
    assert getattr(seen(pod({"conditions": [condition]})), field) == value


def test_bare_pod() -> None:
    raw = pod()
    raw["status"] = {}
    del raw["metadata"]["annotations"], raw["metadata"]["ownerReferences"]
    found = seen(raw)
    assert (found.phase, found.ip, found.assignment, found.owner_uid) == (
        "Pending",
        None,
        None,
        None,
    )


@pytest.mark.parametrize(
    "text", [None, "", "nonsense", "[]", "{}", '{"attempt": "x", "nnodes": 1}', "null", "1"]
)
def test_no_assignment(text: str | None) -> None:
    assert assignment.from_json(text) is None


@pytest.mark.parametrize(
    "order",
    [
        assignment.standby(3, graceful=True),
        assignment.work(1001, 1, 2, 8, "10.0.0.1", graceful=False, notify_address="10.0.0.9:8080"),
    ],
    ids=["standby", "work"],
)
def test_assignments_survive_their_json(order: Assignment) -> None:
    assert assignment.from_json(assignment.to_json(order)) == order


def test_hold_has_no_ranks_in_it() -> None:
    assert json.loads(assignment.to_json(assignment.standby(3, graceful=True))) == {
        "attempt": 3,
        "nnodes": 0,
        "graceful": True,
        "contract": 1,
    }


REPORTS = [
    None,
    "",
    "Traceback",
    "{",
    "[]",
    b"\xff",
    '{"state": "Running"}',
    '{"attempt": 1, "state": "Odd"}',
    '{"attempt": true, "state": "Idle"}',
]


@pytest.mark.parametrize("text", REPORTS, ids=str)
def test_no_report(text: Any) -> None:
    assert report.from_json(text) is None


def test_report_with_odd_fields_is_still_a_report() -> None:
    found = report.from_json(
        '{"attempt": 1, "state": "Failed", "exitCode": "x", "time": "never", "leaving": "x", '
        '"metrics": {"a": "b", "c": 1}}'
    )
    assert found == Report(1, "Failed", metrics={"c": 1.0})


def test_reports_survive_their_json() -> None:
    full = Report(
        3, "Failed", 7, 2, "Error", "m", NOON + timedelta(microseconds=5), 120, {"loss": 0.5}
    )
    full = replace(full, leaving=True)
    assert report.from_json(json.dumps(reports.to_json(full))) == full
    assert report.from_json(reports.to_json(full)) == full
