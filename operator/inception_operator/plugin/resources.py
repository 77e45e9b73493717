"""The resource that the options of ``run`` describe. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from inception_operator.client.errors import USAGE, ClientError
from inception_operator.client.figures import part
from inception_operator.contract import names
from inception_operator.contract.types import Json

_NUMBER: Final = re.compile(r"[+-]?\d+")
_WORDS: Final = {"true": True, "false": False}
_DATA: Final = "claim-"
_SECTIONS: Final = (
    *("metadata", "spec", "spec.training", "spec.checkpoint", "spec.runPolicy"),
    *("spec.runPolicy.schedulingPolicy", "spec.template", "spec.template.spec"),
)


@dataclass(frozen=True)
class Wish:
    """What the options of ``run`` say; None and empty ones leave their field to the operator."""

    name: str
    recipe: str | None = None
    mode: str | None = None
    settings: Sequence[str] = ()
    command: Sequence[str] = ()
    image: str | None = None
    profile: str | None = None
    devices: int | None = None
    resource_name: str | None = None
    nodes: int | None = None
    processes: str | None = None
    least_nodes: int | None = None
    most_nodes: int | None = None
    spares: int | None = None
    checkpoint: str | None = None
    mounts: Sequence[str] = ()
    environment: Sequence[str] = ()
    cpu: str | None = None
    memory: str | None = None
    queue: str | None = None
    priority: str | None = None
    suspend: bool = False
    deadline: float | None = None
    ttl: float | None = None
    most_restarts: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


def build(wish: Wish) -> Json:
    """The resource."""
    metadata: Json = {"name": wish.name}
    labels = {**wish.labels, **({names.LABEL_QUEUE: wish.queue} if wish.queue else {})}
    if labels:
        metadata["labels"] = labels
    spec: Json | None = _without_nothing(
        {
            "training": _without_nothing({"mode": wish.mode, "recipe": wish.recipe}),
            "image": wish.image,
            "accelerator": _without_nothing(
                {
                    "profile": wish.profile,
                    "resourceName": wish.resource_name,
                    "devicesPerNode": wish.devices,
                }
            ),
            "numNodes": wish.nodes,
            "numProcPerNode": _integer(wish.processes),
            "elasticPolicy": _without_nothing(
                {
                    "minNodes": wish.least_nodes,
                    "maxNodes": wish.most_nodes,
                    "spareNodes": wish.spares,
                }
            ),
            "checkpoint": checkpoint(wish.checkpoint) if wish.checkpoint else None,
            "runPolicy": _run_policy(wish),
            "failurePolicy": _without_nothing({"maxRestarts": wish.most_restarts}),
            "template": _template(wish),
        }
    )
    resource: Json = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": metadata,
        "spec": spec or {},
    }
    for setting in wish.settings:
        put(resource, setting)
    if not resource["spec"].get("training") and not wish.command:
        raise ClientError(
            "nothing says what to train",
            "Give --recipe NAME (`recipes` lists them), --set data.kind=…, or a program of your "
            "own after --.",
            USAGE,
        )
    return resource


def _run_policy(wish: Wish) -> Json | None:
    return _without_nothing(
        {
            "suspend": True if wish.suspend else None,
            "activeDeadlineSeconds": _seconds(wish.deadline),
            "ttlSecondsAfterFinished": _seconds(wish.ttl),
            "schedulingPolicy": _without_nothing({"priorityClassName": wish.priority}),
        }
    )


def _template(wish: Wish) -> Json | None:
    requests = _without_nothing({"cpu": wish.cpu, "memory": wish.memory})
    limits = _without_nothing({"memory": wish.memory})
    volumes, mounts = _volumes(wish.mounts)
    container = _without_nothing(
        {
            "command": list(wish.command),
            "env": [_variable(text) for text in wish.environment],
            "resources": _without_nothing({"requests": requests, "limits": limits}),
            "volumeMounts": mounts,
        }
    )
    if container is None:
        return None
    pod = {"containers": [{"name": names.CONTAINER, **container}], "volumes": volumes}
    return {"spec": _without_nothing(pod)}


def _variable(text: str) -> Json:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise ClientError(f"--env {text}: write NAME=VALUE", code=USAGE)
    return {"name": name, "value": value}


def _volumes(texts: Sequence[str]) -> tuple[list[Json], list[Json]]:
    volumes, mounts = [], []
    for number, text in enumerate(texts):
        found = re.fullmatch(r"([^:]+):(/[^:]*)(:ro)?", text)
        if found is None:
            raise ClientError(f"--mount {text}: write CLAIM:/path, or CLAIM:/path:ro", code=USAGE)
        claim, path, read_only = found.groups()
        name = f"{_DATA}{number}"
        volumes.append({"name": name, "persistentVolumeClaim": {"claimName": claim}})
        mount: Json = {"name": name, "mountPath": path}
        mounts.append({**mount, "readOnly": True} if read_only else mount)
    return volumes, mounts


def checkpoint(place: str) -> Json:
    """Where checkpoints go: a URI, a path in the container, or else the name of a claim."""
    if "://" in place:
        return {"uri": place}
    if place.startswith("/"):
        return {"path": place}
    return {"volumeClaimName": place}


def put(resource: Json, setting: str) -> None:
    """Set one key: of ``spec.training``, or with ``spec.`` in front any of the spec."""
    path, sign, text = setting.partition("=")
    if not sign or not all(path.split(".")):
        raise ClientError(f"--set {setting}: write KEY=VALUE, such as batch.global=256", code=USAGE)
    keys = path.split(".")
    if keys == ["spec"]:
        raise ClientError(f"--set {setting}: name a field of it, such as spec.numNodes", code=USAGE)
    if keys[0] != "spec":
        keys = ["spec", "training", *keys]
    place = resource
    for key in keys[:-1]:
        place = place.setdefault(key, {})
        if not isinstance(place, dict):
            raise ClientError(f"--set {setting}: {key} is no section", code=USAGE)
    place[keys[-1]] = value(text)
    check_sections(resource, f"--set {setting}")


def check_sections(resource: Json, where: str) -> None:
    """Raise for a section that is none; what else is wrong the API server or the operator says."""
    for path in _SECTIONS:
        found = part(resource, *path.split("."))
        if found is not None and not isinstance(found, dict):
            raise ClientError(f"{where}: {path} must be a section with keys of its own", code=USAGE)


def value(text: str) -> Any:
    """A value as the API has it: integers, true and false, and all else as strings, decimal numbers
    too; in brackets or quotes it is JSON.
    """
    if text[:1] in ("[", "{", '"'):
        import json

        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ClientError(f"{text[:100]}: no JSON: {error}", code=USAGE) from error
    if _NUMBER.fullmatch(text):
        return int(text)
    return _WORDS.get(text, text)


def _integer(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else text


def _seconds(count: float | None) -> int | None:
    return None if count is None else int(count)


def _without_nothing(source: Mapping[str, Any]) -> Json | None:
    """The keys that say something; None when none does."""
    kept = {key: value for key, value in source.items() if value is not None and value != []}
    return kept or None
