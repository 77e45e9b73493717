"""The decision: what to do about one job, from what is seen of it. No I/O, no clock, no randomness.

An attempt *gathers* until every slot has a launcher that is up; then it is *issued*: PodsReady is
persisted as True and every slot is told its ranks. Whatever goes wrong ends the attempt as a whole
and the next one gathers, mostly from the same pods. All counters are in the status, which is
written before anything acts on them, so a pass may break off anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from inception_operator.accelerators.profile import Profile
from inception_operator.accelerators.resolve import Devices, resolve
from inception_operator.contract import assignment, conditions, progress
from inception_operator.contract.errors import SpecError
from inception_operator.contract.names import LABEL_JOB, Cause, ConditionType, Phase, Reason
from inception_operator.contract.times import parse_time
from inception_operator.contract.types import Assignment, Json, Observation, Plan, PodView
from inception_operator.pod import identity
from inception_operator.pod.build import build_pod
from inception_operator.pod.resource_claims import build_templates
from inception_operator.spec.failure_policy import Action
from inception_operator.spec.job import Job, managed_elsewhere, parse

from . import elastic, failure, lifecycle, liveness, reminders, restart_policy, slots, success
from .elastic import Availability, Members, Membership
from .failure import AttemptView, Failure
from .slots import Slots
from .status import Draft
from .waiting import waiting_for

ACK_POLL: Final = 1.0
STARTING_POLL: Final = 2.0
REJECTED_POLL: Final = 5.0
# A launcher that does not answer does not save either.
MUTE_GRACE_SECONDS: Final = 10
LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Context:
    """What all decisions share: the table of accelerators and the operator's defaults."""

    profiles: Mapping[str, Profile]
    image: str
    pull_policy: str | None = None
    bell: str = ""
    sees_nodes: bool = True


def reconcile(observation: Observation, context: Context) -> Plan:
    """One decision. Deciding twice on the same observation is deciding nothing the second time."""
    job = observation.job
    if job["metadata"].get("deletionTimestamp") or managed_elsewhere(job):
        return Plan()
    pods = slots.owned(observation.pods, job["metadata"]["uid"])
    return replace(_decide(observation, context, pods), repair=identity.repairs(job, pods))


def _decide(observation: Observation, context: Context, pods: tuple[PodView, ...]) -> Plan:
    job = observation.job
    draft = Draft(job, observation.now, observation.progress)
    if draft.terminal:
        return lifecycle.wind_up(job, draft, pods, observation.now)
    draft.restore(identity.latest_attempt(pods))
    try:
        spec = parse(job)
        devices = resolve(spec, context.profiles)
    except SpecError as error:
        return lifecycle.refuse(job, draft, pods, error, observation.now)
    draft.accept(liveness.BLIND if spec.node_loss.seconds and not context.sees_nodes else None)
    if (
        spec.elastic is not None
        and draft.issued is not None
        and not elastic.from_text(draft.nodes.get("members"))
    ):
        draft.lose_members()
    return _Pass(observation, context, spec, devices, draft, pods).decide()


def wants_report(job: Json, pod: PodView) -> bool:
    """Whether to ask this pod's launcher for its report before deciding; healthy pods at work are
    left alone.
    """
    if (
        not _at_work(job)
        or pod.phase != Phase.RUNNING
        or not pod.ip
        or pod.deleting
        or slots.finished(pod)
    ):
        return False
    if not pod.ready or pod.reachable is None:
        return True
    order = pod.assignment
    if order is None or order.is_hold:
        return False
    return not slots.acknowledged(pod, order.attempt) or reminders.wants_answer(pod, order.attempt)


def wants_progress(job: Json, pod: PodView) -> bool:
    """Whether to read this pod's training metrics: rank 0's, while the attempt is running."""
    if not _at_work(job) or not conditions.is_true(_conditions(job), ConditionType.RUNNING):
        return False
    if pod.assignment is None or pod.assignment.is_hold or pod.assignment.node_rank != 0:
        return False
    if pod.assignment.attempt != job["status"]["attempt"]:
        return False
    return pod.ready and bool(pod.ip) and not pod.deleting and not slots.finished(pod)


def _at_work(job: Json) -> bool:
    if (
        job["metadata"].get("deletionTimestamp")
        or lifecycle.suspended(job)
        or managed_elsewhere(job)
    ):
        return False
    return not conditions.terminal(_conditions(job))


def _conditions(job: Json) -> list[Json]:
    return (job.get("status") or {}).get("conditions") or []


@dataclass
class _Pass:
    """One decision in the making: the draft of the status, and the requests collected so far."""

    observation: Observation
    context: Context
    job: Job
    devices: Devices
    draft: Draft
    pods: tuple[PodView, ...]
    slots: Slots = ()
    roster: Membership = field(default_factory=lambda: Membership((), ()))
    delete: dict[str, int | None] = field(default_factory=dict)
    create: list[Json] = field(default_factory=list)
    assign: dict[str, Assignment] = field(default_factory=dict)
    requeue: float | None = None

    @property
    def now(self) -> datetime:
        return self.observation.now

    @property
    def scene(self) -> AttemptView:
        members = None if self.job.elastic is None else self.roster.members
        draft, loss = self.draft, self.job.node_loss
        gone = self.observation.gone
        return AttemptView(
            self.job.name,
            draft.attempt,
            self.devices.nproc,
            draft.issued,
            self.now,
            members,
            loss,
            gone,
        )

    @property
    def born(self) -> bool:
        """The pod of a job that is one node for ever carries its assignment from birth."""
        return self.job.num_nodes == 1 and self.job.elastic is None

    @property
    def ranked(self) -> Slots:
        """The pods of the members, in rank order."""
        return tuple(map(self._pod_of, self.roster.members))

    @property
    def muster(self) -> Availability:
        """Who is there, as far as the size of an attempt depends on it."""
        pods = {slot: self._pod_of(slot) for slot in self.roster.pool}
        ready = sorted(
            slot for slot, pod in pods.items() if pod is not None and self._can_train(pod)
        )
        least = self.job.num_nodes if self.job.elastic is None else self.job.elastic.min_nodes
        return Availability(self.roster, pods, tuple(ready), self.job.num_nodes, least, self.now)

    def decide(self) -> Plan:
        surplus = self._arrange()
        if self.ranked and success.achieved(
            self.ranked, self.draft.attempt, self.job.success_policy
        ):
            return self._succeed()
        self._free_lost_pods()
        if self.job.suspend:
            return self._suspend()
        if self.draft.is_true(ConditionType.SUSPENDED):
            self.draft.resume()
        self.draft.start()
        if self._passed(lifecycle.active_deadline(self.job.run_policy, self.draft)):
            return self._fail(Reason.DEADLINE_EXCEEDED, lifecycle.active_text(self.job.run_policy))
        self._remove(pod for pod in surplus if not pod.deleting)
        return self._work()

    def _arrange(self) -> tuple[PodView, ...]:
        """See which pod fills which slot; answers those that fill none."""
        written = elastic.from_text(self.draft.nodes.get("members"))
        issued, attempt = self.draft.issued is not None, self.draft.attempt
        self.roster = elastic.roster(self.job, written, self.pods, attempt, issued=issued)
        self.slots, surplus = slots.arrange(self.pods, self.roster.pool)
        return surplus

    def _rearrange(self) -> None:
        self._remove(pod for pod in self._arrange() if not self._leaving(pod))

    def _pod_of(self, slot: int) -> PodView | None:
        return self.slots[slot] if slot < len(self.slots) else None

    def _work(self) -> Plan:
        failures = failure.collect(self.slots, self.scene)
        if failures and self._must_wait(failures):
            self._again(failure.SETTLE_POLL)
            return self._plan()
        if failures:
            cause = failure.root_cause(failures)
            ended = self._end_attempt(cause, failures)
            if ended is not None:
                return ended
            self._rearrange()
        if self.draft.issued is None:
            self._gather()
        elif self.job.elastic is not None:
            self._adapt()
        if self._passed(lifecycle.pre_running_deadline(self.job.run_policy, self.draft)):
            text = lifecycle.pre_running_text(self.job.run_policy, self.draft)
            return self._fail(Reason.PRE_RUNNING_DEADLINE_EXCEEDED, text)
        if self.draft.issued is not None:
            self._drive()
        return self._plan()

    def _must_wait(self, failures: tuple[Failure, ...]) -> bool:
        return failure.must_wait(failures, self.slots, self.scene) or success.must_wait(
            failures, self.slots, self.scene, self.job.success_policy
        )

    def _succeed(self) -> Plan:
        first = success.chief(self.slots, self.draft.attempt)
        report = first.report if first is not None else None
        figures = None if report is None else progress.from_report(report, self.now)
        self.draft.succeed(figures, success.TEXT[self.job.success_policy])
        return self._over()

    def _suspend(self) -> Plan:
        self.draft.suspend()
        self._remove(pod for pod in self.pods if not pod.deleting)
        return self._plan()

    def _fail(self, reason: str, text: str, cause: Failure | None = None) -> Plan:
        self.draft.fail(reason, text, cause)
        return self._over()

    def _over(self) -> Plan:
        self._describe()
        return lifecycle.wind_up(self.observation.job, self.draft, self.pods, self.now)

    def _end_attempt(self, cause: Failure, failures: Iterable[Failure]) -> Plan | None:
        """Count the restart, or end the job."""
        verdict = restart_policy.judge(cause, self.draft.root_cause, self.job.failure_rules)
        text = verdict.explain(cause)
        if verdict.action is Action.FAIL:
            return self._fail(verdict.reason(cause), text, cause)
        counted = verdict.action is Action.RESTART
        limit = self.job.max_restarts
        if counted and self.draft.restarts_counted >= limit:
            text = f"all {limit} restarts are used up; the last cause is {text}"
            return self._fail(Reason.MAX_RESTARTS_EXCEEDED, text, cause)
        self.draft.restart(cause, text, counted=counted, reached=self._reached())
        useless = (Cause.NOT_RESPONDING, Cause.NODE_LOST, Cause.DEVICE_UNHEALTHY)
        mute = {other.slot for other in failures if other.reason in useless}
        self._replace(
            pod for pod in self.slots if pod is not None and pod.slot in mute and not pod.deleting
        )
        return None

    def _reached(self) -> int:
        """The furthest step that the attempt is known to have made, 0 when none."""
        figures = self.observation.progress
        return max(failure.reached(self.slots, self.draft.attempt), (figures and figures.step) or 0)

    def _gather(self) -> None:
        """Fill empty slots; with all launchers up, issue the attempt, else keep the others warm."""
        self._remove(pod for pod in self.slots if pod is not None and self._ended(pod))
        self._replace(pod for pod in self.slots if pod is not None and self._mute(pod))
        present = [pod for pod in self.slots if pod is not None and not self._leaving(pod)]
        if pause := self.draft.back_off():
            self._hold(present)
            self._again(pause)
            return
        lingering = self._lingering()
        rejected = bool(self.observation.rejection)
        crew, left = elastic.start(
            self.muster, self.draft.waiting_since or self.now, rejected=rejected
        )
        if crew and not lingering:
            self._issue(crew)
            self._fill_spares()
            return
        # The pod of a one-node job is born with its assignment, so making it is issuing the
        # attempt.
        if not (self.born and lingering):
            self._fill(self.roster.pool)
        if left is not None:
            self._again(left)
        self._hold(present)
        reason, text = waiting_for(
            self.slots, self.job.num_nodes, self._rejection(), self.draft, lingering
        )
        self.draft.wait(reason, text)
        self._watch_gathering(present, lingering)

    def _issue(self, crew: Members) -> None:
        self.draft.issue(len(crew), elastic.figures(self.job, crew))
        self._rearrange()

    def _adapt(self) -> None:
        """Go on with another attempt when this one should have another size, and keep the spares
        warm.
        """
        rejected = bool(self.observation.rejection)
        lingering = self._lingering()
        crew, left = elastic.resize(
            self.muster, self.draft.issued or self.now, self.draft.nodes, rejected=rejected
        )
        if left is not None:
            self._again(left)
        if (
            crew
            and not lingering
            and not any(slots.finished(pod) for pod in self._pods(self.roster.members))
        ):
            self.draft.resize(len(crew))
            self._issue(crew)
        self._tend(lingering)

    def _tend(self, lingering: list[PodView]) -> None:
        """Keep up what has no ranks; its failures are none of the attempt's."""
        spares = [pod for pod in self._pods(self.roster.spares) if not self._leaving(pod)]
        for pod in spares:
            retry = elastic.retry_at(pod, self.now)
            if retry is not None:
                self._again((retry - self.now).total_seconds())
            elif slots.finished(pod):
                self._remove([pod])
        self._replace(pod for pod in spares if self._mute(pod) or self._useless(pod))
        self._fill_spares()
        self._hold(spares)
        self._watch_gathering(spares, lingering)
        reason, text = elastic.outlook(self.muster, self._rejection())
        self.draft.staff(reason, text)

    def _lingering(self) -> list[PodView]:
        loss = self.job.node_loss
        return [
            pod
            for pod in self.pods
            if slots.lingering(pod, self.now) and not liveness.is_lost(loss, pod, self.now)
        ]

    def _rejection(self) -> str | None:
        return self.observation.rejection if self.create else None

    def _pods(self, which: Iterable[int]) -> list[PodView]:
        return [pod for pod in map(self._pod_of, which) if pod is not None]

    def _ended(self, pod: PodView) -> bool:
        return slots.finished(pod) and not self._leaving(pod)

    def _mute(self, pod: PodView) -> bool:
        """A survivor of an earlier attempt whose launcher or node has gone silent, or whose device
        is broken.
        """
        if self._leaving(pod) or pod.incarnation == self.draft.attempt:
            return False
        if pod.unhealthy or liveness.is_lost(self.job.node_loss, pod, self.now):
            return True
        silent = slots.silent_since(pod, self._gathering_since())
        return silent is not None and self.now >= (
            liveness.lost_at(self.job.node_loss, pod) or silent + slots.SILENCE
        )

    def _useless(self, pod: PodView) -> bool:
        """A spare that was made for this attempt and will never take ranks."""
        if self._leaving(pod) or slots.finished(pod):
            return False
        return elastic.useless(pod, self.now) or liveness.is_lost(self.job.node_loss, pod, self.now)

    def _gathering_since(self) -> datetime:
        """No later than the end of the last attempt, as far as the status tells."""
        cause = self.draft.root_cause or {}
        return parse_time(cause.get("time")) or LONG_AGO

    def _can_train(self, pod: PodView) -> bool:
        return slots.available(pod) and not self._leaving(pod) and not pod.unhealthy

    def _leaving(self, pod: PodView) -> bool:
        return pod.deleting or pod.name in self.delete

    def _fill(self, which: Iterable[int]) -> None:
        for slot in which:
            pod = self._pod_of(slot)
            if pod is None or (self._leaving(pod) and pod.incarnation < self.draft.attempt):
                self.create.append(self._pod(slot))

    def _fill_spares(self) -> None:
        left = elastic.head_start(self.draft.attempt, self.draft.issued, self.now)
        if left and self.roster.spares:
            self._again(left)
        else:
            self._fill(self.roster.spares)

    def _pod(self, slot: int) -> Json:
        order = self._order(slot) if self.born else None
        overlay = self.job.trainer_overlay.get("image")
        image = self.job.image or overlay or self.context.image
        attempt, policy, avoid = self.draft.attempt, self.context.pull_policy, self.draft.avoided
        images = {"image": image, "launcher_image": self.context.image}
        return build_pod(
            self.job,
            self.devices,
            slot,
            attempt,
            **images,
            assignment=order,
            pull_policy=policy,
            avoid=avoid,
        )

    def _order(self, rank: int) -> Assignment:
        first = self._pod_of(self.roster.members[0])
        master = first.ip if first is not None else None
        attempt, graceful, bell = self.draft.attempt, self._graceful(), self.context.bell
        size, nproc = len(self.roster.members), self.devices.nproc
        host = self.job.uid if self.job.host_network else None
        return assignment.work(
            attempt, rank, size, nproc, master, graceful=graceful, bell=bell, host=host
        )

    def _graceful(self) -> bool:
        """Whether ranks of the attempt before can still save together; from the status, so every
        pass says the same.
        """
        cause = self.draft.root_cause or {}
        if cause.get("attempt") != self.draft.attempt - 1:
            return self.draft.attempt > 1
        return failure.was_graceful(cause)

    def _hold(self, present: list[PodView]) -> None:
        for pod in present:
            order = pod.assignment
            if (
                order is not None
                and not order.is_hold
                and order.attempt < self.draft.attempt
                and not slots.finished(pod)
            ):
                self.assign[pod.name] = assignment.hold(
                    self.draft.attempt, graceful=self._graceful()
                )

    def _watch_gathering(self, present: list[PodView], lingering: list[PodView]) -> None:
        if self.observation.rejection and self.create:
            self._again(REJECTED_POLL)
        if any(pod.phase == Phase.RUNNING and not slots.available(pod) for pod in present):
            self._again(STARTING_POLL)
        for pod in (
            *lingering,
            *(
                pod
                for pod in self.slots
                if pod is not None and pod.incarnation == self.draft.attempt
            ),
        ):
            if pod.deletion_deadline is not None:
                self._again((pod.deletion_deadline + slots.LINGER_SLACK - self.now).total_seconds())

    def _drive(self) -> None:
        """Hand out what has not been handed out, and see whether the ranks run."""
        attempt = self.draft.attempt
        for rank, slot in enumerate(self.roster.members):
            pod = self._pod_of(slot)
            if pod is not None and not slots.given(pod, attempt) and not slots.finished(pod):
                self.assign[pod.name] = self._order(rank)
            elif pod is not None and (
                nudge := reminders.due(pod, attempt, self.draft.issued, self.now)
            ):
                self.assign[pod.name] = replace(self._order(rank), nudge=nudge)
        first = self._pod_of(self.roster.members[0])
        if first is not None and slots.acknowledged(first, attempt):
            self.draft.run()
        self._watch_attempt()

    def _watch_attempt(self) -> None:
        scene = self.scene
        for pod in self._pods(self.roster.members):
            limit = failure.deadline(pod, scene)
            if limit is not None:
                self._again(min(ACK_POLL, max(0.0, (limit - self.now).total_seconds())))
            left = reminders.look_again(pod, scene.attempt, scene.issued, self.now)
            if left is not None:
                self._again(left)
            if not pod.ready and not slots.finished(pod):
                # Readiness that never came back since the last attempt cannot drop again to tell of
                # a failure.
                self._again(ACK_POLL)

    def _remove(self, pods: Iterable[PodView], grace: int | None = None) -> None:
        self.delete |= {pod.name: grace for pod in pods}

    def _passed(self, due: datetime | None) -> bool:
        """Whether a deadline has passed; one that has not is a date to look again."""
        left = lifecycle.seconds_left(due, self.now)
        if left:
            self._again(left)
        return left == 0

    def _replace(self, pods: Iterable[PodView]) -> None:
        """Delete pods whose launcher is mute; by force where nobody is left to confirm their end."""
        pods = tuple(pods)
        self.draft.avoid(pods)
        for pod in pods:
            force = self.job.node_loss.force and liveness.is_lost(self.job.node_loss, pod, self.now)
            self._remove((pod,), 0 if force else MUTE_GRACE_SECONDS)

    def _free_lost_pods(self) -> None:
        """What is being deleted on a lost node keeps its volumes and its name until it is gone."""
        self._remove(liveness.stuck(self.job.node_loss, self.pods, self.now), 0)
        again = liveness.look_again(self.job.node_loss, self.pods, self.now)
        if again is not None:
            self._again(again)

    def _again(self, seconds: float) -> None:
        seconds = max(seconds, 0.1)
        self.requeue = seconds if self.requeue is None else min(self.requeue, seconds)

    def _describe(self) -> None:
        ready = {pod.slot for pod in self._pods(self.roster.pool) if self._counts_as_ready(pod)}
        self.draft.describe(
            nodes=elastic.count(
                self.job, self.draft.nodes, self.roster, ready, issued=self.draft.issued is not None
            ),
            selector=f"{LABEL_JOB}={self.job.name}",
            accelerator=self.devices.summary,
            model=self.job.model,
        )

    def _plan(self) -> Plan:
        self._describe()
        plan = self.draft.plan(
            delete=self.delete,
            create=tuple(self.create),
            assign=self.assign,
            requeue_after=self.requeue,
        )
        return replace(plan, claim_templates=build_templates(self.job)) if self.create else plan

    def _counts_as_ready(self, pod: PodView) -> bool:
        if self.draft.is_true(ConditionType.SUSPENDED) or self.draft.is_true(ConditionType.FAILED):
            return False
        return slots.succeeded(pod, self.draft.attempt) or (
            pod.name not in self.delete and slots.available(pod)
        )
