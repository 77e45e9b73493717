"""Where pods should and must not run, and pods on the network of their nodes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from kubernetes_validate import validate

from cluster_sim import Sim, job
from inception_operator.accelerators.resolve import load_profiles, resolve
from inception_operator.contract.assignment import master_port
from inception_operator.contract.errors import SpecError
from inception_operator.contract.types import Json
from inception_operator.pod.build import build_pod
from inception_operator.spec.job import parse

TABLE = load_profiles()
HOST_NETWORK: Json = {"template": {"spec": {"hostNetwork": True}}}


def build(avoid: tuple[str, ...] = (), **spec: Any) -> Json:
    parsed = parse({"metadata": {"name": "j", "namespace": "n", "uid": "u"}, "spec": spec})
    pod = build_pod(
        parsed, resolve(parsed, TABLE), 0, 1, image="i:1", launcher_image="i:1", avoid=avoid
    )
    validate(pod, "1.33", strict=True)
    return pod


def policy(**scheduling: Any) -> Json:
    return {"runPolicy": {"schedulingPolicy": scheduling}}


@pytest.mark.parametrize("placement", [None, "Any"])
def test_pods_may_share_nodes_by_default(placement: str | None) -> None:
    assert (
        "affinity"
        not in build(**policy(**({} if placement is None else {"podPlacement": placement})))["spec"]
    )


def test_one_pod_per_node_is_a_demand_about_pods_of_this_job() -> None:
    pod = build(**policy(podPlacement="OnePerNode"))
    (term,) = pod["spec"]["affinity"]["podAntiAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    assert term == {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": {"training.inception.dev/job": "j"}},
    }
    assert term["labelSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()


def test_an_unknown_placement_is_refused() -> None:
    with pytest.raises(
        SpecError, match=r"podPlacement: Somewhere is unknown; choose one of Any, OnePerNode"
    ):
        build(**policy(podPlacement="Somewhere"))


def test_all_wishes_stand_beside_those_of_the_template() -> None:
    mine = {
        "weight": 1,
        "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]},
    }
    wish = "preferredDuringSchedulingIgnoredDuringExecution"
    template = {"spec": {"affinity": {"nodeAffinity": {wish: [mine]}}}}
    pod = build(
        ("b", "a"), template=template, **policy(podPlacement="OnePerNode", topologyKey="rack")
    )
    affinity = pod["spec"]["affinity"]
    assert set(affinity) == {"nodeAffinity", "podAffinity", "podAntiAffinity"}
    first, second = affinity["nodeAffinity"][wish]
    assert first == mine
    # The API server takes one value for each requirement on the name of a node.
    assert second["preference"]["matchFields"] == [
        {"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in ("a", "b")
    ]


def test_pods_on_the_network_of_their_nodes_find_the_names_of_the_cluster() -> None:
    assert build(**HOST_NETWORK)["spec"]["dnsPolicy"] == "ClusterFirstWithHostNet"
    chosen = {"template": {"spec": {"hostNetwork": True, "dnsPolicy": "Default"}}}
    assert build(**chosen)["spec"]["dnsPolicy"] == "Default"
    assert "dnsPolicy" not in build()["spec"]


def test_ports_on_the_network_of_nodes_differ_from_attempt_to_attempt_and_from_job_to_job() -> None:
    for uid in ("a", "b", "c"):
        ports = [master_port(attempt, uid) for attempt in range(1, 9600)]
        assert all(20000 <= port < 29500 for port in ports), (
            "below the ports of Services and of connections"
        )
        assert all(one != other for one, other in pairwise(ports))
    assert len({master_port(1, uid) for uid in ("a", "b", "c", "d", "e")}) == 5
    assert [master_port(attempt) for attempt in (1, 1000, 1001)] == [29501, 29500, 29501]


def test_all_ranks_of_a_job_on_the_network_of_nodes_meet_at_a_port_of_its_own() -> None:
    sim = Sim(job(2, **HOST_NETWORK))
    sim.run_until("Running")
    assignments = [pod.assigned for pod in sim.pods.values() if pod.assigned]
    assert {assigned.master_port for assigned in assignments} == {master_port(1, "job-uid")}
    sim.fail_ranks(sim.pod(1), 1)
    sim.operate()
    sim.run_until("Running")
    assignments = [pod.assigned for pod in sim.pods.values() if pod.assigned]
    assert {assigned.master_port for assigned in assignments} == {master_port(2, "job-uid")}
