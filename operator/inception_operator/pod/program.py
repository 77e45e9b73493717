"""A program of the user's own in the container that trains, under a launcher that is brought in.

An init container copies the launcher into a volume, so the program's image needs nothing of ours,
only Python and torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from inception_operator.contract.names import (
    CONTAINER,
    LAUNCHER_MOUNT,
    LAUNCHER_VOLUME,
    SuccessPolicy,
)
from inception_operator.contract.types import Json
from inception_operator.spec.job import Job

from .defaults import LAUNCHER_LIMIT

INSTALL: Final = ("python3", "-m", "inception_trainer.launcher.install", LAUNCHER_MOUNT)
_PYTHON: Final = re.compile(r"(.*/)?python(\d+(\.\d+)?)?")


def build_command(program: Sequence[str]) -> list[str]:
    """The container's command: the launcher, and behind it the program.

    The launcher runs under the program's own interpreter, where it names one: an image may have
    several, and torch in only one of them.
    """
    interpreter = program[0] if _PYTHON.fullmatch(program[0]) else "python3"
    return [interpreter, LAUNCHER_MOUNT, "--", *program]


def inject_launcher(pod: Json, job: Job, image: str, pull_policy: str | None) -> None:
    """Bring the launcher into a pod and put it before the program."""
    container = next(c for c in pod["containers"] if c.get("name") == CONTAINER)
    container["command"] = build_command(job.program)
    container.pop("args", None)
    # A mount of the template's at our path would hide the launcher.
    mount = {"name": LAUNCHER_VOLUME, "mountPath": LAUNCHER_MOUNT}
    container["volumeMounts"] = [
        *(each for each in container["volumeMounts"] if each["mountPath"] != LAUNCHER_MOUNT),
        mount | {"readOnly": True},
    ]
    volume = {"name": LAUNCHER_VOLUME, "emptyDir": {"sizeLimit": LAUNCHER_LIMIT}}
    pod["volumes"] = [*pod["volumes"], volume]
    # First, so that a pod that cannot have its launcher does no other work before.
    resources = container.get("resources") or {}
    installer = _init_container(image, pull_policy, mount, resources)
    pod["initContainers"] = [installer, *pod.get("initContainers", ())]


def environment(job: Job) -> dict[str, str]:
    """What a program may want to know besides the variables of torchrun."""
    values = {}
    # The bundled trainer reads the same from INCEPTION_CONFIG.
    if job.program and job.checkpoint_path is not None:
        values["INCEPTION_CHECKPOINT_PATH"] = job.checkpoint_path
    if job.success_policy == SuccessPolicy.CHIEF:
        values["INCEPTION_SUCCESS_POLICY"] = job.success_policy
    return values


def _init_container(image: str, pull_policy: str | None, mount: Json, resources: Json) -> Json:
    """The container that copies the launcher into the shared volume.

    ``resources`` are the program's. Kubernetes reserves the greater of init and other containers,
    so with the same CPU and memory the pod asks for nothing more and keeps its class of service.
    """
    container: Json = {
        "name": LAUNCHER_VOLUME,
        "image": image,
        "command": list(INSTALL),
        "resources": {
            "requests": _plain(resources.get("requests") or {}),
            "limits": _plain(resources.get("limits") or {}),
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [mount],
    }
    if pull_policy:
        container["imagePullPolicy"] = pull_policy
    return container


def _plain(amounts: Json) -> Json:
    return {name: amounts[name] for name in ("cpu", "memory") if name in amounts}
