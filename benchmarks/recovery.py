"""How fast a job comes back: from the kill to the first training step of the next attempt, on a
real node.

    python -m benchmarks.recovery --trials 50 --kind process
    python -m benchmarks.recovery --trials 50 --kind pod
    python -m benchmarks.recovery --trials 50 --kind spare
    python -m benchmarks.recovery --trials 50 --kind spare-lost

Two pods of the real trainer (digits, gloo, checkpoint load) on one node cluster, which is brought
up and removed. Kind `spare` deletes pods of a job that has a hot spare: their ranks still save
together with the others if they can. With `spare-lost` all processes of the pod are killed before,
as when its node loses its power. All moments come from one machine's clock: the kill from inside
the pod (or just before the delete call), watches of the pods and of the job as the API server tells
them, and the first step from the trainer's own timestamp.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

from benchmarks.recovery_tools import KILL, Moments, first_step, quantile, watching
from localcluster import faults
from localcluster.cluster import Cluster
from localcluster.model import ClusterSpec
from node_jobs import Jobs, install

JOB = "recovery"
SPARED = ("spare", "spare-lost")
TITLES = {
    "process": "process killed (SIGKILL of a rank)",
    "pod": "pod deleted (`--force`)",
    "spare": "pod deleted (`--force`), spare at hand",
    "spare-lost": "pod lost (all its processes killed), spare at hand",
}


def trial(jobs: Jobs, kind: str, victim_rank: int) -> dict[str, float]:
    """One kill; seconds from it to each moment."""
    attempt = int(jobs.status(JOB)["attempt"]) + 1
    moments = Moments(attempt, nodes=2)
    if kind in SPARED:
        jobs.wait(JOB, "spared", lambda status: status["nodes"]["spareReady"] == 1)
    victim = jobs.pod(JOB, jobs.members(JOB)[victim_rank])
    uid = next(
        pod["metadata"]["uid"] for pod in jobs.pods(JOB) if pod["metadata"]["name"] == victim
    )
    with watching(jobs, JOB, moments):
        if kind == "process":
            killed = float(jobs.python(victim, KILL))
        else:
            killed = time.time()
            if kind == "spare-lost":
                faults.kill(uid)
            jobs.kubectl("delete", "pod", victim, "--force", "--grace-period=0")
        step = first_step(jobs, JOB, attempt)
    return {
        **{name: moment - killed for name, moment in moments.found.items()},
        "first step": step - killed,
    }


def table(kind: str, results: list[dict[str, float]]) -> str:
    """A Markdown table of the moments after the kill."""
    rows = [
        f"| {TITLES[kind]}, {len(results)} trials, s after it | p50 | p95 | max |",
        "|---|---|---|---|",
    ]
    for name in ("seen", "decided", "assigned", "first step"):
        values = [result[name] for result in results if name in result]
        if values:
            figures = (statistics.median(values), quantile(values, 0.95), max(values))
            rows.append(f"| {name} | " + " | ".join(f"{figure:.2f}" for figure in figures) + " |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--kind", choices=TITLES, action="append")
    options = parser.parse_args()

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    with Cluster.up(ClusterSpec(name="recovery"), say) as cluster:
        install(cluster, say)
        jobs = Jobs(cluster, "default")
        for kind in options.kind or TITLES:
            training = {"recipe": "bninception-digits", "epochs": 100000, "logEverySteps": 5}
            jobs.apply(
                JOB,
                training=training,
                checkpoint={"volumeClaimName": JOB, "everySeconds": 2, "keep": 2},
                failurePolicy={"maxRestarts": 1000},
                **({"elasticPolicy": {"spareNodes": 1}} if kind in SPARED else {}),
            )
            first_step(jobs, JOB, int(jobs.status(JOB).get("attempt", 1)))
            jobs.wait_checkpoint(JOB)
            results = []
            for number in range(options.trials):
                results.append(trial(jobs, kind, number % 2))
                say(f"{kind} {number + 1}/{options.trials}: " + json.dumps(results[-1]))
                # Time for another checkpoint: a job that only repeats steps is slowed down on
                # purpose.
                time.sleep(4.0)
            print(table(kind, results), flush=True)
            jobs.kubectl("delete", "itrain,pvc", JOB, "--wait=true", "--timeout=180s")


if __name__ == "__main__":
    main()
