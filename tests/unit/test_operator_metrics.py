"""The operator's series: of a job while it lives and after its end, and over all jobs."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from cluster_sim import Sim
from cluster_sim import job as sim_job
from inception_operator.contract.conditions import INITIAL
from inception_operator.contract.names import Cause
from inception_operator.decide import goodput, milestones
from inception_operator.runtime.job_metrics import MOST_SERIES, JobCollector
from inception_operator.runtime.metrics import Metrics
from inception_operator.runtime.standard_metrics import FAMILIES
from operator_objects import job, pod, strict_containment

ONE = {"namespace": "ns", "name": "job"}
# Prometheus' own: https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics
STANDARD = ("process_", "python_info", *FAMILIES)


def sample(metrics: Metrics, series: str, /, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"inception_operator_{series}", labels)


def condition(kind: str, status: str, reason: str = "Any") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": ""}


def full_job(state: str = "Running") -> dict[str, Any]:
    """A job of which everything is known that can be."""
    ended = {"Succeeded": "True" if state == "Succeeded" else "False"}
    ended["Failed"] = "True" if state == "Failed" else "False"
    resource = job(
        state=state,
        accelerator="nvidia.com/gpu x8",
        model="inception_v3",
        conditions=[
            *(condition(kind, ended.get(kind, "True"), "Completed") for kind, *_ in INITIAL),
            condition("OfSomebodyElse", "True"),
        ],
        restarts=3,
        restartsCountTowardsMax=2,
        completionTime="2026-01-01T10:00:00Z",
        trainerStatus={
            "progressPercentage": 100,
            "accuracyTop1": "0.78",
            "accuracyTop5": "0.94",
            "samplesPerSecond": "154.8",
            "loss": "0.9000",
            "samplesSeen": 1281167,
            "step": 5000,
        },
        straggler={"rank": 3, "pod": "job-1-1", "node": "node-b", "ratio": "3.9"},
        goodput={
            "seconds": dict.fromkeys(goodput.CAUSES, 10),
            "cause": "productive",
            "lastUpdatedTime": "2026-01-01T09:00:00Z",
        },
    )
    resource["metadata"]["creationTimestamp"] = "2026-01-01T08:00:00Z"
    return resource


def test_a_job_that_runs_has_live_figures_and_no_final_ones() -> None:
    metrics = Metrics(lambda: [full_job()])
    assert sample(metrics, "job_samples_per_second", **ONE) == 154.8
    assert sample(metrics, "job_accuracy_ratio", **ONE, k="1") == 0.78
    assert sample(metrics, "job_final_loss", **ONE) is None
    assert sample(metrics, "job_final_duration_seconds", **ONE) is None
    assert sample(metrics, "job_completion_timestamp_seconds", **ONE) is None
    assert sample(metrics, "job_created_timestamp_seconds", **ONE) == 1767254400


@pytest.mark.parametrize("state", ["Succeeded", "Failed"])
def test_a_job_that_has_ended_has_no_speed_but_final_figures(state: str) -> None:
    metrics = Metrics(lambda: [full_job(state)])
    assert sample(metrics, "job_samples_per_second", **ONE) is None
    assert sample(metrics, "job_final_loss", **ONE) == 0.9
    assert sample(metrics, "job_final_accuracy_ratio", **ONE, k="1") == 0.78
    assert sample(metrics, "job_final_samples", **ONE) == 1281167
    assert sample(metrics, "job_final_duration_seconds", **ONE) == 7200
    assert sample(metrics, "job_completion_timestamp_seconds", **ONE) == 1767254400 + 7200
    assert sample(metrics, "job_outcome", **ONE, outcome=state, reason="Completed") == 1


def test_the_rank_that_the_others_wait_for_is_named_while_there_is_one() -> None:
    who = {"rank": "3", "pod": "job-1-1", "node": "node-b"}
    assert sample(Metrics(lambda: [full_job()]), "job_straggler_ratio", **ONE, **who) == 3.9
    fast = full_job()
    del fast["status"]["straggler"]
    assert b"job_straggler_ratio{" not in Metrics(lambda: [fast]).page()


def test_conditions_are_one_or_zero_and_absent_while_unknown() -> None:
    waiting = job(conditions=[condition(kind, status) for kind, status, *_ in INITIAL])
    metrics = Metrics(lambda: [waiting])
    assert sample(metrics, "job_condition", **ONE, condition="PodsReady") == 0
    assert sample(metrics, "job_condition", **ONE, condition="Accepted") is None
    metrics = Metrics(lambda: [full_job("Succeeded")])
    assert sample(metrics, "job_condition", **ONE, condition="Succeeded") == 1
    assert sample(metrics, "job_condition", **ONE, condition="OfSomebodyElse") is None


def test_goodput_is_a_counter_by_cause_with_a_ratio() -> None:
    metrics = Metrics(lambda: [full_job()])
    for cause in goodput.CAUSES:
        assert sample(metrics, "job_goodput_seconds_total", **ONE, cause=cause) == 10
    assert sample(metrics, "job_goodput_ratio", **ONE) == pytest.approx(1 / 9)


def test_pods_are_named_with_their_nodes_for_joins() -> None:
    placed, unplaced = pod("job-0-1"), pod("job-1-1")
    placed["spec"]["nodeName"] = "node-a"
    metrics = Metrics(lambda: [job(state="Running")], lambda _: (placed, unplaced))
    series = {"pod": "job-0-1", "node": "node-a", "slot": "0"}
    assert sample(metrics, "job_pod_info", **ONE, **series) == 1
    series = {"pod": "job-1-1", "node": "", "slot": "1"}
    assert sample(metrics, "job_pod_info", **ONE, **series) == 1


@pytest.mark.parametrize("state", ["Running", "Succeeded", "Failed"])
def test_no_job_has_more_series_than_is_said_and_one_for_each_pod(state: str) -> None:
    """docs/operator-metrics.md names the number; a million series is what it keeps away."""
    pods = tuple(pod(f"job-{slot}-1") for slot in range(3))
    metrics = Metrics(lambda: [full_job(state)], lambda _: pods)
    named = [
        each
        for family in metrics.registry.collect()
        for each in family.samples
        if each.labels.get("name") == "job"
    ]
    assert len(named) <= MOST_SERIES + len(pods)
    assert len(named) > MOST_SERIES - 5, "the bound is close to the truth"


def test_series_over_all_jobs_do_not_grow_with_what_users_write() -> None:
    """Reasons of programs, of rules and names of profiles are anything."""
    metrics = Metrics(profiles=("cpu",))
    for number in range(50):
        resource = job(restarts=0)
        resource["spec"]["accelerator"] = {"profile": f"mine-{number}"}
        cause = {"reason": f"Custom{number}", "time": "2026-01-01T00:00:00Z"}
        metrics.status_written(resource, {"restarts": 1, "rootCause": cause})
    labels = {"namespace": "ns", "profile": "other", "reason": "Other"}
    assert sample(metrics, "restarts_total", **labels) == 50


def test_restarts_and_outcomes_are_counted_by_reason_profile_and_namespace() -> None:
    metrics = Metrics(profiles=("cpu", "nvidia"))
    resource = job(restarts=1)
    resource["spec"]["accelerator"] = {"profile": "nvidia"}
    metrics.status_written(resource, {"restarts": 2, "rootCause": {"reason": Cause.HANG}})
    labels = {"namespace": "ns", "profile": "nvidia"}
    assert sample(metrics, "restarts_total", **labels, reason="Hang") == 1
    done = {"restarts": 1, "conditions": [condition("Succeeded", "True", "Completed")]}
    metrics.status_written(resource, done)
    metrics.status_written(job(**done), done | {"observedGeneration": 2})
    ended = {"outcome": "Succeeded", "reason": "Completed"}
    assert sample(metrics, "job_outcomes_total", **labels, **ended) == 1
    assert sample(metrics, "job_outcomes_total", **(labels | {"profile": "cpu"}), **ended) is None


def test_requests_are_timed_by_verb() -> None:
    metrics = Metrics()
    assert sample(metrics, "api_request_duration_seconds_count", verb="delete") == 0
    metrics.count_request("patch", "pods", "200", 0.25)
    assert sample(metrics, "api_requests_total", verb="patch", resource="pods", code="200") == 1
    assert sample(metrics, "api_request_duration_seconds_sum", verb="patch") == 0.25


def test_the_text_is_what_the_library_would_write() -> None:
    odd = full_job("Failed")
    odd["metadata"]["name"] = "odd"
    odd["status"] |= {"model": 'a "quoted" \\ model\nof two lines', "accelerator": "ж"}
    odd["status"]["trainerStatus"] |= {"loss": "nan", "samplesSeen": 2**62}
    foreign = full_job()
    foreign["spec"]["runPolicy"] = {"managedBy": "kueue.x-k8s.io/multikueue"}
    placed = pod()
    placed["spec"]["nodeName"] = "node-a"
    resources = [full_job(), odd, foreign, job("new")]
    jobs = JobCollector(lambda: resources, lambda _: (placed,), strict_containment())
    registry = CollectorRegistry()
    registry.register(jobs)
    assert jobs.text() == generate_latest(registry).decode()


def test_the_text_of_an_ended_job_is_made_once_until_the_job_or_a_pod_is_another() -> None:
    running, over = full_job(), full_job("Failed")
    over["metadata"]["name"] = "over"
    for resource in (running, over):
        resource["status"]["model"] = "first"
    resources, pods = [running, over], [pod()]
    jobs = JobCollector(lambda: resources, lambda _: pods, strict_containment())
    page = jobs.text()
    assert page.count('model="first"') == 2
    # The caches never change an object that they have handed out: whoever does is not seen.
    running["status"]["model"] = over["status"]["model"] = "second"
    page = jobs.text()
    assert (page.count('model="first"'), page.count('model="second"')) == (1, 1)
    resources[1] = copy.deepcopy(over)
    assert jobs.text().count('model="second"') == 2
    pods[0] = pod()
    pods[0]["spec"]["nodeName"] = "node-c"
    assert jobs.text().count('node="node-c"') == 2
    pods.clear()
    assert 'node="node-c"' not in jobs.text()
    resources.pop()
    assert 'name="over"' not in jobs.text()


def test_every_series_has_the_prefix_and_a_description() -> None:
    for family in Metrics(lambda: [full_job()]).registry.collect():
        if family.name.startswith(STANDARD):
            continue
        assert family.name.startswith("inception_operator_")
        assert family.documentation.endswith(".")


def test_the_process_tells_of_itself() -> None:
    page = Metrics().page().decode()
    for series in ("process_resident_memory_bytes", "process_cpu_seconds_total", "python_info"):
        assert f"\n{series}" in page


# --- milestones: what a write brings to an end ----------------------------------------------------


def written(sim: Sim) -> list[tuple[str, float]]:
    """What all writes so far have brought to an end."""
    return [end for old, new in pairs(sim) for end in milestones.durations(old, new)]


def test_a_start_and_a_recovery_are_timed() -> None:
    sim = Sim(sim_job(2))
    sim.operate()
    sim.tick(40)
    sim.run_until("Running")
    (started,) = written(sim)
    assert started[0] == milestones.STARTED
    assert started[1] >= 40
    sim.tick(100)
    sim.fail_ranks(sim.pod(0), 1, ago=7)
    sim.run_until("PodsReady")
    found = dict(written(sim))
    assert found[milestones.DETECTED] >= 7
    assert [milestones.restart_cause(*pair) for pair in pairs(sim)].count("Error") == 1


def test_a_start_that_is_told_by_the_first_status_is_timed() -> None:
    sim = Sim(sim_job(1))
    sim.operate()
    sim.tick(3)
    sim.run_until("Running")
    assert len(sim.statuses) == 1
    assert written(sim) == [(milestones.STARTED, 4.0)]


def test_a_job_that_an_older_release_has_begun_starts_no_second_time() -> None:
    running = {"conditions": [condition("Running", "True", "AttemptRunning")]}
    new = counted("productive", MINUTE[5], MINUTE[5], **running, **FIGURES)
    assert list(milestones.durations(running, new)) == []


def pairs(sim: Sim) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return list(zip([{}, *sim.statuses], sim.statuses, strict=False))


def counted(cause: str, since: str, now: str, **status: Any) -> dict[str, Any]:
    """A status whose goodput says this."""
    found = {"cause": cause, "causeStartTime": since, "lastUpdatedTime": now}
    return {"goodput": found, "attempt": 2, "startTime": "2026-01-01T00:00:00Z", **status}


MINUTE = [f"2026-01-01T00:{minute:02}:00Z" for minute in range(60)]
FIGURES = {"trainerStatus": {"step": 7}}
FAILURE = {"rootCause": {"reason": "Error", "attempt": 1, "time": MINUTE[1]}}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("queue", "pods", [(milestones.QUEUED, 240.0)]),
        ("queue", "queue", []),
        ("firstStep", "productive", [(milestones.NEW_STEP_AFTER_START, 300.0)]),
        (
            "recovery",
            "productive",
            [(milestones.RECOVERED, 240.0), (milestones.NEW_STEP_AFTER_FAILURE, 240.0)],
        ),
        ("recovery", "repeatedSteps", [(milestones.RECOVERED, 240.0)]),
        ("repeatedSteps", "productive", [(milestones.NEW_STEP_AFTER_FAILURE, 240.0)]),
        ("productive", "productive", []),
        ("backOff", "recovery", []),
    ],
)
def test_what_a_change_of_the_cause_ends(
    before: str, after: str, expected: list[tuple[str, float]]
) -> None:
    old = counted(before, MINUTE[1], MINUTE[2], **FAILURE)
    new = counted(after, MINUTE[5], MINUTE[5], **FAILURE, **FIGURES)
    assert list(milestones.durations(old, new)) == expected


def test_steps_after_a_move_are_no_recovery_from_a_failure() -> None:
    old = counted("repeatedSteps", MINUTE[1], MINUTE[2], **FAILURE) | {"attempt": 3}
    new = counted("productive", MINUTE[5], MINUTE[5], **FAILURE, **FIGURES) | {"attempt": 3}
    assert list(milestones.durations(old, new)) == []


def test_durations_have_a_histogram_each() -> None:
    metrics = Metrics()
    old = counted("recovery", MINUTE[1], MINUTE[2], **FAILURE)
    new = counted("productive", MINUTE[5], MINUTE[5], **FAILURE, **FIGURES)
    resource = job()
    resource["status"] = old
    metrics.status_written(resource, new)
    assert sample(metrics, "job_recovery_seconds_sum") == 240
    assert sample(metrics, "job_time_to_new_step_seconds_sum", after="failure") == 240
    assert sample(metrics, "job_time_to_new_step_seconds_count", after="start") == 0
    assert set(metrics._durations) == set(milestones.DURATIONS)
