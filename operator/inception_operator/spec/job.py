"""The custom resource, parsed once per decision into a frozen `Job`.

The API server has checked the resource against the CRD. What a schema cannot say, or an older CRD
let through, is refused here, naming the field and the remedy.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Self

from pydantic import (
    AfterValidator,
    AliasPath,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from inception_operator.contract.decoding import UNREADABLE
from inception_operator.contract.errors import SpecError
from inception_operator.contract.names import (
    CHECKPOINT_MOUNT,
    CONTAINER,
    MANAGER,
    MAX_JOB_NAME_LENGTH,
    CleanPodPolicy,
    PodPlacement,
    StragglerPolicy,
    SuccessPolicy,
)
from inception_operator.contract.types import Json

from .claims import Claim, check_names, check_shape
from .data_cache import check_cache
from .failure_policy import NodeLoss, NodeLossFields, Rule, check_rules
from .template import check_template
from .validation import AS_TUPLE, Model, OneOf, Remedy, Within, first_problem, refusal

MAX_NODES: Final = 1000
MAX_PROCESSES: Final = 64
MAX_SECONDS: Final = 315_360_000
MAX_SPARES: Final = 100
DEFAULT_MAX_RESTARTS: Final = 10
# A loop of crashes ends within minutes, and what lasts as long as this is none: the kubelet forgets
# its own back-off after ten minutes, too.
DEFAULT_RESET_AFTER: Final = 600
MAX_PROGRESS_DEADLINE: Final = 604800
DEFAULT_MODEL: Final = "bninception"
CLEAN_POD_POLICIES: Final = (CleanPodPolicy.NONE, CleanPodPolicy.RUNNING, CleanPodPolicy.ALL)
POD_PLACEMENTS: Final = (PodPlacement.ANY, PodPlacement.ONE_PER_NODE)
STRAGGLER_POLICIES: Final = (
    StragglerPolicy.NONE,
    StragglerPolicy.REPORT,
    StragglerPolicy.REPLACE,
)
SUCCESS_POLICIES: Final = (SuccessPolicy.ALL, SuccessPolicy.CHIEF)
# The limit of status.model in the CRD.
_MAX_MODEL: Final = 64
_UNKNOWN: Final = "{input} is unknown; choose one of {choices}"
# Taken over as they are; a null in the template or in the trainer's section may mean something.
_RAW: Final = ("template", "training")
_NESTED: Final = (dict, list)

Seconds = Annotated[int, Within(1, MAX_SECONDS)]
Nodes = Annotated[int, Within(1, MAX_NODES)]
Processes = Annotated[int, Within(1, MAX_PROCESSES)]


class Accelerator(Model):
    """``spec.accelerator``: the row of the accelerator table, and how many devices a pod gets."""

    profile: str = "cpu"
    resource_name: str | None = None
    devices_per_node: Processes | None = None
    claims: Annotated[
        tuple[Claim, ...], AS_TUPLE, BeforeValidator(check_shape), AfterValidator(check_names)
    ] = ()


class Checkpoint(Model):
    """``spec.checkpoint``: exactly one of a claim, a path and a URI, and how often to save."""

    volume_claim_name: str | None = None
    path: str | None = None
    uri: str | None = None
    every_steps: int | None = None
    every_epochs: int | None = None
    every_seconds: int | None = None
    keep: int | None = None
    keep_every_epochs: int | None = None
    memory: str | None = None

    @model_validator(mode="after")
    def _has_one_place(self) -> Self:
        places = (self.volume_claim_name, self.path, self.uri)
        if sum(place is not None for place in places) != 1:
            raise refusal("needs exactly one of volumeClaimName, path and uri")
        if self.uri is not None and "://" not in self.uri:
            raise refusal("must be a URI such as s3://bucket/runs", at="uri")
        if self.path is not None and not self.path.startswith("/"):
            raise refusal("must be absolute, below a volume that spec.template mounts", at="path")
        return self

    @property
    def options(self) -> Json:
        """How often to save and how many to keep, on disk and in memory, as the trainer's
        configuration names it.
        """
        options = {
            "everySteps": self.every_steps,
            "everyEpochs": self.every_epochs,
            "everySeconds": self.every_seconds,
            "keep": self.keep,
            "keepEveryEpochs": self.keep_every_epochs,
            "memory": self.memory,
        }
        return {key: value for key, value in options.items() if value is not None}

    def directory(self, namespace: str, job: str) -> str:
        """The directory of one job, which no other job writes to: a path in the pod, or a URI.

        A store is the same place for all namespaces, a claim and a volume of the template are not.
        """
        if self.uri is not None:
            return f"{self.uri.rstrip('/')}/{namespace}/{job}"
        return self.flat_directory(job)

    def flat_directory(self, job: str) -> str:
        """The same where the namespace is not part of it, as up to version 0.1 in stores, too."""
        root = self.path or self.uri or CHECKPOINT_MOUNT
        return f"{root.rstrip('/')}/{job}"


class Scheduling(Model):
    """``spec.runPolicy.schedulingPolicy``: how the scheduler places the pods."""

    priority_class_name: str | None = None
    topology_key: str | None = None
    pod_placement: Annotated[str, OneOf(POD_PLACEMENTS, _UNKNOWN)] = PodPlacement.ANY


class RunPolicy(Model):
    """The limits of ``spec.runPolicy`` in seconds, None for no limit, and the pods deleted last."""

    active_deadline: Seconds | None = Field(default=None, validation_alias="activeDeadlineSeconds")
    pre_running_deadline: Seconds | None = Field(
        default=None, validation_alias="preRunningDeadlineSeconds"
    )
    ttl: Annotated[int, Within(0, MAX_SECONDS)] | None = Field(
        default=None, validation_alias="ttlSecondsAfterFinished"
    )
    clean_pods: Annotated[str, OneOf(CLEAN_POD_POLICIES, _UNKNOWN)] = Field(
        default=CleanPodPolicy.NONE, validation_alias="cleanPodPolicy"
    )


class ElasticPolicy(Model):
    """``spec.elasticPolicy``: the sizes an attempt may have.

    ``min_nodes`` is the least of them and `Job.num_nodes` the greatest; ``max_nodes`` only limits
    to what the user may raise that later. ``spare_nodes`` are slots kept warm without ranks.
    """

    min_nodes: Nodes
    max_nodes: Nodes = MAX_NODES
    spare_nodes: Annotated[int, Within(0, MAX_SPARES)] = 0


def _auto_is_none(value: Any) -> Any:
    return None if value == "auto" else value


def _empty_is_none(value: Any) -> Any:
    return None if value == {} else value


class Job(Model):
    """One InceptionTraining.

    ``num_proc_per_node`` None means auto, ``image`` None the template's or the default one,
    ``progress_deadline`` None the launcher's. The order of the fields is the order of the checks.
    """

    name: Annotated[
        str,
        Field(
            max_length=MAX_JOB_NAME_LENGTH,
            pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
            validation_alias=AliasPath("metadata", "name"),
        ),
        Remedy(
            f"must be at most {MAX_JOB_NAME_LENGTH} lower-case letters, digits and hyphens; "
            "choose another name"
        ),
    ]
    namespace: str = Field(validation_alias=AliasPath("metadata", "namespace"))
    uid: str = Field(validation_alias=AliasPath("metadata", "uid"))
    created: str = Field(default="", validation_alias=AliasPath("metadata", "creationTimestamp"))
    template: Annotated[Json, AfterValidator(check_template)] = Field(default_factory=dict)
    image: str | None = None
    training: Json = Field(default_factory=dict)
    accelerator: Accelerator = Accelerator()
    num_nodes: Nodes = 1
    num_proc_per_node: Annotated[Processes | None, BeforeValidator(_auto_is_none)] = None
    checkpoint: Annotated[Checkpoint | None, BeforeValidator(_empty_is_none)] = None
    recorded_path: str | None = Field(default=None, validation_alias="recordedCheckpointPath")
    began_before: bool = Field(default=False, validation_alias="beganBefore")
    run_policy: RunPolicy = RunPolicy()
    suspend: bool = Field(default=False, validation_alias=AliasPath("runPolicy", "suspend"))
    scheduling: Scheduling = Field(
        default=Scheduling(), validation_alias=AliasPath("runPolicy", "schedulingPolicy")
    )
    # First of the failure policy, because it refuses one that is not an object at all: along an
    # AliasPath such a one would look like an absent field.
    node_loss_fields: NodeLossFields = Field(
        default=NodeLossFields(), validation_alias="failurePolicy"
    )
    max_restarts: Annotated[int, Within(0, 2**31 - 1)] = Field(
        default=DEFAULT_MAX_RESTARTS, validation_alias=AliasPath("failurePolicy", "maxRestarts")
    )
    reset_after: Seconds = Field(
        default=DEFAULT_RESET_AFTER,
        validation_alias=AliasPath("failurePolicy", "resetAfterSeconds"),
    )
    progress_deadline: Annotated[int, Within(0, MAX_PROGRESS_DEADLINE)] | None = Field(
        default=None, validation_alias=AliasPath("failurePolicy", "progressDeadlineSeconds")
    )
    straggler_policy: Annotated[str, OneOf(STRAGGLER_POLICIES)] = Field(
        default=StragglerPolicy.REPORT,
        validation_alias=AliasPath("failurePolicy", "stragglerPolicy"),
    )
    failure_rules: Annotated[tuple[Rule, ...], AS_TUPLE, AfterValidator(check_rules)] = Field(
        default=(), validation_alias=AliasPath("failurePolicy", "rules")
    )
    success_policy: Annotated[str, OneOf(SUCCESS_POLICIES)] = SuccessPolicy.ALL
    elastic: ElasticPolicy | None = Field(default=None, validation_alias="elasticPolicy")

    @field_validator("training", mode="after")
    @classmethod
    def _configures_no_program(cls, training: Json, info: ValidationInfo) -> Json:
        if training and _program(info.data.get("template", {})):
            raise refusal(
                "configures the bundled trainer, which the command of the container "
                f"{CONTAINER} replaces; remove either"
            )
        template = info.data.get("template", {})
        check_cache(training, _trainer(template), _pod(template))
        return training

    @field_validator("scheduling", mode="after")
    @classmethod
    def _has_one_priority(cls, scheduling: Scheduling, info: ValidationInfo) -> Scheduling:
        pod = _pod(info.data.get("template", {}))
        if scheduling.priority_class_name and pod.get("priorityClassName"):
            raise refusal(
                "cannot be set beside spec.template.spec.priorityClassName; remove one of them",
                at="priorityClassName",
            )
        return scheduling

    # Before the policy itself is checked, so that min_nodes is always a number for the decisions.
    @field_validator("elastic", mode="before")
    @classmethod
    def _least_size_is_the_full_one(cls, source: Any, info: ValidationInfo) -> Any:
        nodes = info.data.get("num_nodes", 1)
        return {"minNodes": nodes, **source} if isinstance(source, dict) else source

    @field_validator("elastic", mode="after")
    @classmethod
    def _sizes_include_the_full_one(
        cls, elastic: ElasticPolicy | None, info: ValidationInfo
    ) -> ElasticPolicy | None:
        nodes = info.data.get("num_nodes", 1)
        if elastic is not None and elastic.min_nodes > nodes:
            raise refusal(
                "must not exceed spec.numNodes; lower it, or raise numNodes", at="minNodes"
            )
        if elastic is not None and elastic.max_nodes < nodes:
            raise refusal(
                "must not be below spec.numNodes; raise it, or lower numNodes", at="maxNodes"
            )
        return elastic

    @property
    def node_loss(self) -> NodeLoss:
        """When a node counts as lost, and what becomes of its pods."""
        return self.node_loss_fields.node_loss

    @property
    def names_stragglers(self) -> bool:
        """Whether somebody wants to know which rank the others wait for."""
        return self.straggler_policy != StragglerPolicy.NONE

    @property
    def replaces_stragglers(self) -> bool:
        """Whether its pod is to be replaced, where it stays so slow."""
        return self.straggler_policy == StragglerPolicy.REPLACE

    @property
    def program(self) -> tuple[str, ...]:
        """The user's own command line; empty for the bundled trainer."""
        return _program(self.template)

    @property
    def tells_steps(self) -> bool:
        """Whether its attempts are known to tell their steps: the bundled trainer does while it
        trains.
        """
        return not self.program and self.training.get("mode", "Train") == "Train"

    @property
    def trainer_overlay(self) -> Json:
        """What the template says about the trainer container."""
        return _trainer(self.template)

    @property
    def pod_overlay(self) -> Json:
        """What the template says about the pod: a PodSpec, or a part of one."""
        return _pod(self.template)

    @property
    def checkpoint_path(self) -> str | None:
        """The job's directory of ``spec.checkpoint``, the same all its life; None without one.

        A job that version 0.1 began stays where it is: some of its pods may be of that time, and
        programs of others do not look anywhere else.
        """
        if self.checkpoint is None:
            return None
        flat = self.checkpoint.flat_directory(self.name)
        if self.recorded_path == flat or (self.began_before and self.recorded_path is None):
            return flat
        return self.checkpoint.directory(self.namespace, self.name)

    @property
    def other_checkpoint_path(self) -> str | None:
        """Where a job of this name may have left checkpoints besides; None in a place that has no
        path of two kinds.
        """
        if self.checkpoint is None or self.checkpoint.uri is None:
            return None
        flat = self.checkpoint.flat_directory(self.name)
        own = self.checkpoint.directory(self.namespace, self.name)
        return own if self.checkpoint_path == flat else flat

    @property
    def host_network(self) -> bool:
        """Whether the pods share the network of their nodes."""
        return bool(self.pod_overlay.get("hostNetwork"))

    @property
    def model(self) -> str:
        """The network, for a column of ``kubectl get``; empty where a program has its own."""
        if self.program:
            return ""
        model = self.training.get("model")
        name = model.get("name") if isinstance(model, dict) else None
        return str(name or self.training.get("recipe") or DEFAULT_MODEL)[:_MAX_MODEL]


def parse(resource: Json) -> Job:
    """The job that a custom resource describes; raises `SpecError` when it can never run."""
    if UNREADABLE in resource:
        path, problem = resource[UNREADABLE]
        raise SpecError(str(path), f"{problem}; remove what no pod needs")
    spec = resource.get("spec") or {}
    if not isinstance(spec, dict):
        raise SpecError("spec", "must be an object")
    # One flat mapping, so that paths of errors are those of the spec.
    source = _without_nulls({key: spec[key] for key in spec if key not in _RAW})
    source |= {key: spec[key] for key in _RAW if spec.get(key) is not None}
    # Last, so that a field of the spec cannot pose as the metadata.
    source["metadata"] = resource.get("metadata")
    source |= _checkpoint_history(resource)
    try:
        return Job.model_validate(source, by_name=False)
    except ValidationError as error:
        path, problem = first_problem(error)
        raise SpecError(path if path.startswith("metadata") else f"spec.{path}", problem) from error


def managed_elsewhere(resource: Json) -> bool:
    """Whether another controller has been given this job; the operator then leaves it alone."""
    policy = (resource.get("spec") or {}).get("runPolicy") or {}
    return (policy.get("managedBy") or MANAGER) != MANAGER


def run_policy(resource: Json) -> RunPolicy:
    """The life cycle alone, of a job that may not be valid otherwise.

    Without any limit if that is not valid either.
    """
    source = (resource.get("spec") or {}).get("runPolicy") or {}
    # suspend and schedulingPolicy are not looked at: an error there must not lift a deadline.
    try:
        return RunPolicy.model_validate(_without_nulls(source), by_name=False)
    except ValidationError:
        return RunPolicy()


def _checkpoint_history(resource: Json) -> Json:
    """What the status says about the place of the job's checkpoints.

    Version 0.1 wrote no ``checkpointPath``; from the first pods on a later one always does.
    """
    status = resource.get("status") or {}
    path = status.get("checkpointPath")
    return {
        "recordedCheckpointPath": path if isinstance(path, str) else None,
        "beganBefore": path is None and "startTime" in status,
    }


def _without_nulls(value: Any) -> Any:
    """The value without the keys that say nothing, at any depth.

    The API server drops nulls where the CRD has a type, but not what an older CRD let through; and
    typed clients send "" for a field that is not set.
    """
    if isinstance(value, dict):
        return {
            key: _without_nulls(each) if isinstance(each, _NESTED) else each
            for key, each in value.items()
            if each is not None and each != ""
        }
    if isinstance(value, list):
        return [_without_nulls(each) if isinstance(each, _NESTED) else each for each in value]
    return value


def _pod(template: Json) -> Json:
    return template.get("spec") or {}


def _trainer(template: Json) -> Json:
    containers: list[Json] = _pod(template).get("containers") or []
    return next((each for each in containers if each.get("name") == CONTAINER), {})


def _program(template: Json) -> tuple[str, ...]:
    trainer = _trainer(template)
    return (*(trainer.get("command") or ()), *(trainer.get("args") or ()))
