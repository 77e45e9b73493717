"""What a scrape costs: the operator's page of many jobs, and a pod's page with 64 ranks.

`python benchmarks/metrics_pages.py` prints a Markdown table: processor time of making each page,
its size, its samples, and the longest turn of an event loop beside which the page is made in a
thread, as the operator's server does. All times are processor times of the thread they are of, so
other work on the machine shows little; the shortest and the median of several pages. Ends with an
error when a page of `--jobs` takes more than `--most-seconds`.
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [
    str(HERE.parent / "operator"),
    str(HERE.parent / "trainer"),
    str(HERE.parent / "tests" / "support"),
]

from operator_server import running_job  # noqa: E402
from prometheus_client import disable_created_metrics, generate_latest  # noqa: E402

from example_run import INFO  # noqa: E402
from inception_operator.contract.names import ConditionType  # noqa: E402
from inception_operator.runtime.metrics import Metrics  # noqa: E402
from inception_trainer.device.figures import Figures  # noqa: E402
from inception_trainer.launcher.rank_times import RankTimes  # noqa: E402
from inception_trainer.reporting.records import LogRecord  # noqa: E402
from inception_trainer.sinks.prometheus import Prometheus  # noqa: E402
from operator_objects import pod  # noqa: E402

TICK = 0.001
ROUNDS = 7
RANKS = 64
Json = dict[str, Any]


@dataclass(frozen=True)
class Cost:
    """Of one page: processor times in seconds, its size in bytes and its samples."""

    name: str
    shortest: float
    median: float
    turn: float
    size: int
    samples: int

    def row(self) -> str:
        """A row of the table."""
        return (
            f"| {self.name} | {self.shortest * 1000:.1f} ms | {self.median * 1000:.1f} ms "
            f"| {self.turn * 1000:.1f} ms | {self.size / 2**20:.2f} MiB | {self.samples:,} |"
        )


def operator_page(jobs: int, *, ended: bool) -> Callable[[], bytes]:
    """What makes the operator's page of jobs that run, or of jobs that have ended."""
    resources = [running_job(number) for number in range(jobs)]
    if ended:
        for resource in resources:
            end(resource)
    pods = {f"job-{number}": (pod(f"job-{number}-0-1"),) for number in range(jobs)}
    return Metrics(lambda: resources, lambda key: pods[key[1]], server="https://10.96.0.1").page


def end(resource: Json) -> None:
    """Make a running job one that has succeeded."""
    status = resource["status"]
    status["state"] = "Succeeded"
    done = {"type": ConditionType.SUCCEEDED, "status": "True", "reason": "Completed", "message": ""}
    status["conditions"].append(done)
    status["completionTime"] = "2026-01-01T10:00:00Z"
    status["trainerStatus"] |= {"loss": "0.9000", "samplesSeen": 1281167}
    resource["metadata"]["creationTimestamp"] = "2026-01-01T08:00:00Z"


def trainer_page() -> Callable[[], bytes]:
    """What makes the page of a pod with `RANKS` ranks, each with a device of which all is known."""
    times = [RankTimes(rank, 1000, 150.25 + rank, 120.5, 29.75) for rank in range(RANKS)]
    sink = Prometheus(0, ranks=lambda: times)
    sink.start(INFO)
    figures = Figures(6.1e10, 8.5e10, 7.2e10, 0.97, 61.0, 412.0, 1.0)
    record = LogRecord(
        step=1000,
        epoch=0.8,
        loss=2.3456,
        accuracy_top1=0.41,
        accuracy_top5=0.66,
        learning_rate=0.45,
        images_per_second=81234.5,
        step_seconds=0.15,
        data_wait_ratio=0.01,
        progress=0.08,
        remaining_seconds=7200.0,
        samples_seen=1024000,
        skipped_samples=3,
        devices=(figures,) * RANKS,
        loss_scale=65536.0,
        gradient_norm=1.25,
        device_idle_ratio=0.02,
    )
    sink.log(record)
    return lambda: generate_latest(sink.registry)


async def measure(name: str, make: Callable[[], bytes]) -> Cost:
    """Make the page in a thread, again and again, and watch the event loop beside it."""

    def timed() -> tuple[float, bytes]:
        began = time.thread_time()
        page = make()
        return time.thread_time() - began, page

    turns: list[float] = []
    watcher = asyncio.create_task(watch(turns))
    # The first page fills caches, which those after it find.
    results = [await asyncio.to_thread(timed) for _ in range(ROUNDS + 1)]
    watcher.cancel()
    seconds = [each for each, _ in results[1:]]
    page = results[-1][1]
    samples = sum(not line.startswith(b"#") for line in page.splitlines())
    return Cost(name, min(seconds), statistics.median(seconds), max(turns), len(page), samples)


async def watch(turns: list[float]) -> None:
    """Note the processor time of each turn of the event loop."""
    last = time.thread_time()
    while True:
        await asyncio.sleep(TICK)
        now = time.thread_time()
        turns.append(now - last)
        last = now


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--most-seconds", type=float, default=1.0)
    arguments = parser.parse_args()
    # As both programs do when they start.
    disable_created_metrics()
    print("| page | shortest | median | longest turn beside it | size | samples |")
    print("|---|---|---|---|---|---|")
    costs = []
    for jobs in arguments.jobs:
        for ended, name in ((False, "run"), (True, "have ended")):
            page = operator_page(jobs, ended=ended)
            costs.append(asyncio.run(measure(f"operator, {jobs:,} jobs that {name}", page)))
            print(costs[-1].row(), flush=True)
    costs.append(asyncio.run(measure(f"pod with {RANKS} ranks", trainer_page())))
    print(costs[-1].row())
    if any(cost.shortest > arguments.most_seconds for cost in costs):
        sys.exit(f"a page takes more than {arguments.most_seconds} s of processor time")


if __name__ == "__main__":
    main()
