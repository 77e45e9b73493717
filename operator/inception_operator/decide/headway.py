"""How far the job has got on: what its restarts and its pauses are measured against.

What an attempt has achieved is put down at its end, whatever ended it. A failure does so with the
counters of the restart (`restart_policy`). Here are the ends that are none: another size, another
node, a suspension. A job that trains on between them would else look like one that gets nowhere.
"""

from __future__ import annotations

from dataclasses import replace

from inception_operator.contract.names import ConditionType
from inception_operator.contract.types import Plan
from inception_operator.spec.job import Job

from . import failure
from .budget import Budget
from .plans import requeue_in
from .status import Draft
from .view import JobView, Placement


def budget_of(job: Job) -> Budget:
    """The restarts that the spec allows."""
    return Budget(job.max_restarts, job.reset_after, job.tells_steps)


def reached(view: JobView, draft: Draft, placed: Placement) -> int:
    """The furthest step that the attempt is known to have made, 0 for none."""
    # Both lag behind the ranks, so the further one is closer to the truth.
    figures = view.observation.progress
    scraped = figures.step if figures is not None else None
    return max(failure.reached(placed.slots, draft.attempt), scraped or 0)


def keep(view: JobView, draft: Draft, placed: Placement) -> None:
    """Put down what the attempt has achieved, which is about to end without a failure."""
    issued = draft.issued
    if issued is None:
        return
    step, ran = reached(view, draft, placed), view.now - issued
    draft.count(draft.counters.after_end(budget_of(view.job), draft.attempt, step, ran))


def forget_restarts_if_due(view: JobView, draft: Draft, placed: Placement) -> Plan:
    """Say at once that the budget is full again, or look again when it may be."""
    issued = draft.issued
    if issued is None or not draft.is_true(ConditionType.RUNNING):
        return Plan()
    counters, budget = draft.counters, budget_of(view.job)
    step = reached(view, draft, placed)
    # While it only repeats steps, the next figures wake it.
    if not counters.counted or not budget.gets_on(counters.streak, step):
        return Plan()
    done = counters.seconds_of_progress(budget, step, view.now - issued)
    if done < budget.reset_after:
        return requeue_in(budget.reset_after - done)
    draft.count(replace(counters, counted=0, progress=0))
    return Plan()
