"""Devices by Dynamic Resource Allocation, from a driver of the tests' own, on the real kubelet and
scheduler.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from localcluster.cluster import Cluster
from localcluster.dra import unhealthy_file
from localcluster.pytest_plugin import DRA_DRIVER
from node_jobs import Jobs, condition, condition_message

pytestmark = pytest.mark.timeout(1500)

# Every rank tells what it sees, then waits for the test.
PROGRAM = """
import json, os, time
seen = {key: value for key, value in os.environ.items() if key.startswith("MLU_VISIBLE_DEVICES")}
with open(f"/tmp/rank-{os.environ['RANK']}.new", "w") as file:
    json.dump(seen, file)
os.rename(file.name, file.name.removesuffix(".new"))
while not os.path.exists("/tmp/finish"):
    time.sleep(0.1)
"""
READ = """
import glob, json
print(json.dumps({path: json.load(open(path)) for path in glob.glob("/tmp/rank-?")}))
"""


@pytest.fixture
def broken(node_cluster: Cluster) -> Iterator[Path]:
    """Where the driver reads which of its devices are broken."""
    path = unhealthy_file(node_cluster.layout, DRA_DRIVER.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    yield path
    path.unlink(missing_ok=True)


def apply(jobs: Jobs, name: str, count: int, **spec: Any) -> None:
    claims = [{"name": "mlus", "deviceClassName": DRA_DRIVER.name, "count": count}]
    limits = {
        "requests": {"cpu": "100m", "memory": "256Mi"},
        "limits": {"cpu": "1", "memory": "2Gi"},
    }
    container = {"name": "trainer", "command": ["python3", "-c", PROGRAM], "resources": limits}
    body = {
        "accelerator": {"profile": "cambricon", "claims": claims},
        "template": {"spec": {"containers": [container]}},
        **spec,
    }
    kind = {"apiVersion": "training.inception.dev/v1alpha1", "kind": "InceptionTraining"}
    jobs.kubectl(
        "apply", "-f", "-", stdin=json.dumps({**kind, "metadata": {"name": name}, "spec": body})
    )


def ranks(jobs: Jobs, name: str, count: int, attempt: int = 1) -> list[dict[str, str]]:
    """What the ranks of a job of one node see, once all of them have said so."""

    def told(status: dict[str, Any]) -> bool:
        running = condition(status, "Running") == "True" and status["attempt"] == attempt
        return running and len(read(jobs, name)) == count

    jobs.wait(name, f"running with {count} ranks", told)
    return read(jobs, name)


def read(jobs: Jobs, name: str) -> list[dict[str, str]]:
    return list(json.loads(jobs.python(jobs.pod(name, 0), READ)).values())


def numbers(seen: dict[str, str]) -> set[int]:
    """The devices of a rank's pod; the vendor's variable and those of the single devices must
    agree.
    """
    visible = {int(number) for number in seen["MLU_VISIBLE_DEVICES"].split(",")}
    singles = {f"MLU_VISIBLE_DEVICES_{number}": f"device-{number}" for number in visible}
    assert seen == {"MLU_VISIBLE_DEVICES": seen["MLU_VISIBLE_DEVICES"], **singles}
    return visible


def test_jobs_get_their_devices_and_share_none(jobs: Jobs) -> None:
    apply(jobs, "one", 2)
    apply(jobs, "two", 2)
    first, second = (ranks(jobs, name, 2) for name in ("one", "two"))
    assert first[0] == first[1]
    assert second[0] == second[1]
    assert len(numbers(first[0])) == len(numbers(second[0])) == 2
    assert numbers(first[0]) | numbers(second[0]) == {0, 1, 2, 3}
    assert jobs.status("one")["accelerator"] == "mlu.example.com x2"
    apply(jobs, "late", 1, runPolicy={"preRunningDeadlineSeconds": 5})
    status = jobs.wait_failed("late")
    said = condition_message(status, "Failed")
    assert said.startswith("PreRunningDeadlineExceeded: ")
    assert "0/1 nodes are available: 1 cannot allocate all claims" in said
    apply(jobs, "next", 2)
    for name in ("one", "two"):
        jobs.python(jobs.pod(name, 0), "open('/tmp/finish', 'w')")
        jobs.wait_succeeded(name)
    # What is over gives its devices back, although its pods stay.
    assert len(numbers(ranks(jobs, "next", 2)[0])) == 2


@pytest.mark.nightly
def test_an_unhealthy_device_is_named_and_its_pod_replaced(jobs: Jobs, broken: Path) -> None:
    apply(jobs, "job", 2)
    mine = numbers(ranks(jobs, "job", 2)[0])
    broken.write_text(f"{min(mine)}\n")
    again = numbers(ranks(jobs, "job", 2, attempt=2)[0])
    status = jobs.status("job")
    cause = status["rootCause"]
    assert (cause["reason"], cause["pod"], cause["attempt"]) == ("DeviceUnhealthy", "job-0-1", 1)
    assert cause["message"].startswith(
        f"unhealthy: claim:mlus mlu.example.com/device=device-{min(mine)}"
    )
    assert (status["restarts"], status["restartsCountTowardsMax"]) == (1, 0)
    assert len(again) == 2
    assert min(mine) not in again
