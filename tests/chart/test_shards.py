"""Several operators that divide the jobs: a Deployment and a Lease for each, a Lease for all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chart_values import VALUES, Object, Render, of_kind, only, settings_of
from inception_operator.contract.shard import MOST_SHARDS, Shard

CHART = Path(__file__).resolve().parents[2] / "charts" / "inception-operator"
FULL = {"leaderElection": {"leaseName": "other"}, **VALUES["ha"]}


@pytest.fixture(params=[{}, FULL], ids=["default", "full"])
def values(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = request.param
    return found


def pods_of(objects: list[Object]) -> list[Object]:
    return [item["spec"]["template"] for item in of_kind(objects, "Deployment")]


def fits(selector: dict[str, str], pod: Object) -> bool:
    return selector.items() <= pod["metadata"]["labels"].items()


def test_each_shard_has_a_deployment_that_selects_its_own_pods(
    render: Render, values: dict[str, Any]
) -> None:
    objects = render({**values, "shards": 3})
    deployments = of_kind(objects, "Deployment")
    pods = pods_of(objects)
    parts = [settings_of(pod["spec"]["containers"][0]).shard for pod in pods]
    assert parts == [Shard(0, 3), Shard(1, 3), Shard(2, 3)]
    for one, deployment in enumerate(deployments):
        assert deployment["metadata"]["name"].endswith(f"-shard-{one}")
        assert deployment["spec"]["replicas"] == values.get("replicaCount", 1)
        selector = deployment["spec"]["selector"]["matchLabels"]
        assert [fits(selector, pod) for pod in pods] == [other == one for other in range(3)]


def test_the_leases_are_those_that_the_operators_ask_for(
    render: Render, values: dict[str, Any]
) -> None:
    objects = render({**values, "shards": 3})
    whole = {settings_of(pod["spec"]["containers"][0]).lease_name for pod in pods_of(objects)}.pop()
    wanted = [whole, *(f"{whole}-shard-{index}" for index in range(3))]
    assert [item["metadata"]["name"] for item in of_kind(objects, "Lease")] == wanted
    (rule,) = only(objects, "Role", "-leader")["rules"]
    assert rule == {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": wanted,
        "verbs": ["get", "update"],
    }


def test_services_monitors_and_policies_are_for_all_shards(render: Render) -> None:
    values = {**VALUES["full"], "shards": 2}
    objects = render(values)
    pods = pods_of(objects)
    selectors = [item["spec"]["selector"] for item in of_kind(objects, "Service")]
    for kind in ("PodMonitor", "PodDisruptionBudget"):
        item = only(objects, kind, "trainings")
        selectors.append(item["spec"]["selector"]["matchLabels"])
    policy = only(objects, "NetworkPolicy", "trainings")
    selectors.append(policy["spec"]["podSelector"]["matchLabels"])
    assert len(selectors) == 4
    assert all(fits(selector, pod) for selector in selectors for pod in pods)


def test_one_shard_is_the_operator_that_there_always_was(
    render: Render, values: dict[str, Any]
) -> None:
    usual = render(values)
    assert render({**values, "shards": 1}) == usual
    changed = {"Deployment", "Lease", "Role"}
    assert "shard" not in json.dumps([item for item in usual if item["kind"] in changed])
    assert [item for item in render({**values, "shards": 3}) if item["kind"] not in changed] == [
        item for item in usual if item["kind"] not in changed
    ]


def test_the_chart_takes_as_many_shards_as_the_operator() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert schema["properties"]["shards"]["maximum"] == MOST_SHARDS
