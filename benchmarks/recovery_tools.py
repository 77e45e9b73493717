"""What the benchmarks of recovery share: watches on one clock, the moments of one kill, and
quantiles.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "operator"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from localcluster.cluster import Cluster
from node_jobs import Jobs

ASSIGNMENT = "training.inception.dev/assignment"
FIRST_STEP = re.compile(r"^trainer_first_step_timestamp_seconds ([0-9.e+]+)$", re.MULTILINE)
ATTEMPT = re.compile(r"^trainer_attempt ([0-9.e+]+)$", re.MULTILINE)
KILL = """
import glob, os, signal, time
newest = max(glob.glob('/tmp/**/pid-0', recursive=True), key=os.path.getmtime)
number = int(open(newest).read())
print(time.time(), flush=True)
os.kill(number, signal.SIGKILL)
"""


@dataclass
class Watch:
    """Follows objects with `kubectl get --watch` and notes when something first became true."""

    cluster: Cluster
    arguments: tuple[str, ...]
    see: Callable[[dict[str, Any], float], None]
    process: subprocess.Popen[str] | None = field(default=None)

    def start(self) -> None:
        argv = [
            self.cluster.layout.binary("kubectl"),
            f"--kubeconfig={self.cluster.kubeconfig}",
            "get",
        ]
        argv += [*self.arguments, "--watch", "--output-watch-events", "-o", "json"]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.see(json.loads(line), time.time())

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()


class Moments:
    """First moments of one trial, filled by the watches."""

    def __init__(self, attempt: int, nodes: int) -> None:
        self.attempt, self.nodes = attempt, nodes
        self.found: dict[str, float] = {}
        self.assigned: set[str] = set()

    def note(self, name: str, moment: float) -> None:
        self.found.setdefault(name, moment)

    def see_pod(self, event: dict[str, Any], moment: float) -> None:
        pod = event["object"]
        ready = {c["type"]: c["status"] for c in pod["status"].get("conditions", ())}.get("Ready")
        if event["type"] == "DELETED" or ready == "False" or "deletionTimestamp" in pod["metadata"]:
            self.note("seen", moment)
        assignment = json.loads(pod["metadata"].get("annotations", {}).get(ASSIGNMENT, "{}"))
        if assignment.get("attempt", 0) >= self.attempt and assignment.get("nnodes"):
            self.assigned.add(pod["metadata"]["name"])
            if len(self.assigned) == self.nodes:
                self.note("assigned", moment)

    def see_job(self, event: dict[str, Any], moment: float) -> None:
        if event["object"].get("status", {}).get("attempt", 0) >= self.attempt:
            self.note("decided", moment)


def first_step(jobs: Jobs, job: str, attempt: int, seconds: float = 120) -> float:
    """The trainer's own time of the first step of an attempt; raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            master = jobs.pod(job, jobs.members(job)[0])
            path = f"/api/v1/namespaces/{jobs.namespace}/pods/{master}:8081/proxy/metrics"
            text = jobs.kubectl("get", "--raw", path)
        except Exception:
            time.sleep(0.3)
            continue
        number, moment = ATTEMPT.search(text), FIRST_STEP.search(text)
        if number and moment and int(float(number[1])) >= attempt and float(moment[1]) > 0:
            return float(moment[1])
        time.sleep(0.3)
    raise TimeoutError(f"attempt {attempt} made no step within {seconds:.0f} s\n{jobs.logs(job)}")


@contextmanager
def watching(jobs: Jobs, job: str, moments: Moments) -> Iterator[None]:
    """Fill the moments from watches of the job and of its pods."""
    selector = f"training.inception.dev/job={job}"
    watches = [
        Watch(
            jobs.cluster,
            ("pods", "-n", jobs.namespace, "-l", selector, "--watch-only"),
            moments.see_pod,
        ),
        Watch(
            jobs.cluster,
            ("inceptiontrainings", job, "-n", jobs.namespace, "--watch-only"),
            moments.see_job,
        ),
    ]
    for watch in watches:
        watch.start()
    # A watch that is not open yet would miss the beginning.
    time.sleep(0.7)
    try:
        yield
    finally:
        for watch in watches:
            watch.stop()


def quantile(values: list[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]
