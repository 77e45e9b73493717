"""The decision: what to do about one job, from what is seen of it. No I/O, no clock, no randomness.

An attempt *gathers* until every slot has a launcher that is up; then it is *issued*: PodsReady is
persisted as True and every slot is told its ranks. Whatever goes wrong ends the attempt as a whole
and the next one gathers, mostly from the same pods. All counters are in the status, which is
written before anything acts on them, so a pass may break off anywhere. At their first values they
follow from the pods: until something has to be told, a job has no status (`quiet`).

`reconcile` is a list of thirteen steps that are taken from top to bottom. A step is decided in the
module that it calls; here is their order, and what ends the list early. Each adds to two things:
the draft, which is the status as it is to be written, and the plan, which is frozen and merged with
``|``. Later steps see what earlier ones have put into either, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from inception_operator.accelerators.resolve import resolve
from inception_operator.contract import progress
from inception_operator.contract.errors import SpecError
from inception_operator.contract.names import LABEL_JOB, Cause, ConditionType, Reason
from inception_operator.contract.types import Observation, Plan, PodView
from inception_operator.pod.identity import latest_attempt
from inception_operator.pod.resource_claims import build_templates
from inception_operator.spec.failure_policy import Action
from inception_operator.spec.job import Job, managed_elsewhere, parse

from . import (
    elastic,
    failure,
    headway,
    lifecycle,
    liveness,
    pod_policy,
    quiet,
    slots,
    slow_members,
    stragglers,
    success,
)
from .failure import AttemptView, Failure
from .gather import (
    describe_members,
    gather_pods,
    maintain_spares,
    place_again,
    replace_pods,
    resize_if_due,
)
from .moves import leave_if_due
from .plans import delete_pods, requeue_in
from .ranks import hand_out_ranks
from .repair import repairs
from .restart_policy import EndedAttempt, Restart, decide_restart
from .status import Draft
from .view import Context, JobView, Placement, place_pods, starts_assigned, view_attempt

__all__ = ["Context", "reconcile"]

# Failures of these kinds leave a pod behind that will not train again.
_USELESS_AFTER = (
    Cause.NOT_RESPONDING,
    Cause.LAUNCHER_UNREACHABLE,
    Cause.NODE_LOST,
    Cause.DEVICE_UNHEALTHY,
    Cause.CONTRACT_MISMATCH,
)


def reconcile(observation: Observation, context: Context) -> Plan:
    """One decision. Deciding twice on the same observation is deciding nothing the second time."""
    resource = observation.resource
    metadata = resource["metadata"]
    now = observation.now
    # 1. Skip a job that is being deleted, or that another controller manages (spec.managedBy).
    if metadata.get("deletionTimestamp") or managed_elsewhere(resource):
        return Plan()
    pods = slots.owned(observation.pods, metadata["uid"])
    plan = Plan(repair=repairs(resource, pods))

    # 2. Clean up after a job that is over; nothing about it changes any more.
    draft = Draft(resource, now, observation.progress)
    if draft.terminal:
        return plan | lifecycle.finish(resource, draft, pods, now)
    seen = latest_attempt(pods, draft.attempt, starts_assigned=starts_assigned(resource))
    draft.restore(seen, quiet.first_made(pods))

    # 3. Parse the spec, or refuse it and wait for another one. A pod that the operator's policy
    # does not allow is never made.
    try:
        job = parse(resource)
        devices = resolve(job, context.profiles)
    except SpecError as error:
        return plan | lifecycle.refuse(resource, draft, pods, error, now)
    violation = pod_policy.find_violation(resource, job, devices, context)
    draft.keep_checkpoints_at(job.checkpoint_path)
    draft.tells_steps = job.tells_steps
    draft.ranks = observation.ranks if job.names_stragglers else stragglers.UNWATCHED
    _accept(job, draft, context, violation)
    view = JobView(resource, job, devices, pods, observation, context, violation)
    return plan | _advance(slow_members.mark(view, draft), draft)


def _advance(view: JobView, draft: Draft) -> Plan:
    job = view.job
    now = view.now
    # 4. Place the pods in slots; those that fill none are deleted as soon as the job may go on.
    placed = place_pods(view, draft)

    # 5. Has it succeeded? That counts even if it is suspended or late by now.
    if success.achieved(placed.ranked, draft.attempt, job.success_policy):
        return _succeed(view, draft, placed)
    plan = liveness.free_lost_pods(job.node_loss, view.pods, now)

    # 6. Suspend it or resume it, as the user says.
    if job.suspend:
        headway.keep(view, draft, placed)
        draft.suspend()
        plan |= delete_pods(pod for pod in view.pods if not pod.deleting)
        return _conclude(view, draft, placed, plan)
    draft.start()

    # 7. End it if it has been active for too long.
    due = lifecycle.active_deadline(job.run_policy, draft)
    if due is not None and due <= now:
        text = lifecycle.active_text(job.run_policy)
        return _fail(view, draft, placed, Reason.DEADLINE_EXCEEDED, text)
    plan |= _requeue_at(due, now)
    plan |= delete_pods(pod for pod in placed.surplus if not pod.deleting)

    # 8. After failures, ask the restart policy: another attempt, or the end.
    attempt = view_attempt(view, draft, placed)
    failures = failure.collect(placed.slots, attempt)
    if failures:
        if _must_wait(failures, placed, attempt, job):
            return _conclude(view, draft, placed, plan | requeue_in(failure.SETTLE_POLL))
        cause = failure.root_cause(failures)
        restart = _decide_restart(view, draft, placed, cause)
        if restart.action is Action.FAIL:
            return _fail(view, draft, placed, restart.reason, restart.message, cause)
        draft.restart(cause, restart)
        plan |= replace_pods(view, draft, _useless_pods(placed, failures))
        plan, placed = place_again(view, draft, plan)

    # 9. Gather: fill the slots, and issue the attempt once all its launchers are up.
    if draft.issued is None:
        plan, placed = gather_pods(view, draft, placed, plan)
    # 10. Or see to it that members leave nodes that are about to go, which may end the attempt; so
    # does a straggler that is to be replaced.
    else:
        plan |= slow_members.watch(view, draft)
        plan = leave_if_due(view, draft, placed, plan)
    # 11. Resize an elastic attempt that runs, and keep its spares warm.
    if draft.issued is not None and job.elastic is not None:
        plan, placed = resize_if_due(view, draft, placed, plan)
        plan = maintain_spares(view, draft, placed, plan)

    # 12. End it if it has waited for its pods for too long; after 9, which may have ended the wait.
    due = lifecycle.pre_running_deadline(job.run_policy, draft)
    if due is not None and due <= now:
        text = lifecycle.pre_running_text(job.run_policy, draft)
        return _fail(view, draft, placed, Reason.PRE_RUNNING_DEADLINE_EXCEEDED, text)
    plan |= _requeue_at(due, now)

    # 13. Hand out the ranks of the attempt that is issued, and watch over it.
    if draft.issued is not None:
        plan |= hand_out_ranks(view, draft, placed)
        plan |= headway.forget_restarts_if_due(view, draft, placed)
        if job.elastic is None:
            plan |= describe_members(view, draft, placed)
    return _conclude(view, draft, placed, plan)


def _accept(job: Job, draft: Draft, context: Context, violation: str | None) -> None:
    but = None
    if job.node_loss.seconds and not context.sees_nodes:
        but = liveness.BLIND
    if violation is not None:
        # No end of the decision: what runs already goes on, and may succeed or be suspended.
        draft.reject(violation, Reason.POD_POLICY_VIOLATION)
    else:
        draft.accept(but)
    if job.elastic is None or draft.issued is None:
        return
    members = elastic.from_text(draft.nodes.get("members"))
    if not members:
        # Somebody removed who trains in the attempt that runs, or made the job elastic under way.
        draft.lose_members()


def _must_wait(
    failures: Sequence[Failure],
    placed: Placement,
    attempt: AttemptView,
    job: Job,
) -> bool:
    """Whether a failure or success that tells more may be about to show."""
    pods = placed.slots
    if failure.must_wait(failures, pods, attempt):
        return True
    return success.must_wait(failures, pods, attempt, job.success_policy)


def _decide_restart(view: JobView, draft: Draft, placed: Placement, cause: Failure) -> Restart:
    now = view.now
    return decide_restart(
        EndedAttempt(
            cause=cause,
            reached=headway.reached(view, draft, placed),
            ran=now - (draft.issued or now),
        ),
        previous=draft.root_cause,
        rules=view.job.failure_rules,
        budget=headway.budget_of(view.job),
        counters=draft.counters,
        now=now,
    )


def _useless_pods(placed: Placement, failures: Sequence[Failure]) -> list[PodView]:
    """Pods that are still there, but of no use to the next attempt."""
    useless = {each.slot for each in failures if each.reason in _USELESS_AFTER}
    return [
        pod
        for pod in placed.pods
        if not pod.deleting and (pod.slot in useless or failure.misfit(pod))
    ]


def _requeue_at(due: datetime | None, now: datetime) -> Plan:
    return Plan() if due is None else requeue_in((due - now).total_seconds())


def _succeed(view: JobView, draft: Draft, placed: Placement) -> Plan:
    figures = None
    chief = success.chief(placed.slots, draft.attempt)
    if chief is not None and chief.report is not None:
        # Its last report comes later than the last look at its metrics.
        figures = progress.from_report(chief.report, view.now)
    text = success.TEXT[view.job.success_policy]
    draft.succeed(figures, text)
    return _finish(view, draft, placed)


def _fail(
    view: JobView,
    draft: Draft,
    placed: Placement,
    reason: str,
    text: str,
    cause: Failure | None = None,
) -> Plan:
    draft.fail(reason, text, cause)
    return _finish(view, draft, placed)


def _finish(view: JobView, draft: Draft, placed: Placement) -> Plan:
    """The job is over. Any plan so far is dropped: its policy says how its pods end."""
    _describe(view, draft, placed, Plan())
    return lifecycle.finish(view.resource, draft, view.pods, view.now)


def _conclude(view: JobView, draft: Draft, placed: Placement, plan: Plan) -> Plan:
    """The job goes on: the plan with the status that it leads to."""
    _describe(view, draft, placed, plan)
    plan = pod_policy.drop_forbidden(plan, view.context.pod_policy) | draft.plan()
    plan = quiet.put_off(view.resource, plan, view.pods, view.now)
    if plan.create:
        # They may be there already; asking for them costs less than knowing that.
        plan = replace(plan, claim_templates=build_templates(view.job))
    return plan


def _describe(view: JobView, draft: Draft, placed: Placement, plan: Plan) -> None:
    job = view.job
    membership = placed.membership
    pods = placed.pods_of(membership.pool)
    nodes = elastic.count_nodes(
        job,
        draft.nodes,
        membership,
        ready={pod.slot for pod in pods if _counts_as_ready(pod, draft, plan)},
        issued=draft.issued is not None,
    )
    draft.describe(
        nodes=nodes,
        selector=f"{LABEL_JOB}={job.name}",
        accelerator=view.devices.summary,
        model=job.model,
    )


def _counts_as_ready(pod: PodView, draft: Draft, plan: Plan) -> bool:
    if draft.is_true(ConditionType.SUSPENDED) or draft.is_true(ConditionType.FAILED):
        return False
    if slots.succeeded(pod, draft.attempt):
        return True
    return slots.available(pod) and pod.name not in plan.delete
