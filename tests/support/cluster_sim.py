"""A cluster without a cluster: pods whose launchers follow the contract, an operator that can crash
between writes.

Pure and deterministic; tests choose the order of events. Plans are applied write by write.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from inception_operator.accelerators.resolve import load_profiles
from inception_operator.contract import assignment
from inception_operator.contract.names import FIELD_MANAGER, ReportState
from inception_operator.contract.times import format_time
from inception_operator.contract.types import (
    Assignment,
    Event,
    Json,
    Observation,
    Plan,
    PodView,
    RankVerdict,
    Report,
    Straggler,
    VanishedPod,
)
from inception_operator.decide.backoff import remaining
from inception_operator.decide.questions import wants_node, wants_report
from inception_operator.decide.reconcile import Context, reconcile
from inception_operator.pod import identity
from inception_operator.pod import view as podview
from inception_operator.pod.build import merge
from sim_pods import START, Pod

T = TypeVar("T")
CONTEXT = Context(profiles=load_profiles(), image="trainer:test")
REASONS = {
    64: "UsageError",
    65: "DataError",
    66: "InputMissing",
    70: "Hang",
    75: "Stopped",
    78: "ConfigError",
    79: "NonFinite",
}


class CrashError(Exception):
    """The operator died between two writes."""


def job(nodes: int = 2, **spec: Any) -> Json:
    """A job as the API server would hand it out, defaults filled in."""
    return {
        "metadata": {
            "name": "job",
            "namespace": "ns",
            "uid": "job-uid",
            "generation": 1,
            "resourceVersion": "1",
        },
        "spec": {"numNodes": nodes, "training": {"data": {"kind": "Digits"}}, **spec},
    }


class Sim:
    """The world. ``operate`` is one pass of the operator, everything else is the world's doing."""

    def __init__(self, resource: Json | None = None) -> None:
        self.job = resource if resource is not None else job()
        self.context = CONTEXT
        self.now = START
        self.accelerator = self.job["spec"].get("accelerator")
        self.pods: dict[str, Pod] = {}
        self.templates: dict[str, Json] = {}
        self.gone: dict[int, VanishedPod] = {}
        self.events: list[Event] = []
        self.statuses: list[Json] = []
        self.written: list[datetime] = []
        self.answers: dict[str, tuple[Report | None, bool]] = {}
        self.ran_before: set[str] = set()
        self.quota: int | None = None
        self.capacity: int | None = None
        self.lost_nodes: dict[str, datetime] = {}
        self.leaving: dict[str, str] = {}
        self.slow: tuple[int, Straggler] | None = None
        self.rejection: str | None = None
        self.misled = False
        self.deleted = False
        self.trained: dict[tuple[int, int], set[str]] = {}
        self._serial = 0

    @property
    def status(self) -> Json:
        status: Json = self.job.get("status") or {}
        return status

    @property
    def nodes(self) -> int:
        return int(self.job["spec"]["numNodes"])

    def condition(self, kind: str) -> str | None:
        found = [c for c in self.status.get("conditions", ()) if c["type"] == kind]
        return found[0]["status"] if found else None

    def full_condition(self, kind: str) -> Json:
        return next(c for c in self.status["conditions"] if c["type"] == kind)

    def pods_ready(self, status: Json | None = None) -> tuple[str, str, str]:
        """Status, reason and message of PodsReady."""
        found = next(c for c in (status or self.status)["conditions"] if c["type"] == "PodsReady")
        return found["status"], found["reason"], found["message"]

    @property
    def counters(self) -> tuple[int, int, int]:
        """Attempt, restarts, and those that count."""
        return (
            self.status["attempt"],
            self.status["restarts"],
            self.status["restartsCountTowardsMax"],
        )

    @property
    def reasons(self) -> list[str]:
        return [event.reason for event in self.events]

    def pod(self, slot: int) -> Pod:
        """The newest pod of a slot."""
        return max(
            (pod for pod in self.pods.values() if pod.slot == slot), key=lambda pod: pod.incarnation
        )

    @property
    def terminal(self) -> bool:
        return self.condition("Succeeded") == "True" or self.condition("Failed") == "True"

    # --- the operator -----------------------------------------------------------------------------

    def observe(self) -> Observation:
        """Ask the launchers that are to be asked, then look."""
        for pod in self.pods.values():
            view = self._view(pod)
            if wants_report(self.job, view):
                known = self.answers.get(pod.uid, (None, False))[0]
                self.answers[pod.uid] = (pod.report, True) if pod.reachable else (known, False)
        views = tuple(self._with_node(self._view(pod)) for pod in self.pods.values())
        return Observation(
            copy.deepcopy(self.job),
            views,
            self.now,
            rejection=self.rejection,
            gone=dict(self.gone),
            ranks=self._verdict(),
            leaving=tuple(sorted(self.leaving)),
        )

    def hear(self, pod: Pod) -> Report:
        """The operator asks a launcher that has notified it."""
        self.answers[pod.uid] = (pod.report, True)
        return pod.report

    def _with_node(self, pod: PodView) -> PodView:
        pod = replace(
            pod,
            leaving=self.leaving.get(pod.node or ""),
            excluded_nodes=pod.excluded_nodes - set(self.leaving),
        )
        if not wants_node(self.job, pod, self.now):
            return pod
        return replace(pod, node_lost_since=self.lost_nodes.get(pod.node or ""))

    def cordon(self, pod: Pod, why: str = "cordoned") -> None:
        """Somebody says that the pod's node is about to go."""
        self.leaving[pod.node] = why

    def uncordon(self, pod: Pod) -> None:
        """The pod's node stays after all."""
        self.leaving.pop(pod.node, None)

    def hold_up(
        self, pod: Pod, seconds: float = 0, rank: int = 0, until: datetime | None = None
    ) -> None:
        """A rank of the pod has been slow for so long in the attempt that runs."""
        since = self.now - timedelta(seconds=seconds)
        named = Straggler(rank, pod.name, pod.node, 3.0, since, until)
        self.slow = self.status.get("attempt", 0), named

    def keep_up(self) -> None:
        """All ranks are equally fast."""
        self.slow = None

    def _verdict(self) -> RankVerdict | None:
        if self.slow is None:
            return RankVerdict()
        attempt, straggler = self.slow
        return RankVerdict(straggler) if attempt == self.status.get("attempt") else None

    def lose_node(self, pod: Pod) -> None:
        """The pod's node goes silent: nothing on it answers, obeys or ends any more."""
        pod.reachable, pod.lost = False, True
        self.lost_nodes[pod.node] = self.now
        self._ready(pod, False)

    def find_node(self, pod: Pod) -> None:
        """The node is back."""
        if pod.lost:
            pod.reachable, pod.lost = True, False
            self.lost_nodes.pop(pod.node, None)
            failed = pod.report.state in (ReportState.FAILED, ReportState.STOPPED)
            self._ready(pod, pod.phase == "Running" and not failed)

    def _view(self, pod: Pod) -> PodView:
        answer = self.answers.get(pod.uid, (None, None))
        view = podview.view(podview.trim_pod(pod.to_api()), *answer)
        assert view is not None
        return replace(view, ran_before=pod.uid in self.ran_before)

    def operate(self, crash_after: int | None = None) -> Plan:
        """One pass; with ``crash_after`` the operator dies after that many writes and forgets
        everything it knew.
        """
        if self.deleted:
            return Plan()
        plan = reconcile(self.observe(), self.context)
        try:
            self._apply(plan, crash_after)
        except CrashError:
            self.forget()
        return plan

    def forget(self) -> None:
        """Another process takes over: it knows what is stored, and sees which pods run already."""
        self.answers.clear()
        self.gone.clear()
        self.rejection = None
        self.ran_before = {pod.uid for pod in self.pods.values() if pod.phase != "Pending"}

    def settle(self, limit: int = 6) -> int:
        """Pass after pass while the world stands still, until one decides nothing; answers how many
        did.
        """
        for passes in range(limit):
            if self.operate().empty:
                return passes
        raise AssertionError(f"not settled after {limit} passes: {self.operate()}")

    def _apply(self, plan: Plan, crash_after: int | None) -> None:
        writes = 0

        def write() -> None:
            nonlocal writes
            if crash_after is not None and writes >= crash_after:
                raise CrashError
            writes += 1

        if plan.status is not None:
            write()
            self._write_status(plan.status)
        for pod, grace in self._there(plan.delete):
            write()
            self.delete(pod, grace)
        for pod, metadata in self._there(plan.repair):
            write()
            pod.raw["metadata"] = merge(pod.raw["metadata"], metadata)
        for template in plan.claim_templates:
            write()
            self.templates[template["metadata"]["name"]] = template
        for body in plan.create:
            write()
            self._create(body)
        for pod, assigned in self._there(plan.assign):
            write()
            pod.tell(assignment.to_json(assigned))
        if plan.delete_job:
            write()
            assert self.terminal, "a job was deleted that had not ended"
            self.deleted = True
            for pod in self.pods.values():
                self.delete(pod)
        for event in plan.events:
            write()
            self.events.append(event)

    def _there(self, wanted: Mapping[str, T]) -> Iterator[tuple[Pod, T]]:
        """The pods that still exist when it is their turn."""
        for name, what in wanted.items():
            if name in self.pods:
                yield self.pods[name], what

    def _write_status(self, status: Json) -> None:
        self.job["status"] = copy.deepcopy(status)
        self.statuses.append(copy.deepcopy(status))
        self.written.append(self.now)

    def _create(self, body: Json) -> None:
        name = body["metadata"]["name"]
        for claim in body["spec"].get("resourceClaims", ()):
            assert claim["resourceClaimTemplateName"] in self.templates, (
                "a pod waits for a claim that nobody makes"
            )
        if name in self.pods:
            taken = identity.name_taken(self.pods[name].to_api(), self.job, self.now)
            self.rejection = taken if self.pods[name].squatting else None
            return
        if self.quota is not None and len(self.pods) >= self.quota:
            self.rejection = f"pods {name} is forbidden: exceeded quota"
            return
        self.rejection = None
        self._serial += 1
        raw = copy.deepcopy(body)
        raw["metadata"] |= {
            "uid": f"uid-{self._serial}",
            "creationTimestamp": format_time(self.now),
        }
        raw["metadata"]["managedFields"] = [{"manager": FIELD_MANAGER}]
        self.pods[name] = Pod(
            raw, ip=f"10.0.0.{self._serial}", ready_changed=self.now, placed=self._fits()
        )

    def _fits(self) -> bool:
        """The scheduler finds a node for one more pod."""
        placed = sum(pod.placed and not pod.over for pod in self.pods.values())
        return self.capacity is None or placed < self.capacity

    # --- the world --------------------------------------------------------------------------------

    def tick(self, seconds: float = 1.0) -> None:
        self.now += timedelta(seconds=seconds)

    def _ready(self, pod: Pod, ready: bool) -> None:
        if pod.ready != ready:
            pod.ready, pod.ready_changed = ready, self.now

    def start(self, pod: Pod) -> None:
        """The kubelet starts the container and the launcher becomes warm."""
        pod.placed = pod.placed or self._fits()
        if pod.phase == "Pending" and pod.placed and not pod.lost and pod.deletion_deadline is None:
            pod.phase = "Running"
            pod.report = Report(0, ReportState.IDLE, time=self.now)
            self._ready(pod, True)

    def obey(self, pod: Pod) -> None:
        """The launcher reads its assignment."""
        assigned = pod.assigned
        idle = (
            pod.phase == "Running" and pod.report.state != ReportState.SUCCEEDED and not pod.stuck
        ) and not pod.report.leaving
        if assigned is None or not idle or pod.lost or pod.deletion_deadline is not None:
            return
        if assigned.end:
            self.exit(pod)
            return
        held = (
            pod.accepted is not None
            and pod.accepted.is_standby
            and pod.accepted.attempt == assigned.attempt
        )
        if (
            pod.accepted is not None
            and assigned.attempt <= pod.accepted.attempt
            and not (held and not assigned.is_standby)
        ):
            return
        pod.accepted = assigned
        state = ReportState.IDLE if assigned.is_standby else ReportState.RUNNING
        pod.report = Report(assigned.attempt, state, time=self.now)
        self._ready(pod, True)
        if not assigned.is_standby:
            self._begin_training(pod, assigned)

    def _begin_training(self, pod: Pod, assigned: Assignment) -> None:
        if "elasticPolicy" not in self.job["spec"]:
            assert assigned.node_rank == pod.slot
        self.trained.setdefault((assigned.attempt, assigned.node_rank), set()).add(pod.uid)
        for other in self.pods.values():
            if other is not pod and other.slot == pod.slot and other.training:
                late = other.deletion_deadline is not None and self.now >= other.deletion_deadline
                assert late or other.stuck or other.lost, (
                    f"{pod.name} trains while {other.name} still does"
                )

    def fail_ranks(self, pod: Pod, code: int, reason: str | None = None, ago: float = 0) -> None:
        """The ranks of a pod end; the launcher stays and says why, and that it began some seconds
        ago.
        """
        if not pod.training or pod.lost:
            return
        text = reason or REASONS.get(code) or ("Signal" if code > 128 else "Error")
        state = ReportState.STOPPED if code == 75 else ReportState.FAILED
        time = self.now - timedelta(seconds=ago)
        rank = pod.accepted.node_rank if pod.accepted else None
        pod.report = Report(
            pod.report.attempt,
            state,
            exit_code=code,
            rank=rank,
            reason=text,
            message="because\nof it",
            time=time,
            step=pod.report.step,
            leaving=pod.report.leaving,
        )
        self._ready(pod, False)

    def terminate(self, pod: Pod) -> None:
        """SIGTERM reaches the launcher, whose ranks begin to save; `leave` has it end."""
        if pod.phase == "Running" and not pod.lost and not pod.report.leaving:
            pod.report = replace(pod.report, leaving=True, time=self.now)
            self._ready(pod, False)

    def hang(self, pod: Pod, told: int) -> None:
        """One rank hangs; its launcher says since when, up to ``told`` others that theirs wait."""
        if not pod.training:
            return
        others = [
            p
            for p in self.pods.values()
            if p is not pod and p.training and p.deletion_deadline is None
        ]
        self.fail_ranks(pod, 70, ago=60)
        for other in others[:told]:
            if other.report.attempt == pod.report.attempt:
                self.fail_ranks(other, 70)

    def diverge(self, pod: Pod, step: int) -> None:
        """The loss of a pod's ranks is no number at a step."""
        self.fail_ranks(pod, 79)
        pod.report = replace(pod.report, message=f"the loss became nan before step {step} (x)")

    def step(self, pod: Pod, number: int) -> None:
        """The ranks of a pod get to a step, which its next report says."""
        if pod.training:
            pod.report = replace(pod.report, step=number)

    def lose_peers(self) -> None:
        """Ranks whose peers are gone end as a consequence."""
        alive = {
            p.slot
            for p in self.pods.values()
            if p.training and p.report.attempt == self.status.get("attempt")
        }
        if len(alive) < self.size(self.status.get("attempt", 0)):
            for pod in self.pods.values():
                if pod.training and pod.deletion_deadline is None:
                    self.fail_ranks(pod, 1, "PeerLost")

    def exit(self, pod: Pod, code: int | None = None, reason: str | None = None) -> None:
        """The container ends: by itself with its report as termination message, or killed without
        one.
        """
        if pod.phase != "Running" or pod.lost:
            return
        if code is None:
            known = pod.report.exit_code
            code = known if known is not None else 75
            pod.last_word = pod.report
        pod.exit_code, pod.terminated_reason = code, reason
        pod.phase = "Succeeded" if code == 0 else "Failed"
        self._ready(pod, False)

    def finish(self, pod: Pod, *, seen: bool = True) -> None:
        """The ranks of a pod end with success, which takes all of them to be there; its container
        ends when seen.
        """
        attempt = pod.report.attempt
        there = {
            p.slot
            for p in self.pods.values()
            if p.report.attempt == attempt and (p.training or p.exit_code == 0)
        }
        if pod.training and not pod.lost and len(there) == self.size(attempt):
            metrics = {"accuracyTop1": 0.97, "progress": 1.0}
            pod.report = Report(
                attempt, ReportState.SUCCEEDED, exit_code=0, time=self.now, step=10, metrics=metrics
            )
            if seen:
                self.exit(pod)

    def leave(self, pod: Pod) -> None:
        """The launcher ends after its success, or once all ranks have stopped for its sake."""
        if pod.report.leaving and not pod.stuck:
            for other in self.pods.values():
                if other.report.attempt == pod.report.attempt:
                    self.fail_ranks(other, 75)
            self.exit(pod)
        if pod.report.state == ReportState.SUCCEEDED and not pod.stuck:
            self.exit(pod)

    def refuse(self, pod: Pod, reason: str, message: str = "") -> None:
        """The kubelet or the node ends the pod without a container status."""
        if not pod.over:
            pod.phase, pod.reason, pod.message = "Failed", reason, message
            self._ready(pod, False)

    def delete(self, pod: Pod, grace: int | None = None) -> None:
        seconds = 120 if grace is None else grace
        if seconds == 0 and not pod.held:
            self.remove(pod)
            return
        deadline = self.now + timedelta(seconds=seconds)
        if pod.deletion_deadline is None or deadline < pod.deletion_deadline:
            pod.deletion_deadline, pod.grace = deadline, seconds

    def disrupt(self, pod: Pod, reason: str = "EvictionByEvictionAPI") -> None:
        pod.conditions = [{"type": "DisruptionTarget", "status": "True", "reason": reason}]
        self.delete(pod)

    def remove(self, pod: Pod) -> None:
        """The pod leaves the API server, or only its containers end when a finalizer holds it."""
        if pod.held:
            self.exit(pod, 137)
            pod.deletion_deadline = min(pod.deletion_deadline or self.now, self.now)
            return
        self.pods.pop(pod.name, None)
        self.answers.pop(pod.uid, None)
        self.gone[pod.slot] = VanishedPod(
            pod.name, pod.incarnation, pod.node if pod.placed else None
        )

    def squat(self, slot: int) -> None:
        """Somebody makes a pod under the name of the slot's next one, with all our labels."""
        name = f"{self.job['metadata']['name']}-{slot}-{self.status.get('attempt', 0) + 1}"
        if name not in self.pods:
            self._serial += 1
            metadata = {"name": name, "namespace": "ns", "uid": f"uid-{self._serial}"}
            metadata["labels"] = identity.labels("job", "job-uid", slot, 1)
            self.pods[name] = Pod({"metadata": metadata, "spec": {}}, ip=f"10.0.0.{self._serial}")

    def free_names(self) -> None:
        """Nobody has pods of our names or holds on to ours any more."""
        for pod in list(self.pods.values()):
            pod.held = False
            if pod.squatting:
                self.remove(pod)

    def mislead(self, pod: Pod, attempt: int | None) -> None:
        """Somebody writes an assignment that holds in an attempt, or one that makes no sense."""
        self.misled = self.misled or attempt is not None
        pod.tell("{" if attempt is None else assignment.to_json(Assignment(attempt)))

    def wipe(self, key: str | None) -> None:
        """Somebody removes a field of the status, or all of it; what was known before is no longer
        comparable.

        With no pod left that has seen them, numbers of attempts come again.
        """
        if self.deleted:
            return
        if key is None:
            self.job["status"] = {}
        else:
            self.status.pop(key, None)
        self.statuses.clear()
        self.written.clear()
        self.trained.clear()

    def size(self, attempt: int) -> int:
        """Of how many nodes an attempt consists, as far as its pods were told; at least one."""
        assignments = [pod.accepted for pod in self.pods.values() if pod.accepted is not None]
        return (
            max(
                [assigned.nnodes for assigned in assignments if assigned.attempt == attempt],
                default=0,
            )
            or 1
        )

    def scale(self, nodes: int) -> None:
        """What `kubectl scale` does."""
        if self.job["spec"]["numNodes"] != nodes:
            self.job["spec"]["numNodes"] = nodes
            self.job["metadata"]["generation"] += 1

    def suspend(self, value: bool) -> None:
        policy = self.job["spec"].setdefault("runPolicy", {})
        if bool(policy.get("suspend")) != value:
            policy["suspend"] = value
            self.job["metadata"]["generation"] += 1

    def edit(self, **spec: Any) -> None:
        """The user writes these keys of the spec; None removes one."""
        before = copy.deepcopy(self.job["spec"])
        for key, value in spec.items():
            self.job["spec"].pop(key, None)
            if value is not None:
                self.job["spec"][key] = value
        self.job["metadata"]["generation"] += before != self.job["spec"]

    def correct(self) -> None:
        """The user takes back what was spoilt about the accelerator."""
        self.edit(accelerator=self.accelerator)

    def change_policy(self, **policy: Any) -> None:
        """The user changes keys of the run policy; None removes one."""
        merged = {**(self.job["spec"].get("runPolicy") or {}), **policy}
        self.edit(runPolicy={key: value for key, value in merged.items() if value is not None})

    def calm(self, seconds: float = 1.0) -> None:
        """One quiet second: everything that is under way gets done."""
        for pod in list(self.pods.values()):
            if pod.deletion_deadline is not None and not pod.lost:
                self.remove(pod)
            else:
                self.start(pod)
                self.obey(pod)
                self.leave(pod)
        self.tick(seconds)

    def work(self) -> None:
        """One second in which launchers get on, but pods that are being deleted take their time."""
        for pod in list(self.pods.values()):
            self.start(pod)
            self.obey(pod)
            self.leave(pod)
            late = pod.deletion_deadline is not None and self.now >= pod.deletion_deadline
            if late and not pod.lost:
                self.remove(pod)
        self.tick()

    def run_until(self, done: str, limit: int = 400) -> None:
        """Quiet seconds and passes until a condition is True or the job has ended."""
        for _ in range(limit):
            self.operate()
            if self.terminal or self.condition(done) == "True":
                return
            self.calm(max(1.0, remaining(self.status, self.now)))
        pods = [(pod.name, pod.phase, pod.report) for pod in self.pods.values()]
        raise AssertionError(f"never {done}: {self.status} {pods}")

    def finish_all(self) -> None:
        for pod in list(self.pods.values()):
            self.finish(pod)
