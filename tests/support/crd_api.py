"""Jobs as users write them, for the tests of the CRD on the real API server."""

from __future__ import annotations

import re
from typing import Any

import pytest

from localcluster.apiclient import ApiClient, ApiError
from localcluster.cluster import Cluster

API_VERSION = "training.inception.dev/v1alpha1"
RECIPE: dict[str, Any] = {"recipe": "bninception-digits"}
Spec = dict[str, Any]
BEFORE: Spec = {
    "training": RECIPE,
    "image": "trainer:1",
    "template": {"spec": {"nodeSelector": {"disk": "fast"}}},
    "checkpoint": {"path": "/x"},
}


def manifest(spec: Spec, name: str = "job") -> dict[str, Any]:
    kind = {"apiVersion": API_VERSION, "kind": "InceptionTraining"}
    return {**kind, "metadata": {"name": name}, "spec": spec}


def write(
    api: Cluster, namespace: str, spec: Spec, *, name: str = "job", dry_run: bool = False
) -> dict[str, Any]:
    """Apply a job as `kubectl apply --server-side` does; returns what is stored.

    Not by kubectl itself, which takes a third of a second to start.
    """
    path = f"/apis/{API_VERSION}/namespaces/{namespace}/inceptiontrainings/{name}"
    parameters = {"dryRun": "All"} if dry_run else {}
    stored: dict[str, Any] = ApiClient(api.kubeconfig).apply(
        path, manifest(spec, name), **parameters
    )
    return stored


def rejection(api: Cluster, spec: Spec, name: str = "job", namespace: str = "default") -> str:
    """The words with which the API server refuses a job."""
    with pytest.raises(ApiError) as caught:
        write(api, namespace, spec, name=name, dry_run=True)
    return re.sub(r"\s+", " ", str(caught.value))


def trainer(**fields: Any) -> Spec:
    return {
        "training": RECIPE,
        "template": {"spec": {"containers": [{"name": "trainer", **fields}]}},
    }


def rules(*entries: Spec) -> Spec:
    return {"training": RECIPE, "failurePolicy": {"rules": list(entries)}}
