"""Many kills of several kinds in a row on a real node; proves that nothing was lost and prints how fast jobs came back.

    python -m benchmarks.campaign --kills 100 --pods 2 --seed 7

Jobs of the real trainer (digits, gloo, checkpoints) are hurt at random moments, each time after they have made a step,
until they are half done; then they run to their end. Every job must end with the samples of an undisturbed run and
with exactly the restarts that the kills explain. The kinds:

    process  SIGKILL to a rank
    pod      forced deletion of a pod
    oom      a process that eats the memory of the container; the moment is when it begins to eat
    stop     SIGSTOP to a rank, found by the watchdog
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.recovery_tools import KILL, Moments, first_step, quantile, watching
from localcluster.cluster import Cluster
from localcluster.errors import CommandError
from localcluster.model import ClusterSpec
from node_jobs import Jobs, install

KINDS = ("process", "pod", "oom", "stop")
COUNTED = frozenset(("process", "oom", "stop"))
EPOCHS = 6
SAMPLES = EPOCHS * (1438 // 64) * 64
HALF = 50
WATCHDOG_SECONDS = 20
EAT = """
hoard = []
while True:
    hoard.append(bytearray(b"x" * (16 << 20)))
"""
Say = Callable[[str], None]


class CampaignError(Exception):
    """Something was lost, or counted wrongly."""


@dataclass
class Campaign:
    """The kills so far, on jobs one after the other."""

    jobs: Jobs
    nodes: int
    kills: int
    kinds: tuple[str, ...]
    random: random.Random
    say: Say
    results: dict[str, list[dict[str, float]]] = field(default_factory=lambda: defaultdict(list))
    done: int = 0

    def run(self) -> None:
        """Hurt jobs until all kills are done, and check each job at its end."""
        number = 0
        while self.done < self.kills:
            number += 1
            self._one_job(f"campaign-{number}")

    def _one_job(self, job: str) -> None:
        self._apply(job)
        first_step(self.jobs, job, 1)
        self.jobs.wait_checkpoint(job)
        killed: list[str] = []
        while self.done < self.kills and self._progress(job) < HALF:
            time.sleep(self.random.uniform(0, 4))
            killed.append(self._kill(job, killed[-1:] == ["oom"], attempt=len(killed) + 2))
        self._check(job, killed)
        self.jobs.kubectl("delete", "itrain,pvc", job, "--wait=true", "--timeout=180s")

    def _apply(self, job: str) -> None:
        container = {
            "name": "trainer",
            "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"cpu": "1", "memory": "2Gi"}},
        }
        evaluation = {"everyEpochs": EPOCHS}
        self.jobs.apply(
            job,
            numNodes=self.nodes,
            training={"recipe": "bninception-digits", "epochs": EPOCHS, "logEverySteps": 5, "evaluation": evaluation},
            template={"spec": {"containers": [container]}},
            checkpoint={"volumeClaimName": job, "everySeconds": 2, "keep": 2},
            failurePolicy={"maxRestarts": 1000, "progressDeadlineSeconds": WATCHDOG_SECONDS},
        )

    def _progress(self, job: str) -> int:
        return int(self.jobs.status(job).get("trainerStatus", {}).get("progressPercentage", 0))

    def _kill(self, job: str, had_oom: bool, attempt: int) -> str:
        """One kill and the recovery from it; answers its kind. A second OOM in a row would rightly end the job."""
        kind = self.random.choice([kind for kind in self.kinds if not (had_oom and kind == "oom")])
        victim = self.jobs.pod(job, self.random.randrange(self.nodes))
        moments = Moments(attempt, self.nodes)
        with watching(self.jobs, job, moments):
            moment = self._strike(kind, victim)
            step = first_step(self.jobs, job, attempt, seconds=300)
        figures = {"detected": moments.found["decided"] - moment, "first step": step - moment}
        self.results[kind].append(figures)
        self.done += 1
        words = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in figures.items())
        self.say(f"{self.done}/{self.kills} {kind} of {victim}: {words}")
        return kind

    def _strike(self, kind: str, victim: str) -> float:
        """Hurt the pod; answers when, on this machine's clock."""
        if kind == "process":
            return float(self.jobs.python(victim, KILL))
        moment = time.time()
        if kind == "pod":
            self.jobs.kubectl("delete", "pod", victim, "--force", "--grace-period=0")
        elif kind == "stop":
            self.jobs.kill_rank(victim, signal="SIGSTOP")
        else:
            self._eat(victim)
        return moment

    def _eat(self, victim: str) -> None:
        try:
            self.jobs.python(victim, EAT)
        except CommandError:
            return
        raise CampaignError(f"{victim} has no limit of memory")

    def _check(self, job: str, killed: list[str]) -> None:
        status = self.jobs.wait_succeeded(job, seconds=1200)
        summary = self.jobs.summary(job)
        counted = sum(kind in COUNTED for kind in killed)
        expected = {"restarts": len(killed), "restartsCountTowardsMax": counted, "samplesSeen": SAMPLES}
        found = {key: {**summary, **status}[key] for key in expected}
        if found != expected:
            raise CampaignError(f"{job}: {found} after {killed}, expected {expected}\n{self.jobs.story(job, status)}")
        self.say(f"{job} ended well after {len(killed)} kills: {found}")


def table(campaign: Campaign, seed: int) -> str:
    """The figures in Markdown."""
    title = f"{campaign.done} kills, {campaign.nodes} pods, seed {seed}; all recovered, samples and counters exact"
    rows = [f"| {title} | kills | detected p50 | p95 | first step p50 | p95 |", "|---|---|---|---|---|---|"]
    for kind in KINDS:
        results = campaign.results.get(kind)
        if results:
            rows.append(f"| {kind} | {len(results)} | " + " | ".join(_figures(results)) + " |")
    return "\n".join(rows)


def _figures(results: list[dict[str, float]]) -> list[str]:
    found = []
    for name in ("detected", "first step"):
        values = [result[name] for result in results]
        found += [f"{statistics.median(values):.2f} s", f"{quantile(values, 0.95):.2f} s"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--pods", type=int, choices=(2, 4), default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=KINDS, action="append", help="only these; repeatable")
    options = parser.parse_args()

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    kinds = tuple(options.kind or KINDS)
    if kinds == ("oom",):
        parser.error("--kind oom needs another kind beside it: two in a row end a job")
    with Cluster.up(ClusterSpec(name="campaign"), say) as cluster:
        install(cluster, say)
        jobs = Jobs(cluster, "default")
        campaign = Campaign(jobs, options.pods, options.kills, kinds, random.Random(options.seed), say)  # noqa: S311
        campaign.run()
        print(table(campaign, options.seed), flush=True)


if __name__ == "__main__":
    main()
