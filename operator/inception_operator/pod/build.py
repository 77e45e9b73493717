"""The pod of a slot, built from the job alone.

In three layers: the operator's own part with what the vendor's row brings (`devices`), the user's
template over it (`merge`), then what must hold whatever the template says: the assignment's volume,
the devices, the environment, the job's wishes for placement, and the launcher before a program of
the user's own (`program`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable
from typing import Any, Final

from inception_operator.accelerators.resolve import Devices
from inception_operator.contract import assignment as assignments
from inception_operator.contract.names import (
    ANNOTATION_ASSIGNMENT,
    ANNOTATION_EXCLUDED_NODES,
    ASSIGNMENT_MOUNT,
    CHECKPOINT_MOUNT,
    CONTAINER,
    GRACE_SECONDS,
    LABEL_JOB,
    LAUNCHER_PORT,
    METRICS_PORT,
    PodPlacement,
)
from inception_operator.contract.types import Assignment, Json
from inception_operator.spec.job import Job

from . import identity, program
from .defaults import request_defaults, shm_volume, tmp_volume
from .devices import apply_profile, request_devices
from .resource_claims import attach_claims

USER: Final = 10001
COMMAND: Final = ["python3", "-m", "inception_trainer", "launch"]
SHUTDOWN_RESERVE: Final = 10
# Lists whose entries have an identity: the user's entry replaces ours, or is merged into it when
# both are containers.
_KEYS: Final = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
}
_MERGED: Final = frozenset(("containers", "initContainers"))
_APPENDED: Final = frozenset(("tolerations",))
_HOSTNAME: Final = "kubernetes.io/hostname"
# The ranks talk to one another directly, and a sidecar that outlives them would keep the pod from
# ending.
_NO_MESH: Final = {"sidecar.istio.io/inject": "false", "linkerd.io/inject": "disabled"}
_PREFERRED: Final = "preferredDuringSchedulingIgnoredDuringExecution"
_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"


def pod_name(job: str, slot: int, incarnation: int) -> str:
    """Deterministic from persisted counters, so that a repeated creation meets the pod it made
    before.
    """
    return f"{job}-{slot}-{incarnation}"


def build_pod(
    job: Job,
    devices: Devices,
    slot: int,
    attempt: int,
    *,
    image: str,
    launcher_image: str,
    assignment: Assignment | None = None,
    notify_address: str = "",
    pull_policy: str | None = None,
    avoid: Collection[str] = (),
    exclude: Collection[str] = (),
    user: int | None = USER,
) -> Json:
    """The pod of one slot, made for an attempt; it may start with its ``assignment``.

    ``launcher_image`` brings the launcher into a pod whose image is somebody else's; at
    ``notify_address`` it tells the operator that it is up. The pod stays away from the nodes to
    ``avoid`` where there are others, and from those to ``exclude`` in any case. ``user`` is the
    number of its processes' user and group; None leaves it to the cluster.
    """
    name = pod_name(job.name, slot, attempt)
    spec = merge(_base_spec(job, devices, image, pull_policy, user), job.pod_overlay)
    _enforce(spec, job, devices, notify_address)
    _place(spec, job, avoid)
    if exclude:
        _exclude(spec, exclude)
    if job.program:
        program.inject_launcher(spec, job, launcher_image, pull_policy)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": job.namespace,
            "labels": _labels(job, slot, attempt),
            "annotations": _annotations(job, assignment, exclude),
            "ownerReferences": [identity.owner(job.name, job.uid)],
        },
        "spec": spec,
    }


def merge(base: Json, overlay: Json) -> Json:
    """The overlay over the base.

    Objects go key by key, named lists entry by entry, tolerations are appended, the rest is
    replaced. A null in the overlay says nothing.
    """
    merged = dict(base)
    for key, value in overlay.items():
        before = merged.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            merged[key] = merge(before, value)
        elif isinstance(before, list) and isinstance(value, list) and key in _KEYS:
            merged[key] = _merge_named(before, value, _KEYS[key], deep=key in _MERGED)
        elif isinstance(before, list) and isinstance(value, list) and key in _APPENDED:
            merged[key] = [*before, *(entry for entry in value if entry not in before)]
        elif value is not None:
            merged[key] = value
    return merged


def _merge_named(base: list[Json], overlay: list[Json], key: str, *, deep: bool) -> list[Json]:
    """Two lists whose entries are told apart by ``key``; ``deep`` merges two entries of one name.

    An entry of ours keeps its place in the list, because the order of variables matters: one may
    refer to those before it.
    """
    merged = {entry.get(key): entry for entry in base}
    for entry in overlay:
        name = entry.get(key)
        merged[name] = merge(merged[name], entry) if deep and name in merged else entry
    return list(merged.values())


def configuration(job: Job, devices: Devices) -> Json:
    """``INCEPTION_CONFIG``: the user's training section and what the operator knows besides."""
    profile = devices.profile
    config: Json = dict(job.training)
    # The trainer has defaults for these, and no null.
    optional = {
        "visible": [variable for variable in profile.visible if variable],
        "devices": devices.seen,
        "precisionRule": profile.torch.precision_rule,
    }
    config["accelerator"] = {
        "profile": profile.name,
        "module": profile.torch.module,
        "device": profile.torch.device,
        "backend": profile.torch.backend,
        **{key: value for key, value in optional.items() if value},
    }
    if job.checkpoint is not None:
        directory = job.checkpoint_path
        config["checkpoint"] = {"path": directory, **job.checkpoint.options}
        config["output"] = {"path": f"{directory}/output"}
    return config


def _labels(job: Job, slot: int, attempt: int) -> dict[str, str]:
    users = (job.template.get("metadata") or {}).get("labels") or {}
    return {
        **users,
        **identity.labels(job.name, job.uid, slot, attempt),
    }


def _annotations(
    job: Job, assignment: Assignment | None, exclude: Collection[str]
) -> dict[str, str]:
    users = (job.template.get("metadata") or {}).get("annotations") or {}
    annotations = {**_NO_MESH, **users}
    # A stale assignment, copied with a template out of a running pod, would start ranks of no job.
    for key in (ANNOTATION_ASSIGNMENT, ANNOTATION_EXCLUDED_NODES):
        annotations.pop(key, None)
    if assignment is not None:
        annotations[ANNOTATION_ASSIGNMENT] = assignments.to_json(assignment)
    if exclude:
        # An affinity shows neither who demanded what nor that it has become needless.
        annotations[ANNOTATION_EXCLUDED_NODES] = ",".join(sorted(exclude))
    return annotations


def _base_spec(
    job: Job, devices: Devices, image: str, pull_policy: str | None, user: int | None
) -> Json:
    container = _container(job, image, pull_policy)
    numbers = {} if user is None else {"runAsUser": user, "runAsGroup": user, "fsGroup": user}
    spec: Json = {
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            **numbers,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": _volumes(job, devices.profile.shm),
    }
    apply_profile(spec, container, devices.profile)
    if job.scheduling.priority_class_name:
        spec["priorityClassName"] = job.scheduling.priority_class_name
    return spec


def _container(job: Job, image: str, pull_policy: str | None) -> Json:
    container: Json = {
        "name": CONTAINER,
        "image": image,
        "command": list(COMMAND),
        "ports": _ports(job),
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": LAUNCHER_PORT},
            "periodSeconds": 1,
            "timeoutSeconds": 1,
            "failureThreshold": 1,
        },
        "env": [],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": _mounts(job),
    }
    if pull_policy:
        container["imagePullPolicy"] = pull_policy
    return container


def _ports(job: Job) -> list[Json]:
    ports = [{"name": "launcher", "containerPort": LAUNCHER_PORT, "protocol": "TCP"}]
    if not job.program:
        # Monitors find their targets by the port. A program that serves a page names it itself.
        ports.append({"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"})
    return ports


def _volumes(job: Job, shm: str | None) -> list[Json]:
    volumes = [shm_volume(job, shm), tmp_volume(job)]
    if job.checkpoint is not None and job.checkpoint.volume_claim_name:
        claim = {"claimName": job.checkpoint.volume_claim_name}
        volumes.append({"name": "checkpoint", "persistentVolumeClaim": claim})
    return volumes


def _mounts(job: Job) -> list[Json]:
    mounts: list[Json] = [
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - the pod's own, as is the next
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
    ]
    if job.checkpoint is not None and job.checkpoint.volume_claim_name:
        mounts.append({"name": "checkpoint", "mountPath": CHECKPOINT_MOUNT})
    return mounts


def _enforce(spec: Json, job: Job, devices: Devices, notify_address: str) -> None:
    """What the machinery stands on, whatever the template says."""
    spec["restartPolicy"] = "Never"
    if spec.get("hostNetwork"):
        # Without it such a pod would not find the cluster's own names.
        spec.setdefault("dnsPolicy", "ClusterFirstWithHostNet")
    spec["volumes"] = [*spec["volumes"], _assignment_volume()]
    container = next(c for c in spec["containers"] if c.get("name") == CONTAINER)
    if job.image:
        container["image"] = job.image
    container["volumeMounts"] = [
        *(mount for mount in container["volumeMounts"] if mount["mountPath"] != ASSIGNMENT_MOUNT),
        {"name": "assignment", "mountPath": ASSIGNMENT_MOUNT, "readOnly": True},
    ]
    request_devices(container, devices)
    request_defaults(spec, container, job)
    attach_claims(spec, container, job)
    environment = _environment(job, devices, int(spec["terminationGracePeriodSeconds"]))
    if notify_address:
        # An assignment brings it along too, but comes only once the launcher is up.
        environment += _variables([("INCEPTION_NOTIFY_ADDRESS", notify_address)])
    defaults = _default_environment(devices, container)
    # Ours first: a variable of the user's may refer to them as $(INCEPTION_JOB).
    container["env"] = [
        *environment,
        *_merge_named(defaults, container["env"], "name", deep=False),
    ]


def _place(pod: Json, job: Job, avoid: Collection[str]) -> None:
    """Add the job's wishes to the user's own affinity.

    They are: near one another, one pod on each node, not on these nodes.
    """
    pods_of_job = {"labelSelector": {"matchLabels": {LABEL_JOB: job.name}}}
    if job.scheduling.topology_key:
        near = {"topologyKey": job.scheduling.topology_key, **pods_of_job}
        _add_term(pod, "podAffinity", _PREFERRED, {"weight": 100, "podAffinityTerm": near})
    if job.scheduling.pod_placement == PodPlacement.ONE_PER_NODE:
        apart = {"topologyKey": _HOSTNAME, **pods_of_job}
        _add_term(pod, "podAntiAffinity", _REQUIRED, apart)
    if avoid:
        # A wish, not a demand: with no other node the job goes on where it can.
        away = {"weight": 100, "preference": {"matchFields": _elsewhere(avoid)}}
        _add_term(pod, "nodeAffinity", _PREFERRED, away)


def _elsewhere(nodes: Collection[str]) -> list[Json]:
    # One node each: that is all the API allows.
    return [
        {"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in sorted(nodes)
    ]


def _exclude(pod: Json, nodes: Collection[str]) -> None:
    """Demand other nodes, in each of the user's own terms: it is enough that one of them fits."""
    affinity = pod.get("affinity") or {}
    of_nodes = affinity.get("nodeAffinity") or {}
    selector = of_nodes.get(_REQUIRED) or {}
    # A term that says nothing fits no node, and has to stay so.
    listed: list[Json] = selector.get("nodeSelectorTerms") or [{"matchFields": []}]
    terms = [
        {**term, "matchFields": [*(term.get("matchFields") or ()), *_elsewhere(nodes)]}
        if term
        else term
        for term in listed
    ]
    selector = {**selector, "nodeSelectorTerms": terms}
    pod["affinity"] = {**affinity, "nodeAffinity": {**of_nodes, _REQUIRED: selector}}


def _add_term(pod: Json, kind: str, strength: str, term: Json) -> None:
    affinity = pod.get("affinity") or {}
    terms = affinity.get(kind) or {}
    listed = terms.get(strength) or ()
    pod["affinity"] = {**affinity, kind: {**terms, strength: [*listed, term]}}


def _assignment_volume() -> Json:
    field = {"apiVersion": "v1", "fieldPath": f"metadata.annotations['{ANNOTATION_ASSIGNMENT}']"}
    return {
        "name": "assignment",
        "downwardAPI": {"items": [{"path": "assignment", "fieldRef": field}]},
    }


def _environment(job: Job, devices: Devices, grace: int) -> list[Json]:
    config = json.dumps(configuration(job, devices), separators=(",", ":"), sort_keys=True)
    values = {
        "INCEPTION_CONFIG": config,
        "INCEPTION_JOB": f"{job.namespace}/{job.name}",
        # By these a job made anew is told from the one before of the same name.
        "INCEPTION_JOB_UID": job.uid,
        "INCEPTION_JOB_CREATED": job.created,
        "INCEPTION_METRICS_PORT": str(METRICS_PORT),
        "INCEPTION_SHUTDOWN_SECONDS": str(max(1, grace - SHUTDOWN_RESERVE)),
        **program.environment(job),
    }
    if job.progress_deadline is not None:
        values["INCEPTION_PROGRESS_DEADLINE_SECONDS"] = str(job.progress_deadline)
    if not job.program and job.other_checkpoint_path is not None:
        # No key of the configuration: a trainer image of version 0.1 would refuse it.
        values["INCEPTION_OTHER_CHECKPOINT_PATH"] = job.other_checkpoint_path
    fields = {
        "POD_NAME": "metadata.name",
        "POD_IP": "status.podIP",
        "NODE_NAME": "spec.nodeName",
        # By it the launcher knows the operator.
        "INCEPTION_POD_UID": "metadata.uid",
    }
    return _variables(values.items()) + [
        {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
        for name, path in fields.items()
    ]


def _default_environment(devices: Devices, container: Json) -> list[Json]:
    """Variables that the user may set otherwise."""
    values = {
        "HOME": "/tmp",  # noqa: S108 - the only place that is writable
        # Other images and clusters know no user of this number, and its name is asked for by many.
        "USER": "inception",
        "XDG_CACHE_HOME": "/tmp/cache",  # noqa: S108
        "MPLCONFIGDIR": "/tmp/matplotlib",  # noqa: S108
        "TORCHINDUCTOR_CACHE_DIR": "/tmp/torchinductor",  # noqa: S108
        "TRITON_CACHE_DIR": "/tmp/triton",  # noqa: S108
        **devices.profile.env,
    }
    cores = _cores(((container.get("resources") or {}).get("limits") or {}).get("cpu"))
    if cores is not None:
        values["OMP_NUM_THREADS"] = str(max(1, math.floor(cores / devices.nproc)))
    return _variables(values.items())


def _variables(values: Iterable[tuple[str, str]]) -> list[Json]:
    return [{"name": name, "value": value} for name, value in values]


def _cores(quantity: Any) -> float | None:
    """A CPU limit in cores; without one torch should see the node's."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(m?)", str(quantity))
    if match is None:
        return None
    return float(match[1]) / (1000 if match[2] else 1)
