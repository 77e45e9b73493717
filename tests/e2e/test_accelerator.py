"""A job on a vendor's device-plugin resource gets its devices, its variable and one process per
device.
"""

from __future__ import annotations

import json

import pytest

from node_jobs import Jobs

pytestmark = pytest.mark.timeout(1500)


@pytest.mark.nightly
def test_job_gets_its_devices(jobs: Jobs) -> None:
    jobs.apply("on-mlu", numNodes=1, accelerator={"profile": "cambricon", "devicesPerNode": 2})
    status = jobs.wait("on-mlu", "started", lambda s: s.get("nodes", {}).get("ready", 0) == 1)
    assert status["accelerator"] == "cambricon.com/mlu x2"
    (pod,) = jobs.pods("on-mlu")
    resources = pod["spec"]["containers"][0]["resources"]
    assert (
        resources["requests"]["cambricon.com/mlu"]
        == resources["limits"]["cambricon.com/mlu"]
        == "2"
    )
    assignment = json.loads(pod["metadata"]["annotations"]["training.inception.dev/assignment"])
    assert assignment["nprocPerNode"] == 2
    visible = jobs.python(
        pod["metadata"]["name"], "import os; print(os.environ['MLU_VISIBLE_DEVICES'])"
    ).strip()
    assert len(set(visible.split(","))) == 2
    assert set(visible.split(",")) <= {"0", "1", "2", "3"}
    jobs.wait_succeeded("on-mlu")
    assert jobs.summary("on-mlu")["worldSize"] == 2
