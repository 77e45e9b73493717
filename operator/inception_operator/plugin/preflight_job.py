"""The small job that tries what another one needs: made of its resource. Pure."""

from __future__ import annotations

import copy
from typing import Any, Final

from inception_operator.client.errors import USAGE, ClientError
from inception_operator.contract import names
from inception_operator.contract.names import CleanPodPolicy, StragglerPolicy
from inception_operator.contract.types import Json

SUFFIX: Final = "-preflight"
_MODE: Final = "Preflight"
# Should this program be killed, the operator ends and removes what it has left.
_MARGIN_SECONDS: Final = 120
_TTL_SECONDS: Final = 3600
# How and where pods run; how long, how often and with which sizes a job goes on is another matter.
_KEPT: Final = (*("image", "accelerator", "numNodes", "numProcPerNode", "checkpoint", "template"),)
_OF_PROGRAM: Final = ("command", "args", "workingDir")


def name_of(job: str) -> str:
    """The name of the small job: as long as it may be, with its end."""
    return f"{job[: names.MAX_JOB_NAME_LENGTH - len(SUFFIX)].rstrip('-.')}{SUFFIX}"


def of(resource: Json, seconds: float) -> tuple[Json, str]:
    """The small job for another one, and what of that one it cannot try.

    It has a name of its own, and so a directory of its own below the place of the checkpoints. It
    is tried once, and ends after so many seconds.
    """
    spec = resource.get("spec")
    if not isinstance(spec, dict):
        raise ClientError("the job has no spec", "docs/api.md lists its fields.", USAGE)
    made = {key: copy.deepcopy(spec[key]) for key in _KEPT if spec.get(key) is not None}
    made["training"], remark = _training(spec, made)
    made["failurePolicy"] = {"maxRestarts": 0, "stragglerPolicy": StragglerPolicy.NONE}
    made["runPolicy"] = {
        "activeDeadlineSeconds": int(seconds) + _MARGIN_SECONDS,
        "ttlSecondsAfterFinished": _TTL_SECONDS,
        "cleanPodPolicy": CleanPodPolicy.NONE,
    }
    scheduling = (spec.get("runPolicy") or {}).get("schedulingPolicy")
    if scheduling:
        made["runPolicy"]["schedulingPolicy"] = copy.deepcopy(scheduling)
    metadata = resource.get("metadata") or {}
    own: Json = {"name": name_of(str(metadata.get("name") or "job"))}
    for key in ("namespace", "labels"):
        if metadata.get(key):
            own[key] = copy.deepcopy(metadata[key])
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": own,
        "spec": made,
    }, remark


def _training(spec: Json, made: Json) -> tuple[Json, str]:
    program = _container(made)
    if program is None or not program.get("command"):
        training: Json = copy.deepcopy(spec.get("training") or {})
        # It records steps, of which this mode has none.
        training.pop("profiler", None)
        return {**training, "mode": _MODE}, ""
    for key in _OF_PROGRAM:
        program.pop(key, None)
    # The image of the program need not have the bundled trainer.
    program.pop("image", None)
    made.pop("image", None)
    return {"mode": _MODE}, (
        "the job runs a program of its own: its devices, network and place of checkpoints are "
        "tried with the bundled trainer and its image; what it reads is not known, so no data is"
    )


def _container(spec: Json) -> dict[str, Any] | None:
    """What the template says of the container that trains."""
    template = spec.get("template")
    pod = template.get("spec") if isinstance(template, dict) else None
    containers = pod.get("containers") if isinstance(pod, dict) else None
    for container in containers if isinstance(containers, list) else ():
        if isinstance(container, dict) and container.get("name") == names.CONTAINER:
            return container
    return None
