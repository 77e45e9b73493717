"""The job of a local run: from a file of either kind, made fit for this machine. Pure but for the
file.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from inception_operator.client.errors import USAGE, ClientError
from inception_operator.client.figures import part
from inception_operator.contract import names
from inception_operator.contract.times import format_time
from inception_operator.contract.types import Json

from .resources import check_sections, put

NAMESPACE: Final = "local"
# They lead to the only writable place of a pod, or name its user. Here the user has better ones.
_OF_THE_POD: Final = frozenset(
    (
        "HOME",
        "USER",
        "XDG_CACHE_HOME",
        "MPLCONFIGDIR",
        "TORCHINDUCTOR_CACHE_DIR",
        "TRITON_CACHE_DIR",
    )
)
_REFERENCES: Final = {"secretKeyRef": "Secret", "configMapKeyRef": "ConfigMap"}
_SOURCES: Final = {"secretRef": "Secret", "configMapRef": "ConfigMap"}
_NAME: Final = names.MAX_JOB_NAME_LENGTH


def read(path: Path) -> Json:
    """The InceptionTraining of a YAML file, or one around the trainer's own configuration.

    ``-`` is the standard input.
    """
    import yaml

    is_input = str(path) == "-"
    try:
        text = sys.stdin.buffer.read() if is_input else path.read_bytes()
        found = list(yaml.safe_load_all(text))
    except OSError as error:
        raise ClientError(f"{path}: {error.strerror}", code=USAGE) from error
    except yaml.YAMLError as error:
        raise ClientError(f"{path}: no YAML: {error}", code=USAGE) from error
    documents = [each for each in found if isinstance(each, dict)]
    jobs = [each for each in documents if each.get("kind") == names.KIND]
    if len(jobs) == 1:
        check_sections(jobs[0], str(path))
        return dict(jobs[0])
    if jobs:
        raise ClientError(f"{path}: {len(jobs)} jobs; keep one of them in the file", code=USAGE)
    if len(documents) == 1 and "apiVersion" not in documents[0]:
        return of_configuration(documents[0], "job" if is_input else path.stem)
    raise ClientError(
        f"{path}: there is no {names.KIND} in it, and it is no configuration of the trainer",
        code=USAGE,
    )


def of_configuration(configuration: Json, name: str) -> Json:
    """A job of one pod that trains what the trainer's own file says."""
    training = dict(configuration)
    # Here they are the job's: the operator writes these sections of the trainer's configuration.
    place = training.pop("checkpoint", None) or {}
    training.pop("output", None)
    spec: Json = {"training": training}
    if place.get("path"):
        spec["checkpoint"] = {**place, "path": str(Path(place["path"]).absolute())}
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name[:_NAME]},
        "spec": spec,
    }


def localize(
    resource: Json,
    output: Path,
    *,
    settings: Sequence[str] = (),
    profile: str | None = None,
    nodes: int | None = None,
    processes: int | None = None,
) -> Json:
    """The job as it runs here: claims become folders below ``output``, and so on."""
    resource = {**resource, "spec": dict(resource.get("spec") or {})}
    for setting in settings:
        put(resource, setting)
    spec = resource["spec"]
    if profile is not None:
        spec["accelerator"] = {"profile": profile}
    if nodes is not None:
        spec["numNodes"] = nodes
    if processes is not None:
        spec["numProcPerNode"] = processes
    spec["checkpoint"] = _checkpoint(spec, output)
    spec["template"] = _template(spec.get("template") or {})
    # A cluster's ways to hold a job back.
    spec["runPolicy"] = {**(spec.get("runPolicy") or {}), "suspend": False}
    spec["runPolicy"].pop("managedBy", None)
    metadata = resource.get("metadata") or {}
    resource["metadata"] = {
        "name": str(metadata.get("name") or "job"),
        "namespace": NAMESPACE,
        "uid": str(uuid.uuid4()),
        "generation": 1,
        "resourceVersion": "1",
        "creationTimestamp": format_time(datetime.now(UTC)),
    }
    return resource


def _checkpoint(spec: Json, output: Path) -> Json:
    found = dict(spec.get("checkpoint") or {})
    if "uri" not in found and ("path" not in found or "volumeClaimName" in found):
        found.pop("volumeClaimName", None)
        found["path"] = str(output.absolute())
    if count(spec.get("numNodes")) > 1:
        # Copies in memory are one for each pod, and here all pods share a /dev/shm.
        found["memory"] = "Never"
    return found


def _template(template: Json) -> Json:
    pod = dict(template.get("spec") or {})
    # So that the ports of two local runs do not meet, as those of two jobs on one node.
    pod["hostNetwork"] = True
    pod.setdefault("containers", [{"name": names.CONTAINER}])
    return {**template, "spec": pod}


def environment(
    container: Json, fields: Mapping[str, str], own: Mapping[str, str]
) -> dict[str, str]:
    """The variables of a container as a kubelet makes them; ``fields`` are those of its pod, and
    ``own`` are this machine's, for what a cluster has and it has not.
    """
    made: dict[str, str] = {}
    for variable in container["env"]:
        name, source = variable["name"], variable.get("valueFrom") or {}
        if source and "fieldRef" not in source:
            if name in own:
                made[name] = own[name]
            continue
        field = str(part(source, "fieldRef", "fieldPath"))
        value = str(variable.get("value", fields.get(field, "")))
        # A variable may refer to those before it.
        for before, known in made.items():
            value = value.replace(f"$({before})", known)
        if name not in _OF_THE_POD:
            made[name] = value
    return made


def foreign_variables(resource: Json, own: Mapping[str, str]) -> Iterator[str]:
    """What is said of variables of Secrets and ConfigMaps, which only a cluster has."""
    containers = part(resource, "spec", "template", "spec", "containers")
    # What is wrong with them the operator's decision says.
    for container in containers if isinstance(containers, list) else ():
        if part(container, "name") != names.CONTAINER:
            continue
        for variable in container.get("env") or ():
            for key, kind in _REFERENCES.items():
                source = part(variable, "valueFrom", key)
                if source is not None:
                    yield _of_variable(str(variable.get("name")), kind, source, own)
        for source in container.get("envFrom") or ():
            for key, kind in _SOURCES.items():
                if (name := part(source, key, "name")) is not None:
                    yield (
                        f"the variables of the {kind} {name} are those of the cluster: export "
                        "here what the program needs of them"
                    )


def _of_variable(name: str, kind: str, source: Json, own: Mapping[str, str]) -> str:
    text = f"{name} is of the {kind} {source.get('name')}, which is on the cluster: "
    if name in own:
        return f"{text}that of your environment is taken"
    return f"{text}export {name}=… if the program needs it, it is not set"


def check_trainer() -> None:
    """See that ranks can run here."""
    # The second stands for the extra `trainer`: this program itself reads metrics by it.
    needed = ("torch", "prometheus_client", "inception_trainer")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ClientError(
            f"a local run needs the package {missing[0]}, which this Python does not have",
            "pip install 'inception-training-operator[cli,torch,trainer]', or run this program with"
            " the Python that has torch.",
        )


def count(found: object) -> int:
    """A number of nodes or of ranks of each; 1 where it is none, or left to the operator."""
    return found if isinstance(found, int) else 1


def threads(ranks: int) -> int:
    """How many threads each of so many ranks may compute with."""
    return max(1, (os.cpu_count() or 1) // max(1, ranks))
