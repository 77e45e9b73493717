"""Jobs of five other operators run on the real node after conversion, each with its own program."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from inception_operator.contract.names import KIND
from inception_operator.plugin.convert.join import convert
from node_jobs import Jobs
from programs import documents

pytestmark = [pytest.mark.timeout(1200), pytest.mark.nightly]

Json = dict[str, Any]
PROGRAM = "/program/train.py"
OPTIONS = ["--epochs", "3", "--snapshot", "/tmp/snapshot.pt"]
LINE = " ".join((PROGRAM, *OPTIONS))
# Two nodes of two ranks each.
LAST = "rank 0 of 4: epoch 3,"


def pod(image: str, *command: str) -> Json:
    """A template as all of these operators take it."""
    container = {
        "name": "pytorch",
        "image": image,
        "command": list(command),
        "env": [{"name": "MASTER_ADDR", "value": "nowhere"}, {"name": "RANKS", "value": "2"}],
        "resources": {
            "requests": {"cpu": "100m", "memory": "256Mi"},
            "limits": {"cpu": "1", "memory": "1Gi"},
        },
        "volumeMounts": [{"name": "program", "mountPath": "/program"}],
    }
    volume = {"name": "program", "configMap": {"name": "program"}}
    return {"spec": {"restartPolicy": "Never", "containers": [container], "volumes": [volume]}}


def pytorch_job(image: str) -> Json:
    replica = {"replicas": 1, "template": pod(image, "torchrun", PROGRAM, *OPTIONS)}
    spec = {"nprocPerNode": "2", "pytorchReplicaSpecs": {"Master": replica, "Worker": replica}}
    return {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "spec": spec}


def train_job(image: str) -> Json:
    container = pod(image)["spec"]["containers"][0]
    trainer = {
        "image": image,
        "numNodes": 2,
        "numProcPerNode": 2,
        "command": ["torchrun"],
        "args": [PROGRAM, *OPTIONS],
        "resourcesPerNode": container["resources"],
    }
    volumes = pod(image)["spec"]["volumes"]
    mounts = [{"name": "node", "volumeMounts": container["volumeMounts"]}]
    override = {
        "targetJobs": [{"name": "node"}],
        "spec": {"volumes": volumes, "containers": mounts},
    }
    spec = {
        "runtimeRef": {"name": "torch-distributed"},
        "trainer": trainer,
        "podTemplateOverrides": [override],
    }
    return {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "spec": spec}


def mpi_job(image: str) -> Json:
    launcher = pod(image, "mpirun", "-np", "4", "--bind-to", "none", "python3", PROGRAM, *OPTIONS)
    worker = {"replicas": 2, "template": pod(image, "/usr/sbin/sshd", "-De")}
    replicas = {"Launcher": {"template": launcher}, "Worker": worker}
    spec = {"slotsPerWorker": 2, "mpiReplicaSpecs": replicas}
    return {"apiVersion": "kubeflow.org/v2beta1", "kind": "MPIJob", "spec": spec}


def volcano_job(image: str) -> Json:
    """A line of torchrun, which the launcher takes over. Ranks that torchrun itself starts need a
    torch with libuv, and that of this image has none.
    """
    options = ["--nnodes=2", "--node_rank=$VC_TASK_INDEX", "--nproc_per_node=2"]
    line = " ".join(("torchrun", *options, LINE))
    task = {"name": "worker", "replicas": 2, "template": pod(image, "sh", "-c", line)}
    spec = {"minAvailable": 2, "plugins": {"svc": []}, "tasks": [task]}
    return {"apiVersion": "batch.volcano.sh/v1alpha1", "kind": "Job", "spec": spec}


def job_set(image: str) -> Json:
    script = f"cd /tmp && exec torchrun --nproc_per_node=$RANKS --node_rank=$RANK {LINE}"
    job = {"parallelism": 2, "completions": 2, "template": pod(image, "bash", "-c", script)}
    spec = {"replicatedJobs": [{"name": "workers", "template": {"spec": job}}]}
    return {"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "spec": spec}


@pytest.mark.parametrize("make", [pytorch_job, train_job, mpi_job, volcano_job, job_set])
def test_a_converted_job_trains_to_its_end(
    jobs: Jobs, foreign: str, make: Callable[[str], Json]
) -> None:
    config = documents("custom-ddp")["ConfigMap"] | {"metadata": {"name": "program"}}
    job = make(foreign) | {"metadata": {"name": "job"}}
    made = convert([config, json.loads(json.dumps(job))])
    assert [each["kind"] for each in made.resources] == ["ConfigMap", KIND]
    for resource in made.resources:
        jobs.kubectl("apply", "-f", "-", stdin=json.dumps(resource))
    status = jobs.wait_succeeded("job")
    assert (status["attempt"], status["restarts"]) == (1, 0)
    # Where only rank 0's node counts, the pod of the other may be gone by now.
    logs = jobs.kubectl("logs", jobs.pod("job", 0), "-c", "trainer")
    assert LAST in logs
