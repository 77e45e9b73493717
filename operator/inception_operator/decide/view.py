"""What the steps of one decision look at: the job with its pods, and which pod fills which slot.

Both are frozen. The only thing that changes while a decision is made is the draft of the status
(`status`), and after every change of the attempt the pods are placed anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from inception_operator.accelerators.profile import Profile
from inception_operator.accelerators.resolve import Devices
from inception_operator.contract.names import PodPolicy
from inception_operator.contract.types import Json, Observation, Plan, PodView, Straggler
from inception_operator.pod.build import USER
from inception_operator.spec.job import Job

from . import elastic, slots
from .elastic import Availability, Membership
from .failure import AttemptView
from .plans import is_leaving
from .slots import Slots
from .status import Draft


@dataclass(frozen=True)
class Context:
    """What all decisions share: the table of accelerators and the operator's defaults."""

    profiles: Mapping[str, Profile]
    image: str
    pull_policy: str | None = None
    notify_address: str = ""
    sees_nodes: bool = True
    pod_policy: str = PodPolicy.OFF
    pod_user: int | None = USER
    # What `pod_policy` has found out: generation and violation by the uid of a job.
    violations: dict[str, tuple[int, str | None]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )


@dataclass(frozen=True)
class JobView:
    """What one decision is made from; ``resource`` is the custom resource that ``job`` was parsed
    from, ``pods`` are all that belong to it. ``violation`` says why none may be made any more,
    ``straggler`` is the rank whose pod leaves its node for being slow (`slow_members`).
    """

    resource: Json
    job: Job
    devices: Devices
    pods: tuple[PodView, ...]
    observation: Observation
    context: Context
    violation: str | None = None
    straggler: Straggler | None = None

    @property
    def now(self) -> datetime:
        """The time of the observation, which is the time of everything in this decision."""
        return self.observation.now

    @property
    def starts_assigned(self) -> bool:
        """Whether pods carry their assignment from birth: those of a job that is one node for ever.

        Its ranks need no address of another pod, so they need not wait for one. That saves a PATCH
        and the wait until the kubelet has refreshed the file.
        """
        return self.job.num_nodes == 1 and self.job.elastic is None


@dataclass(frozen=True)
class Placement:
    """Which pod fills which slot, and the surplus: pods that fill none."""

    membership: Membership
    slots: Slots
    surplus: tuple[PodView, ...]

    @property
    def pods(self) -> tuple[PodView, ...]:
        """The pods that fill a slot."""
        return tuple(pod for pod in self.slots if pod is not None)

    @property
    def ranked(self) -> Slots:
        """The pods of the members, in rank order; None for a member without a pod."""
        return tuple(self.pod_of(slot) for slot in self.membership.members)

    @property
    def first(self) -> PodView | None:
        """The pod with node rank 0."""
        return self.pod_of(self.membership.members[0])

    def pod_of(self, slot: int) -> PodView | None:
        """The pod that fills a slot, if one does."""
        return self.slots[slot] if slot < len(self.slots) else None

    def pods_of(self, numbers: Iterable[int]) -> list[PodView]:
        """The pods of these slots, without the empty ones."""
        pods = (self.pod_of(slot) for slot in numbers)
        return [pod for pod in pods if pod is not None]


def starts_assigned(resource: Json) -> bool:
    """The same of a resource that has not been parsed."""
    spec = resource.get("spec") or {}
    return spec.get("numNodes", 1) == 1 and not spec.get("elasticPolicy")


def place_pods(view: JobView, draft: Draft) -> Placement:
    """See which pod fills which slot; follows from the status and the pods alone."""
    membership = elastic.find_membership(
        view.job,
        elastic.from_text(draft.nodes.get("members")),
        view.pods,
        draft.attempt,
        issued=draft.issued is not None,
    )
    filled, surplus = slots.arrange(view.pods, membership.pool, draft.attempt)
    if draft.issued is not None:
        # Replacements wait for the attempt to come beside the one that runs.
        waiting = slots.replacements(view.pods, draft.attempt).values()
        surplus = tuple(pod for pod in surplus if pod not in waiting)
    return Placement(membership, filled, surplus)


def view_attempt(view: JobView, draft: Draft, placed: Placement) -> AttemptView:
    """The part of it that failures are looked for in."""
    return AttemptView(
        job=view.job.name,
        attempt=draft.attempt,
        nproc=view.devices.nproc,
        issued=draft.issued,
        now=view.now,
        members=None if view.job.elastic is None else placed.membership.members,
        node_loss=view.job.node_loss,
        gone=view.observation.gone,
    )


def find_availability(view: JobView, placed: Placement, plan: Plan) -> Availability:
    """The part of it that the size of an attempt depends on."""
    job = view.job
    pods = {slot: placed.pod_of(slot) for slot in placed.membership.pool}
    ready = sorted(slot for slot, pod in pods.items() if pod is not None and _can_train(pod, plan))
    staying = [slot for slot in ready if not _leaves(pods[slot])]
    if len(staying) >= job.num_nodes:
        ready = staying
    return Availability(
        membership=placed.membership,
        pods=pods,
        ready=tuple(ready),
        desired=job.num_nodes,
        least=job.num_nodes if job.elastic is None else job.elastic.min_nodes,
        now=view.now,
    )


def _leaves(pod: PodView | None) -> bool:
    """Whether its node is about to go: a pod to be used where there are no others."""
    return pod is not None and pod.leaving is not None


def _can_train(pod: PodView, plan: Plan) -> bool:
    return slots.available(pod) and not is_leaving(pod, plan) and not pod.unhealthy
