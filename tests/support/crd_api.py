"""Jobs as users write them, for the tests of the CRD on the real API server."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from localcluster.cluster import Cluster
from localcluster.errors import CommandError

RECIPE: dict[str, Any] = {"recipe": "bninception-digits"}
Spec = dict[str, Any]
BEFORE: Spec = {
    "training": RECIPE,
    "image": "trainer:1",
    "template": {"spec": {"nodeSelector": {"disk": "fast"}}},
    "checkpoint": {"path": "/x"},
}


def manifest(spec: Spec, name: str = "job") -> str:
    kind = {"apiVersion": "training.inception.dev/v1alpha1", "kind": "InceptionTraining"}
    return json.dumps({**kind, "metadata": {"name": name}, "spec": spec})


def write(
    api: Cluster, namespace: str, spec: Spec, *arguments: str, name: str = "job"
) -> dict[str, Any]:
    """Applies a job as a user would, and returns what is stored."""
    options = ("--server-side", f"--namespace={namespace}", "--filename=-", "--output=json")
    stored: dict[str, Any] = json.loads(
        api.kubectl("apply", *options, *arguments, input=manifest(spec, name))
    )
    return stored


def rejection(api: Cluster, spec: Spec, name: str = "job", namespace: str = "default") -> str:
    """The words with which the API server refuses a job."""
    with pytest.raises(CommandError) as caught:
        write(api, namespace, spec, "--dry-run=server", name=name)
    return re.sub(r"\s+", " ", str(caught.value))


def trainer(**fields: Any) -> Spec:
    return {
        "training": RECIPE,
        "template": {"spec": {"containers": [{"name": "trainer", **fields}]}},
    }


def rules(*entries: Spec) -> Spec:
    return {"training": RECIPE, "failurePolicy": {"rules": list(entries)}}
