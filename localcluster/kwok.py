"""Fake nodes: kwok plays their kubelets, so that pods "run" without a container, on any hardware a
test can think of.

A pod on a fake node becomes Running and Ready at once, with a pod address, and stays so until
somebody patches its status or deletes it. Annotations of the pod change that; the constants below
name them:

``kwok.localcluster/hold: "true"`` the pod stays Pending until the annotation is removed;
``kwok.localcluster/succeed-after: 2s`` the pod succeeds that long after it started (or after the
annotation was set, whichever is later); ``kwok.localcluster/fail-after: 500ms``,
``kwok.localcluster/exit-code: "78"``, ``kwok.localcluster/message: text`` likewise, but all
containers end with the exit code (1 unless given) and the termination message.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from . import probes
from .errors import CommandError
from .model import ClusterSpec, Layout, ProcessSpec

HOLD = "kwok.localcluster/hold"
SUCCEED_AFTER = "kwok.localcluster/succeed-after"
FAIL_AFTER = "kwok.localcluster/fail-after"
EXIT_CODE = "kwok.localcluster/exit-code"
MESSAGE = "kwok.localcluster/message"

NODE_MARK = "kwok.localcluster/node"
_POD_RANGE = "10.128.0.1/12"
_NODE_DEFAULTS = {"cpu": "64", "memory": "512Gi", "ephemeral-storage": "1Ti", "pods": "1000"}
_READY_TIMEOUT = 60

_RUNNING = """
{{ $now := Now }}
phase: Running
startTime: {{ $now | Quote }}
hostIP: {{ NodeIPWith .spec.nodeName | Quote }}
podIP: {{ PodIPWith .spec.nodeName ( or .spec.hostNetwork false ) ( or .metadata.uid "" )
          ( or .metadata.name "" ) ( or .metadata.namespace "" ) | Quote }}
conditions:
{{ range $type := list "Initialized" "ContainersReady" "Ready" }}
- {type: {{ $type | Quote }}, status: "True", lastTransitionTime: {{ $now | Quote }}}
{{ end }}
{{ range .spec.readinessGates }}
- {type: {{ .conditionType | Quote }}, status: "True", lastTransitionTime: {{ $now | Quote }}}
{{ end }}
initContainerStatuses:
{{ range .spec.initContainers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  ready: true
  restartCount: 0
  {{ if eq .restartPolicy "Always" }}
  started: true
  state: {running: {startedAt: {{ $now | Quote }}}}
  {{ else }}
  state:
    terminated:
      exitCode: 0
      reason: Completed
      startedAt: {{ $now | Quote }}
      finishedAt: {{ $now | Quote }}
  {{ end }}
{{ end }}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  ready: true
  started: true
  restartCount: 0
  state: {running: {startedAt: {{ $now | Quote }}}}
{{ end }}
"""

_ENDED = """
{{ $now := Now }}
{{ $start := or .status.startTime $now }}
{{ $annotations := or .metadata.annotations dict }}
phase: PHASE
conditions:
- {type: Initialized, status: "True", lastTransitionTime: {{ $start | Quote }}}
- {type: ContainersReady, status: "False", reason: REASON, lastTransitionTime: {{ $now | Quote }}}
- {type: Ready, status: "False", reason: REASON, lastTransitionTime: {{ $now | Quote }}}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  ready: false
  started: false
  restartCount: 0
  state:
    terminated:
      exitCode: EXITCODE
      reason: CONTAINER
      message: {{ or ( index $annotations "kwok.localcluster/message" ) "" | Quote }}
      startedAt: {{ $start | Quote }}
      finishedAt: {{ $now | Quote }}
{{ end }}
"""


def stages() -> list[dict[str, Any]]:
    """What kwok does with pods, as its Stage documents; nodes follow kwok's own stages."""
    exit_code = f'{{{{ or ( index $annotations "{EXIT_CODE}" ) "1" }}}}'
    return [
        _stage(
            "pod-run",
            [_absent(".status.podIP"), _absent(_annotation(HOLD)), _phase("Pending")],
            _RUNNING,
        ),
        _ending("pod-succeed", SUCCEED_AFTER, ("Succeeded", "PodCompleted", "0", "Completed")),
        _ending("pod-fail", FAIL_AFTER, ("Failed", "PodFailed", exit_code, "Error")),
        _stage("pod-delete", [{"key": ".metadata.deletionTimestamp", "operator": "Exists"}], None),
    ]


def _ending(name: str, annotation: str, words: tuple[str, str, str, str]) -> dict[str, Any]:
    template = _ENDED
    for placeholder, word in zip(("PHASE", "REASON", "EXITCODE", "CONTAINER"), words, strict=True):
        template = template.replace(placeholder, word)
    stage = _stage(
        name, [{"key": _annotation(annotation), "operator": "Exists"}, _phase("Running")], template
    )
    stage["spec"]["delay"] = {"durationFrom": {"expressionFrom": _annotation(annotation)}}
    return stage


def _stage(
    name: str, expressions: Sequence[Mapping[str, Any]], template: str | None
) -> dict[str, Any]:
    if template is None:
        selected, then = list(expressions), {"finalizers": {"empty": True}, "delete": True}
    else:
        selected, then = (
            [_absent(".metadata.deletionTimestamp"), *expressions],
            {"statusTemplate": template},
        )
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": "Pod"},
            "selector": {"matchExpressions": selected},
            "next": then,
        },
    }


def _annotation(name: str) -> str:
    return f'.metadata.annotations["{name}"]'


def _absent(key: str) -> dict[str, Any]:
    return {"key": key, "operator": "DoesNotExist"}


def _phase(phase: str) -> dict[str, Any]:
    return {"key": ".status.phase", "operator": "In", "values": [phase]}


def process(layout: Layout, port: int) -> ProcessSpec:
    """The kwok controller; it takes care of every node that carries NODE_MARK."""
    config = _config(layout)
    argv = (
        layout.binary("kwok"),
        f"--kubeconfig={layout.kubeconfig('kwok')}",
        f"--config={config}",
        # Without leases the node controller takes the nodes for lost after a minute.
        "--node-lease-duration-seconds=40",
        "--manage-all-nodes=false",
        f"--manage-nodes-with-label-selector={NODE_MARK}=true",
        f"--cidr={_POD_RANGE}",
        "--node-ip=127.0.0.1",
        f"--node-port={port}",
        f"--server-address=127.0.0.1:{port}",
    )
    # Without a home of its own kwok would read the user's ~/.kwok.
    return ProcessSpec(
        "kwok", argv, {"HOME": str(config.parent)}, ready=probes.http_ok(port, "/healthz")
    )


def _config(layout: Layout) -> Path:
    return layout.root / "config" / "kwok.yaml"


def write_config(layout: Layout) -> None:
    """Write the stages where the process reads them."""
    path = _config(layout)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump_all(stages(), sort_keys=False))


def node(
    name: str, resources: Mapping[str, str], *, labels: Mapping[str, str], tainted: bool
) -> dict[str, Any]:
    """A fake node with the given resources on top of ample CPU and memory."""
    amounts = {**_NODE_DEFAULTS, **resources}
    spec = (
        {"taints": [{"key": NODE_MARK, "value": "true", "effect": "NoSchedule"}]} if tainted else {}
    )
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {NODE_MARK: "true", "kubernetes.io/hostname": name, **labels},
        },
        "spec": spec,
        "status": {"capacity": amounts, "allocatable": amounts},
    }


def create_nodes(
    layout: Layout,
    names: Sequence[str],
    resources: Mapping[str, str],
    *,
    labels: Mapping[str, str],
    tainted: bool,
) -> None:
    """Create fake nodes and wait until they are Ready."""
    items = [node(name, resources, labels=labels, tainted=tainted) for name in names]
    _kubectl(
        layout,
        "create",
        "--filename=-",
        stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}),
    )
    nodes = [f"node/{name}" for name in names]
    _kubectl(layout, "wait", "--for=condition=Ready", f"--timeout={_READY_TIMEOUT}s", *nodes)


def create_spec_nodes(layout: Layout, spec: ClusterSpec) -> None:
    """The nodes that the spec asks for, ``kwok-0`` and so on; beside a real node they are tainted
    with NODE_MARK.
    """
    names = [f"kwok-{number}" for number in range(spec.kwok_nodes)]
    if names:
        create_nodes(layout, names, spec.kwok_resources, labels={}, tainted=spec.flavour == "node")


def _kubectl(layout: Layout, *arguments: str, stdin: str | None = None) -> None:
    argv = (layout.binary("kubectl"), f"--kubeconfig={layout.kubeconfig('admin')}", *arguments)
    result = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if result.returncode:
        raise CommandError(argv, result.returncode, result.stderr)
