"""What the benchmark of recovery makes of what it saw: events of the API server, files of steps,
tables; and the jobs that it hurts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.recovery_events import ASSIGNMENT, JOB, JobEvents
from benchmarks.recovery_jobs import GLOBAL_BATCH, IMAGES, STEPS_OF_AN_EPOCH, documents, merged
from benchmarks.recovery_jobs import ReferenceJobs as Reference
from benchmarks.recovery_records import StepRecord
from benchmarks.recovery_report import document, table
from benchmarks.recovery_tools import FileSteps
from benchmarks.recovery_trials import Plan, Result, Trial
from inception_operator.accelerators import resolve
from inception_operator.pod import build
from inception_operator.spec import job as spec
from inception_trainer.config import training as config

Json = dict[str, Any]


def pod(name: str, ready: bool, assignment: Json | None = None, kind: str = "MODIFIED") -> Json:
    metadata: Json = {"name": name, "labels": {JOB: "mine"}}
    if assignment is not None:
        metadata["annotations"] = {ASSIGNMENT: json.dumps(assignment)}
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {"type": kind, "object": {"metadata": metadata, "status": {"conditions": conditions}}}


def job(name: str, **status: Any) -> Json:
    return {"type": "MODIFIED", "object": {"metadata": {"name": name}, "status": status}}


def ranks(attempt: int, rank: int, nodes: int = 2) -> Json:
    return {"attempt": attempt, "nnodes": nodes, "nodeRank": rank}


def test_an_attempt_is_assigned_once_all_its_members_are() -> None:
    events = JobEvents("mine")
    events.see_job(job("mine", attempt=2), 1.0)
    events.see_pod(pod("a", True, ranks(2, 0)), 2.0)
    assert (events.attempt, events.attempts[2].assigned) == (2, None)
    events.see_pod(pod("b", True, {"attempt": 2, "nnodes": 0}), 3.0)
    assert events.attempts[2].assigned is None
    events.see_pod(pod("b", True, ranks(2, 1)), 4.0)
    events.see_pod(pod("b", True, ranks(2, 1) | {"nudge": 1}), 5.0)
    assert (events.attempts[2].decided, events.attempts[2].assigned) == (1.0, 4.0)
    assert events.attempts[2].members == {"a": 0, "b": 1}


def test_trouble_is_what_befalls_a_pod_that_was_ready() -> None:
    events = JobEvents("mine")
    events.see_pod(pod("a", False), 1.0)
    events.see_pod(pod("a", True), 2.0)
    events.see_pod(pod("a", False), 3.0)
    events.see_pod(pod("a", False, kind="DELETED"), 4.0)
    events.see_pod(pod("b", True), 5.0)
    events.see_pod(pod("b", True, kind="DELETED"), 6.0)
    assert events.troubles == [(3.0, "a"), (6.0, "b")]
    assert events.ready == {}
    assert (events.detected(2.5, 9), events.detected(3.5, 9), events.detected(7.0, 9)) == (
        3.0,
        6.0,
        None,
    )


def test_a_decision_may_come_before_any_pod_shows_trouble() -> None:
    events = JobEvents("mine")
    events.see_job(job("mine", attempt=2), 1.0)
    events.see_pod(pod("a", True), 0.5)
    events.see_pod(pod("a", False), 1.5)
    assert events.detected(0.9, 2) == 1.0


def test_other_jobs_are_none_of_its_business() -> None:
    events = JobEvents("mine")
    failed = [{"type": "Failed", "status": "True"}]
    events.see_job(job("other", attempt=2, conditions=failed), 1.0)
    strange = pod("a", True)
    strange["object"]["metadata"]["labels"] = {JOB: "other"}
    events.see_pod(strange, 1.0)
    assert (events.attempt, events.ready, events.condition("Failed")) == (0, {}, False)
    events.see_job(job("mine", conditions=failed), 2.0)
    assert events.condition("Failed")


def test_files_of_steps_are_read_line_by_line(tmp_path: Path) -> None:
    steps = FileSteps(tmp_path)
    assert (list(steps.drain()), steps.process(0)) == ([], None)
    (tmp_path / "1-0").write_text("41\n1.5 1\n2.5 2\n3.")
    (tmp_path / "1-1").write_text("42\n")
    assert list(steps.drain()) == [
        StepRecord(1.5, 1, "rank 0", 1),
        StepRecord(2.5, 1, "rank 0", 2),
    ]
    (tmp_path / "1-0").write_text("41\n1.5 1\n2.5 2\n3.5 3\n")
    assert list(steps.drain()) == [StepRecord(3.5, 1, "rank 0", 3)]
    (tmp_path / "10-1").write_text("52\n9.5 3\n")
    (tmp_path / "2-1").write_text("47\n5.5 2\n")
    assert [record.attempt for record in steps.drain()] == [2, 10]
    assert (steps.process(0), steps.process(1)) == (41, 52)


def test_a_plan_is_the_same_for_the_same_seed_and_fits_its_steps() -> None:
    plan = Plan.drawn(20, 10, seed=3, patience=60)
    assert plan == Plan.drawn(20, 10, seed=3, patience=60)
    assert plan != Plan.drawn(20, 10, seed=4, patience=60)
    assert 1 <= min(plan.gaps) <= max(plan.gaps) <= 19
    assert plan.steps(spare=True) > plan.steps() > sum(plan.gaps)


RECOVERED = Trial("rank", 0, 0.1, 0.2, 0.3, 0.5, 0.6, 1.0, 2.0, repeated_steps=4, attempts=1)
LOST = Trial("rank", 1, 0.1)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (
            Result("killed", "rank", [RECOVERED], samples_exact=True),
            ["| 1 |", "1.00 / 1.00 / 1.00", "4 / 4 / 4", "samples exact |"],
        ),
        (Result("killed", "rank", [RECOVERED, LOST]), ["| 2, 1 did not recover |", "| 2.00 /"]),
        (Result("killed", "rank", [], samples_exact=False), ["samples DIFFER"]),
        (
            Result(
                "killed",
                "rank",
                [RECOVERED],
                differences={
                    "parameters": {"differ": 0},
                    "optimizer": {"differ": 1},
                    "statistics": {"differ": 3},
                },
            ),
            ["parameters DIFFER, 3 batch norm statistics differ"],
        ),
        (
            Result("killed", "rank", [Trial("rank", 0, first_new_step=1.0, skipped_steps=2)]),
            ["2 STEPS SKIPPED"],
        ),
        (Result("killed", "rank", [RECOVERED], failure="it is over"), ["FAILED: it is over"]),
    ],
    ids=["well", "one lost", "samples", "optimizer", "steps skipped", "failed"],
)
def test_the_table_tells_what_was_measured(result: Result, words: list[str]) -> None:
    text = table([result])
    assert [word for word in words if word not in text] == []
    assert len({line.count("|") for line in text.splitlines()}) == 1
    assert result.is_well is (words[-1] == "samples exact |")
    assert json.loads(json.dumps(document([result], {}, 0.2)))["results"][0]["kind"] == "rank"


@pytest.mark.parametrize("own", [False, True], ids=["trainer", "own program"])
@pytest.mark.parametrize("pods", [2, 4])
def test_operator_and_trainer_understand_the_reference_job(own: bool, pods: int) -> None:
    overlay = {"checkpoint": {"keep": 2}}
    reference = Reference(None, pods, steps=120, own=own, overlay=overlay)  # type: ignore[arg-type]
    manifest = reference.manifest("rank", spare=True, nodeLostSeconds=2)
    manifest["metadata"] |= {"namespace": "default", "uid": "1"}
    parsed = spec.parse(manifest)
    assert (parsed.num_nodes, parsed.max_restarts, bool(parsed.program)) == (pods, 1000, own)
    if own:
        return
    devices = resolve.resolve(parsed, resolve.load_profiles())
    training = config.from_mapping(build.configuration(parsed, devices))
    # Loader workers go by the CPUs of the pod.
    assert (training.max_steps, training.epochs, training.data.workers) == (120, 3, None)
    assert (training.checkpoint.every_seconds, training.checkpoint.keep) == (60.0, 2)
    assert training.batch.global_ == GLOBAL_BATCH


def test_the_reference_job_has_as_many_images_as_it_is_counted_for() -> None:
    template = documents("digits-folder")["InceptionTraining"]["spec"]["template"]["spec"]
    (container,) = template["containers"]
    assert container["args"][1:3] == ["--images", str(IMAGES)]
    assert STEPS_OF_AN_EPOCH == 50


def test_merging_keeps_what_is_not_named() -> None:
    base = {"a": {"b": 1, "c": [1]}, "d": 2}
    assert merged(base, {"a": {"c": [2]}, "e": 3}) == {"a": {"b": 1, "c": [2]}, "d": 2, "e": 3}
    assert base == {"a": {"b": 1, "c": [1]}, "d": 2}
