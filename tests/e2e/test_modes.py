"""Nodes are tried before a training; its network is promoted by a pod of its own and used by jobs
of other modes, in real containers on the volume of the training.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from inception_operator.plugin.preflight_results import CHECKS
from node_jobs import Jobs, digits_job, persistent_claim
from plugin_commands import Commands

pytestmark = pytest.mark.timeout(1500)

DIGITS = {"recipe": "bninception-digits"}
WEIGHTS = {"model": {"weights": "/checkpoint/trained/checkpoints/final.safetensors"}}


@pytest.fixture
def command(jobs: Jobs, capsys: pytest.CaptureFixture[str]) -> Commands:
    """The plug-in's commands in the namespace of the test."""
    return Commands(
        capsys, f"--kubeconfig={jobs.cluster.kubeconfig}", f"--namespace={jobs.namespace}"
    )


# As OpenShift runs pods that name no user.
ANYBODY = {"runAsUser": 1000680000, "runAsGroup": 0, "fsGroup": 1000680000}


def use(jobs: Jobs, name: str, nodes: int, training: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """Run a job on the claim of the training; what its status says at the end."""
    claim = {"volumeClaimName": "trained"}
    jobs.apply(
        name,
        claim=False,
        checkpoint=claim,
        numNodes=nodes,
        training={**DIGITS, **WEIGHTS, **training},
        **spec,
    )
    status = jobs.wait_succeeded(name)
    assert (status["trainerStatus"]["progressPercentage"], status["restarts"]) == (100, 0)
    return status


@pytest.mark.nightly
def test_the_nodes_of_a_job_are_tried_before_it_is_there(
    jobs: Jobs, command: Commands, tmp_path: Path
) -> None:
    jobs.kubectl("apply", "-f", "-", stdin=json.dumps(persistent_claim("wanted")))
    file = tmp_path / "job.yaml"
    file.write_text(json.dumps(digits_job("wanted")), encoding="utf-8")
    small = ("samples=8", "exchangeMebibytes=1", "writeMebibytes=1")
    words = [f"--file={file}", *(f"--set=preflight.{each}" for each in small)]

    tried = command.run("preflight", *words, "-o", "json").json
    assert [each["node"] for each in tried["ranks"]] == [jobs.node] * 2
    assert [each["pod"] for each in tried["ranks"]] == [f"wanted-preflight-{n}-1" for n in range(2)]
    for rank in tried["ranks"]:
        verdicts = {check: found["ok"] for check, found in rank["checks"].items()}
        assert verdicts == dict.fromkeys(CHECKS, True), rank
    # On a machine whose cores others use as well a rank may be slow.
    assert [each for each in tried["problems"] if not each["problem"].startswith("slow")] == []

    missing = ("data.kind=ImageFolder", "data.path=/nowhere")
    refused = command.run("preflight", "lost", *words, *(f"--set={each}" for each in missing))
    assert refused.code == 1, refused
    who = f"FAILED rank 0 (pod lost-preflight-0-1 on node {jobs.node}): data: "
    (line,) = [line for line in refused.out.splitlines() if line.startswith(who)]
    assert "/nowhere" in line

    # Neither the small jobs nor the job itself is there, and nothing is left on the volume.
    assert jobs.kubectl("get", "inceptiontrainings", "--output=name") == ""
    assert jobs.beside("wanted", "find", "/checkpoint", "-type", "f") == ""


@pytest.mark.nightly
def test_a_network_is_trained_promoted_then_used_to_classify_and_exported(
    jobs: Jobs, command: Commands
) -> None:
    jobs.apply("trained", training={**DIGITS, "maxSteps": 10})
    jobs.wait_succeeded("trained")

    # No pod of the job runs any more: one of the same image and volumes does it, and goes.
    done = command("checkpoints", "promote", "trained", "-o", "json")
    assert "trained-helper-" in done.err
    promoted = done.json
    assert (promoted["step"], promoted["isNew"]) == (10, True)
    assert promoted["place"] == "/checkpoint/trained/promoted/step-000000010"
    current = json.loads(jobs.read("trained", "trained/promoted/current.json"))
    assert current["name"] == promoted["name"]
    helpers = jobs.kubectl(
        "get", "pods", "--selector=app.kubernetes.io/managed-by=kubectl-inception", "--output=json"
    )
    assert [
        pod for pod in json.loads(helpers)["items"] if "deletionTimestamp" not in pod["metadata"]
    ] == []
    serving = {"model": {"weights": f"{promoted['place']}/model.safetensors"}}

    inference = {"topClasses": 2, "batchSizes": [1, 8]}
    use(
        jobs,
        "infer",
        2,
        {
            **serving,
            "mode": "Infer",
            "inference": inference,
            "benchmark": {"warmupSteps": 1, "steps": 3},
        },
    )
    rows = list(
        csv.DictReader(io.StringIO(jobs.read("trained", "infer/output/infer/predictions.csv")))
    )
    assert [row["image"] for row in rows] == [f"val/{number}" for number in range(len(rows))]
    assert {row["label"] for row in rows} == set("0123456789")
    figures = json.loads(jobs.read("trained", "infer/output/infer/summary.json"))
    assert (figures["samples"], figures["worldSize"]) == (len(rows), 2)
    assert [one["batch"] for one in figures["latencies"]] == [1, 8]

    use(jobs, "export", 1, {"mode": "Export", "export": {"formats": ["PT2", "Safetensors"]}})
    facts = json.loads(jobs.read("trained", "export/output/export/export.json"))
    assert facts["classNames"] == list("0123456789")

    weights = {"weights": facts["files"][0]["file"]}
    assert weights == {"weights": "/checkpoint/export/output/export/bninception.pt2"}
    anybody = {"spec": {"securityContext": ANYBODY}}
    use(jobs, "evaluate", 1, {"mode": "Evaluate", "model": weights}, template=anybody)
    measured = json.loads(jobs.read("trained", "evaluate/output/evaluate/summary.json"))
    right = sum(row["label"] == row["name1"] for row in rows)
    assert measured["accuracyTop1"] == pytest.approx(right / len(rows), abs=0.01)
