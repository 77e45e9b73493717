"""Pods of every vendor, as the operator builds them from the samples, on the real API server."""

from __future__ import annotations

import json

import pytest
import yaml

from inception_operator.accelerators.resolve import load_profiles, resolve
from inception_operator.pod.build import build_pod
from inception_operator.spec.job import parse
from localcluster.cluster import Cluster
from operator_process import ROOT

TABLE = load_profiles()
VENDORS = sorted(row.name for row in TABLE.values() if row.has_devices)


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_pod_of_a_sample_is_accepted(
    control_plane: Cluster, namespace: str, vendor: str
) -> None:
    text = (ROOT / "manifests" / "samples" / "accelerators" / f"{vendor}.yaml").read_text(
        encoding="utf-8"
    )
    (sample,) = [item for item in yaml.safe_load_all(text) if item["kind"] == "InceptionTraining"]
    sample["metadata"] |= {"namespace": namespace, "uid": "0b9c2fe4-5c8f-4f0e-8f0a-8e6f1f0d7c11"}
    job = parse(sample)
    devices = resolve(job, TABLE)
    pod = build_pod(
        job, devices, 0, 1, image="i:1", launcher_image="i:1", avoid=("node-a", "node-b")
    )
    answer = control_plane.kubectl(
        *(
            "create",
            "--dry-run=server",
            "--filename=-",
            "--output=json",
            f"--namespace={namespace}",
        ),
        input=json.dumps(pod),
    )
    resources = json.loads(answer)["spec"]["containers"][0]["resources"]
    for name in resources["limits"]:
        if "/" in name or name.startswith("hugepages-"):
            assert resources["requests"][name] == resources["limits"][name]
    assert resources["limits"][devices.resource] == str(devices.count)


def test_only_the_pods_of_rows_that_say_why_are_refused_where_pods_are_restricted(
    control_plane: Cluster, namespace: str
) -> None:
    levels = [f"pod-security.kubernetes.io/{mode}=restricted" for mode in ("enforce", "warn")]
    control_plane.kubectl("label", "namespace", namespace, *levels)
    refused = []
    for row in TABLE.values():
        spec = {"accelerator": {"profile": row.name}, "numProcPerNode": 1}
        if row.has_devices and row.resource is None:
            spec["accelerator"] = {"profile": row.name, "resourceName": "example.com/card"}
        job = parse({"metadata": {"name": "j", "namespace": namespace, "uid": "u"}, "spec": spec})
        pod = build_pod(job, resolve(job, TABLE), 0, 1, image="i:1", launcher_image="i:1")
        answer = control_plane.kubectl(
            *("create", "--dry-run=server", "--filename=-", f"--namespace={namespace}"),
            input=json.dumps(pod),
            check=False,
        )
        if "created (server dry run)" not in answer:
            refused.append(row.name)
    assert refused == sorted(row.name for row in TABLE.values() if row.mounts) == ["hygon"]
