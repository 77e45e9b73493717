"""The operator's HTTP server under strangers: its event loop, its memory, the kubelet's probes.

The server runs in a process of its own, with the metrics of many jobs and without a cluster. Prints
a Markdown table: the longest turn of its event loop, by the clock and by the processor time of its
thread (on a busy machine the rest is waiting for a core), how long a probe took, and memory.
`python benchmarks/operator_server.py --jobs 1000`
"""

import argparse
import asyncio
import json
import multiprocessing
import re
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "operator"), str(HERE.parent / "tests" / "support")]

from inception_operator.contract.conditions import INITIAL  # noqa: E402
from inception_operator.contract.names import ConditionType  # noqa: E402
from inception_operator.decide import goodput  # noqa: E402
from inception_operator.runtime.metrics import Metrics  # noqa: E402
from inception_operator.runtime.server import Server  # noqa: E402
from operator_objects import job, pod  # noqa: E402

TICK = 0.001
PROBES = 20
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Served:
    """A server of a child process: its port, and the pipe that starts and ends a measurement."""

    port: int
    pipe: Connection

    def stop_watch(self) -> dict[str, float]:
        """Since the last call: the longest turn of the event loop by the clock and by processor
        time, in ms; and memory in MiB.
        """
        self.pipe.send("look")
        answer: dict[str, float] = json.loads(self.pipe.recv())
        return answer


def running_job(number: int) -> dict[str, Any]:
    """A job with all the series that one has while it runs."""
    return job(
        f"job-{number}",
        state="Running",
        accelerator="nvidia",
        model="inception_v3",
        conditions=[
            {"type": kind, "status": "True", "reason": "Any", "message": ""}
            for kind, *_ in INITIAL
            if kind not in (ConditionType.SUCCEEDED, ConditionType.FAILED)
        ],
        trainerStatus={
            "progressPercentage": 42,
            "accuracyTop1": "0.97",
            "accuracyTop5": "0.99",
            "samplesPerSecond": "812.5",
        },
        goodput={
            "seconds": dict.fromkeys(goodput.CAUSES, 1000),
            "cause": "productive",
            "lastUpdatedTime": "2026-01-01T00:00:00Z",
        },
    )


async def serve(pipe: Connection, jobs: int) -> None:
    """Serve until the pipe says otherwise, and watch the event loop."""
    resources = [running_job(number) for number in range(jobs)]
    pods = {f"job-{number}": (pod(f"job-{number}-0-1"),) for number in range(jobs)}
    metrics = Metrics(lambda: resources, lambda key: pods[key[1]])
    server = Server(
        "127.0.0.1",
        0,
        healthy=lambda: None,
        ready=lambda: None,
        metrics=metrics.page,
        notify=lambda *_: False,
    )
    await server.start()
    pipe.send(server.port)
    pause = work = 0.0
    last, last_work = time.monotonic(), time.thread_time()
    while True:
        await asyncio.sleep(TICK)
        now, now_work = time.monotonic(), time.thread_time()
        pause, work = max(pause, now - last - TICK), max(work, now_work - last_work)
        if pipe.poll():
            pipe.recv()
            figures = {"pause": pause * 1000, "work": work * 1000, "memory": resident()}
            pipe.send(json.dumps(figures))
            pause = work = 0.0
        last, last_work = time.monotonic(), time.thread_time()


def resident() -> float:
    """Memory of this process in MiB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found.group(1)) / 1024


def child(pipe: Connection, jobs: int) -> None:
    """The whole life of the process that serves."""
    asyncio.run(serve(pipe, jobs))


async def get(port: int, path: str) -> tuple[int, float]:
    """Bytes of the answer and seconds that it took."""
    started = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: operator\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200"), answer[:100]
    return len(answer), time.monotonic() - started


async def probes(port: int) -> float:
    """The slowest of several probes, in ms."""
    slowest = 0.0
    for _ in range(PROBES):
        slowest = max(slowest, (await get(port, "/healthz"))[1])
        await asyncio.sleep(0.05)
    return slowest * 1000


async def idle(port: int) -> float:
    """Nobody else asks."""
    return await probes(port)


async def scrapes(port: int) -> float:
    """A hundred scrapes at once."""
    answers = asyncio.gather(*(get(port, "/metrics") for _ in range(100)))
    slowest = await probes(port)
    await answers
    return slowest


async def slow_scrapes(port: int) -> float:
    """A hundred who ask for the page and do not read it."""
    streams = await half_open(port, 100, b"GET /metrics HTTP/1.1\r\nHost: operator\r\n\r\n")
    for _, writer in streams:
        writer.transport.pause_reading()
    slowest = await probes(port)
    close(streams)
    return slowest


async def strangers(port: int) -> float:
    """Connections that never ask, more than there may be."""
    streams = await half_open(port, 900, b"GET /healthz HTTP/1.1\r\n")
    slowest = await probes(port)
    close(streams)
    return slowest


async def half_open(port: int, count: int, sent: bytes) -> list[Streams]:
    """So many connections that have sent this."""
    streams = []
    for _ in range(count):
        streams.append(await asyncio.open_connection("127.0.0.1", port))
        streams[-1][1].write(sent)
    return streams


def close(streams: list[Streams]) -> None:
    """Close them all."""
    for _, writer in streams:
        writer.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=1000, help="jobs on the page of metrics")
    jobs = parser.parse_args().jobs
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=child, args=(theirs, jobs), daemon=True)
    process.start()
    served = Served(ours.recv(), ours)
    size, _ = asyncio.run(get(served.port, "/metrics"))
    print(f"{jobs} jobs, a page of {size / 1024:.0f} KiB\n")
    print("| | longest turn | processor time of one | slowest probe | memory |")
    print("|---|---|---|---|---|")
    cases: list[tuple[str, Callable[[int], Awaitable[float]]]] = [
        ("nobody else", idle),
        ("100 scrapes at once", scrapes),
        ("100 who do not read the page", slow_scrapes),
        ("900 half-open connections", strangers),
    ]
    for name, case in cases:
        time.sleep(1.5)
        served.stop_watch()
        slowest = asyncio.run(as_coroutine(case, served.port))
        seen = served.stop_watch()
        times = " | ".join(f"{each:.0f} ms" for each in (seen["pause"], seen["work"], slowest))
        print(f"| {name} | {times} | {seen['memory']:.0f} MiB |")
    process.kill()


async def as_coroutine(case: Callable[[int], Awaitable[float]], port: int) -> float:
    """What asyncio.run wants."""
    return await case(port)


if __name__ == "__main__":
    main()
