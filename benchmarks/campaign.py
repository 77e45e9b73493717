"""Many kills of several kinds in a row on a real node; proves that nothing was lost and prints how
fast jobs came back.

    python -m benchmarks.campaign --kills 100 --pods 2 --seed 7
    python -m benchmarks.campaign --kills 12 --broken stale

Jobs of the real trainer (digits, gloo, checkpoints), every other one with a hot spare, are hurt at
random moments, each time after they have made a step, until three quarters are done; then they run
to their end. Every job must end with the samples of an undisturbed run, each attempt must have
ended for a cause that a kill explains or that is the infrastructure's, and exactly the kills that
are the job's fault must count towards its limit. The kinds:

    process  SIGKILL to a rank
    pod      forced deletion of a pod
    oom      the memory of the container is filled up; the moment is when that begins
    stop     SIGSTOP to a rank, found by the watchdog
    node     the node and all pods of the job on it go silent; it is back when they have been
             given up

With --broken a fast path does not work, and jobs come back more slowly:

    unreachable  the operator cannot reach any pod, from the beginning to the end
    stale        the pods that are there read their assignments up to a minute late
    away         no operator runs for a minute from the moment of the kill on
"""

from __future__ import annotations

import argparse
import math
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from benchmarks.campaign_ledger import Kill, Ledger
from benchmarks.recovery_tools import KILL, Watch, quantile
from localcluster.cluster import Cluster
from localcluster.model import ClusterSpec
from node_faults import (
    assignments_stale,
    node_lost,
    operator_away,
    operator_blind,
    run_out_of_memory,
    wait_node,
)
from node_jobs import SAMPLES_OF_AN_EPOCH, Jobs, Json, condition, install

# Giving up a node takes long, so there are fewer of those.
WEIGHTS = {"process": 2, "pod": 2, "oom": 2, "stop": 2, "node": 1}
BROKEN = ("unreachable", "stale", "away")
EPOCHS = 20
HURT_UNTIL = 0.75
WATCHDOG_SECONDS = 15
AWAY_SECONDS = 60.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class Recovery:
    """One kill and how long its parts took."""

    kind: str
    spare: bool
    warm: bool
    detected: float
    first_step: float

    @property
    def row(self) -> tuple[str, str, str]:
        """The line of the table that it belongs to."""
        return (
            self.kind,
            "with a spare" if self.spare else "no spare",
            "warm" if self.warm else "cold",
        )


@dataclass
class Campaign:
    """The kills so far, on jobs one after the other."""

    jobs: Jobs
    nodes: int
    kills: int
    kinds: tuple[str, ...]
    random: random.Random
    say: Say
    broken: str | None = None
    recoveries: list[Recovery] = field(default_factory=list)
    unexplained: int = 0
    ends: float = math.inf

    @property
    def over(self) -> bool:
        """All kills are done, or the time for them."""
        return len(self.recoveries) >= self.kills or time.monotonic() >= self.ends

    def run(self) -> None:
        """Hurt jobs until all kills are done, and check each job at its end."""
        number = 0
        with operator_blind(self.jobs) if self.broken == "unreachable" else ExitStack():
            while not self.over:
                number += 1
                self._one_job(f"campaign-{number}", spare=number % 2 == 0)

    def _one_job(self, job: str, *, spare: bool) -> None:
        ledger = Ledger()
        name = f"--field-selector=metadata.name={job}"
        watch = Watch(
            self.jobs.cluster, ("inceptiontrainings", "-n", self.jobs.namespace, name), ledger.see
        )
        watch.start()
        try:
            self._apply(job, spare=spare)
            kills = self._hurt(job, ledger, spare=spare)
            self._check(job, ledger, kills)
        finally:
            watch.stop()
        self.jobs.kubectl("delete", "itrain,pvc", job, "--wait=true", "--timeout=180s")

    def _apply(self, job: str, *, spare: bool) -> None:
        container = {
            "name": "trainer",
            "resources": {
                "requests": {"cpu": "100m", "memory": "512Mi"},
                "limits": {"cpu": "1", "memory": "2Gi"},
            },
        }
        evaluation = {"everyEpochs": EPOCHS}
        elastic: Json = (
            {"elasticPolicy": {"minNodes": self.nodes, "spareNodes": 1}} if spare else {}
        )
        self.jobs.apply(
            job,
            numNodes=self.nodes,
            training={
                "recipe": "bninception-digits",
                "epochs": EPOCHS,
                "logEverySteps": 5,
                "evaluation": evaluation,
            },
            template={"spec": {"containers": [container]}},
            checkpoint={"volumeClaimName": job, "everySeconds": 2, "keep": 2},
            failurePolicy={
                "maxRestarts": 1000,
                # The ledger counts over the whole life: ten years.
                "resetAfterSeconds": 315_360_000,
                "progressDeadlineSeconds": WATCHDOG_SECONDS,
                "nodeLostSeconds": 2,
                "nodeLostPolicy": "ForceDeletePods",
            },
            **elastic,
        )

    def _hurt(self, job: str, ledger: Ledger, *, spare: bool) -> list[Kill]:
        self.jobs.wait_step(job, 1)
        kills: list[Kill] = []
        while not self.over:
            time.sleep(self.random.uniform(0, 4))
            if spare:
                self.jobs.wait(job, "spared", lambda status: status["nodes"].get("spareReady") == 1)
            page = self.jobs.page(job)
            succeeded = condition(self.jobs.status(job), "Succeeded") == "True"
            if succeeded or page.get("trainer_progress_ratio", 0) >= HURT_UNTIL:
                break
            if page.get("trainer_attempt") == max(ledger.decided):
                kills.append(self._kill(job, ledger, kills, spare=spare))
        return kills

    def _kill(self, job: str, ledger: Ledger, before: list[Kill], *, spare: bool) -> Kill:
        """One kill and the recovery from it. A second OOM in a row would rightly end the job."""
        attempt = max(ledger.decided)
        oom = bool(before) and before[-1].kind == "oom"
        kinds = [kind for kind in self.kinds if not (oom and kind == "oom")]
        kind = self.random.choices(kinds, [WEIGHTS[kind] for kind in kinds])[0]
        slot = self.random.choice(self.jobs.members(job))
        victim, known = (
            self.jobs.pod(job, slot),
            {pod["metadata"]["uid"] for pod in self.jobs.pods(job)},
        )
        with self._broken_path(job):
            moment = self._strike(kind, job, victim, ledger, attempt)
        step = self.jobs.wait_step(job, attempt + 1, seconds=400)
        members = {self.jobs.pod(job, slot) for slot in self.jobs.members(job)}
        now = {
            pod["metadata"]["uid"]
            for pod in self.jobs.pods(job)
            if pod["metadata"]["name"] in members
        }
        detected = ledger.wait_decided(attempt + 1) - moment
        self.recoveries.append(Recovery(kind, spare, now <= known, detected, step - moment))
        self.say(
            f"{len(self.recoveries)}/{self.kills} {kind} of {victim} in attempt {attempt}: "
            f"{self.recoveries[-1]}"
        )
        return Kill(kind, attempt)

    @contextmanager
    def _broken_path(self, job: str) -> Iterator[None]:
        """What does not work while the job is hurt, and for a while after it."""
        if self.broken == "stale":
            with assignments_stale(self.jobs, job):
                yield
                time.sleep(self.random.uniform(0, AWAY_SECONDS))
        elif self.broken == "away":
            with operator_away(self.jobs):
                yield
                time.sleep(AWAY_SECONDS)
        else:
            yield

    def _strike(self, kind: str, job: str, victim: str, ledger: Ledger, attempt: int) -> float:
        """Hurt the job; answers when, on this machine's clock."""
        if kind == "process":
            return float(self.jobs.python(victim, KILL))
        moment = time.time()
        if kind == "pod":
            self.jobs.kubectl("delete", "pod", victim, "--force", "--grace-period=0")
        elif kind == "stop":
            self.jobs.kill_rank(victim, signal="SIGSTOP")
        elif kind == "oom":
            run_out_of_memory(self.jobs, victim)
        else:
            with node_lost(self.jobs, job):
                ledger.wait_decided(attempt + 1)
            wait_node(self.jobs, ready=True)
        return moment

    def _check(self, job: str, ledger: Ledger, kills: list[Kill]) -> None:
        status = self.jobs.wait_succeeded(job, seconds=1800)
        samples = self.jobs.summary(job)["samplesSeen"]
        if samples != EPOCHS * SAMPLES_OF_AN_EPOCH:
            raise AssertionError(
                f"{job}: {samples} samples after {kills}\n{self.jobs.story(job, status)}"
            )
        extra = ledger.audit(kills, status)
        self.unexplained += extra
        self.say(
            f"{job} ended well after {len(kills)} kills, {extra} more restarts: samples and "
            "counters are exact"
        )


def table(campaign: Campaign, seed: int) -> str:
    """The figures in Markdown."""
    broken = f", {campaign.broken}" if campaign.broken else ""
    title = f"{len(campaign.recoveries)} kills, {campaign.nodes} pods{broken}, seed {seed}"
    rows = [
        f"{title}: all recovered, samples and counters exact; {campaign.unexplained} more "
        "restarts, none counted",
        "",
        "| kind | | pods | kills | detected p50 | p95 | first step p50 | p95 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted({recovery.row for recovery in campaign.recoveries}):
        found = [recovery for recovery in campaign.recoveries if recovery.row == row]
        figures = [
            figure
            for values in ([r.detected for r in found], [r.first_step for r in found])
            for figure in (statistics.median(values), quantile(values, 0.95))
        ]
        rows.append(
            f"| {' | '.join(row)} | {len(found)} | "
            + " | ".join(f"{f:.2f} s" for f in figures)
            + " |"
        )
    return "\n".join(rows)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--pods", type=int, choices=(2, 4), default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=WEIGHTS, action="append", help="only these; repeatable")
    parser.add_argument("--minutes", type=float, default=math.inf, help="no kill after so long")
    parser.add_argument("--broken", choices=BROKEN, help="a fast path that does not work")
    options = parser.parse_args()
    options.kind = options.kind or [
        kind for kind in WEIGHTS if kind != "node" or not options.broken
    ]
    if options.kind == ["oom"]:
        parser.error("--kind oom needs another kind beside it: two in a row end a job")
    if options.broken and "node" in options.kind:
        parser.error("--kind node is a broken path of its own; leave out --broken")
    return options


def main() -> None:
    options = parse()

    def say(line: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)

    with Cluster.up(ClusterSpec(name=f"campaign-{os.getpid()}"), say) as cluster:
        install(cluster, say)
        jobs = Jobs(cluster, "default")
        dice = random.Random(options.seed)  # noqa: S311
        campaign = Campaign(
            jobs, options.pods, options.kills, tuple(options.kind), dice, say, options.broken
        )
        campaign.ends = time.monotonic() + 60 * options.minutes
        campaign.run()
        print(table(campaign, options.seed), flush=True)


if __name__ == "__main__":
    main()
