"""Two operators with one Lease lose their leader again and again while jobs start.

Real control plane, fake nodes. In each round so many jobs are created, every fifth of which fails
and restarts twice; while they start, the leader is killed (SIGKILL), frozen (SIGSTOP until the
other one works, then SIGCONT), cut off from the API server without a word (nothing arrives until
the other one works, as where a network drops all packets) or drained (SIGTERM). A round must end
without a pod made twice, with exact counters, and with a former leader that sent nothing once its
time was over; otherwise the drill ends with 1. Prints a Markdown table.
`python benchmarks/leader_drill.py`
"""

import argparse
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [
    str(HERE.parent),
    str(HERE.parent / "operator"),
    str(HERE.parent / "trainer"),
    str(HERE.parent / "tests" / "support"),
]

from localcluster.cluster import Cluster  # noqa: E402
from localcluster.model import ClusterSpec  # noqa: E402
from localcluster.progress import to_stderr  # noqa: E402
from replicas import PodLedger, Replicas, Starts  # noqa: E402
from trainings import Trainings, wait_served  # noqa: E402

NODES = 10
ROUNDS = {"kill": 20, "freeze": 10, "cut_off": 10, "drain": 5}
LATEST = 3.0
"""The leader is hit at a random moment within so many seconds after the first job's creation."""


@dataclass
class Record:
    """What the rounds of one kind have shown; ``seconds`` from the fault to the successor's first
    change.
    """

    seconds: list[float] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)


def drill(trainings: Trainings, folder: Path, rounds: list[str], jobs: int) -> dict[str, Record]:
    """All rounds, in random order."""
    records: dict[str, Record] = defaultdict(Record)
    ledger = PodLedger(trainings.cluster, trainings.namespace)
    ledger.start()
    with Replicas(trainings.cluster, folder, "leader-drill") as replicas:
        for number, fault in enumerate(rounds, 1):
            record = records[fault]
            starts = Starts(trainings, ledger, f"r{number}", jobs)
            begun = time.monotonic()
            hurt_one_round(replicas, starts, fault, record)
            shown = f"take-over {record.seconds[-1]:.2f} s, round {time.monotonic() - begun:.0f} s"
            to_stderr(f"round {number} of {len(rounds)}: {fault}, {shown}")
            for mistake in starts.mistakes():
                to_stderr(f"  MISTAKE {mistake}")
                record.mistakes.append(mistake)
            ledger.twice.clear()
            starts.delete()
    return records


def hurt_one_round(replicas: Replicas, starts: Starts, fault: str, record: Record) -> None:
    """Start the jobs, hit the leader, wait until all jobs are where they must be."""
    leader, _ = replicas.leader_and_other()
    creating = threading.Thread(target=starts.create, name="users")
    began = time.monotonic()
    creating.start()
    time.sleep(random.uniform(0, LATEST))  # noqa: S311
    record.seconds.append(getattr(replicas, fault)())
    creating.join()
    record.late += replicas.held(leader, began)
    starts.wait()


def table(records: dict[str, Record], jobs: int) -> str:
    """The figures as Markdown."""
    lines = [
        "| the leader is | times | take-over p50 | p95 | max | its writes that arrived after it "
        "| of them carried out | pods twice, counters wrong |",
        "|---|---|---|---|---|---|---|---|",
    ]
    words = {"kill": "killed", "freeze": "frozen", "cut_off": "cut off", "drain": "drained"}
    for fault in (name for name in ROUNDS if name in records):
        record = records[fault]
        seconds = sorted(record.seconds)
        p95 = seconds[min(len(seconds) - 1, round(0.95 * (len(seconds) - 1)))]
        done = sum(text.rsplit(": ", 1)[1].startswith("2") for text in record.late)
        figures = (
            *(f"{value:.2f} s" for value in (statistics.median(seconds), p95, seconds[-1])),
            *(str(value) for value in (len(record.late), done, len(record.mistakes))),
        )
        lines.append(f"| {words[fault]} | {len(seconds)} | {' | '.join(figures)} |")
    total = sum(len(record.seconds) for record in records.values())
    return "\n".join([*lines, "", f"{total} rounds of {jobs} jobs."])


def main() -> int:
    """Start a control plane, drill, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=50, help="jobs that start in each round")
    parser.add_argument("--seed", type=int, default=13, help="of the order and the moments")
    for fault, times in ROUNDS.items():
        option = f"--{fault.replace('_', '-')}"
        parser.add_argument(option, type=int, default=times, metavar="TIMES", help="rounds of it")
    arguments = parser.parse_args()
    rounds = [fault for fault in ROUNDS for _ in range(getattr(arguments, fault))]
    random.seed(arguments.seed)
    random.shuffle(rounds)
    spec = ClusterSpec(f"drill-{os.getpid()}", flavour="control-plane", kwok_nodes=NODES)
    with Cluster.up(spec, to_stderr) as cluster, tempfile.TemporaryDirectory() as folder:
        crd = HERE.parent / "manifests" / "crd.yaml"
        cluster.kubectl("apply", "--server-side", f"--filename={crd}")
        wait_served(cluster)
        cluster.kubectl("create", "namespace", "drill")
        cluster.kubectl(
            *("wait", "--for=create", "--timeout=30s", "--namespace=drill"),
            "serviceaccount/default",
        )
        trainings = Trainings(cluster, "drill")
        records = drill(trainings, Path(folder), rounds, arguments.jobs)
    print(table(records, arguments.jobs))
    return 1 if any(record.mistakes for record in records.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
