"""How fast a job comes back: from the kill to the first training step of the next attempt, on a real node.

    python -m benchmarks.recovery --trials 50 --kind process
    python -m benchmarks.recovery --trials 50 --kind pod

Two pods of the real trainer (digits, gloo, checkpoint load) on one node cluster, which is brought up and removed.
All moments come from one machine's clock: the kill from inside the pod (or just before the delete call), watches of
the pods and of the job as the API server tells them, and the first step from the trainer's own timestamp.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from localcluster.cluster import Cluster
from localcluster.model import ClusterSpec
from node_jobs import Jobs, install

JOB = "recovery"
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
        argv = [self.cluster.layout.binary("kubectl"), f"--kubeconfig={self.cluster.kubeconfig}", "get"]
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

    def __init__(self) -> None:
        self.attempt = 0
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
            if len(self.assigned) == 2:
                self.note("assigned", moment)

    def see_job(self, event: dict[str, Any], moment: float) -> None:
        if event["object"].get("status", {}).get("attempt", 0) >= self.attempt:
            self.note("decided", moment)


def first_step(jobs: Jobs, attempt: int, seconds: float = 120) -> float:
    """The trainer's own time of the first step of an attempt; raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            path = f"/api/v1/namespaces/{jobs.namespace}/pods/{jobs.pod(JOB, 0)}:8081/proxy/metrics"
            text = jobs.kubectl("get", "--raw", path)
        except Exception:
            time.sleep(0.3)
            continue
        number, moment = ATTEMPT.search(text), FIRST_STEP.search(text)
        if number and moment and int(float(number[1])) >= attempt and float(moment[1]) > 0:
            return float(moment[1])
        time.sleep(0.3)
    raise TimeoutError(f"attempt {attempt} made no step within {seconds:.0f} s\n{jobs.logs(JOB)}")


def trial(jobs: Jobs, kind: str, victim_slot: int) -> dict[str, float]:
    """One kill; seconds from it to each moment."""
    attempt = int(jobs.status(JOB)["attempt"]) + 1
    moments = Moments()
    moments.attempt = attempt
    selector = f"training.inception.dev/job={JOB}"
    victim = jobs.pod(JOB, victim_slot)
    watches = [
        Watch(jobs.cluster, ("pods", "-n", jobs.namespace, "-l", selector, "--watch-only"), moments.see_pod),
        Watch(jobs.cluster, ("inceptiontrainings", "-n", jobs.namespace, "--watch-only"), moments.see_job),
    ]
    for watch in watches:
        watch.start()
    time.sleep(0.7)
    if kind == "process":
        killed = float(jobs.python(victim, KILL))
    else:
        killed = time.time()
        jobs.kubectl("delete", "pod", victim, "--force", "--grace-period=0")
    step = first_step(jobs, attempt)
    for watch in watches:
        watch.stop()
    return {**{name: moment - killed for name, moment in moments.found.items()}, "first step": step - killed}


def quantile(values: list[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]


def table(kind: str, results: list[dict[str, float]]) -> str:
    """A Markdown table of the moments after the kill."""
    rows = [f"| {kind} killed, {len(results)} trials, s after the kill | p50 | p95 | max |", "|---|---|---|---|"]
    for name in ("seen", "decided", "assigned", "first step"):
        values = [result[name] for result in results if name in result]
        if values:
            figures = (statistics.median(values), quantile(values, 0.95), max(values))
            rows.append(f"| {name} | " + " | ".join(f"{figure:.2f}" for figure in figures) + " |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--kind", choices=("process", "pod"), action="append")
    options = parser.parse_args()

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    with Cluster.up(ClusterSpec(name="recovery"), say) as cluster:
        install(cluster, say)
        jobs = Jobs(cluster, "default")
        for kind in options.kind or ("process", "pod"):
            training = {"recipe": "bninception-digits", "epochs": 100000, "logEverySteps": 5}
            jobs.apply(
                JOB,
                training=training,
                checkpoint={"volumeClaimName": JOB, "everySeconds": 2, "keep": 2},
                failurePolicy={"maxRestarts": 1000},
            )
            first_step(jobs, int(jobs.status(JOB).get("attempt", 1)))
            jobs.wait_checkpoint(JOB)
            results = []
            for number in range(options.trials):
                results.append(trial(jobs, kind, number % 2))
                say(f"{kind} {number + 1}/{options.trials}: " + json.dumps(results[-1]))
                time.sleep(1.0)
            print(table(kind, results), flush=True)
            jobs.kubectl("delete", "itrain,pvc", JOB, "--wait=true", "--timeout=180s")


if __name__ == "__main__":
    main()
