"""What the converter makes of other operators' jobs is accepted by a real API server, pods too."""

from __future__ import annotations

import json
from typing import Any

import pytest

import foreign
from inception_operator.accelerators.resolve import load_profiles, resolve
from inception_operator.contract.names import KIND
from inception_operator.contract.types import Json
from inception_operator.plugin.convert.join import convert
from inception_operator.pod.build import build_pod
from inception_operator.spec.job import parse
from localcluster.cluster import Cluster

# What pods of these jobs refer to, without which admission refuses them.
REFERRED: list[Json] = [
    {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": "high"},
        "value": 1000,
    },
    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "trainer"}},
    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}},
]


def trainings(namespace: str) -> list[Json]:
    """One InceptionTraining of each file, moved into the namespace of the test."""
    made: list[Json] = []
    for name in foreign.NAMES:
        (training,) = (
            each for each in convert(foreign.read(name)).resources if each["kind"] == KIND
        )
        metadata = {**training["metadata"], "namespace": namespace}
        made.append({**training, "metadata": metadata})
    return made


def create(cluster: Cluster, resources: list[Json]) -> list[Json]:
    """What the API server makes of resources that it does not store; unknown fields are refused."""
    listed = {"apiVersion": "v1", "kind": "List", "items": resources}
    answer = cluster.kubectl(
        "create",
        "--dry-run=server",
        "--validate=strict",
        "--output=json",
        "--filename=-",
        input=json.dumps(listed),
    )
    # One object after the other, without a list around them.
    decoder, items, at = json.JSONDecoder(), [], 0
    while at < len(answer.rstrip()):
        item, end = decoder.raw_decode(answer[at:].lstrip())
        items.append(item)
        at += len(answer[at:]) - len(answer[at:].lstrip()) + end
    return items


@pytest.fixture
def referred(training_api: Cluster, namespace: str) -> str:
    listed = {"apiVersion": "v1", "kind": "List", "items": REFERRED}
    training_api.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(listed))
    return namespace


def test_every_training_and_its_pods_are_accepted(training_api: Cluster, referred: str) -> None:
    sent = trainings(referred)
    accepted = create(training_api, sent)
    assert len(accepted) == len(foreign.NAMES) >= 20
    pods: list[Json] = []
    for number, (training, answer) in enumerate(zip(sent, accepted, strict=True)):
        # Defaults come to it, and nothing is lost.
        assert part_of(training["spec"], answer["spec"])
        metadata = {**answer["metadata"], "name": f"job-{number}"}
        job = parse({**answer, "metadata": metadata})
        devices = resolve(job, load_profiles())
        image = job.image or "trainer:1"
        pods.append(build_pod(job, devices, 0, 1, image=image, launcher_image="trainer:1"))
    assert len(create(training_api, pods)) == len(pods)


def part_of(one: Any, other: Any) -> bool:
    """Whether all of one value is found in the other."""
    if isinstance(one, dict):
        return isinstance(other, dict) and all(part_of(one[key], other.get(key)) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(part_of, one, other))
    return bool(one == other)
