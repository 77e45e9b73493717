"""Programs of others in an image that has nothing of ours: Debian's Python and torch alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from node_jobs import Jobs, condition_message, persistent_claim
from programs import documents
from trainings import wait_for

pytestmark = pytest.mark.timeout(1500)

TALKER = """
import json, os, signal, sys, time
import torch.distributed as dist, torch

signal.signal(signal.SIGTERM, signal.SIG_IGN)
folder = os.environ["INCEPTION_CHECKPOINT_PATH"]
os.makedirs(folder, exist_ok=True)
path = os.path.join(folder, "step")
step = int(open(path).read()) if os.path.exists(path) else 0
print("starts at", step, flush=True)
dist.init_process_group("gloo")

def write(name, text):
    with open(name + ".new", "w") as file:
        file.write(text)
    os.replace(name + ".new", name)

# Rank 0 leaves alone, and the other loses it.
while os.environ["RANK"] != "0" or not os.path.exists(os.path.join(folder, "finish")):
    flag = torch.tensor([float(os.path.exists(os.environ["INCEPTION_STOP_FILE"]))])
    dist.all_reduce(flag)
    step += 1
    figures = {"progress": 0.25, "epoch": 2, "loss": 0.5}
    figures |= {"accuracyTop1": 0.75, "samplesPerSecond": 100.0}
    if os.environ["RANK"] == "0":
        write(os.environ["INCEPTION_PROGRESS_FILE"], json.dumps({"step": step, "metrics": figures}))
    if flag.item():
        if os.environ["RANK"] == "0":
            write(path, str(step))
        dist.barrier()
        dist.destroy_process_group()
        sys.exit(75)
    time.sleep(0.05)
"""

AWAIT_SNAPSHOT = """
import os, time
while not os.path.exists("/checkpoint/stock/snapshot.pt"):
    time.sleep(0.1)
"""


def logged(jobs: Jobs, pod: str, words: str) -> list[str]:
    """The lines of a pod's log with these words."""
    log = jobs.kubectl("logs", pod, "-c", "trainer")
    return [line for line in log.splitlines() if words in line]


def apply(jobs: Jobs, name: str, image: str, program: str, words: list[str], **spec: Any) -> None:
    limits = {
        "requests": {"cpu": "100m", "memory": "256Mi"},
        "limits": {"cpu": "1", "memory": "1Gi"},
    }
    mount = {"name": "program", "mountPath": "/program"}
    container = {"name": "trainer", "command": words, "resources": limits, "volumeMounts": [mount]}
    volume = {"name": "program", "configMap": {"name": name}}
    body = {
        "image": image,
        "numNodes": 2,
        "checkpoint": {"volumeClaimName": name},
        "template": {"spec": {"containers": [container], "volumes": [volume]}},
        **spec,
    }
    version = {"apiVersion": "training.inception.dev/v1alpha1", "kind": "InceptionTraining"}
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"train.py": program},
    }
    for manifest in (
        config,
        persistent_claim(name),
        {**version, "metadata": {"name": name}, "spec": body},
    ):
        jobs.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))


def test_stock_ddp_recovers_in_an_image_of_others(jobs: Jobs, foreign: str) -> None:
    program = documents("custom-ddp")["ConfigMap"]["data"]["train.py"]
    words = [
        "torchrun",
        "--standalone",
        "--nproc_per_node=2",
        "/program/train.py",
        "--epochs",
        "200",
    ]
    snapshot = ["--snapshot", "$(INCEPTION_CHECKPOINT_PATH)/snapshot.pt"]
    apply(jobs, "stock", foreign, program, [*words, *snapshot])
    jobs.wait("stock", "running", lambda s: s.get("state") == "Running")
    pod = jobs.pod("stock", 1)
    jobs.python(pod, AWAIT_SNAPSHOT)
    jobs.kill_rank(pod)
    status = jobs.wait_succeeded("stock")
    assert (status["attempt"], status["restarts"]) == (2, 1)
    assert status["rootCause"]["reason"] == "Signal"
    assert "model" not in status
    for each in jobs.pods("stock"):
        (main,) = each["spec"]["containers"]
        assert (main["image"], main["command"][:3]) == (
            foreign,
            ["python3", "/opt/inception-launcher", "--"],
        )
        assert each["metadata"]["name"].endswith("-1"), "the warm pods were used again"
    logs = jobs.kubectl("logs", jobs.pods("stock")[0]["metadata"]["name"], "-c", "trainer")
    assert "torchrun's option --nproc-per-node=2 is ignored" in logs
    assert "rank 0 of 2: epoch 200," in logs


def test_a_program_reports_stops_and_ends_with_its_chief(jobs: Jobs, foreign: str) -> None:
    apply(jobs, "talker", foreign, TALKER, ["python3", "/program/train.py"], successPolicy="Chief")
    status = jobs.wait(
        "talker", "reporting", lambda s: s.get("trainerStatus", {}).get("step", 0) > 1
    )
    figures = status["trainerStatus"]
    assert (figures["progressPercentage"], figures["epoch"], figures["samplesPerSecond"]) == (
        25,
        2,
        "100.0",
    )
    assert (figures["loss"], figures["accuracyTop1"]) == ("0.5000", "0.7500")

    suspend = ("patch", "itrain", "talker", "--type=merge", "--patch")
    jobs.kubectl(*suspend, json.dumps({"spec": {"runPolicy": {"suspend": True}}}))
    jobs.wait("talker", "suspended", lambda s: s.get("state") == "Suspended")
    jobs.kubectl(*suspend, json.dumps({"spec": {"runPolicy": {"suspend": False}}}))
    jobs.wait("talker", "resumed", lambda s: s.get("attempt") == 2 and s.get("state") == "Running")
    pod = jobs.pod("talker", 0)
    # Running are the ranks; Python itself may take a while to begin in them.
    first = wait_for("a line of the program", lambda: logged(jobs, pod, "starts at"), 60)[0]
    assert int(first.rsplit(" ", 1)[1]) >= figures["step"], "it went on from where it was stopped"

    jobs.python(pod, "open('/checkpoint/talker/finish', 'w').close()")
    status = jobs.wait_succeeded("talker")
    assert status["restarts"] == 0
    assert "the node of rank 0 has ended with success" in condition_message(status, "Succeeded")
    assert status["trainerStatus"]["accuracyTop1"] == "0.7500"
