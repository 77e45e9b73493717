"""Slow members: a rank that has held up all others for long leaves its node, where the job wants it
(``stragglerPolicy: Replace``).

Its node counts as one that is about to go, for this job alone, and everything else is decided in
`moves`: a spare on another node takes its place, or a replacement is made there first. So nothing
happens to a job that has nowhere else to go.

Nobody knows whether another node is better: what is slow may be the rank's share of the data. So
there is a pause between two replacements, and a few of them a day are enough (`departure`).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from inception_operator.contract.names import Reason
from inception_operator.contract.types import Plan, PodView, Straggler

from . import slots
from .plans import requeue_in
from .status import Draft
from .view import JobView

# A move costs the start of an attempt. What passes by itself within minutes, such as a neighbour's
# burst, is cheaper to sit out.
AFTER: Final = timedelta(minutes=5)
# Looks show nothing while the ranks make no steps, as in an evaluation.
_NEXT_LOOK: Final = 10.0


def mark(view: JobView, draft: Draft) -> JobView:
    """The view in which the pod of a straggler leaves its node, if it is to be replaced now."""
    straggler = _unwanted(view, draft)
    if straggler is None or draft.next_straggler is not None:
        return view
    if _slow_for(straggler, view) < AFTER:
        return view
    why = f"rank {straggler.rank} holds up all others"
    pods = tuple(
        replace(pod, leaving=why) if _goes(pod, straggler, draft.attempt) else pod
        for pod in view.pods
    )
    nodes = dict.fromkeys((straggler.node, *view.observation.leaving))
    observation = replace(view.observation, leaving=tuple(nodes))
    return replace(view, pods=pods, observation=observation, straggler=straggler)


def watch(view: JobView, draft: Draft) -> Plan:
    """When to look again at a straggler that is not to be replaced yet; PodsReady says why, once it
    has been slow for long enough.
    """
    straggler = None if view.straggler is not None else _unwanted(view, draft)
    if straggler is None:
        return Plan()
    if _slow_for(straggler, view) < AFTER:
        left = (straggler.since + AFTER - view.now).total_seconds()
        return requeue_in(left if left > 0 else _NEXT_LOOK)
    again = draft.next_straggler
    if again is None:
        return Plan()
    draft.depart(
        Reason.CANNOT_REPLACE_STRAGGLER,
        f"rank {straggler.rank} (pod {straggler.pod} on node {straggler.node}) holds up all "
        f"others, but another straggler was replaced before: not before {again:%Y-%m-%d %H:%M} UTC",
    )
    return requeue_in((again - view.now).total_seconds())


def _slow_for(straggler: Straggler, view: JobView) -> timedelta:
    """For how long looks have shown it; of a status alone, since when it says."""
    return (straggler.until or view.now) - straggler.since


def _unwanted(view: JobView, draft: Draft) -> Straggler | None:
    """The straggler, if the job wants it replaced and its pod is where it was found."""
    straggler = draft.straggler
    if straggler is None or not view.job.replaces_stragglers:
        return None
    for pod in view.pods:
        if (pod.name, pod.node) == (straggler.pod, straggler.node):
            # It leaves anyway where its node is about to go.
            return None if pod.deleting or pod.leaving is not None else straggler
    return None


def _goes(pod: PodView, straggler: Straggler, attempt: int) -> bool:
    """Whether this pod is the straggler's, or of no use as a substitute, being on the same node.

    Other members there are not known to be slow.
    """
    if pod.leaving is not None or pod.node != straggler.node:
        return False
    return pod.name == straggler.pod or not slots.given(pod, attempt)
