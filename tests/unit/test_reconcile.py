"""The rules of the state machine one by one, on the simulated cluster."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from cluster_sim import CONTEXT, Sim, job
from inception_operator.contract import assignment
from inception_operator.contract.names import API_VERSION
from inception_operator.contract.types import Assignment, Json, Observation, Plan, PodView, Progress
from inception_operator.decide.questions import wants_progress, wants_report
from inception_operator.decide.reconcile import reconcile

CONDITIONS = ("Accepted", "Suspended", "PodsReady", "Running", "Restarting", "Succeeded", "Failed")


def test_first_visit_makes_pods_and_writes_nothing() -> None:
    sim = Sim()
    plan = sim.operate()
    assert [p["metadata"]["name"] for p in plan.create] == ["job-0-1", "job-1-1"]
    assert (plan.status, plan.events) == (None, ())
    assert plan.requeue_after == 5
    sim.tick(4)
    plan = sim.operate()
    assert plan.empty
    assert plan.requeue_after == 1


def test_a_wait_is_told_after_a_while_as_of_its_beginning() -> None:
    sim = Sim()
    sim.operate()
    sim.tick(10)
    plan = sim.operate()
    status = plan.status
    assert status is not None
    assert [c["type"] for c in status["conditions"]] == list(CONDITIONS)
    assert {c["type"]: c["status"] for c in status["conditions"]}["Succeeded"] == "Unknown"
    assert (status["attempt"], status["restarts"], status["restartsCountTowardsMax"]) == (1, 0, 0)
    assert (status["state"], status["accelerator"], status["model"]) == (
        "Pending",
        "cpu",
        "bninception",
    )
    assert status["nodes"] == {"desired": 2, "ready": 0, "summary": "0/2"}
    assert status["startTime"] == "2026-01-01T00:00:00Z"
    assert sim.full_condition("PodsReady")["lastTransitionTime"] == "2026-01-01T00:00:00Z"
    assert status["goodput"]["seconds"]["pods"] == 10
    assert plan.events == ()
    assert sim.operate().empty


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_crash_before_the_first_status_makes_no_pod_twice_and_costs_no_attempt(writes: int) -> None:
    sim = Sim()
    sim.operate(crash_after=writes)
    assert len(sim.pods) == writes
    uids = {pod.uid for pod in sim.pods.values()}
    assert len(sim.operate().create) == 2 - writes
    assert sorted(sim.pods) == ["job-0-1", "job-1-1"]
    assert uids <= {pod.uid for pod in sim.pods.values()}
    sim.run_until("Running")
    assert sim.counters == (1, 0, 0)
    assert len(sim.statuses) == 2, "all pods ready, and running"


def test_a_job_of_two_pods_without_trouble_takes_nine_requests() -> None:
    sim = Sim()
    assignments = 0
    for _ in range(8):
        plan = sim.operate()
        assignments += len(plan.assign)
        sim.calm()
    sim.finish_all()
    sim.operate()
    assert sim.status["state"] == "Succeeded"
    assert [status["state"] for status in sim.statuses] == ["Starting", "Running", "Succeeded"]
    assert (len(sim.pods), assignments) == (2, 2)
    assert sim.reasons == ["AttemptRunning", "Completed"]


def test_a_job_of_one_pod_is_written_twice_in_all() -> None:
    sim = Sim(job(1))
    sim.operate()
    sim.forget()
    sim.tick(3)
    sim.calm()
    sim.operate()
    assert (sim.status["state"], sim.counters) == ("Running", (1, 0, 0))
    assert sim.status["startTime"] == "2026-01-01T00:00:00Z"
    sim.finish_all()
    sim.operate()
    assert (sim.status["state"], len(sim.statuses)) == ("Succeeded", 2)


def test_a_job_that_has_ended_before_its_first_status_has_a_beginning() -> None:
    sim = Sim(job(1))
    sim.operate()
    sim.tick(1)
    sim.calm()
    sim.finish_all()
    sim.operate()
    assert (sim.status["state"], len(sim.statuses)) == ("Succeeded", 1)
    assert sim.status["startTime"] == "2026-01-01T00:00:00Z"


def test_counts_of_ready_pods_are_written_now_and_then() -> None:
    sim = Sim(job(4))
    sim.operate()
    sim.tick(10)
    sim.operate()
    for slot in (0, 1):
        sim.tick(1)
        sim.start(sim.pod(slot))
        assert sim.operate().status is None
    sim.tick(8)
    sim.operate()
    assert sim.pods_ready()[:2] == ("False", "WaitingForPods")
    assert sim.pods_ready()[2].startswith("2 of 4 pods ready; pod job-2-1 ")
    assert len(sim.statuses) == 2


def test_pods_that_vanish_again_and_again_do_not_put_the_status_off_for_ever() -> None:
    sim = Sim()
    sim.job["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    for _ in range(13):
        sim.operate()
        sim.tick(5)
        for pod in list(sim.pods.values()):
            sim.remove(pod)
    assert sim.operate().status is not None
    assert len(sim.statuses) == 1


def test_a_clock_that_is_set_back_puts_nothing_off() -> None:
    sim = Sim()
    sim.operate()
    sim.tick(-3600)
    assert sim.operate().status is not None


@pytest.mark.parametrize("suspend", [True, False])
def test_what_people_wait_for_is_never_put_off(suspend: bool) -> None:
    sim = Sim(job(2, runPolicy={"suspend": True}) if suspend else job(2))
    if not suspend:
        sim.quota = 0
        sim.operate()
    sim.operate()
    assert sim.status["state"] == ("Suspended" if suspend else "Pending")
    assert sim.reasons == (["Suspended"] if suspend else ["PodCreationRejected"])


def test_no_ranks_before_all_slots_are_up() -> None:
    sim = Sim()
    sim.operate()
    sim.start(sim.pods["job-0-1"])
    plan = sim.operate()
    assert plan.assign == {}
    sim.start(sim.pods["job-1-1"])
    plan = sim.operate()
    assert sim.pods_ready() == ("True", "AllPodsReady", "2 of 2 pods ready")
    assert plan.assign == {
        f"job-{slot}-1": Assignment(1, 2, slot, 1, sim.pods["job-0-1"].ip, 29501, graceful=False)
        for slot in (0, 1)
    }
    assert sim.status["state"] == "Starting"


def test_crash_between_assignments_is_healed() -> None:
    sim = Sim()
    sim.operate()
    sim.calm()
    sim.operate(crash_after=2)
    assert [p.assigned is not None for p in sim.pods.values()] == [True, False]
    plan = sim.operate()
    assert list(plan.assign) == ["job-1-1"]
    assert plan.status is None


def test_running_is_reported_once(sim: Sim) -> None:
    assert sim.status["state"] == "Running"
    assert sim.condition("Restarting") == "False"
    assert sim.operate() == Plan(), "events and figures wake it, no timer"


def test_one_node_is_born_with_its_assignment() -> None:
    sim = Sim(job(1))
    plan = sim.operate()
    assigned = assignment.from_json(
        plan.create[0]["metadata"]["annotations"]["training.inception.dev/assignment"]
    )
    assert assigned == Assignment(1, 1, 0, 1, "127.0.0.1", 29501, graceful=False)
    sim.calm()
    assert sim.operate().assign == {}
    assert sim.status["state"] == "Running"


def test_success(sim: Sim) -> None:
    sim.finish(sim.pod(1))
    assert sim.operate().empty, "one that is done early changes nothing"
    sim.finish(sim.pod(0))
    sim.operate()
    status = sim.status
    assert (status["state"], status["nodes"]["summary"]) == ("Succeeded", "2/2")
    assert status["trainerStatus"]["progressPercentage"] == 100
    assert status["trainerStatus"]["accuracyTop1"] == "0.9700"
    assert status["completionTime"]
    assert sim.condition("Failed") == "False"
    assert sim.reasons == ["Completed"]
    assert sorted(sim.pods) == ["job-0-1", "job-1-1"], "ended pods stay for their logs"


def test_finished_job_never_comes_back(sim: Sim) -> None:
    sim.finish_all()
    sim.finish_all()
    sim.operate()
    for each in list(sim.pods.values()):
        sim.remove(each)
    sim.suspend(True)
    plan = sim.operate()
    assert not (plan.create)
    assert not (plan.assign)
    assert not (plan.delete)
    assert sim.status["state"] == "Succeeded"
    assert sim.status["observedGeneration"] == 2
    sim.job["spec"] = {"accelerator": {"profile": "abacus"}}
    assert sim.operate().empty


def test_suspend_saves_and_resume_goes_on(sim: Sim) -> None:
    sim.suspend(True)
    plan = sim.operate()
    assert plan.delete == {"job-0-1": None, "job-1-1": None}
    assert (sim.status["state"], sim.status["nodes"]["summary"]) == ("Suspended", "0/2")
    for each in list(sim.pods.values()):
        sim.exit(each, 75)
    assert sim.operate().empty
    sim.suspend(False)
    plan = sim.operate()
    assert sim.counters == (2, 0, 0)
    assert [p["metadata"]["name"] for p in plan.create] == ["job-0-2", "job-1-2"]
    assert sim.reasons == ["Suspended", "Resumed"]
    sim.run_until("Running")
    assert sim.counters == (2, 0, 0)


def test_job_that_is_born_suspended_makes_no_pod_and_uses_no_attempt() -> None:
    sim = Sim(job(2, runPolicy={"suspend": True}))
    sim.operate()
    assert (sim.pods, sim.status["state"]) == ({}, "Suspended")
    assert "startTime" not in sim.status
    sim.suspend(False)
    sim.run_until("Running")
    assert sim.counters == (1, 0, 0)


def test_resume_before_the_pods_were_deleted_takes_them_over(sim: Sim) -> None:
    sim.suspend(True)
    sim.operate(crash_after=1)
    sim.suspend(False)
    plan = sim.operate()
    assert plan.create == ()
    assert {(assigned.attempt, assigned.graceful) for assigned in plan.assign.values()} == {
        (2, True)
    }


def test_pods_that_cannot_be_reached_run_by_their_readiness() -> None:
    sim = Sim()
    sim.operate()
    for each in sim.pods.values():
        each.reachable = False
    sim.calm()
    sim.settle()
    assert sim.status["state"] == "Running"


def with_status(sim: Sim, slot: int, **status: object) -> Observation:
    seen = sim.observe()
    views = tuple(replace(view, **status) if view.slot == slot else view for view in seen.pods)  # type: ignore[arg-type]
    return replace(seen, pods=views)


WAITING = [
    (
        {"unschedulable_message": "0/3 nodes are available"},
        "Unschedulable",
        "pod job-1-1: 0/3 nodes are available",
    ),
    (
        {"waiting_reason": "ErrImagePull", "waiting_message": "no x"},
        "ImagePullFailed",
        "pod job-1-1: no x",
    ),
    ({"waiting_reason": "ImagePullBackOff"}, "ImagePullFailed", "pod job-1-1: ImagePullBackOff"),
    (
        {"waiting_reason": "InvalidImageName", "waiting_message": "bad"},
        "ImagePullFailed",
        "pod job-1-1: bad",
    ),
    (
        {"waiting_reason": "CreateContainerConfigError", "waiting_message": "s"},
        "ContainerConfigError",
        "pod job-1-1: s",
    ),
    (
        {"waiting_reason": "SignatureValidationFailed", "waiting_message": "who signed it?"},
        "ImagePullFailed",
        "pod job-1-1: who signed it?",
    ),
    (
        {"waiting_reason": "AnErrorOfTheNextRelease", "waiting_message": "s"},
        "ContainerConfigError",
        "pod job-1-1: s",
    ),
    (
        {"waiting_reason": "ContainerCreating"},
        "WaitingForPods",
        "0 of 2 pods ready; pod job-0-1 is on node node-0-1 and has not started yet",
    ),
]


@pytest.mark.parametrize(
    ("seen", "reason", "message"), WAITING, ids=[str(next(iter(w[0].values()))) for w in WAITING]
)
def test_what_is_waited_for_is_said(seen: Json, reason: str, message: str) -> None:
    sim = Sim()
    sim.operate()
    sim.tick(10)
    plan = reconcile(with_status(sim, 1, **seen), CONTEXT)
    assert sim.pods_ready(plan.status) == ("False", reason, message)
    assert [e.reason for e in plan.events] == ([] if reason == "WaitingForPods" else [reason])


def test_image_errors_do_not_flap() -> None:
    sim = Sim()
    sim.operate()
    first = reconcile(
        with_status(sim, 1, waiting_reason="ErrImagePull", waiting_message="not found: x"), CONTEXT
    )
    assert first.status is not None
    sim.job["status"] = first.status
    back_off = with_status(
        sim, 1, waiting_reason="ImagePullBackOff", waiting_message="Back-off pulling image x"
    )
    assert reconcile(back_off, CONTEXT).empty


def test_rejected_pods_are_reported_and_tried_again() -> None:
    sim = Sim()
    sim.quota = 1
    sim.operate()
    plan = sim.operate()
    assert sim.pods_ready()[1:] == (
        "PodCreationRejected",
        "pods job-1-1 is forbidden: exceeded quota",
    )
    assert plan.requeue_after == 5
    assert sim.operate().status is None
    sim.quota = None
    sim.run_until("Running")
    assert sim.counters == (1, 0, 0)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            {"accelerator": {"profile": "abacus"}},
            "spec.accelerator.profile: abacus is unknown; choose one of",
        ),
        (
            {"checkpoint": {"volumeClaimName": "a", "path": "/b"}},
            "spec.checkpoint: needs exactly one",
        ),
    ],
)
def test_job_that_cannot_run_is_refused(spec: Json, words: str) -> None:
    sim = Sim(job(2, **spec))
    plan = sim.operate()
    assert plan.create == ()
    accepted = sim.full_condition("Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", "InvalidSpec")
    assert words in accepted["message"]
    assert (sim.status["state"], sim.terminal) == ("Rejected", False)
    assert "startTime" not in sim.status
    assert sim.operate().empty


def test_job_being_deleted_is_left_alone(sim: Sim) -> None:
    sim.job["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    sim.remove(sim.pod(0))
    assert sim.operate() == Plan()


def test_foreign_pods_are_ignored(sim: Sim) -> None:
    stranger = copy.deepcopy(sim.pod(0))
    stranger.raw["metadata"] |= {
        "name": "job-0-9",
        "uid": "other",
        "ownerReferences": [],
        "managedFields": [{"manager": "kubectl-create"}],
    }
    sim.pods["job-0-9"] = stranger
    assert sim.operate().empty


def test_older_duplicate_of_a_slot_is_deleted(sim: Sim) -> None:
    newer = copy.deepcopy(sim.pod(0))
    newer.raw["metadata"] |= {
        "name": "job-0-9",
        "uid": "newer",
        "labels": {**newer.raw["metadata"]["labels"], "training.inception.dev/incarnation": "9"},
    }
    sim.pods["job-0-9"] = newer
    assert sim.operate().delete == {"job-0-1": None}


def test_lost_status_goes_on_above_every_attempt_seen(sim: Sim) -> None:
    sim.fail_ranks(sim.pod(0), 1)
    sim.run_until("Running")
    assert sim.counters == (1, 0, 0) or sim.status["attempt"] == 2
    sim.job.pop("status")
    sim.run_until("Running")
    assert sim.status["attempt"] == 3
    assert sorted(sim.pods) == ["job-0-1", "job-1-1"]


def test_times_move_only_with_the_status_of_a_condition(sim: Sim) -> None:
    before = {c["type"]: c["lastTransitionTime"] for c in sim.status["conditions"]}
    sim.tick(100)
    sim.job["metadata"]["generation"] = 5
    sim.operate()
    assert {c["type"]: c["lastTransitionTime"] for c in sim.status["conditions"]} == before
    assert {c["observedGeneration"] for c in sim.status["conditions"]} == {5}
    assert sim.status["observedGeneration"] == 5


def figures(sim: Sim, step: int) -> Observation:
    progress = Progress(
        time=sim.now, progress=step / 100, step=step, samples_per_second=12.34, loss=0.5
    )
    return replace(sim.observe(), progress=progress)


def test_progress_is_written_at_most_every_ten_seconds(sim: Sim) -> None:
    first = reconcile(figures(sim, 10), CONTEXT).status
    assert first is not None
    assert first["trainerStatus"] == {
        "progressPercentage": 10,
        "step": 10,
        "samplesPerSecond": "12.3",
        "loss": "0.5000",
        "lastUpdatedTime": "2026-01-01T00:00:02Z",
    }
    sim.job["status"] = first
    sim.tick(9)
    assert reconcile(figures(sim, 20), CONTEXT).empty
    sim.tick(1)
    second = reconcile(figures(sim, 30), CONTEXT).status
    assert second is not None
    assert second["trainerStatus"]["step"] == 30


def test_unchanged_figures_are_not_written_again(sim: Sim) -> None:
    sim.job["status"] = reconcile(figures(sim, 10), CONTEXT).status
    sim.tick(100)
    assert reconcile(figures(sim, 10), CONTEXT).empty


def test_transition_takes_the_latest_figures_along_and_drops_the_speed(sim: Sim) -> None:
    sim.job["status"] = reconcile(figures(sim, 10), CONTEXT).status
    sim.tick(1)
    sim.fail_ranks(sim.pod(0), 1)
    status = reconcile(figures(sim, 20), CONTEXT).status
    assert status is not None
    assert status["trainerStatus"]["step"] == 20
    assert "samplesPerSecond" not in status["trainerStatus"]


def view_of(sim: Sim, slot: int) -> PodView:
    return next(view for view in sim.observe().pods if view.slot == slot)


def test_who_is_asked(sim: Sim) -> None:
    steady = view_of(sim, 0)
    assert not wants_report(sim.job, steady)
    assert wants_report(sim.job, replace(steady, ready=False))
    assert wants_report(sim.job, replace(steady, reachable=None))
    assert wants_report(
        sim.job, replace(steady, assignment=assignment.work(2, 0, 2, 1, "x", graceful=False))
    )
    assert not wants_report(sim.job, replace(steady, ready=False, ip=None))
    assert not wants_report(sim.job, replace(steady, ready=False, phase="Pending"))
    assert not wants_report(sim.job, replace(steady, ready=False, deleting=True))
    assert not wants_report(sim.job, replace(steady, reachable=False, report=None))
    assert wants_progress(sim.job, steady)
    assert not wants_progress(sim.job, view_of(sim, 1))
    assert not wants_progress(sim.job, replace(steady, ready=False))
    assert wants_progress(sim.job, replace(steady, ready=False, trainer_ready=True))
    sim.suspend(True)
    assert not wants_report(sim.job, replace(steady, ready=False))
    assert not wants_progress(sim.job, steady)


def test_pods_belong_to_the_job(sim: Sim) -> None:
    (owner,) = sim.pod(0).raw["metadata"]["ownerReferences"]
    assert (owner["apiVersion"], owner["uid"]) == (API_VERSION, "job-uid")
    assert owner["controller"] is owner["blockOwnerDeletion"] is True


PROGRAM = {"spec": {"containers": [{"name": "trainer", "command": ["python", "train.py"]}]}}


@pytest.mark.parametrize(
    ("spec", "but"),
    [
        pytest.param({}, "", id="the bundled trainer"),
        pytest.param(
            {"failurePolicy": {"progressDeadlineSeconds": 0}}, "hangs are not looked for", id="off"
        ),
        pytest.param(
            {"training": {}, "template": PROGRAM}, "the program's signs of life", id="a program"
        ),
    ],
)
def test_the_condition_says_where_hangs_may_go_unnoticed(spec: Json, but: str) -> None:
    sim = Sim(job(**spec))
    sim.run_until("Running")
    message = sim.full_condition("Running")["message"]
    assert message.startswith("attempt 1 is running")
    assert but in message
    assert (message == "attempt 1 is running") == (not but)
