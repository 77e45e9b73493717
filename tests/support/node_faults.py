"""What can be done to jobs on a real node: the faults of the campaign and of the tests, each undone
at its end.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from localcluster import faults
from localcluster.errors import CommandError
from node_jobs import Jobs

SYSTEM = "inception-system"
OPERATOR = "deployment/inception-operator"
OPERATOR_PODS = ("pods", "-l", "app.kubernetes.io/name=inception-operator")
LAUNCHER_PORTS = (8080, 8081)
KILLED = 137
ASSIGNMENTS = "/etc/inception"

# Runs inside a worker pod. Files in memory count for the container and for no process, so the
# kernel kills the rank.
FILL_MEMORY = """
import glob, os
newest = max(glob.glob('/tmp/**/pid-0', recursive=True), key=os.path.getmtime)
rank = int(open(newest).read())
open(f'/proc/{rank}/oom_score_adj', 'w').write('1000')

def alive():
    try:
        return '(zombie)' not in open(f'/proc/{rank}/status').read()
    except OSError:
        return False

with open('/dev/shm/hoard', 'wb', buffering=0) as hoard:
    os.unlink(hoard.name)
    while alive():
        hoard.write(bytes(8 << 20))
"""


def run_out_of_memory(jobs: Jobs, pod: str) -> None:
    """Fill the container's memory until the kernel kills its first rank, or all of the
    container.
    """
    try:
        jobs.python(pod, FILL_MEMORY)
    except CommandError as error:
        if error.returncode != KILLED:
            raise


def system(jobs: Jobs, *arguments: str) -> str:
    """kubectl in the operator's namespace."""
    return jobs.cluster.kubectl("--namespace", SYSTEM, *arguments)


@contextmanager
def operator_away(jobs: Jobs) -> Iterator[None]:
    """No operator runs."""
    system(jobs, "scale", OPERATOR, "--replicas=0")
    try:
        system(jobs, "wait", "--for=delete", *OPERATOR_PODS, "--timeout=90s")
        yield
    finally:
        system(jobs, "scale", OPERATOR, "--replicas=1")
        system(jobs, "rollout", "status", OPERATOR, "--timeout=120s")


@contextmanager
def operator_blind(jobs: Jobs) -> Iterator[None]:
    """The operator reaches no launcher and no metrics, as behind a network policy; everything else
    works.
    """
    pods = json.loads(system(jobs, "get", *OPERATOR_PODS, "-o", "json"))["items"]
    living = [pod["metadata"]["uid"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    with faults.cut_off(living, LAUNCHER_PORTS):
        yield


@contextmanager
def assignments_stale(jobs: Jobs, job: str) -> Iterator[None]:
    """The pods that the job has now read no new assignment, as when their kubelet is late by
    minutes.
    """
    with faults.frozen(uids(jobs, job), ASSIGNMENTS):
        yield


@contextmanager
def node_lost(jobs: Jobs, job: str) -> Iterator[None]:
    """The node is silent and so are the job's pods on it; whatever else runs there is left
    alone.
    """
    with ExitStack() as stack:
        stack.enter_context(faults.cut_off(uids(jobs, job)))
        stack.enter_context(faults.paused(jobs.cluster, "kubelet"))
        yield


def node_ready(jobs: Jobs) -> bool:
    """What the control plane thinks of the node."""
    path = '-o=jsonpath={.items[0].status.conditions[?(@.type=="Ready")].status}'
    return jobs.cluster.kubectl("get", "nodes", path) == "True"


def wait_node(jobs: Jobs, ready: bool, seconds: float = 90) -> None:
    """Wait until the control plane sees the node so."""
    deadline = time.monotonic() + seconds
    while node_ready(jobs) is not ready:
        assert time.monotonic() < deadline, (
            f"the node is not {'ready' if ready else 'lost'} after {seconds:.0f} s"
        )
        time.sleep(0.5)


def uids(jobs: Jobs, job: str) -> list[str]:
    """The pods of a job that run containers."""
    return [
        pod["metadata"]["uid"] for pod in jobs.pods(job) if pod["status"].get("phase") == "Running"
    ]
