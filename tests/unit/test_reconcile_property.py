"""Whatever happens in whatever order, wherever the operator dies: the job ends or runs, and
counters stay true.
"""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster_sim import CONTEXT, Pod, Sim, job
from inception_operator.contract.conditions import INITIAL
from inception_operator.contract.times import format_time
from inception_operator.contract.types import Json, Plan
from inception_operator.decide import avoided_nodes, departure, lifecycle, quiet
from inception_operator.decide.elastic import from_text
from inception_operator.decide.gather import UNRESPONSIVE_GRACE_SECONDS
from inception_operator.decide.reconcile import reconcile
from inception_operator.decide.status import Draft
from inception_operator.spec.job import run_policy

NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
CODES = (1, 7, 70, 75, 134, 137, 143)
FATAL = (64, 65, 66, 78, 126, 127)


def rescale(sim: Sim, number: int) -> None:
    policy = sim.job["spec"].get("elasticPolicy")
    if policy:
        sizes = range(policy["minNodes"], policy["maxNodes"] + 1)
        sim.scale(sizes[number % len(sizes)])


ON_POD: dict[str, Callable[[Sim, Pod, int], None]] = {
    "start": lambda sim, pod, n: sim.start(pod),
    "obey": lambda sim, pod, n: sim.obey(pod),
    "fail": lambda sim, pod, n: sim.fail_ranks(pod, CODES[n % len(CODES)]),
    "hang": lambda sim, pod, n: sim.hang(pod, n % 3),
    "fatal": lambda sim, pod, n: sim.fail_ranks(pod, FATAL[n % len(FATAL)]) if n > 9 else None,
    "exit": lambda sim, pod, n: sim.exit(pod),
    "lose": lambda sim, pod, n: (
        sim.lose_node(pod) if not (pod.over or pod.stuck or n % 2) else sim.find_node(pod)
    ),
    "step": lambda sim, pod, n: sim.step(pod, n * 5),
    "killed": lambda sim, pod, n: sim.exit(pod, 137, "OOMKilled" if n % 2 else None),
    "refuse": lambda sim, pod, n: sim.refuse(
        pod, ("Evicted", "UnexpectedAdmissionError", "OutOfcpu")[n % 3]
    ),
    "delete": lambda sim, pod, n: sim.delete(pod),
    "disrupt": lambda sim, pod, n: sim.disrupt(
        pod, ("EvictionByEvictionAPI", "DeletionByTaintManager")[n % 2]
    ),
    "remove": lambda sim, pod, n: sim.remove(pod),
    "terminate": lambda sim, pod, n: sim.terminate(pod),
    "hear": lambda sim, pod, n: sim.hear(pod) if pod.reachable and not pod.over else None,
    # That a container has ended may show later than what the others say about it.
    "finish": lambda sim, pod, n: sim.finish(pod, seen=bool(n % 2)),
    # A launcher that hangs and cannot be asked either looks well as long as its probe says so.
    "unreachable": lambda sim, pod, n: setattr(pod, "reachable", bool(n % 2) or pod.stuck),
    "stuck": lambda sim, pod, n: setattr(pod, "stuck", pod.reachable),
    "bare": lambda sim, pod, n: pod.strip("labels" if n % 2 else "ownerReferences"),
    "mislead": lambda sim, pod, n: sim.mislead(pod, n * 2 if n % 3 == 0 else None),
    "hold": lambda sim, pod, n: setattr(pod, "held", n % 2 == 0),
    "break": lambda sim, pod, n: setattr(pod, "broken", n % 3 == 0),
    "cordon": lambda sim, pod, n: sim.cordon(pod) if n % 3 else sim.uncordon(pod),
    "slow": lambda sim, pod, n: sim.hold_up(pod, n * 120),
}
ON_WORLD: dict[str, Callable[[Sim, int], None]] = {
    "calm": lambda sim, n: sim.calm(),
    "work": lambda sim, n: sim.work(),
    "later": lambda sim, n: sim.tick(n * 4),
    "much later": lambda sim, n: sim.tick(n * 40),
    "peers": lambda sim, n: sim.lose_peers(),
    "suspend": lambda sim, n: sim.suspend(n % 3 == 0),
    "squat": lambda sim, n: sim.squat(n % sim.nodes),
    "wipe": lambda sim, n: sim.wipe(("attempt", "conditions", "restarts", "state", None)[n % 5]),
    "quota": lambda sim, n: setattr(sim, "quota", 1 if n % 4 == 0 else None),
    "spoil": lambda sim, n: sim.edit(accelerator={"profile": "abacus"}),
    "correct": lambda sim, n: sim.correct(),
    "limit": lambda sim, n: sim.change_policy(**LIMITS[n % len(LIMITS)]),
    "fast": lambda sim, n: sim.keep_up(),
    "capacity": lambda sim, n: setattr(sim, "capacity", n if n < 5 else None),
    "scale": rescale,
    "pass": lambda sim, n: None,
    "crash": lambda sim, n: None,
}
# Mutable at any time, so a world may shorten, extend, set and lift them.
LIMITS: tuple[dict[str, int | str | None], ...] = (
    {"activeDeadlineSeconds": 300},
    {"activeDeadlineSeconds": None},
    {"preRunningDeadlineSeconds": 40},
    {"preRunningDeadlineSeconds": None},
    {"cleanPodPolicy": "Running"},
    {"cleanPodPolicy": "All"},
    {"cleanPodPolicy": None},
)
POLICY = st.fixed_dictionaries(
    {},
    optional={
        "activeDeadlineSeconds": st.integers(1, 400),
        "preRunningDeadlineSeconds": st.integers(1, 90),
        "ttlSecondsAfterFinished": st.integers(0, 30),
        "cleanPodPolicy": st.sampled_from(("None", "Running", "All")),
    },
)
STEP = st.tuples(st.sampled_from([*ON_POD, *ON_WORLD, "work", "work", "work"]), st.integers(0, 11))
STEPS = st.lists(STEP, max_size=60)
EXCUSES: Json = {
    "name": "excuse",
    "action": "RestartIgnoringLimit",
    "onExitCodes": {"operator": "In", "values": [7, 134]},
}
STRICT: Json = {
    "name": "strict",
    "action": "Restart",
    "onReasons": ["PodDeleted", "Evicted", "Disrupted"],
}
HARSH: Json = {"name": "harsh", "action": "Fail", "onReasons": ["Hang"]}
LOST: Json = {"nodeLostSeconds": 12}
LOSSES = st.sampled_from(
    [{}, LOST, {"nodeLostSeconds": 90}, {**LOST, "nodeLostPolicy": "ForceDeletePods"}]
)
RULES = st.sampled_from([[], [EXCUSES], [STRICT, EXCUSES], [HARSH, STRICT]])
SUCCESS = st.sampled_from(["All", "Chief"])
CLAIMS: Json = {
    "profile": "nvidia",
    "claims": [{"name": "gpus", "deviceClassName": "gpu.nvidia.com"}],
}
SAVES: Json = {"checkpoint": {"path": "/mnt/runs"}}
"""Only a job that keeps its state leaves nodes in time."""
REPLACES: Json = {"stragglerPolicy": "Replace"}
ACCELERATORS = st.sampled_from([{"profile": "cpu"}, CLAIMS])
COUNTERS = ("attempt", "restarts", "restartsCountTowardsMax")
# Long stories of users who change their minds; short ones seldom have the time to reach a deadline.
LIFE = (
    "spoil",
    "correct",
    "suspend",
    "limit",
    "later",
    "much later",
    "pass",
    "crash",
    "calm",
    "work",
    "fail",
    "remove",
)
LIFE_STEPS = st.lists(
    st.tuples(st.sampled_from(LIFE), st.integers(0, 11)), min_size=20, max_size=40
)

# Short stories about everything seldom come to the end of a move.
MOVES = (
    *("cordon", "cordon", "work", "work", "work", "calm", "calm", "crash", "pass"),
    *("fail", "disrupt", "remove", "exit", "lose", "capacity", "quota", "scale", "later"),
    *("slow", "slow", "fast", "much later"),
)
MOVE_STEPS = st.lists(
    st.tuples(st.sampled_from(MOVES), st.integers(0, 11)), min_size=20, max_size=50
)


@st.composite
def elastic_jobs(draw: st.DrawFn) -> Json:
    """Any elastic job of up to four nodes with up to two spares."""
    nodes, limit = draw(st.integers(1, 4)), draw(st.integers(0, 3))
    policy = {
        "minNodes": draw(st.integers(1, nodes)),
        "maxNodes": 4,
        "spareNodes": draw(st.integers(0, 2)),
    }
    success, devices = draw(SUCCESS), draw(ACCELERATORS)
    failures = {"maxRestarts": limit, "stragglerPolicy": "Replace"}
    return job(
        nodes,
        failurePolicy=failures,
        elasticPolicy=policy,
        successPolicy=success,
        accelerator=devices,
        **SAVES,
    )


def fixed_jobs() -> st.SearchStrategy[Json]:
    """Jobs of one or two nodes."""
    fields = {"nodes": st.integers(1, 2), "successPolicy": SUCCESS, "accelerator": ACCELERATORS}
    return st.fixed_dictionaries(fields).map(lambda found: job(**found, **SAVES))


class Watch:
    """Checks what must hold after every single write."""

    def __init__(self, sim: Sim) -> None:
        self.sim = sim
        policy = sim.job["spec"].get("failurePolicy", {})
        self.limit = policy.get("maxRestarts", 10)
        self.rules = [rule["name"] for rule in policy.get("rules", ())]
        self.elastic: Json = sim.job["spec"].get("elasticPolicy") or {}

    def check(self) -> None:
        statuses, written = self.sim.statuses, self.sim.written
        for before, after, now in zip(statuses[:-1], statuses[1:], written[1:], strict=True):
            self._transition(before, after, now)
        del statuses[:-1], written[:-1]
        for pod in self.sim.pods.values():
            assert len(pod.name) <= 63
            assert NAME.fullmatch(pod.name)
        if self.sim.nodes > 1 or self.elastic:
            assert all(len(pods) <= 1 for pods in self.sim.trained.values()), (
                "two pods had one rank of one attempt"
            )
        self._check_assignments()

    def _check_assignments(self) -> None:
        """Whoever has ranks in the latest attempt has been told the same of it."""
        attempt = self.sim.status.get("attempt")
        told = [
            pod
            for pod in self.sim.pods.values()
            if pod.assigned and pod.assigned.attempt == attempt
        ]
        assignments = [
            pod.assigned
            for pod in told
            if pod.assigned and not pod.assigned.is_standby and not pod.assigned.end
        ]
        assert (
            len(
                {
                    (assigned.nnodes, assigned.master_addr, assigned.master_port)
                    for assigned in assignments
                }
            )
            <= 1
        )
        for pod in told:
            if pod.assigned and pod.assigned.nnodes > 1 and pod.assigned.node_rank == 0:
                assert pod.assigned.master_addr == pod.ip
        if self.elastic and assignments:
            assert self.elastic["minNodes"] <= assignments[0].nnodes <= self.elastic["maxNodes"]
            assert all(assigned.node_rank < assigned.nnodes for assigned in assignments)

    def _transition(self, before: Json, after: Json, now: datetime) -> None:
        assert before != after, "a status was written that was there already"
        if not set(COUNTERS) <= before.keys():
            assert truth(before, "Succeeded") or truth(before, "Failed"), (
                "only of an ended job nothing is restored"
            )
            return
        assert after["restartsCountTowardsMax"] <= min(self.limit, after["restarts"])
        assert after["restarts"] - before["restarts"] in (0, 1)
        resumed = (
            truth(before, "Suspended") and not truth(after, "Suspended") and "startTime" in before
        )
        grown = after["attempt"] - before["attempt"]
        expected = after["restarts"] - before["restarts"] + resumed_by(resumed, after)
        resized = (
            grown == expected + 1
            and self.elastic
            and truth(after, "PodsReady")
            and truth(before, "PodsReady")
        )
        moved = grown == expected + 1 and reason(after, "PodsReady") == "Moved"
        assert grown == expected or resized or moved or (self.sim.misled and grown > expected)
        if after["restarts"] > before["restarts"]:
            self._restart(before, after, now)
        if resumed_by(resumed, after):
            assert after["startTime"] == format_time(now), "deadlines count from the resume on"
        elif "startTime" in before:
            assert after["startTime"] == before["startTime"]
        self._replacement_of_straggler(before, after, moved=moved)
        for kind in ("Succeeded", "Failed"):
            assert truth(after, kind) or not truth(before, kind), "a job that had ended came back"
        if truth(after, "Succeeded") and not truth(before, "Succeeded"):
            self._success(after["attempt"])
        assert (
            len({c["type"] for c in after["conditions"]})
            == len(after["conditions"])
            == len(INITIAL)
        )

    def _replacement_of_straggler(self, before: Json, after: Json, *, moved: bool) -> None:
        """Only a move replaces one, and not soon after another."""
        lists = [status.get("replacedStragglers", []) for status in (before, after)]
        if lists[0] == lists[1]:
            return
        assert moved
        assert lists[1][:-1] == lists[0]
        times = [datetime.fromisoformat(entry["time"]) for entry in lists[1]]
        assert all(
            later - earlier >= departure.COOL_DOWN for earlier, later in itertools.pairwise(times)
        )

    def check_pass(self, plan: Plan) -> None:
        """What must hold after a pass that was not cut short, while the job goes on."""
        if self.sim.terminal:
            return
        if self.sim.job["spec"].get("runPolicy", {}).get("suspend"):
            assert truth(self.sim.status, "Suspended")
            assert all(
                pod.deletion_deadline is not None
                for pod in self.sim.pods.values()
                if not pod.squatting
            )
        if not self.sim.status:
            self._check_unwritten(plan)
            return
        if not truth(self.sim.status, "Accepted"):
            assert self.sim.status["state"] == "Rejected"
            assert (plan.create, plan.assign) == ((), {})
        self._check_deadlines(plan)
        self._check_places(plan)

    def _check_unwritten(self, plan: Plan) -> None:
        """Without a status nobody has been told anything, and it is looked at again soon."""
        assert (plan.delete, plan.assign, plan.events) == ({}, {}, ())
        assert plan.requeue_after is not None
        assert plan.requeue_after <= quiet.QUIET.total_seconds()
        ours = [pod for pod in self.sim.pods.values() if not pod.squatting]
        assert ours or plan.create
        if self.sim.nodes > 1 or self.elastic:
            assert all(pod.assigned is None for pod in ours)

    def _check_places(self, plan: Plan) -> None:
        """No node is listed twice or for long, and new pods avoid exactly the nodes that are listed
        now, and those that are about to go or are left by a straggler.
        """
        entries = self.sim.status.get("avoidedNodes", [])
        ends = {entry["name"]: datetime.fromisoformat(entry["expirationTime"]) for entry in entries}
        assert len(ends) == len(entries)
        assert all(end - self.sim.now <= avoided_nodes.LASTING for end in ends.values())
        named = {f'"{name}"' for name, end in ends.items() if end > self.sim.now}
        named |= {f'"{name}"' for name in departure.slow_nodes(self.sim.status, self.sim.now)}
        going = {f'"{name}"' for name in self.sim.leaving}
        if self.sim.slow is not None:
            going.add(f'"{self.sim.slow[1].node}"')
        for body in plan.create:
            wishes = json.dumps(body["spec"].get("affinity", {}))
            found = set(re.findall(r'"node-[0-9-]+"', wishes))
            assert named <= found <= named | going
        for pod in self.sim.pods.values():
            if (
                pod.broken
                and pod.placed
                and plan.delete.get(pod.name) == UNRESPONSIVE_GRACE_SECONDS
            ):
                assert pod.node in ends

    def _check_deadlines(self, plan: Plan) -> None:
        """The next deadline is ahead, and the job is looked at again by then."""
        draft, policy = Draft(self.sim.job, self.sim.now), run_policy(self.sim.job)
        dates = [lifecycle.active_deadline(policy, draft)]
        if truth(self.sim.status, "Accepted"):
            dates.append(lifecycle.pre_running_deadline(policy, draft))
        for due in dates:
            left = lifecycle.seconds_left(due, self.sim.now)
            if left is not None:
                assert left > 0, "a deadline has passed and the job goes on"
                assert plan.requeue_after is not None
                assert plan.requeue_after <= left

    def _restart(self, before: Json, after: Json, now: datetime) -> None:
        """Exactly what counts is counted, and the pause is the one that the failures in a row ask
        for.
        """
        counted = expected(after["rootCause"], self.rules)
        forgotten = after["restartsCountTowardsMax"] - counted != before["restartsCountTowardsMax"]
        if forgotten:
            assert after["restartsCountTowardsMax"] == counted
            assert after["furthest"]["step"] > before.get("furthest", {}).get("step", 0)
        failures = after["failuresInARow"]
        assert failures in (1, before.get("failuresInARow", 0) + 1)
        assert after["furthest"]["step"] >= before.get("furthest", {}).get("step", 0)
        assert ("nextAttemptTime" in after) is (failures > 2)
        if failures > 2:
            pause = datetime.fromisoformat(after["nextAttemptTime"]) - now
            assert 0 <= pause.total_seconds() - min(60, 2 ** (failures - 3)) <= 1

    def idle(self, plan: Plan) -> None:
        """While the job waits nothing begins."""
        due = (plan.status or self.sim.status).get("nextAttemptTime")
        if due and self.sim.now < datetime.fromisoformat(due):
            assert plan.create == ()
            assert all(assigned.is_standby for assigned in plan.assign.values())
            # With a spec that cannot be carried out nothing begins when the time is over.
            assert plan.requeue_after is not None or not truth(self.sim.status, "Accepted")

    def _success(self, attempt: int) -> None:
        """Those whose success counts have ended with 0 in this very attempt."""
        ended = [
            pod
            for pod in self.sim.pods.values()
            if pod.exit_code == 0 and pod.report.attempt == attempt
        ]
        done = {pod.accepted.node_rank for pod in ended if pod.accepted is not None}
        chief = self.sim.job["spec"].get("successPolicy") == "Chief"
        assert done >= ({0} if chief else set(range(self.sim.size(attempt))))


def expected(cause: Json, rules: list[str]) -> int:
    """Whether a failure counts, told from the table in the documentation and the rules above."""
    code, reason = cause.get("exitCode"), cause["reason"]
    if "strict" in rules and reason in STRICT["onReasons"]:
        return 1
    if "excuse" in rules and code in (7, 134):
        return 0
    blameless = (
        "PodDeleted",
        "Evicted",
        "Disrupted",
        "NodeLost",
        "UnexpectedAdmissionError",
        "NotResponding",
    )
    blameless += ("DeviceUnhealthy",)
    return int(code != 75 and reason not in blameless)


def resumed_by(resumed: bool, after: Json) -> int:
    return int(resumed and not (truth(after, "Succeeded") or truth(after, "Failed")))


def counters(status: Json) -> list[int]:
    return [status[key] for key in COUNTERS]


def reason(status: Json, kind: str) -> str:
    return next(str(c["reason"]) for c in status["conditions"] if c["type"] == kind)


def truth(status: Json, kind: str) -> bool:
    return any(c["type"] == kind and c["status"] == "True" for c in status.get("conditions", ()))


def play(sim: Sim, steps: list[tuple[str, int]], *, running: bool = False) -> None:
    watch = Watch(sim)
    if running:
        sim.run_until("Running")
    for name, number in steps:
        if name in ON_POD:
            pods = sorted(sim.pods.values(), key=lambda pod: pod.uid)
            if pods:
                ON_POD[name](sim, pods[number % len(pods)], number)
        else:
            ON_WORLD[name](sim, number)
        if name in ("pass", "crash", "calm", "work"):
            plan = sim.operate(crash_after=number % 5 if name == "crash" else None)
            watch.idle(plan)
            watch.check()
            if name != "crash":
                watch.check_pass(plan)


def bring_home(sim: Sim) -> None:
    """No more trouble: the job must end by itself."""
    sim.quota = sim.capacity = None
    sim.leaving.clear()
    sim.keep_up()
    sim.correct()
    sim.free_names()
    sim.suspend(False)
    for pod in sim.pods.values():
        sim.find_node(pod)
        pod.reachable = True
    for _ in range(300):
        sim.run_until("Running")
        if sim.terminal:
            return
        sim.calm()
        sim.finish_all()
        sim.operate()
    raise AssertionError(sim.status)


@pytest.mark.parametrize("nodes", [1, 2, 3])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=STEPS,
    limit=st.integers(0, 3),
    policy=POLICY,
    rules=RULES,
    loss=LOSSES,
    running=st.booleans(),
    success=SUCCESS,
    devices=ACCELERATORS,
)
def test_any_history_converges(
    nodes: int,
    steps: list[tuple[str, int]],
    limit: int,
    policy: Json,
    rules: list[Json],
    loss: Json,
    running: bool,
    success: str,
    devices: Json,
) -> None:
    failures = {"maxRestarts": limit, "rules": rules, **loss}
    fields = {
        "failurePolicy": failures,
        "runPolicy": policy,
        "successPolicy": success,
        "accelerator": devices,
        **SAVES,
    }
    converges(Sim(job(nodes, **fields)), steps, running)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(resource=elastic_jobs(), steps=STEPS, running=st.booleans())
def test_any_history_of_an_elastic_job_converges(
    resource: Json, steps: list[tuple[str, int]], running: bool
) -> None:
    converges(Sim(resource), steps, running)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(resource=elastic_jobs(), steps=STEPS)
def test_an_elastic_job_gets_the_size_and_the_spares_it_wants_when_it_can(
    resource: Json, steps: list[tuple[str, int]]
) -> None:
    sim = Sim(resource)
    play(sim, steps, running=True)
    sim.quota = sim.capacity = None
    sim.leaving.clear()
    sim.keep_up()
    sim.correct()
    sim.free_names()
    sim.suspend(False)
    for pod in sim.pods.values():
        sim.find_node(pod)
        pod.reachable = True
    for _ in range(40):
        sim.operate()
        sim.calm(5)
        if any(pod.exit_code == 0 for pod in sim.pods.values()):
            # Nothing is resized any more once ranks have ended well.
            sim.finish_all()
        if sim.terminal or at_full_size(sim):
            return
    raise AssertionError((sim.status, sorted(sim.pods)))


def at_full_size(sim: Sim) -> bool:
    """All ranks and all spares that are wanted are there, and nothing else."""
    spec, nodes = sim.job["spec"], sim.status["nodes"]
    wanted, spares = spec["numNodes"], spec["elasticPolicy"]["spareNodes"]
    ready = (nodes["ready"], nodes["spareReady"], len(from_text(nodes.get("members")))) == (
        wanted,
        spares,
        wanted,
    )
    return ready and sim.condition("Running") == "True" and len(sim.pods) == wanted + spares


def converges(sim: Sim, steps: list[tuple[str, int]], running: bool) -> None:
    play(sim, steps, running=running)
    bring_home(sim)
    Watch(sim).check()
    sim.settle()
    sim.tick(60)
    sim.settle()
    assert all(pod.over or pod.deletion_deadline is not None for pod in sim.pods.values()), (
        "a pod was left running"
    )
    finished = copy.deepcopy(sim.status)
    assert sim.deleted == ("ttlSecondsAfterFinished" in sim.job["spec"]["runPolicy"])
    for pod in list(sim.pods.values()):
        sim.remove(pod)
    sim.suspend(True)
    sim.operate()
    sim.suspend(False)
    sim.job["spec"]["runPolicy"] |= {
        "activeDeadlineSeconds": 100_000,
        "preRunningDeadlineSeconds": 100_000,
    }
    sim.operate()
    assert sim.pods == {}, "an ended job made a pod"
    assert sim.status["conditions"][0]["type"] == finished["conditions"][0]["type"]
    assert {
        k: v for k, v in sim.status.items() if k not in ("observedGeneration", "conditions")
    } == {k: v for k, v in finished.items() if k not in ("observedGeneration", "conditions")}


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    resource=st.integers(1, 3).map(lambda n: job(n, failurePolicy=REPLACES, **SAVES))
    | elastic_jobs(),
    steps=MOVE_STEPS,
)
def test_any_history_of_nodes_that_are_about_to_go_and_of_stragglers_converges(
    resource: Json, steps: list[tuple[str, int]]
) -> None:
    converges(Sim(resource), steps, running=True)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=LIFE_STEPS, policy=POLICY, running=st.booleans())
def test_limits_hold_whatever_users_do(
    steps: list[tuple[str, int]], policy: Json, running: bool
) -> None:
    sim = Sim(job(2, runPolicy=policy))
    play(sim, steps, running=running)
    bring_home(sim)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(resource=fixed_jobs() | elastic_jobs(), steps=STEPS, running=st.booleans())
def test_standing_world_settles(
    resource: Json, steps: list[tuple[str, int]], running: bool
) -> None:
    sim = Sim(resource)
    play(
        sim,
        [step for step in steps if step[0] not in ("stuck", "unreachable", "quota", "squat")],
        running=running,
    )
    seen = sim.observe()
    plan = reconcile(seen, CONTEXT)
    if plan.status is not None:
        again = copy.deepcopy(seen.resource)
        again["status"] = copy.deepcopy(plan.status)
        second = reconcile(
            type(seen)(again, seen.pods, seen.now, rejection=seen.rejection), CONTEXT
        )
        assert counters(second.status or plan.status) == counters(plan.status)
        # A launcher that was given up is taken for one that is there until its deletion has been
        # asked for.
        if not plan.delete:
            assert second.status is None
            assert second.events == ()
    assert sim.settle() <= 3


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    speakers=st.permutations(range(3)),
    victim=st.integers(0, 2),
    pauses=st.lists(st.booleans(), min_size=3, max_size=3),
)
def test_the_rank_that_hangs_is_the_root_cause_in_whatever_order_launchers_speak(
    speakers: list[int], victim: int, pauses: list[bool]
) -> None:
    sim = Sim(job(3, failurePolicy={"maxRestarts": 1}))
    sim.run_until("Running")
    for slot, pause in zip(speakers, pauses, strict=True):
        sim.fail_ranks(sim.pod(slot), 70, ago=60 if slot == victim else 0)
        if pause:
            sim.tick(0.5)
            sim.operate()
    sim.operate()
    assert sim.status["rootCause"]["pod"] == f"job-{victim}-1"
    assert (sim.status["rootCause"]["reason"], sim.status["rootCause"]["exitCode"]) == ("Hang", 70)
    assert sim.counters == (2, 1, 1)
    bring_home(sim)
    assert sim.condition("Succeeded") == "True"


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(resource=st.just(2).map(job) | elastic_jobs(), steps=STEPS, order=st.permutations(range(6)))
def test_order_of_pods_is_irrelevant(
    resource: Json, steps: list[tuple[str, int]], order: list[int]
) -> None:
    sim = Sim(resource)
    play(sim, steps, running=True)
    seen = sim.observe()
    index = {pod.name: position for position, pod in enumerate(seen.pods)}
    shuffled = tuple(sorted(seen.pods, key=lambda pod: order[index[pod.name] % 6]))
    other = replace(seen, pods=shuffled)
    assert reconcile(other, CONTEXT) == reconcile(seen, CONTEXT)
