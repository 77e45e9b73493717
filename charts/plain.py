"""What the chart renders to without what only Helm needs: for kubectl and kustomize."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "charts" / "inception-operator"
CRD = ROOT / "manifests" / "crd.yaml"
NAMESPACE = "inception-system"
RELEASE = "inception-operator"
_HELM_ONLY_LABELS = ("helm.sh/chart", "app.kubernetes.io/managed-by")
# Grafana's side-car is a matter of Helm's values, and the CRD has a file of its own.
_LEFT_OUT = ("--set=crds.enabled=false", "--set=metrics.dashboards.enabled=false")
# What the later ones refer to comes first.
_ORDER = (
    "ServiceAccount",
    "Lease",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "Service",
)

Object = dict[str, Any]


class SyncError(Exception):
    """Something needed to make the files is missing or wrong."""


def render(helm: str, *arguments: str, namespace: str = NAMESPACE) -> list[Object]:
    """The objects that the chart renders to."""
    # The objects of helm test are there for its time only.
    command = [helm, "template", RELEASE, str(CHART), "--namespace", namespace, "--skip-tests"]
    try:
        done = subprocess.run([*command, *arguments], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SyncError(getattr(error, "stderr", None) or str(error)) from error
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def plain_objects(helm: str, *arguments: str) -> list[Object]:
    """The objects of an installation without Helm, CRD and namespace left out, in order."""
    objects = render(helm, *_LEFT_OUT, *arguments)
    for item in objects:
        _drop_helm_labels(item)
    return sorted(objects, key=_order)


def namespace_object() -> Object:
    """The namespace of the operator."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": labels},
    }


def crd_text() -> str:
    """The definition without the remarks at its top, which are for its authors."""
    _, start, rest = CRD.read_text(encoding="utf-8").partition("apiVersion:")
    return start + rest


def dump(*items: Mapping[str, Any]) -> str:
    """Objects as YAML, one after the other."""
    return "---\n".join(yaml.safe_dump(item, sort_keys=False, width=120) for item in items)


def _order(item: Mapping[str, Any]) -> tuple[int, str, str]:
    kind, name = item["kind"], item["metadata"]["name"]
    return (_ORDER.index(kind) if kind in _ORDER else len(_ORDER)), kind, name


def _drop_helm_labels(item: Object) -> None:
    template = item.get("spec", {}).get("template", {})
    for metadata in (item["metadata"], template.get("metadata", {})):
        for label in _HELM_ONLY_LABELS:
            metadata.get("labels", {}).pop(label, None)
