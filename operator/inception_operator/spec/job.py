"""The custom resource, parsed once into frozen data.

What the schema cannot refuse is refused here, naming the field and the remedy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from inception_operator.contract.names import (
    CHECKPOINT_MOUNT,
    CONTAINER,
    LAUNCHER_VOLUME,
    MANAGER,
    MAX_JOB_NAME_LENGTH,
    CleanPodPolicy,
    PodPlacement,
    SuccessPolicy,
)
from inception_operator.contract.types import Json

from .claims import Claim, parse_claims
from .failure_policy import WAIT, NodeLoss, Rule, parse_node_loss, parse_rules
from .fields import SpecError
from .fields import integer as _integer
from .fields import mapping as _mapping

MAX_NODES = 1000
MAX_PROCESSES = 64
MAX_SECONDS = 315_360_000
MAX_SPARES = 100
DEFAULT_MAX_RESTARTS = 10
MAX_PROGRESS_DEADLINE = 604800
DEFAULT_MODEL = "bninception"
RESERVED_PREFIXES = ("PET_", "MASTER_", "INCEPTION_")
RESERVED_NAMES = frozenset(("RANK", "WORLD_SIZE", "LOCAL_RANK", "POD_NAME", "POD_IP", "NODE_NAME"))
CLEAN_POD_POLICIES = (CleanPodPolicy.NONE, CleanPodPolicy.RUNNING, CleanPodPolicy.ALL)
# What the launcher preloads is the one thing of ours that a user may set.
FREE_NAMES = frozenset(("INCEPTION_PRELOAD",))
OWN_VOLUMES = frozenset(("assignment", LAUNCHER_VOLUME))
POD_PLACEMENTS = (PodPlacement.ANY, PodPlacement.ONE_PER_NODE)
SUCCESS_POLICIES = (SuccessPolicy.ALL, SuccessPolicy.CHIEF)
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


@dataclass(frozen=True)
class Accelerator:
    """``spec.accelerator``."""

    profile: str = "cpu"
    resource_name: str | None = None
    devices_per_node: int | None = None
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True)
class Checkpoint:
    """``spec.checkpoint``: exactly one of a claim, a path and a URI, and how often to save."""

    volume_claim_name: str | None = None
    path: str | None = None
    """A directory, or the URI of a place in an object store."""
    options: Json = field(default_factory=dict)

    def directory(self, job: str) -> str:
        """The directory of one job, which no other job writes to."""
        root = CHECKPOINT_MOUNT if self.path is None else self.path.rstrip("/")
        return f"{root}/{job}"


@dataclass(frozen=True)
class Scheduling:
    """``spec.runPolicy.schedulingPolicy``: how the scheduler places the pods."""

    priority_class_name: str | None = None
    topology_key: str | None = None
    pod_placement: str = PodPlacement.ANY


@dataclass(frozen=True)
class RunPolicy:
    """Limits of ``spec.runPolicy`` in seconds, None for no limit, and which pods are deleted at the
    end.
    """

    active_deadline: int | None = None
    pre_running_deadline: int | None = None
    ttl: int | None = None
    clean_pods: str = CleanPodPolicy.NONE


@dataclass(frozen=True)
class ElasticPolicy:
    """``spec.elasticPolicy``: the least size an attempt may have, and how many slots are kept warm
    without ranks.
    """

    min_nodes: int
    spare_nodes: int = 0


@dataclass(frozen=True)
class Job:
    """One InceptionTraining.

    ``num_proc_per_node`` None means auto, ``image`` None the template's or the default one,
    ``progress_deadline`` None the launcher's.
    """

    name: str
    namespace: str
    uid: str
    generation: int
    image: str | None = None
    training: Json = field(default_factory=dict)
    accelerator: Accelerator = Accelerator()
    num_nodes: int = 1
    num_proc_per_node: int | None = None
    template: Json = field(default_factory=dict)
    checkpoint: Checkpoint | None = None
    suspend: bool = False
    run_policy: RunPolicy = RunPolicy()
    scheduling: Scheduling = Scheduling()
    max_restarts: int = DEFAULT_MAX_RESTARTS
    progress_deadline: int | None = None
    failure_rules: tuple[Rule, ...] = ()
    node_loss: NodeLoss = WAIT
    success_policy: str = SuccessPolicy.ALL
    elastic: ElasticPolicy | None = None

    @property
    def program(self) -> tuple[str, ...]:
        """The user's own command line; empty for the bundled trainer."""
        return (
            *(self.trainer_overlay.get("command") or ()),
            *(self.trainer_overlay.get("args") or ()),
        )

    @property
    def trainer_overlay(self) -> Json:
        """What the template says about the trainer container."""
        containers: list[Json] = (self.template.get("spec") or {}).get("containers") or []
        return next((c for c in containers if c.get("name") == CONTAINER), {})

    @property
    def host_network(self) -> bool:
        """Whether the pods share the network of their nodes."""
        return bool((self.template.get("spec") or {}).get("hostNetwork"))

    @property
    def model(self) -> str:
        """The network, for people; nobody knows that of a program."""
        if self.program:
            return ""
        model = self.training.get("model") or {}
        return str(model.get("name") or self.training.get("recipe") or DEFAULT_MODEL)[:64]


def parse(resource: Json) -> Job:
    """The job a custom resource describes; raises `SpecError` when it can never run."""
    metadata, spec = resource["metadata"], resource.get("spec") or {}
    template = _mapping(spec, "template")
    _check_name(metadata["name"])
    _check_template(template)
    job = Job(
        name=metadata["name"],
        namespace=metadata["namespace"],
        uid=metadata["uid"],
        generation=int(metadata.get("generation") or 0),
        image=spec.get("image") or None,
        training=_mapping(spec, "training"),
        accelerator=_accelerator(_mapping(spec, "accelerator")),
        num_nodes=_integer(spec, "spec", "numNodes", 1, MAX_NODES) or 1,
        num_proc_per_node=_processes(spec),
        template=template,
        checkpoint=_checkpoint(spec.get("checkpoint")),
        suspend=bool(_mapping(spec, "runPolicy").get("suspend")),
        run_policy=_run_policy(_mapping(spec, "runPolicy")),
        scheduling=_scheduling(_mapping(spec, "runPolicy").get("schedulingPolicy") or {}, template),
        max_restarts=_max_restarts(_mapping(spec, "failurePolicy")),
        progress_deadline=_progress_deadline(_mapping(spec, "failurePolicy")),
        failure_rules=parse_rules(_mapping(spec, "failurePolicy").get("rules")),
        node_loss=parse_node_loss(_mapping(spec, "failurePolicy")),
        success_policy=_success_policy(spec),
        elastic=_elastic(spec),
    )
    if job.program and job.training:
        raise SpecError(
            "spec.training",
            f"configures the bundled trainer, which the command of the container {CONTAINER} replaces; remove either",
        )
    return job


def managed_elsewhere(resource: Json) -> bool:
    """Whether another controller has been given this job; the operator then leaves it alone."""
    policy = (resource.get("spec") or {}).get("runPolicy") or {}
    return (policy.get("managedBy") or MANAGER) != MANAGER


def run_policy(resource: Json) -> RunPolicy:
    """The life cycle alone, of a job that may not be valid otherwise; without any limit if that is
    not valid either.
    """
    try:
        return _run_policy(_mapping(resource.get("spec") or {}, "runPolicy"))
    except SpecError:
        return RunPolicy()


def _scheduling(source: Json, template: Json) -> Scheduling:
    priority = source.get("priorityClassName") or None
    if priority and (template.get("spec") or {}).get("priorityClassName"):
        path = "spec.runPolicy.schedulingPolicy.priorityClassName"
        raise SpecError(
            path, "cannot be set beside spec.template.spec.priorityClassName; remove one of them"
        )
    placement = source.get("podPlacement") or PodPlacement.ANY
    if placement not in POD_PLACEMENTS:
        path = "spec.runPolicy.schedulingPolicy.podPlacement"
        raise SpecError(path, f"{placement} is unknown; choose one of {', '.join(POD_PLACEMENTS)}")
    return Scheduling(priority, source.get("topologyKey") or None, placement)


def _run_policy(source: Json) -> RunPolicy:
    path = "spec.runPolicy"
    clean = source.get("cleanPodPolicy") or CleanPodPolicy.NONE
    if clean not in CLEAN_POD_POLICIES:
        raise SpecError(
            f"{path}.cleanPodPolicy",
            f"{clean} is unknown; choose one of {', '.join(CLEAN_POD_POLICIES)}",
        )
    return RunPolicy(
        active_deadline=_integer(source, path, "activeDeadlineSeconds", 1, MAX_SECONDS),
        pre_running_deadline=_integer(source, path, "preRunningDeadlineSeconds", 1, MAX_SECONDS),
        ttl=_integer(source, path, "ttlSecondsAfterFinished", 0, MAX_SECONDS),
        clean_pods=clean,
    )


def _check_name(name: str) -> None:
    if len(name) > MAX_JOB_NAME_LENGTH or not _NAME.fullmatch(name):
        raise SpecError(
            "metadata.name",
            f"must be at most {MAX_JOB_NAME_LENGTH} lower-case letters, digits and hyphens; choose another name",
        )


def _accelerator(source: Json) -> Accelerator:
    return Accelerator(
        profile=source.get("profile") or "cpu",
        resource_name=source.get("resourceName") or None,
        devices_per_node=_integer(source, "spec.accelerator", "devicesPerNode", 1, MAX_PROCESSES),
        claims=parse_claims(source.get("claims")),
    )


def _processes(spec: Json) -> int | None:
    if spec.get("numProcPerNode", "auto") == "auto":
        return None
    return _integer(spec, "spec", "numProcPerNode", 1, MAX_PROCESSES)


def _elastic(spec: Json) -> ElasticPolicy | None:
    if spec.get("elasticPolicy") is None:
        return None
    path, source = "spec.elasticPolicy", _mapping(spec, "elasticPolicy")
    nodes = _integer(spec, "spec", "numNodes", 1, MAX_NODES) or 1
    least = _integer(source, path, "minNodes", 1, MAX_NODES) or nodes
    most = _integer(source, path, "maxNodes", 1, MAX_NODES) or MAX_NODES
    if least > nodes:
        raise SpecError(
            f"{path}.minNodes", "must not exceed spec.numNodes; lower it, or raise numNodes"
        )
    if most < nodes:
        raise SpecError(
            f"{path}.maxNodes", "must not be below spec.numNodes; raise it, or lower numNodes"
        )
    return ElasticPolicy(least, _integer(source, path, "spareNodes", 0, MAX_SPARES) or 0)


def _max_restarts(source: Json) -> int:
    limit = _integer(source, "spec.failurePolicy", "maxRestarts", 0, 2**31 - 1)
    return DEFAULT_MAX_RESTARTS if limit is None else limit


def _progress_deadline(source: Json) -> int | None:
    return _integer(
        source, "spec.failurePolicy", "progressDeadlineSeconds", 10, MAX_PROGRESS_DEADLINE
    )


def _success_policy(spec: Json) -> str:
    policy = spec.get("successPolicy") or SuccessPolicy.ALL
    if policy not in SUCCESS_POLICIES:
        raise SpecError(
            "spec.successPolicy", f"{policy!r} is none of {', '.join(SUCCESS_POLICIES)}"
        )
    return str(policy)


def _checkpoint(source: Any) -> Checkpoint | None:
    if not source:
        return None
    claim, path, uri = source.get("volumeClaimName"), source.get("path"), source.get("uri")
    if [bool(claim), bool(path), bool(uri)].count(True) != 1:
        raise SpecError("spec.checkpoint", "needs exactly one of volumeClaimName, path and uri")
    if uri and "://" not in uri:
        raise SpecError("spec.checkpoint.uri", "must be a URI such as s3://bucket/runs")
    if path and not path.startswith("/"):
        raise SpecError(
            "spec.checkpoint.path", "must be absolute, below a volume that spec.template mounts"
        )
    options = {
        key: source[key]
        for key in ("everySteps", "everySeconds", "keep")
        if source.get(key) is not None
    }
    return Checkpoint(claim or None, path or uri or None, options)


def _check_template(template: Json) -> None:
    pod = template.get("spec") or {}
    if not isinstance(pod, dict):
        raise SpecError("spec.template.spec", "must be an object")
    for volume in pod.get("volumes") or ():
        if volume.get("name") in OWN_VOLUMES:
            raise SpecError(
                "spec.template.spec.volumes",
                f"the name {volume['name']} is taken by the operator; choose another",
            )
    if any(
        container.get("name") == LAUNCHER_VOLUME for container in pod.get("initContainers") or ()
    ):
        raise SpecError(
            "spec.template.spec.initContainers",
            f"the name {LAUNCHER_VOLUME} is taken by the operator; choose another",
        )
    for index, container in enumerate(pod.get("containers") or ()):
        _check_container(f"spec.template.spec.containers[{index}]", container)
    if pod.get("restartPolicy", "Never") != "Never":
        raise SpecError(
            "spec.template.spec.restartPolicy",
            "must be Never or left out: the operator restarts all ranks together",
        )


def _check_container(path: str, container: Json) -> None:
    name = container.get("name")
    if name != CONTAINER and not container.get("image"):
        raise SpecError(
            f"{path}.name",
            f"{name!r} needs an image of its own; to change the container that trains, name it {CONTAINER}",
        )
    if name != CONTAINER:
        return
    if container.get("args") and not container.get("command"):
        raise SpecError(
            f"{path}.args",
            "needs a command: the launcher starts the program and cannot know the image's entry point",
        )
    for variable in _reserved(container):
        raise SpecError(
            f"{path}.env", f"{variable} is set by the operator or the launcher; remove it"
        )


def _reserved(container: Json) -> Iterator[str]:
    for entry in container.get("env") or ():
        name = str(entry.get("name", ""))
        if name in RESERVED_NAMES or (
            name.startswith(RESERVED_PREFIXES) and name not in FREE_NAMES
        ):
            yield name
