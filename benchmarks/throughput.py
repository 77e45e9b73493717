"""The trainer's speed and memory beside a plain PyTorch loop, its overhead, and its data path, all
on the CPU.

    export PYTHONPATH=trainer
    python -m benchmarks.throughput steps     # steps of a plain loop with two models, and ours
    python -m benchmarks.throughput memory    # the most memory that each of them takes
    python -m benchmarks.throughput overhead  # time outside forward, backward and update
    python -m benchmarks.throughput stragglers  # steps with and without finding the slowest rank
    python -m benchmarks.throughput data      # JPEG files to batches, images per second of one core

The machine may be shared: each contestant is a process of its own, they take turns step by step,
the order turns round with each round, and what is compared is the ratio inside each round. Beside
the wall clock stands the CPU time of the process, which is what counts with one thread on a shared
machine. Where in memory a network happens to lie makes up to 8 % of its speed for as long as it
lives, the same network twice included; so there are several races, and the median of theirs counts.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

import torch

from benchmarks import throughput_data, throughput_overhead, throughput_stragglers
from benchmarks.throughput_contestants import Case, Step, contestant

SHAPES = {
    "bninception": (224, 4, "its own (none in timm or torchvision)"),
    "inception_v3": (299, 4, "torchvision"),
    "inception_v4": (299, 4, "timm"),
    "resnet50": (224, 4, "torchvision"),
    "inceptionv3_cifar": (32, 4, "its own (none in timm or torchvision)"),
}
"""Side of the images, batch, and whose model the plain loop has."""
CONTESTANTS = ("reference", "plain", "trainer")
ROUNDS = {"steps": 3, "memory": 4, "overhead": 33, "stragglers": 40, "data": 6}


@dataclass
class Laps:
    """Wall and CPU seconds of every step of one contestant."""

    wall: list[float]
    cpu: list[float]

    def take(self, step: Step) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        step()
        self.cpu.append(time.process_time() - cpu)
        self.wall.append(time.perf_counter() - wall)


def case(network: str, precision: str) -> Case:
    side, batch, _ = SHAPES[network]
    return Case(network, side, batch, precision)


class Contestant:
    """One contestant in a process of its own, which makes a step when it is told to."""

    def __init__(self, name: str, network: str, precision: str) -> None:
        command = [*_command("race", network, precision), "--contestant", name]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.laps = Laps([], [])

    def step(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        wall, cpu = json.loads(self._process.stdout.readline())
        self.laps.wall.append(wall)
        self.laps.cpu.append(cpu)

    def close(self) -> None:
        """End the process and forget the first two steps."""
        self._process.communicate()
        del self.laps.wall[:2], self.laps.cpu[:2]


def run_contestant(name: str, network: str, precision: str) -> None:
    """A step for each line of the input; prints its seconds."""
    step, laps = contestant(name, case(network, precision)), Laps([], [])
    for _ in sys.stdin:
        laps.take(step)
        print(json.dumps([laps.wall[-1], laps.cpu[-1]]), flush=True)


def race(network: str, precision: str, rounds: int) -> dict[str, Laps]:
    contestants = {name: Contestant(name, network, precision) for name in CONTESTANTS}
    for number in range(rounds + 2):
        turn = number % len(CONTESTANTS)
        for name in (*CONTESTANTS[turn:], *CONTESTANTS[:turn]):
            contestants[name].step()
    for one in contestants.values():
        one.close()
    return {name: one.laps for name, one in contestants.items()}


def ratio(laps: dict[str, Laps], kind: str, other: str) -> float:
    """How many times as fast as ``other`` the trainer is: the median over the rounds."""
    pairs = zip(getattr(laps[other], kind), getattr(laps["trainer"], kind), strict=True)
    return statistics.median(theirs / ours for theirs, ours in pairs)


def steps_table(networks: list[str], precisions: list[str], rounds: int, races: int) -> None:
    print(
        "| network | precision | trainer, img/s | ÷ plain loop, other model: CPU time (least to "
        "most), wall | ÷ ours |"
    )
    print("|---|---|---|---|---|")
    for network in networks:
        for precision in precisions:
            found = []
            for number in range(races):
                print(f"{network} {precision}: race {number}", file=sys.stderr, flush=True)
                found.append(race(network, precision, rounds))
            speed = SHAPES[network][1] / statistics.median(
                time for laps in found for time in laps["trainer"].cpu
            )
            figures = " | ".join(_compared(found, other) for other in ("reference", "plain"))
            print(f"| {network} | {precision} | {speed:.2f} | {figures} |", flush=True)


def _compared(races: list[dict[str, Laps]], other: str) -> str:
    cpu, wall = ([ratio(laps, kind, other) for laps in races] for kind in ("cpu", "wall"))
    return (
        f"{statistics.median(cpu):.3f} ({min(cpu):.3f} to {max(cpu):.3f}), "
        f"{statistics.median(wall):.3f}"
    )


def peak_of(name: str, network: str, precision: str, steps: int) -> int:
    """Bytes, in this process, which must do nothing else; of the imports alone without a name."""
    if name:
        step = contestant(name, case(network, precision))
        for _ in range(steps):
            step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def memory_table(networks: list[str], precisions: list[str], steps: int) -> None:
    print(
        "| network | precision | trainer, MiB | plain loop, our model, MiB | ratio | ratio "
        "without the imports |"
    )
    print("|---|---|---|---|---|---|")
    for network in networks:
        for precision in precisions:
            empty, plain, own = (
                _peak_elsewhere(n, network, precision, steps) for n in ("", "plain", "trainer")
            )
            parts = (
                f"{own / 2**20:.0f} | {plain / 2**20:.0f} | {own / plain:.3f} | "
                f"{(own - empty) / (plain - empty):.3f}"
            )
            print(f"| {network} | {precision} | {parts} |", flush=True)


def _peak_elsewhere(name: str, network: str, precision: str, steps: int) -> int:
    command = [*_command("peak", network, precision), "--rounds", str(steps), "--contestant", name]
    return int(
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    )


def _command(part: str, network: str, precision: str) -> list[str]:
    """Another process of this program."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.throughput",
        part,
        "--networks",
        network,
        "--precisions",
        precision,
    ]
    return [*command, "--threads", str(torch.get_num_threads())]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=(*ROUNDS, "peak", "race"))
    parser.add_argument("--networks", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument(
        "--precisions", nargs="+", default=["FP32", "BF16"], choices=["FP32", "BF16"]
    )
    parser.add_argument("--rounds", type=int, help=f"default: {ROUNDS}")
    parser.add_argument("--races", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--contestant", default="")
    options = parser.parse_args()
    options.rounds = options.rounds or ROUNDS.get(options.part, 1)
    return options


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    if options.part == "steps":
        steps_table(options.networks, options.precisions, options.rounds, options.races)
    elif options.part == "memory":
        memory_table(options.networks, options.precisions, options.rounds)
    elif options.part == "overhead":
        throughput_overhead.table(options.networks, options.precisions, options.rounds)
    elif options.part == "stragglers":
        networks = {name: SHAPES[name][:2] for name in options.networks}
        throughput_stragglers.table(networks, options.precisions, options.rounds)
    elif options.part == "data":
        throughput_data.table(options.rounds)
    elif options.part == "race":
        run_contestant(options.contestant, options.networks[0], options.precisions[0])
    else:
        print(
            peak_of(options.contestant, options.networks[0], options.precisions[0], options.rounds)
        )


if __name__ == "__main__":
    main()
