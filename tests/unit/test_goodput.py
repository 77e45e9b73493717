"""Where the time of a job goes: every second has one cause, whatever happens in whatever order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster_sim import CONTEXT, Sim, job
from inception_operator.contract.names import LABEL_QUEUE, Cause
from inception_operator.contract.progress import from_metrics
from inception_operator.contract.types import Json, Progress
from inception_operator.decide import goodput
from inception_operator.decide.failure import Failure
from inception_operator.decide.goodput import Look, carried_on
from inception_operator.decide.reconcile import reconcile

START = datetime(2026, 1, 1, tzinfo=UTC)


def status(state: str, step: int | None = None, reason: str = "WaitingForPods") -> Json:
    """A status as the operator writes it in this state; ``reason`` is that of Running or
    PodsReady.
    """
    true = {
        "Suspended": ("Accepted", "Suspended"),
        "Rejected": (),
        "Waiting": ("Accepted",),
        "Starting": ("Accepted", "PodsReady"),
        "Running": ("Accepted", "PodsReady", "Running"),
        "Interrupted": ("Accepted", "Restarting"),
        "Succeeded": ("Accepted", "Succeeded"),
        "Failed": ("Accepted", "Failed"),
    }[state]
    kinds = ("Accepted", "Suspended", "PodsReady", "Running", "Restarting", "Succeeded", "Failed")
    told = {"PodsReady": reason, "Running": "WaitingForPods"}
    if state == "Interrupted":
        told["Running"] = "AttemptEnded"
    conditions = [
        {
            "type": kind,
            "status": "True" if kind in true else "False",
            "reason": told.get(kind, "Active"),
            "message": "",
        }
        for kind in kinds
    ]
    made: Json = {"conditions": conditions}
    if step is not None:
        made["trainerStatus"] = {"step": step}
    return made


def failure(time: datetime, step: int | None = None, reason: str = Cause.ERROR) -> Failure:
    return Failure(attempt=1, slot=0, reason=reason, time=time, step=step)


@dataclass
class Story:
    """One job, one write of its status after the other; ``now`` is the operator's clock."""

    now: datetime = START
    written: Json | None = None

    def write(self, new: Json, seconds: float = 0, **look: Any) -> dict[str, int]:
        """Time passes, then this status is written; answers the seconds by cause that are not 0."""
        self.now += timedelta(seconds=seconds)
        old = self.written or {"conditions": []}
        kept = {key: old[key] for key in ("goodput", "trainerStatus") if key in old}
        self.written = carried_on(old, kept | new, Look(self.now, **look))
        return self.seconds

    def step(self, step: int, seconds: float, **look: Any) -> dict[str, int]:
        """Time passes, then the figures of the attempt that runs say this step."""
        figures = Progress(time=self.now, step=step, **look)
        return self.write(status("Running", step), seconds, figures=figures)

    @property
    def goodput(self) -> Json:
        assert self.written is not None
        found: Json = self.written["goodput"]
        return found

    @property
    def seconds(self) -> dict[str, int]:
        return {cause: n for cause, n in self.goodput["seconds"].items() if n}


@pytest.fixture
def trained() -> Story:
    """A job that has made 100 steps in 100 seconds."""
    story = Story()
    story.write(status("Waiting"))
    story.write(status("Starting"), 20)
    story.write(status("Running"), 2)
    story.step(0, 3)
    story.step(1, 5)
    story.step(101, 100)
    return story


def test_a_job_that_begins_waits_for_pods_and_then_for_its_first_step(trained: Story) -> None:
    assert trained.seconds == {"pods": 20, "firstStep": 10, "productive": 100}
    assert trained.goodput["ratio"] == "0.7692"
    assert trained.goodput["cause"] == "productive"
    assert trained.goodput["causeStartTime"] == "2026-01-01T00:00:30Z"
    assert trained.goodput["lastUpdatedTime"] == "2026-01-01T00:02:10Z"
    assert trained.goodput["furthestStep"] == 101


def test_a_job_has_no_goodput_before_it_is_accepted() -> None:
    story = Story()
    story.written = carried_on({"conditions": []}, status("Rejected"), Look(START))
    assert "goodput" not in story.written
    assert story.write(status("Waiting"), 100) == {}
    assert story.write(status("Rejected"), 7) == {"pods": 7}
    assert story.write(status("Waiting"), 5) == {"pods": 7, "queue": 5}


@pytest.mark.parametrize("reason", ["PodCreationRejected", "PodPolicyViolation"])
def test_pods_that_may_not_be_made_are_waited_for_in_the_queue(reason: str) -> None:
    story = Story()
    story.write(status("Waiting", reason=reason))
    assert story.write(status("Waiting"), 30) == {"queue": 30}


def test_a_suspension_is_a_queue_where_a_queue_asks_for_it() -> None:
    story = Story()
    story.write(status("Suspended"), queued=True)
    assert story.write(status("Waiting"), 60, queued=True) == {"queue": 60}
    assert story.goodput["ratio"] == "0.0000"


def test_time_that_the_user_asked_to_lose_does_not_lower_the_ratio(trained: Story) -> None:
    before = trained.goodput["ratio"]
    trained.write(status("Suspended"))
    assert trained.write(status("Waiting"), 5000)["suspended"] == 5000
    assert trained.goodput["ratio"] == before


def test_recovery_begins_with_the_failure_and_not_with_its_discovery(trained: Story) -> None:
    trained.write(
        status("Interrupted"), 4, failure=failure(trained.now + timedelta(seconds=1), 120)
    )
    assert trained.seconds["productive"] == 101, "one second before the failure"
    assert trained.seconds["recovery"] == 3


def test_recovery_goes_on_while_pods_and_ranks_start(trained: Story) -> None:
    trained.write(status("Interrupted"))
    trained.write(status("Interrupted"), 10)
    trained.write(status("Running"), 10)
    trained.step(0, 5)
    assert trained.seconds["recovery"] == 25
    assert trained.step(91, 3)["recovery"] == 28
    assert trained.goodput["cause"] == "repeatedSteps"


def test_steps_that_were_done_before_are_no_progress(trained: Story) -> None:
    trained.write(status("Interrupted"))
    trained.write(status("Running"))
    trained.step(61, 0)
    assert trained.step(101, 40)["repeatedSteps"] == 40
    assert trained.step(111, 10)["productive"] == 110
    assert trained.seconds["repeatedSteps"] == 40


def test_an_interval_with_both_is_shared_out_by_steps(trained: Story) -> None:
    trained.write(status("Interrupted"))
    trained.write(status("Running"))
    trained.step(91, 0)
    after = trained.step(131, 20)
    assert (after["repeatedSteps"], after["productive"]) == (5, 115)


def test_the_time_of_a_hang_is_lost_and_not_productive(trained: Story) -> None:
    late = trained.now + timedelta(seconds=300)
    trained.write(status("Interrupted"), 300, failure=failure(late, 101, Cause.HANG))
    assert trained.seconds["productive"] == 100
    assert trained.seconds["recovery"] == 300


def test_a_step_is_furthest_although_only_the_report_of_the_failure_tells_it(
    trained: Story,
) -> None:
    trained.write(
        status("Interrupted"), 9, failure=failure(trained.now + timedelta(seconds=9), 110)
    )
    assert trained.goodput["furthestStep"] == 110
    trained.write(status("Running"))
    trained.step(105, 0)
    assert trained.goodput["cause"] == "repeatedSteps"


def test_back_off_has_a_cause_of_its_own(trained: Story) -> None:
    trained.write(status("Interrupted", reason="BackOff"))
    trained.write(status("Interrupted"), 32)
    assert trained.goodput["seconds"]["backOff"] == 32
    assert trained.goodput["cause"] == "recovery"


def test_waits_of_the_trainer_are_no_progress_and_no_second_is_lost(trained: Story) -> None:
    trained.step(111, 10, data_seconds=2.6, checkpoint_seconds=0.5)
    assert trained.seconds == {"pods": 20, "firstStep": 10, "productive": 108, "data": 2}
    trained.step(121, 10, data_seconds=3.2, checkpoint_seconds=30.9)
    # A standstill may be told late: what does not fit is counted with the next write.
    assert trained.goodput["seconds"]["data"] == 3
    assert trained.goodput["seconds"]["checkpoint"] == 9
    trained.step(122, 100, data_seconds=3.2, checkpoint_seconds=30.9)
    assert trained.goodput["seconds"]["checkpoint"] == 30
    assert sum(trained.seconds.values()) == 20 + 10 + 100 + 10 + 10 + 100


def test_counters_of_the_trainer_begin_anew_with_every_attempt(trained: Story) -> None:
    trained.step(111, 10, data_seconds=5.0)
    trained.write(status("Interrupted"))
    trained.write(status("Running"))
    trained.step(112, 60, data_seconds=7.0)
    assert trained.goodput["seconds"]["data"] == 5, "a wait before the first step is recovery"
    trained.step(122, 10, data_seconds=8.0)
    assert trained.goodput["seconds"]["data"] == 6


def test_a_program_that_tells_no_steps_is_productive_while_it_runs() -> None:
    story = Story()
    story.write(status("Waiting"), tells_steps=False)
    story.write(status("Running"), 8, tells_steps=False)
    story.write(status("Interrupted"), 50, failure=failure(START + timedelta(seconds=48)))
    story.write(status("Running"), 12, tells_steps=False)
    story.write(status("Succeeded"), 100, tells_steps=False)
    assert story.seconds == {"pods": 8, "productive": 140, "recovery": 22}


@pytest.mark.parametrize("end", ["Succeeded", "Failed"])
def test_after_the_end_nothing_grows(trained: Story, end: str) -> None:
    trained.write(status(end), 10)
    at_end = trained.goodput
    assert "cause" not in at_end
    trained.write(status(end) | {"observedGeneration": 2}, 1000)
    assert trained.goodput == at_end
    later = goodput.live_seconds(at_end, trained.now + timedelta(days=9))
    assert later == at_end["seconds"]


def test_a_job_that_ended_under_an_operator_without_goodput_gets_none() -> None:
    assert "goodput" not in carried_on(status("Running"), status("Failed"), Look(START))


def test_a_job_that_runs_already_is_counted_from_the_update_of_the_operator_on() -> None:
    story = Story(written=status("Running", 5000))
    story.step(5001, 10, data_seconds=700.0)
    assert story.seconds == {}
    assert story.goodput["cause"] == "productive"
    assert story.step(5011, 10, data_seconds=701.0) == {"productive": 9, "data": 1}


def test_a_wait_grows_between_writes_but_no_steps_do(trained: Story) -> None:
    later = trained.now + timedelta(seconds=77)
    assert goodput.live_seconds(trained.goodput, later) == trained.goodput["seconds"]
    trained.write(status("Suspended"), queued=True)
    assert goodput.live_seconds(trained.goodput, later)["queue"] == 77


def test_figures_of_the_trainer_are_read_from_its_page() -> None:
    page = (
        'trainer_step 7\ntrainer_step_duration_seconds_sum{part="compute"} 90\n'
        'trainer_step_duration_seconds_sum{part="data"} 4.5\n'
        "trainer_checkpoint_stall_seconds_total 1.25\n"
    )
    figures = from_metrics(page, START)
    assert figures is not None
    assert (figures.data_seconds, figures.checkpoint_seconds) == (4.5, 1.25)


# --- any history ----------------------------------------------------------------------------------

STATES = ("Suspended", "Rejected", "Waiting", "Starting", "Running", "Interrupted")
MOMENT = st.fixed_dictionaries(
    {
        "state": st.sampled_from(STATES),
        "reason": st.sampled_from(["WaitingForPods", "BackOff", "PodCreationRejected"]),
        "seconds": st.integers(-500, 5000) | st.floats(0, 3),
        "step": st.none() | st.integers(0, 200) | st.just(2**63 - 1),
        "queued": st.booleans(),
        "tells_steps": st.booleans(),
        "data": st.none() | st.floats(0, 1e4) | st.just(1e300),
        "saves": st.none() | st.floats(0, 1e4),
        "fails": st.none() | st.integers(-100, 6000),
    }
)


@settings(max_examples=60, deadline=None)
@given(moments=st.lists(MOMENT, max_size=40), end=st.sampled_from(["Succeeded", "Failed"]))
def test_parts_add_up_to_the_time_on_the_clock(moments: list[Json], end: str) -> None:
    """Every write may be another operator's, whose clock differs: only forward steps count."""
    story = Story()
    story.write(status("Waiting"))
    total, since = 0, START
    for moment in [*moments, {"state": end, "seconds": 3}]:
        before = story.goodput
        step = moment.get("step")
        failed = moment.get("fails")
        story.write(
            status(moment["state"], step, moment.get("reason", "Active")),
            moment["seconds"],
            queued=moment.get("queued", False),
            tells_steps=moment.get("tells_steps", True),
            figures=Progress(
                time=story.now,
                step=step,
                data_seconds=moment.get("data"),
                checkpoint_seconds=moment.get("saves"),
            ),
            failure=None
            if failed is None
            else failure(story.now - timedelta(seconds=failed), step),
        )
        now = story.now.replace(microsecond=0)
        total, since = total + max(0, int((now - since).total_seconds())), now
        after = story.goodput
        assert sum(after["seconds"].values()) == total
        assert all(after["seconds"][cause] >= n for cause, n in before["seconds"].items())
        assert after["furthestStep"] >= before["furthestStep"]
        assert set(after["seconds"]) == set(goodput.CAUSES)
        assert after.get("cause", "productive") in goodput.CAUSES
    assert "cause" not in story.goodput


@settings(max_examples=40, deadline=None)
@given(moments=st.lists(MOMENT, min_size=1, max_size=20), after=st.integers(0, 10_000))
def test_a_counter_that_was_shown_never_falls(moments: list[Json], after: int) -> None:
    """What a scrape shows between two writes is no more than what the next write counts."""
    story = Story()
    story.write(status("Waiting"))
    for moment in moments:
        seconds = abs(moment["seconds"]) + after
        failed = moment["fails"]
        shown = goodput.live_seconds(story.goodput, story.now + timedelta(seconds=seconds))
        story.write(
            status(moment["state"], moment["step"], moment["reason"]),
            seconds,
            figures=Progress(time=story.now, step=moment["step"], data_seconds=moment["data"]),
            failure=None if failed is None else failure(story.now, moment["step"]),
        )
        assert all(story.goodput["seconds"][cause] >= n for cause, n in shown.items())


# --- the whole decision ---------------------------------------------------------------------------


def with_step(sim: Sim, step: int) -> None:
    """One pass in which rank 0's page says this step."""
    figures = Progress(time=sim.now, step=step, progress=0.1)
    plan = reconcile(replace(sim.observe(), progress=figures), CONTEXT)
    if plan.status is not None:
        sim.job["status"] = plan.status


def test_goodput_causes_no_write_of_its_own() -> None:
    sim = Sim(job(2))
    sim.run_until("Running")
    with_step(sim, 10)
    sim.tick(1000)
    with_step(sim, 10)
    assert reconcile(sim.observe(), CONTEXT).status is None


def test_a_whole_life_adds_up_across_failures_and_restarts_of_the_operator() -> None:
    sim = Sim(job(2))
    sim.operate()
    born = sim.now
    sim.tick(30)
    sim.run_until("Running")
    for step in (0, 10, 20, 30):
        sim.tick(20)
        with_step(sim, step)
    sim.tick(5)
    sim.fail_ranks(sim.pod(0), 1)
    sim.operate(crash_after=1)
    sim.forget()
    sim.tick(3)
    sim.run_until("Running")
    for step in (0, 20, 40):
        sim.tick(20)
        with_step(sim, step)
    found = sim.status["goodput"]
    assert sum(found["seconds"].values()) == int((sim.now - born).total_seconds())
    assert found["seconds"]["recovery"] >= 40
    assert found["seconds"]["repeatedSteps"] == 10
    assert found["cause"] == "productive"


def test_a_job_with_a_queue_waits_in_it_while_suspended() -> None:
    sim = Sim(job(1, runPolicy={"suspend": True}))
    sim.job["metadata"]["labels"] = {LABEL_QUEUE: "team-a"}
    sim.operate()
    sim.tick(120)
    sim.job["spec"]["runPolicy"]["suspend"] = False
    sim.operate()
    assert sim.status["goodput"]["seconds"]["queue"] == 120
    assert sim.status["goodput"]["cause"] == "pods"
