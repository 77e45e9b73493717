"""A pod that does one thing for a job none of whose pods runs any more: with the image, volumes and
credentials of one that has ended, and without its devices.
"""

from __future__ import annotations

import copy
import secrets
import time
from collections.abc import Sequence
from typing import Any, Final

from inception_operator.client.cluster import Cluster
from inception_operator.client.errors import TIMED_OUT, ClientError
from inception_operator.client.figures import name_of, part
from inception_operator.client.place import FIELD_MANAGER
from inception_operator.client.pod_logs import end_of_log, has_ended
from inception_operator.client.text import clean_line
from inception_operator.contract import names
from inception_operator.contract.types import Json

from .pod_exec import trainer_container
from .terminal import tell

_SECONDS: Final = 900
_POLL_SECONDS: Final = 2.0
_LOG_BYTES: Final = 1 << 16
_LOG_LINES: Final = 200
_SILENCE_SECONDS: Final = 30.0
_OF_POD: Final = (
    *("securityContext", "imagePullSecrets", "serviceAccountName", "nodeSelector", "tolerations"),
    *("runtimeClassName", "priorityClassName"),
)
_OF_CONTAINER: Final = (
    *("image", "imagePullPolicy", "env", "envFrom", "volumeMounts", "securityContext"),
)
# Enough to read a checkpoint; not limited, because how large one is is not known.
_REQUESTS: Final = {"cpu": "100m", "memory": "1Gi"}
# What the API server puts into pods by itself.
_INJECTED: Final = "kube-api-access-"


def body(job: Json, pod: Json, command: Sequence[str], name: str) -> Json:
    """The pod. Pure."""
    spec: Json = part(pod, "spec") or {}
    found = trainer_container(pod)
    container: Json = {key: copy.deepcopy(found[key]) for key in _OF_CONTAINER if key in found}
    mounts = [each for each in container.get("volumeMounts") or () if not _is_injected(each)]
    mounted = {each["name"] for each in mounts}
    volumes = [each for each in spec.get("volumes") or () if each["name"] in mounted]
    own: dict[str, Any] = {key: copy.deepcopy(spec[key]) for key in _OF_POD if key in spec}
    owner = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": name_of(job),
        "uid": job["metadata"]["uid"],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            # Not the labels of the job's pods: the operator would take it for one of them.
            "labels": {"app.kubernetes.io/managed-by": FIELD_MANAGER},
            "ownerReferences": [owner],
        },
        "spec": {
            **own,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": _SECONDS,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "volumes": copy.deepcopy(volumes),
            "containers": [
                {
                    **container,
                    "name": names.CONTAINER,
                    "command": list(command),
                    "volumeMounts": mounts,
                    "resources": {"requests": dict(_REQUESTS)},
                }
            ],
        },
    }


def _is_injected(mount: Json) -> bool:
    return str(mount["name"]).startswith(_INJECTED)


def run(cluster: Cluster, job: Json, pod: Json, command: Sequence[str]) -> tuple[int, list[str]]:
    """Run a command in a pod like this one; its exit code, and the last lines that it has written.

    The pod is deleted afterwards.
    """
    name = f"{name_of(job)}-helper-{secrets.token_hex(3)}"
    cluster.request(
        "POST",
        cluster.core_path("pods"),
        body(job, pod, command, name),
        query=[("fieldManager", FIELD_MANAGER)],
    )
    tell(f"no pod of {name_of(job)} runs: the pod {name} does it")
    try:
        ended = _ended(cluster, name)
        return _code(ended), _log(cluster, name)
    finally:
        try:
            cluster.request("DELETE", cluster.core_path("pods", name))
        except ClientError as error:
            tell(f"the pod {name} could not be deleted: {error.message}; it goes with the job")


def _ended(cluster: Cluster, name: str) -> Json:
    deadline = time.monotonic() + _SECONDS
    while True:
        found = cluster.request("GET", cluster.core_path("pods", name))
        if has_ended(found):
            return found
        if time.monotonic() > deadline:
            raise ClientError(f"the pod {name} has not ended: {_waits(found)}", code=TIMED_OUT)
        time.sleep(_POLL_SECONDS)


def _waits(pod: Json) -> str:
    """Why a pod has not begun, as far as it says."""
    texts = [
        part(each, "state", "waiting", "message") or part(each, "state", "waiting", "reason")
        for each in part(pod, "status", "containerStatuses") or ()
    ]
    texts += [each.get("message") for each in part(pod, "status", "conditions") or ()]
    return clean_line(next((text for text in texts if text), "nothing says why"))


def _code(pod: Json) -> int:
    for status in part(pod, "status", "containerStatuses") or ():
        code = part(status, "state", "terminated", "exitCode")
        if isinstance(code, int):
            return code
    return 0 if part(pod, "status", "phase") == "Succeeded" else 1


def _log(cluster: Cluster, name: str) -> list[str]:
    lines = end_of_log(cluster, name, _LOG_LINES, _LOG_BYTES, _SILENCE_SECONDS)
    return [line for line in lines if line.strip()]
