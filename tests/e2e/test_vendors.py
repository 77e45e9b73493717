"""The devices of every vendor on a real kubelet: whose they are, how many ranks, and what if none
is left.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.clusters import Ready
from inception_operator.accelerators.resolve import DIRECTORY
from localcluster import deviceplugin
from localcluster.cluster import Cluster
from localcluster.errors import CommandError
from localcluster.model import DeviceSpec
from localcluster.pytest_plugin import REAL_DEVICES, fresh_namespace
from nightly import but_nightly
from node_jobs import Jobs, condition_message

pytestmark = pytest.mark.timeout(600)
ROWS: dict[str, dict[str, Any]] = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted(DIRECTORY.glob("*.yaml"))
}
OFFERED = {device.resource: device for device in REAL_DEVICES}
# The vendor has not published the name, so the user gives one, and the number of devices that torch
# sees.
NAMED = {"tecorigin": ({"resourceName": "example.com/card"}, {"numProcPerNode": 8})}
SIDE_BY_SIDE = 4
"""Vendors at once: eight pods, whose init containers ask for a fifth of a core each, and the node
has two.
"""
# A plain resource, a name that the user gives, a driver's folder that is mounted.
# `make test` takes one of them; the others differ from it in their row alone.
EACH_KIND = ("cambricon",)
VENDORS = [name for name, row in ROWS.items() if row["resource"] != "none"]
# Says what a rank sees and stays; without torch, so that many jobs are cheap.
TELL = """
import glob, json, os, time
names = [name for name in os.environ if "VISIBLE" in name or name == "ZE_AFFINITY_MASK"]
seen = {name: os.environ[name] for name in names}
figures = {name: int(os.environ[name]) for name in ("RANK", "LOCAL_WORLD_SIZE", "WORLD_SIZE")}
driver = [open(path).read() for path in glob.glob("/opt/*/version")]
# In one piece, for other ranks write to the same log.
os.write(1, ("TOLD " + json.dumps({"seen": seen, "driver": driver, **figures}) + "\\n").encode())
time.sleep(600)
"""


def resource_of(vendor: str) -> DeviceSpec:
    return OFFERED[ROWS[vendor]["resource"] or "example.com/card"]


def start(jobs: Jobs, name: str, vendor: str, count: int, **spec: Any) -> None:
    accelerator, more = NAMED.get(vendor, ({}, {}))
    container = {
        "name": "trainer",
        "command": ["python3", "-c", TELL],
        "resources": {
            "requests": {"cpu": "10m", "memory": "64Mi"},
            "limits": {"cpu": "1", "memory": "1Gi"},
        },
    }
    body = {
        "numNodes": 1,
        "accelerator": {"profile": vendor, "devicesPerNode": count, **accelerator},
        "template": {"spec": {"containers": [container], "terminationGracePeriodSeconds": 5}},
        **more,
        **spec,
    }
    job = {
        "apiVersion": "training.inception.dev/v1alpha1",
        "kind": "InceptionTraining",
        "metadata": {"name": name},
    }
    jobs.kubectl("apply", "-f", "-", stdin=json.dumps({**job, "spec": body}))


def told(jobs: Jobs, name: str, ranks: int) -> list[dict[str, Any]]:
    """What all ranks of a job of one pod have said, in rank order."""
    jobs.wait(name, "started", lambda status: status.get("nodes", {}).get("ready", 0) == 1)
    deadline, found = time.monotonic() + 60, list[dict[str, Any]]()
    while len(found) < ranks and time.monotonic() < deadline:
        # A kubelet that still gives a device back refuses the pod, and the next one has to start.
        with contextlib.suppress(CommandError, ValueError):
            log = jobs.kubectl("logs", jobs.pod(name, 0), "-c", "trainer")
            found = [json.loads(text) for text in re.findall(r"TOLD (\{.*\})", log)]
        time.sleep(0.2)
    assert len(found) == ranks, jobs.story(name, jobs.status(name))
    return sorted(found, key=lambda rank: int(rank["RANK"]))


def devices_of(ranks: list[dict[str, Any]], variable: str) -> set[str]:
    """The devices of a pod, which all of its ranks see alike."""
    (seen,) = {rank["seen"][variable] for rank in ranks}
    return set(str(seen).split(","))


def test_every_vendor_is_offered_by_the_node() -> None:
    assert {resource_of(vendor).count for vendor in VENDORS} == {4}
    assert (
        len({resource_of(vendor).resource for vendor in VENDORS})
        == len(VENDORS)
        == len(REAL_DEVICES)
    )


def test_more_devices_than_there_are_wait_with_the_words_of_the_scheduler_and_then_fail(
    jobs: Jobs,
) -> None:
    start(jobs, "large", "ascend", 5, runPolicy={"preRunningDeadlineSeconds": 8})
    status = jobs.wait(
        "large", "waiting", lambda s: "Unschedulable" in condition_message(s, "PodsReady")
    )
    assert "Insufficient huawei.com/Ascend910" in condition_message(status, "PodsReady")
    failed = condition_message(jobs.wait_failed("large"), "Failed")
    assert failed.startswith("PreRunningDeadlineExceeded: ")
    assert "Insufficient huawei.com/Ascend910" in failed
    start(jobs, "fitting", "ascend", 4)
    assert len(told(jobs, "fitting", 4)) == 4, "what did not fit holds nothing back"


@pytest.fixture
def broken_mlu(jobs: Jobs) -> Iterator[Path]:
    path = deviceplugin.unhealthy_file(jobs.cluster.layout, "cambricon.com/mlu")
    path.parent.mkdir(parents=True, exist_ok=True)
    yield path
    path.unlink(missing_ok=True)


@pytest.mark.nightly
def test_a_device_that_breaks_while_training_ends_the_attempt_and_is_named(
    jobs: Jobs, broken_mlu: Path
) -> None:
    start(jobs, "job", "cambricon", 2, failurePolicy={"maxRestarts": 0})
    (before,) = [devices_of(told(jobs, "job", 2), "MLU_VISIBLE_DEVICES")]
    broken = min(before)
    broken_mlu.write_text(broken, encoding="utf-8")
    status = jobs.wait(
        "job", "recovered", lambda s: s.get("attempt") == 2 and s.get("state") == "Running"
    )
    cause = status["rootCause"]
    assert (cause["reason"], cause["pod"], cause["node"]) == (
        "DeviceUnhealthy",
        "job-0-1",
        jobs.node,
    )
    assert cause["message"].startswith(f"unhealthy: cambricon.com/mlu {broken}")
    assert (status["restarts"], status["restartsCountTowardsMax"]) == (1, 0)
    # There is no other node, so the job goes on here, with the healthy devices.
    assert [(node["name"], node["reason"]) for node in status["avoidedNodes"]] == [
        (jobs.node, "DeviceUnhealthy")
    ]
    assert broken not in devices_of(told(jobs, "job", 2), "MLU_VISIBLE_DEVICES")


@pytest.fixture(scope="module")
def shared(node_cluster: Cluster, installed: Ready) -> Iterator[Jobs]:
    """The jobs of all vendors."""
    with fresh_namespace(node_cluster) as name:
        yield Jobs(node_cluster, name)


@pytest.fixture
def two_jobs(shared: Jobs, started: set[str], chosen: list[str], vendor: str) -> Iterator[Jobs]:
    """Those of one vendor; those of the next few start meanwhile, for starting a job is mostly
    waiting.
    """
    at = chosen.index(vendor)
    for other in chosen[at : at + SIDE_BY_SIDE]:
        if other not in started:
            started.add(other)
            for number in ("one", "two"):
                start(shared, f"{other}-{number}", other, 2)
    yield shared
    shared.kubectl("delete", "itrain", f"{vendor}-one", f"{vendor}-two", "--wait=false")


@pytest.fixture(scope="module")
def chosen(request: pytest.FixtureRequest) -> list[str]:
    """The vendors of this run, in its order."""
    calls = (getattr(item, "callspec", None) for item in request.session.items)
    return [call.params["vendor"] for call in calls if call is not None and "vendor" in call.params]


@pytest.fixture(scope="module")
def started() -> set[str]:
    """The vendors whose jobs have been made."""
    return set()


# All vendors; `make test` has one of each kind, for the others differ in their row's data.
@pytest.mark.parametrize("vendor", but_nightly(VENDORS, EACH_KIND))
def test_two_jobs_get_their_own_devices_and_one_rank_for_each(two_jobs: Jobs, vendor: str) -> None:
    jobs, spec, row = two_jobs, resource_of(vendor), ROWS[vendor]
    variable = deviceplugin.visible_variable(spec)
    ranks = NAMED[vendor][1]["numProcPerNode"] if vendor in NAMED else 2
    answers = {name: told(jobs, name, ranks) for name in (f"{vendor}-one", f"{vendor}-two")}
    one, two = (devices_of(answer, variable) for answer in answers.values())
    assert one | two == {"0", "1", "2", "3"}
    assert len(one) == len(two) == 2, "none is shared"
    for name, answer in answers.items():
        assert [rank["RANK"] for rank in answer] == list(range(ranks))
        assert {(rank["LOCAL_WORLD_SIZE"], rank["WORLD_SIZE"]) for rank in answer} == {
            (ranks, ranks)
        }
        others = {other for rank in answer for other in rank["seen"]} - {variable}
        assert others == set(), "the device plugin alone says which devices a container has"
        assert answer[0]["driver"] == (["1.2.3"] if row.get("mounts") else [])
        (pod,) = jobs.pods(name)
        resources = pod["spec"]["containers"][0]["resources"]
        assert resources["requests"][spec.resource] == resources["limits"][spec.resource] == "2"
        assert jobs.status(name)["accelerator"] == f"{spec.resource} x2"
