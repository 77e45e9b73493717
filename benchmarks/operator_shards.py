"""What the jobs of other shards cost an operator, in memory and processor time (docs/scale.md).

`python benchmarks/operator_shards.py --jobs 5000` needs no cluster: events of jobs of two pods are
decoded and handed to the caches, once by a process to which all of them belong, and once by one of
32 to which nearly none does. Each in a process of its own, so that its memory is its own.
"""

import argparse
import asyncio
import copy
import json
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [
    str(HERE.parent),
    str(HERE.parent / "operator"),
    str(HERE.parent / "tests" / "support"),
]

from kopf._core.reactor.inventory import ResourceMemories  # noqa: E402

from cluster_sim import Sim, job  # noqa: E402
from inception_operator.contract.decoding import decode_event  # noqa: E402
from inception_operator.contract.shard import ALL_JOBS, MOST_SHARDS, Shard  # noqa: E402
from inception_operator.runtime.client import Client  # noqa: E402
from inception_operator.runtime.containment import Containment  # noqa: E402
from inception_operator.runtime.job_cache import JobCache  # noqa: E402
from inception_operator.runtime.reflector import PodReflector  # noqa: E402

Json = dict[str, Any]


def lines(number: int, template: Json, pods: list[Json]) -> list[bytes]:
    """Events of a job and of its pods, as a watch brings them."""
    old, new = str(template["metadata"]["name"]), f"sweep-{number}"
    found = []
    for index, body in enumerate([template, *pods]):
        made = copy.deepcopy(body)
        metadata = made["metadata"]
        metadata["name"] = metadata["name"].replace(old, new, 1)
        metadata |= {"uid": f"{number}-{index}", "resourceVersion": str(number * 3 + index + 1)}
        metadata["creationTimestamp"] = "2026-01-01T00:00:00Z"
        found.append(json.dumps({"type": "ADDED", "object": made}).encode())
    return found


def measure(shard: Shard, jobs: int, answers: Any) -> None:
    """Puts bytes and microseconds of processor time for each job, and what kopf keeps of it."""
    sim = Sim(job(2))
    sim.run_until("Running")
    template, pods = sim.job, [pod.to_api() for pod in sim.pods.values()]
    cache = JobCache(shard)
    contained = Containment(lambda _where: None)
    reflector = PodReflector(Client.__new__(Client), lambda _key: None, contained, shard=shard)
    spent, before, weight = 0.0, resident(), 0
    for number in range(jobs):
        events = lines(number, template, pods)
        weight += sum(map(len, events))
        started = time.process_time()
        of_job, *of_pods = (decode_event(line)["object"] for line in events)
        cache.update(of_job)
        for pod in of_pods:
            reflector.merge(pod)
        spent += time.process_time() - started
    kept = resident() - before
    memories = ResourceMemories()
    before = resident()
    asyncio.run(_recall(memories, jobs))
    of_kopf = resident() - before
    answers.put([weight / jobs, kept / jobs, of_kopf / jobs, spent / jobs * 1e6])


async def _recall(memories: ResourceMemories, jobs: int) -> None:
    for number in range(jobs):
        await memories.recall({"metadata": {"uid": f"{number}"}})  # type: ignore[typeddict-item]


def resident() -> int:
    """Bytes of memory of this process."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * 4096


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=5000)
    jobs = parser.parse_args().jobs
    context = multiprocessing.get_context("spawn")
    print("| a job of two pods | events, KiB | kept, KiB | by kopf, KiB | processor, µs |")
    print("|---|---|---|---|---|")
    for what, shard in {"own": ALL_JOBS, "of another shard": Shard(0, MOST_SHARDS)}.items():
        answers = context.Queue()
        process = context.Process(target=measure, args=(shard, jobs, answers))
        process.start()
        weight, kept, of_kopf, spent = answers.get()
        process.join()
        print(
            f"| {what} | {weight / 1024:.1f} | {kept / 1024:.1f} | {of_kopf / 1024:.1f} "
            f"| {spent:.0f} |"
        )


if __name__ == "__main__":
    main()
