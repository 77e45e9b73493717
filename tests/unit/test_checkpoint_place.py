"""Where the checkpoints of a job lie all its life; what is told when they cannot be written."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from cluster_sim import CONTEXT, Sim, job
from inception_operator.contract.names import Reason
from inception_operator.contract.types import Json, Progress
from inception_operator.decide.reconcile import reconcile
from inception_operator.spec.job import parse

STORE = {"uri": "s3://runs/"}
NAMESPACED, FLAT = "s3://runs/ns/job", "s3://runs/job"


def env(body: Json) -> dict[str, Any]:
    return {entry["name"]: entry.get("value") for entry in body["spec"]["containers"][0]["env"]}


@pytest.mark.parametrize(
    ("checkpoint", "status", "path", "other"),
    [
        pytest.param(STORE, {}, NAMESPACED, FLAT, id="new"),
        pytest.param(STORE, {"attempt": 1}, NAMESPACED, FLAT, id="refused before it began"),
        pytest.param(STORE, {"startTime": "t"}, FLAT, NAMESPACED, id="begun by version 0.1"),
        pytest.param(
            STORE, {"startTime": "t", "checkpointPath": FLAT}, FLAT, NAMESPACED, id="kept"
        ),
        pytest.param(
            STORE,
            {"startTime": "t", "checkpointPath": NAMESPACED},
            NAMESPACED,
            FLAT,
            id="begun since",
        ),
        pytest.param(
            STORE,
            {"startTime": "t", "checkpointPath": "s3://old/job"},
            NAMESPACED,
            FLAT,
            id="moved to another store",
        ),
        pytest.param(STORE, {"checkpointPath": 7}, NAMESPACED, FLAT, id="no text in the status"),
        pytest.param({"volumeClaimName": "c"}, {}, "/checkpoint/job", None, id="claim"),
        pytest.param({"path": "/data"}, {"startTime": "t"}, "/data/job", None, id="path"),
        pytest.param(None, {"startTime": "t"}, None, None, id="none"),
    ],
)
def test_where_the_checkpoints_of_a_job_lie(
    checkpoint: Json | None, status: Json, path: str | None, other: str | None
) -> None:
    resource = job(checkpoint=checkpoint) | {"status": status}
    parsed = parse(resource)
    assert (parsed.checkpoint_path, parsed.other_checkpoint_path) == (path, other)


def test_a_spec_cannot_say_that_its_job_began_before() -> None:
    parsed = parse(job(checkpoint=STORE, beganBefore=True, recordedCheckpointPath=FLAT))
    assert parsed.checkpoint_path == NAMESPACED


def test_two_jobs_of_one_name_in_two_namespaces_never_share_a_place_in_a_store() -> None:
    neighbour = job(checkpoint=STORE)
    neighbour["metadata"]["namespace"] = "team-b"
    paths = {parse(each).checkpoint_path for each in (job(checkpoint=STORE), neighbour)}
    assert paths == {NAMESPACED, "s3://runs/team-b/job"}


@pytest.mark.parametrize("command", [None, ["python", "t.py"]], ids=["trainer", "program"])
def test_the_place_is_known_before_the_first_pod_and_kept(command: list[str] | None) -> None:
    sim = Sim(job(checkpoint=STORE))
    if command:
        del sim.job["spec"]["training"]
        trainer = {"name": "trainer", "command": command, "image": "i"}
        sim.job["spec"]["template"] = {"spec": {"containers": [trainer]}}
    for path in (NAMESPACED, FLAT):
        if path == FLAT:
            # As if version 0.1 had begun it: it wrote no such field.
            del sim.job["status"]["checkpointPath"]
            sim.pods.clear()
            sim.gone.clear()
        created = sim.operate(crash_after=1).create
        # Half of the pods are there, and nothing is written yet.
        created += sim.operate().create
        sim.tick(10)
        sim.operate()
        assert sim.status["checkpointPath"] == path
        for body in created:
            values = env(body)
            if command:
                assert values["INCEPTION_CHECKPOINT_PATH"] == path
                assert "INCEPTION_OTHER_CHECKPOINT_PATH" not in values
            config = json.loads(values["INCEPTION_CONFIG"])
            assert config["checkpoint"]["path"] == path
            assert config["output"]["path"] == f"{path}/output"
        assert created


def test_a_checkpoint_that_cannot_be_written_is_told_once_and_so_is_the_next_one() -> None:
    sim = Sim(job(checkpoint=STORE))
    sim.run_until("Running")

    def operate(*, failing: bool | None) -> None:
        sim.tick(10)
        figures = None if failing is None else Progress(sim.now, checkpoint_failing=failing)
        plan = reconcile(replace(sim.observe(), progress=figures), CONTEXT)
        sim._apply(plan, None)

    sim.events.clear()
    for failing in (False, True, None, True, False, None):
        operate(failing=failing)
        message = sim.full_condition("Running")["message"]
        told = f"its last checkpoint could not be written to {NAMESPACED}" in message
        assert told == (failing is True or (failing is None and told))
    assert sim.status["state"] == "Running"
    assert [(event.type, event.reason) for event in sim.events] == [
        ("Warning", Reason.CHECKPOINT_FAILING),
        ("Normal", Reason.ATTEMPT_RUNNING),
    ]
    assert sim.events[1].message == "attempt 1 is running, and its checkpoints are written again"


def test_what_the_last_attempt_could_not_write_is_not_said_of_the_next() -> None:
    sim = Sim(job(checkpoint=STORE))
    sim.run_until("Running")
    figures = Progress(sim.now, checkpoint_failing=True)
    sim._apply(reconcile(replace(sim.observe(), progress=figures), CONTEXT), None)
    sim.fail_ranks(sim.pod(0), 1)
    sim.run_until("Restarting")
    sim.run_until("Running")
    assert sim.full_condition("Running")["message"] == "attempt 2 is running"
