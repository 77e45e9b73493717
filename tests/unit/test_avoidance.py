"""Nodes on which a device broke are avoided for a while by whatever is made from then on."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_sim import START, Sim, job
from inception_operator.contract.times import format_time
from inception_operator.contract.types import Json, PodView
from inception_operator.decide import avoided_nodes

POD = PodView("job-0-1", "u", 0, 1, node="a", unhealthy="cambricon.com/mlu 1")
ELASTIC: Json = {"elasticPolicy": {"minNodes": 1, "maxNodes": 2, "spareNodes": 1}}


def avoided(body: Json) -> list[str]:
    """The nodes that a pod would rather not be on."""
    wishes = body["spec"].get("affinity", {}).get("nodeAffinity", {})
    terms = wishes.get("preferredDuringSchedulingIgnoredDuringExecution", [])
    return [
        value
        for term in terms
        for field in term["preference"]["matchFields"]
        for value in field["values"]
    ]


def listed(sim: Sim) -> list[str]:
    return [entry["name"] for entry in sim.status.get("avoidedNodes", ())]


@pytest.fixture
def sim() -> Sim:
    sim = Sim(job(2))
    sim.run_until("Running")
    return sim


def test_only_pods_with_a_broken_device_and_a_node_count() -> None:
    healthy, nowhere = replace(POD, unhealthy=None), replace(POD, node=None)
    assert avoided_nodes.add({}, [healthy, nowhere], START) == {}
    entry = {
        "name": "a",
        "reason": "DeviceUnhealthy",
        "expirationTime": format_time(START + timedelta(minutes=10)),
    }
    status = avoided_nodes.add({}, [POD, POD], START)
    assert status == {"avoidedNodes": [entry]}
    assert avoided_nodes.nodes(status, START + timedelta(seconds=599)) == ("a",)
    assert avoided_nodes.nodes(status, START + timedelta(seconds=600)) == ()


def test_seeing_the_same_pod_again_changes_nothing_until_its_time_is_over() -> None:
    status = avoided_nodes.add({}, [POD], START)
    assert avoided_nodes.add(status, [POD], START + timedelta(seconds=500)) == {}
    again = avoided_nodes.add(status, [POD], START + timedelta(seconds=600))
    assert again["avoidedNodes"][0]["expirationTime"] == format_time(
        START + timedelta(seconds=1200)
    )


NODES = st.lists(
    st.tuples(st.sampled_from("abcdefghijklmnopqrstuvwxyz"), st.integers(0, 400)), max_size=60
)


@given(NODES)
def test_the_list_is_short_and_true_whatever_breaks_when(history: list[tuple[str, int]]) -> None:
    status: Json = {}
    now, last = START, dict[str, Any]()
    for node, pause in history:
        now += timedelta(seconds=pause)
        status |= avoided_nodes.add(status, [replace(POD, node=node)], now)
        status = {**avoided_nodes.drop_expired(status, now)}
        if node not in last or last[node] <= now - avoided_nodes.LASTING:
            last[node] = now
        names = [entry["name"] for entry in status["avoidedNodes"]]
        assert len(names) == len(set(names)) <= avoided_nodes.MOST
        assert node in names, "the latest is never the one that is left out"
        assert set(names) <= {
            name for name, time in last.items() if now < time + avoided_nodes.LASTING
        }
        assert avoided_nodes.nodes(status, now) == tuple(names)


def test_the_successor_of_a_broken_pod_avoids_its_node(sim: Sim) -> None:
    sim.pod(1).broken = True
    (body,) = sim.operate().create
    assert listed(sim) == ["node-1-1"]
    assert (body["metadata"]["name"], avoided(body)) == ("job-1-2", ["node-1-1"])


def test_whatever_ended_the_attempt_the_broken_node_is_avoided(sim: Sim) -> None:
    sim.fail_ranks(sim.pod(0), 7, ago=5)
    sim.pod(1).broken = True
    sim.fail_ranks(sim.pod(1), 134)
    sim.operate()
    assert sim.status["rootCause"]["pod"] == "job-0-1"
    assert listed(sim) == ["node-1-1"]


def test_other_failures_blame_no_node(sim: Sim) -> None:
    sim.fail_ranks(sim.pod(1), 1)
    sim.operate()
    assert "avoidedNodes" not in sim.status


def test_a_survivor_that_breaks_while_the_next_attempt_gathers_is_avoided_too(sim: Sim) -> None:
    sim.remove(sim.pod(0))
    sim.operate()
    sim.pod(1).broken = True
    sim.operate()
    assert listed(sim) == ["node-1-1"]
    sim.run_until("Running")
    assert {pod.name for pod in sim.pods.values()} == {"job-0-2", "job-1-2"}


def test_a_broken_spare_is_replaced_elsewhere_and_ends_nothing() -> None:
    sim = Sim(job(2, **ELASTIC))
    sim.run_until("Running")
    while sim.status["nodes"].get("spareReady") != 1:
        sim.calm()
        sim.operate()
    # The spare of an attempt that is over: one made for the present attempt would come back under
    # its own name.
    sim.fail_ranks(sim.pod(0), 1)
    sim.operate()
    sim.run_until("Running")
    sim.pod(2).broken = True
    sim.operate()
    assert listed(sim) == ["node-2-1"]
    assert (sim.status["attempt"], sim.condition("Running")) == (2, "True")


def test_after_its_time_a_node_is_as_good_as_any_other(sim: Sim) -> None:
    sim.pod(1).broken = True
    sim.operate()
    sim.run_until("Running")
    sim.tick(700)
    sim.remove(sim.pod(0))
    sim.operate()
    created = {pod.name: avoided(pod.raw) for pod in sim.pods.values()}
    assert (created["job-1-2"], created["job-0-3"]) == (["node-1-1"], [])
    sim.run_until("Running")
    assert "avoidedNodes" not in sim.status, (
        "an attempt that starts clears the list of what is over"
    )


def test_the_list_outlives_the_operator_and_a_suspension(sim: Sim) -> None:
    sim.pod(1).broken = True
    sim.operate(crash_after=1)
    assert listed(sim) == ["node-1-1"]
    sim.suspend(True)
    sim.operate()
    sim.calm()
    sim.suspend(False)
    bodies = sim.operate().create
    assert [avoided(body) for body in bodies] == [["node-1-1"], ["node-1-1"]]
