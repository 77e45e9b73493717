"""Frozen data that decisions read and return; nothing here does I/O or reads a clock.

`runtime` turns API objects into an `Observation` and a `Plan` into requests; `decide` maps one to
the other. Two words are kept apart everywhere: a *resource* is the raw JSON of an
InceptionTraining, a *job* is what `spec.job` has parsed from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from .version import UNSAID

Json = dict[str, Any]


@dataclass(frozen=True)
class Assignment:
    """What one pod's launcher is told to do in one attempt: the JSON in the pod's annotation.

    ``nnodes`` 0 means standby: end what runs and stay warm. ``end`` is the last assignment of a
    job that is over. ``graceful`` lets running ranks save first. ``reminder`` counts rewrites of
    the annotation that only make the kubelet look again. ``notify_address`` is host and port at
    which launchers notify the operator. The factories are in `assignment`.
    """

    attempt: int
    nnodes: int = 0
    node_rank: int = 0
    nproc_per_node: int = 0
    master_addr: str = ""
    master_port: int = 0
    graceful: bool = False
    end: bool = False
    reminder: int = 0
    notify_address: str = ""

    @property
    def is_standby(self) -> bool:
        """Whether it assigns no ranks."""
        return self.nnodes == 0


@dataclass(frozen=True)
class RankTimes:
    """Where the steps of one rank went, as sums since it began: how many are timed, what they took,
    and the parts of it until its gradients were ready and in which it then waited for the others.
    """

    rank: int
    steps: int
    step_seconds: float
    own_seconds: float
    wait_seconds: float


@dataclass(frozen=True)
class Report:
    """What a launcher says about its ranks: the body of ``/status``, or the termination message.

    ``rank`` is the global rank that failed first on this node, ``time`` the moment of the failure.
    ``step`` and ``metrics`` are the latest figures, which local rank 0 leaves in a file.
    ``ranks`` are the running ranks of the node, as far as they tell where their steps go.
    ``contract`` is the version in which the launcher speaks (`version`). One that is ``leaving``
    was told to end and takes no further attempt.
    """

    attempt: int
    state: str
    exit_code: int | None = None
    rank: int | None = None
    reason: str | None = None
    message: str | None = None
    time: datetime | None = None
    step: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    contract: int = UNSAID
    leaving: bool = False
    ranks: tuple[RankTimes, ...] = ()


@dataclass(frozen=True)
class PodView:
    """The parts of a Pod that decisions need.

    ``exit_code`` and ``terminated_reason`` are those of the terminated trainer container,
    ``waiting_reason`` and ``waiting_message`` those of a waiting one. ``report`` is the termination
    message if there is one, else the latest answer of ``/status``. ``reachable`` is None until the
    operator has tried to ask; ``unreachable_since`` is the first of the tries that have failed in a
    row; one that was ``never_reached`` has answered none of them yet. One that ``ran_before`` this
    process first saw it may have answered another operator. ``conditions`` are type and status of
    all of them, ``labels`` our own ones.
    ``ready_changed`` is the last transition of the Ready condition. A pod being deleted was asked
    to end at ``deletion_requested`` and is killed at ``deletion_deadline``. ``node_lost_since`` is
    since when its node has not been ready, None when it is or nobody has asked. ``orphan_of`` is
    the uid of the job that this operator made the pod for, when the pod has no controller any more.
    ``unhealthy`` names its broken devices, ``trouble`` is what events say keeps it from starting.
    ``leaving`` says why its node is about to go; None while it stays, or nobody knows.
    ``excluded_nodes`` are those that it was made to keep away from, but for those of which the
    observer knows that they are still about to go. ``heard`` is when this process learned of the
    end that the pod tells of, by its own clock: that of the pod's node may differ.
    """

    name: str
    uid: str
    slot: int
    incarnation: int
    phase: str = "Pending"
    ready: bool = False
    deleting: bool = False
    created: datetime | None = None
    ip: str | None = None
    node: str | None = None
    assignment: Assignment | None = None
    exit_code: int | None = None
    finished: datetime | None = None
    terminated_reason: str | None = None
    waiting_reason: str | None = None
    waiting_message: str | None = None
    reason: str | None = None
    message: str | None = None
    unschedulable_message: str | None = None
    disruption_reason: str | None = None
    report: Report | None = None
    # Three values on purpose: never asked (None) must not count as silent (False).
    reachable: bool | None = None
    never_reached: bool = False
    ran_before: bool = False
    owner_uid: str | None = None
    conditions: tuple[tuple[str, str], ...] = ()
    orphan_of: str | None = None
    ready_changed: datetime | None = None
    deletion_requested: datetime | None = None
    deletion_deadline: datetime | None = None
    finalizers: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    unreachable_since: datetime | None = None
    node_lost_since: datetime | None = None
    unhealthy: str | None = None
    trouble: str | None = None
    leaving: str | None = None
    excluded_nodes: frozenset[str] = frozenset()
    heard: datetime | None = None
    trainer_ready: bool = False


@dataclass(frozen=True)
class VanishedPod:
    """A pod that was seen to disappear: all that is left to name as a root cause. ``owner`` is the
    UID of its job, None where somebody had taken it away.
    """

    name: str
    incarnation: int
    node: str | None = None
    owner: str | None = None


@dataclass(frozen=True)
class Progress:
    """The latest training figures of rank 0, from its ``/metrics`` page or its launcher's report.

    Ratios are 0 to 1; ``loss`` may be NaN or infinite, which users must see. With
    ``checkpoint_failing`` the last checkpoint could not be written. ``data_seconds`` and
    ``checkpoint_seconds`` are how long this attempt has stood still for either. ``ignored`` names a
    series whose value is none.
    """

    time: datetime
    progress: float | None = None
    remaining_seconds: float | None = None
    epoch: int | None = None
    step: int | None = None
    samples_per_second: float | None = None
    accuracy_top1: float | None = None
    accuracy_top5: float | None = None
    loss: float | None = None
    samples_seen: int | None = None
    repeated_steps: int | None = None
    last_checkpoint: datetime | None = None
    checkpoint_failing: bool = False
    data_seconds: float | None = None
    checkpoint_seconds: float | None = None
    ignored: str = ""


@dataclass(frozen=True)
class Straggler:
    """A rank that all others wait for.

    ``ratio`` is how many times as long as the median of the ranks it takes until its gradients are
    ready, ``since`` when the first look began that showed it, ``until`` when the latest one ended
    that did, None where it is known from a status alone.
    """

    rank: int
    pod: str
    node: str
    ratio: float
    since: datetime
    until: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True)
class RankVerdict:
    """What several looks at the ranks of an attempt have led to: one is a straggler, or none is.

    ``watched`` is False where the job does not want to know.
    """

    straggler: Straggler | None = None
    watched: bool = True


@dataclass(frozen=True)
class Observation:
    """Everything one decision is made from, the time included.

    ``resource`` is the custom resource as JSON. ``rejection`` is the API server's text when it
    refused the last pod creation. ``gone`` maps slot to the latest of its pods that was seen to
    vanish, as far as this process remembers. ``leaving`` are nodes that are about to go, those of
    the job's own pods first; ``nodes_known`` is False until they have been looked at once.
    ``ranks`` is None until enough is known of those of the present attempt.
    """

    resource: Json
    pods: tuple[PodView, ...]
    now: datetime
    progress: Progress | None = None
    rejection: str | None = None
    gone: Mapping[int, VanishedPod] = field(default_factory=dict)
    leaving: tuple[str, ...] = ()
    nodes_known: bool = True
    ranks: RankVerdict | None = None


NORMAL: Final = "Normal"
WARNING: Final = "Warning"


@dataclass(frozen=True)
class Event:
    """A Kubernetes Event on the job; made only when a condition changes."""

    type: str
    reason: str
    message: str


@dataclass(frozen=True)
class Plan:
    """The requests that one decision asks for; `runtime.apply` has their order.

    ``status`` is the complete status to be stored, or None when it is as it should be. ``delete``
    maps pod name to grace period in seconds (None: the pod's own), ``repair`` pod name to metadata
    that somebody took away. ``claim_templates`` must exist before the pods of ``create``, and may
    exist already. ``delete_job`` removes the custom resource itself, last of all.
    """

    status: Json | None = None
    delete: Mapping[str, int | None] = field(default_factory=dict)
    create: tuple[Json, ...] = ()
    claim_templates: tuple[Json, ...] = ()
    assign: Mapping[str, Assignment] = field(default_factory=dict)
    repair: Mapping[str, Json] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    requeue_after: float | None = None
    delete_job: bool = False

    def __or__(self, other: Plan) -> Plan:
        """Both plans as one; where they disagree about a pod or the status, the other one wins."""
        pauses = (self.requeue_after, other.requeue_after)
        return Plan(
            status=self.status if other.status is None else other.status,
            delete={**self.delete, **other.delete},
            create=self.create + other.create,
            claim_templates=self.claim_templates + other.claim_templates,
            assign={**self.assign, **other.assign},
            repair={**self.repair, **other.repair},
            events=self.events + other.events,
            requeue_after=min((s for s in pauses if s is not None), default=None),
            delete_job=self.delete_job or other.delete_job,
        )

    @property
    def empty(self) -> bool:
        """Whether nothing is to be done now; ``requeue_after`` is about later."""
        requests = (
            self.delete
            or self.create
            or self.assign
            or self.repair
            or self.events
            or self.delete_job
        )
        return self.status is None and not requests
