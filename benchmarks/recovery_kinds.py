"""What the benchmark of recovery does to a job, one disturbance at a time."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.recovery_pods import Worker, is_alive
from localcluster import faults
from localcluster.apiclient import ApiClient
from node_faults import node_lost, run_out_of_memory, wait_node
from node_jobs import Jobs

OOM_SECONDS = 120.0
NODE_SECONDS = 240.0


@dataclass(frozen=True)
class Target:
    """One member of a running attempt, and the job that it belongs to."""

    jobs: Jobs
    job: str
    worker: Worker
    decided: Callable[[], bool]
    """Whether the next attempt has been decided on; looks anew with every call."""


Strike = Callable[[Target], float]
"""Hurts the target and answers when, on this machine's clock."""


@dataclass(frozen=True)
class Kind:
    """One kind of disturbance."""

    title: str
    strike: Strike
    spare: bool = False
    """The job has a hot spare."""
    failure_policy: dict[str, Any] = field(default_factory=dict)
    relieved: bool = False
    """Two in a row end a job, rightly: a rank is killed in between, which is not measured."""


def kill_rank(target: Target) -> float:
    """SIGKILL to a rank process."""
    return _signal(target.worker.rank(), signal.SIGKILL)


def stop_rank(target: Target) -> float:
    """SIGSTOP to a rank process: it neither runs nor ends."""
    return _signal(target.worker.rank(), signal.SIGSTOP)


def kill_launcher(target: Target) -> float:
    return _signal(target.worker.launcher, signal.SIGKILL)


def end_launcher(target: Target) -> float:
    return _signal(target.worker.launcher, signal.SIGTERM)


def kill_fork_server(target: Target) -> float:
    return _signal(target.worker.fork_server(), signal.SIGKILL)


def delete_pod(target: Target) -> float:
    """What ``kubectl delete pod --force --grace-period=0`` does."""
    path = f"/api/v1/namespaces/{target.jobs.namespace}/pods/{target.worker.pod}"
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
    client = ApiClient(target.jobs.cluster.kubeconfig)
    moment = time.time()
    client.request("DELETE", path, options)
    return moment


def lose_pod(target: Target) -> float:
    """All processes of the pod end at once, and it is deleted: its node has lost its power."""
    moment = time.time()
    faults.kill(target.worker.uid)
    delete_pod(target)
    return moment


def run_rank_out_of_memory(target: Target) -> float:
    """Memory is filled until the kernel kills the rank; that is the moment."""
    rank = target.worker.rank()
    filling = threading.Thread(
        target=run_out_of_memory, args=(target.jobs, target.worker.pod), daemon=True
    )
    filling.start()
    deadline = time.monotonic() + OOM_SECONDS
    while is_alive(rank):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{target.worker.pod}: its rank outlived {OOM_SECONDS:.0f} s")
        time.sleep(0.005)
    moment = time.time()
    # What fills the memory ends with the rank and gives it back.
    filling.join(OOM_SECONDS)
    return moment


def lose_node(target: Target) -> float:
    """The node and all pods of the job on it go silent until the next attempt is decided on."""
    moment = time.time()
    with node_lost(target.jobs, target.job):
        deadline = time.monotonic() + NODE_SECONDS
        while not target.decided():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{target.job}: its node was not given up")
            time.sleep(0.05)
    wait_node(target.jobs, ready=True)
    return moment


def _signal(pid: int, number: signal.Signals) -> float:
    moment = time.time()
    os.kill(pid, number)
    return moment


KINDS = {
    "rank": Kind("SIGKILL of a rank", kill_rank),
    "pod": Kind("pod deleted (`--force`), no spare", delete_pod),
    "pod-spare": Kind("pod deleted (`--force`), spare at hand", delete_pod, spare=True),
    "pod-lost": Kind("pod lost (all its processes killed), spare at hand", lose_pod, spare=True),
    "launcher-kill": Kind("SIGKILL of a launcher", kill_launcher),
    "launcher-term": Kind("SIGTERM of a launcher", end_launcher),
    "fork-server": Kind("SIGKILL of a fork server", kill_fork_server),
    "stop": Kind("SIGSTOP of a rank", stop_rank),
    "oom": Kind("rank out of memory", run_rank_out_of_memory, relieved=True),
    "node": Kind(
        "node silent until it is given up",
        lose_node,
        failure_policy={"nodeLostSeconds": 2, "nodeLostPolicy": "ForceDeletePods"},
    ),
}
