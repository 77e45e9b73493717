"""``spec.template``: the part of a PodTemplateSpec that the user lays over the operator's own pod.

The CRD takes most of it as it is, so the shape of what the operator reads is checked here. All
else is left to the API server, which checks the pod that comes of it. The template stays plain
JSON: `pod.build` merges it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final

from pydantic import Field, ValidationError

from inception_operator.contract.names import CONTAINER, LAUNCHER_VOLUME
from inception_operator.contract.types import Json

from .validation import Model, first_problem, refusal

RESERVED_PREFIXES: Final = ("PET_", "MASTER_", "INCEPTION_")
RESERVED_NAMES: Final = frozenset(
    ("RANK", "WORLD_SIZE", "LOCAL_RANK", "POD_NAME", "POD_IP", "NODE_NAME")
)
# What the launcher preloads is the one thing of ours that a user may set.
FREE_NAMES: Final = frozenset(("INCEPTION_PRELOAD",))
PROBE_HANDLERS: Final = frozenset(("exec", "grpc", "httpGet", "tcpSocket"))
OWN_VOLUMES: Final = frozenset(("assignment", LAUNCHER_VOLUME))


# Kubernetes means the same by null and by nothing, so every field may be null.
class Named(Model):
    """An entry of a list that Kubernetes merges by name."""

    name: str | None = None


class VolumeMount(Model):
    """A mount; the operator replaces those at its own paths."""

    mount_path: str


class Port(Model):
    """A port of a container, which Kubernetes merges by number."""

    container_port: int | None = None


class Resources(Model):
    """Requests and limits; quantities may be strings or numbers."""

    requests: Json | None = None
    limits: Json | None = None
    claims: list[Json] | None = None


class Container(Named):
    """A container, or a part of the trainer's."""

    image: str | None = None
    command: list[str] | None = None
    args: list[str] | None = None
    env: list[Named] | None = None
    ports: list[Port] | None = None
    readiness_probe: Json | None = None
    resources: Resources | None = None
    volume_mounts: list[VolumeMount] | None = None


class Terms(Model):
    """Terms of one kind of affinity, to which the operator may add its own."""

    preferred: list[Json] | None = Field(
        default=None, validation_alias="preferredDuringSchedulingIgnoredDuringExecution"
    )


class HardTerms(Terms):
    """Those of podAntiAffinity, where the operator may add a condition too."""

    required: list[Json] | None = Field(
        default=None, validation_alias="requiredDuringSchedulingIgnoredDuringExecution"
    )


class Affinity(Model):
    """The pod's affinity."""

    node_affinity: Terms | None = None
    pod_affinity: Terms | None = None
    pod_anti_affinity: HardTerms | None = None


class PodSpec(Model):
    """The fields of a PodSpec that the operator reads or adds to."""

    affinity: Affinity | None = None
    containers: list[Container] | None = None
    host_network: bool | None = None
    image_pull_secrets: list[Named] | None = None
    init_containers: list[Named] | None = None
    priority_class_name: str | None = None
    resource_claims: list[Named] | None = None
    resources: Resources | None = None
    restart_policy: str | None = None
    termination_grace_period_seconds: int | None = None
    tolerations: list[Json] | None = None
    volumes: list[Named] | None = None


class Metadata(Model):
    """Labels and annotations of the pods."""

    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class PodTemplate(Model):
    """The template as a whole."""

    metadata: Metadata | None = None
    spec: PodSpec | None = None


def check_template(template: Json) -> Json:
    """Refuse a template that the operator cannot use; the template itself stays as it is."""
    try:
        pod = PodTemplate.model_validate(template, by_name=False).spec or PodSpec()
    except ValidationError as error:
        path, problem = first_problem(error)
        raise refusal(problem, at=path) from error
    # Names that would collide with what is added later, when the merge can no longer tell them.
    _check_names("volumes", pod.volumes or (), OWN_VOLUMES)
    _check_names("initContainers", pod.init_containers or (), {LAUNCHER_VOLUME})
    for index, container in enumerate(pod.containers or ()):
        _check_container(f"spec.containers[{index}]", container)
    if pod.restart_policy not in (None, "Never"):
        raise refusal(
            "must be Never or left out: the operator restarts all ranks together",
            at="spec.restartPolicy",
        )
    return template


def _check_names(key: str, entries: Iterable[Named], taken: Collection[str]) -> None:
    for entry in entries:
        if entry.name is not None and entry.name in taken:
            raise refusal(
                f"the name {entry.name} is taken by the operator; choose another", at=f"spec.{key}"
            )


def _check_container(path: str, container: Container) -> None:
    if container.name != CONTAINER:
        if not container.image:
            raise refusal(
                f"{container.name!r} needs an image of its own; "
                f"to change the container that trains, name it {CONTAINER}",
                at=f"{path}.name",
            )
        return
    if container.args and not container.command:
        raise refusal(
            "needs a command: the launcher starts the program "
            "and cannot know the image's entry point",
            at=f"{path}.args",
        )
    # Kubernetes takes one handler; and by the launcher's a member's loss is noticed.
    if handlers := sorted(PROBE_HANDLERS.intersection(container.readiness_probe or ())):
        raise refusal(
            "the launcher tells the kubelet when this container is ready; remove it, a "
            "livenessProbe and a startupProbe are free",
            at=f"{path}.readinessProbe.{handlers[0]}",
        )
    for variable in _reserved(container.env or ()):
        raise refusal(
            f"{variable} is set by the operator or the launcher; remove it", at=f"{path}.env"
        )


def _reserved(env: Iterable[Named]) -> Iterator[str]:
    for variable in env:
        name = variable.name or ""
        if name in FREE_NAMES:
            continue
        if name in RESERVED_NAMES or name.startswith(RESERVED_PREFIXES):
            yield name
