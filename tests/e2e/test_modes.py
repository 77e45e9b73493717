"""A trained network is used by jobs of other modes, in real containers on the volume of the
training.
"""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from node_jobs import Jobs

pytestmark = pytest.mark.timeout(1500)

DIGITS = {"recipe": "bninception-digits"}
WEIGHTS = {"model": {"weights": "/checkpoint/trained/checkpoints/final.safetensors"}}


def use(jobs: Jobs, name: str, nodes: int, training: dict[str, Any]) -> dict[str, Any]:
    """Run a job on the claim of the training; what its status says at the end."""
    claim = {"volumeClaimName": "trained"}
    jobs.apply(
        name,
        claim=False,
        checkpoint=claim,
        numNodes=nodes,
        training={**DIGITS, **WEIGHTS, **training},
    )
    status = jobs.wait_succeeded(name)
    assert (status["trainerStatus"]["progressPercentage"], status["restarts"]) == (100, 0)
    return status


@pytest.mark.nightly
def test_a_network_is_trained_then_used_to_classify_and_exported(jobs: Jobs) -> None:
    jobs.apply("trained", training={**DIGITS, "maxSteps": 10})
    jobs.wait_succeeded("trained")

    inference = {"topClasses": 2, "batchSizes": [1, 8]}
    use(
        jobs,
        "infer",
        2,
        {"mode": "Infer", "inference": inference, "benchmark": {"warmupSteps": 1, "steps": 3}},
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
    use(jobs, "evaluate", 1, {"mode": "Evaluate", "model": weights})
    measured = json.loads(jobs.read("trained", "evaluate/output/evaluate/summary.json"))
    right = sum(row["label"] == row["name1"] for row in rows)
    assert measured["accuracyTop1"] == pytest.approx(right / len(rows), abs=0.01)
