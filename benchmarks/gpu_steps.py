"""Of benchmarks/gpu.py: images per second of the five networks, by the trainer, timm's loop and a
plain PyTorch loop in turns.

Each contestant is a process of its own, because precision and search for kernels are switches of
the whole process. All of them prepare a case, then they take turns, the order turned round with
each round, and what is compared is the ratio inside each round. A batch that one of them has no
memory for is halved for all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib.util
import multiprocessing
import statistics
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import torch

from benchmarks.throughput_contestants import Case, Step, contestant
from inception_trainer.errors import ConfigError

Json = dict[str, Any]
# Forked from a process that has torch imported and has computed nothing: one that has used its
# threads before would leave a child that waits for them for ever.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["benchmarks.gpu_steps"])
NETWORKS = {
    "bninception": (224, 256),
    "inception_v3": (299, 128),
    "inception_v4": (299, 128),
    "resnet50": (224, 256),
    "inceptionv3_cifar": (32, 256),
}
"""Side of the images and batch on a device."""
SMALL = {
    "bninception": (32, 4),
    "inception_v3": (75, 2),
    "inception_v4": (75, 2),
    "resnet50": (32, 4),
    "inceptionv3_cifar": (12, 2),
}
"""The same on the CPU, where nothing but the program itself is tried out."""
PRECISIONS = ("BF16", "FP16", "TF32", "FP32")
CONTESTANTS = ("trainer", "timm", "plain")
WARMUP_STEPS = 3
ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which cases are measured, and for how long each contestant has its turn."""

    device: str
    networks: Sequence[str] = tuple(NETWORKS)
    precisions: Sequence[str] = PRECISIONS
    executions: Sequence[str] = ("Eager", "Compiled")
    turn_seconds: float = 1.0
    rounds: int = ROUNDS
    small: bool = False

    def cases(self) -> Iterator[Case]:
        """Those that people ask for first come first: time may run out."""
        shapes = SMALL if self.small else NETWORKS
        for execution in self.executions:
            for precision in self.precisions:
                for network in self.networks:
                    yield Case(network, *shapes[network], precision, self.device, execution)


class OutOfTimeError(Exception):
    """A contestant has not answered in the time that is left."""


class Contestant:
    """One loop in a process of its own, which does what it is told through a pipe."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._pipe, other = PROCESSES.Pipe()
        self._process = PROCESSES.Process(target=serve, args=(name, other), daemon=True)
        self._process.start()
        # The end of the process is then the end of what can be read.
        other.close()

    def tell(self, **command: Any) -> None:
        # The answer says that it has ended.
        with contextlib.suppress(BrokenPipeError):
            self._pipe.send(command)

    def answer(self, deadline: float) -> Json:
        """What it found out; an ``error`` where that failed or the process has ended."""
        left = max(0.0, deadline - time.monotonic())
        if not self._pipe.poll(left):
            raise OutOfTimeError(f"{self.name} has not answered within {left:.0f} s")
        try:
            found: Json = self._pipe.recv()
        except EOFError:
            self._process.join()
            return {"error": f"the process ended with {self._process.exitcode}", "ended": True}
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def contestants() -> list[str]:
    """Timm's loop takes part where timm is installed."""
    has_timm = importlib.util.find_spec("timm") is not None
    return [name for name in CONTESTANTS if name != "timm" or has_timm]


def measure(plan: Plan, deadline: float) -> Iterator[Json]:
    """A row for each case and contestant; cases that the time is too short for are named."""
    names = contestants()
    if "timm" not in names:
        yield {"note": "timm is not installed: its loop is left out"}
    running: dict[str, Contestant] = {}
    try:
        for case in plan.cases():
            reason = _no_such_case(case)
            if reason is None and time.monotonic() >= deadline:
                reason = "no time was left"
            if reason is not None:
                yield _row(case, "trainer") | {"error": reason}
                continue
            for name in names:
                running.setdefault(name, Contestant(name))
            try:
                yield from _race(plan, case, running, deadline)
            except OutOfTimeError as error:
                yield _row(case, "trainer") | {"error": str(error)}
                _close(running)
    finally:
        _close(running)


def _close(running: dict[str, Contestant]) -> None:
    for one in running.values():
        one.close()
    running.clear()


def _no_such_case(case: Case) -> str | None:
    """Why the trainer refuses it; today's trainer may lack what a later one has."""
    try:
        case.configuration()
    except ConfigError as error:
        return str(error)
    return None


def _race(
    plan: Plan, case: Case, running: dict[str, Contestant], deadline: float
) -> Iterator[Json]:
    prepared, case = _prepare(case, running, deadline)
    able = [name for name, found in prepared.items() if "error" not in found]
    speeds: dict[str, list[float]] = {name: [] for name in able}
    for number in range(plan.rounds):
        turn = number % max(1, len(able))
        for name in (*able[turn:], *able[:turn]):
            running[name].tell(do="turn", seconds=plan.turn_seconds)
            found = running[name].answer(deadline)
            if "error" in found:
                prepared[name] |= found
            else:
                speeds[name].append(case.batch * found["steps"] / found["seconds"])
    for name in able:
        running[name].tell(do="forget")
        prepared[name] |= running[name].answer(deadline)
    for name, found in prepared.items():
        yield _row(case, name) | found | _figures(speeds, name)
        if found.get("ended"):
            running.pop(name).close()


def _prepare(
    case: Case, running: dict[str, Contestant], deadline: float
) -> tuple[dict[str, Json], Case]:
    while True:
        # All at once: compiling takes minutes, and each compiles for itself.
        for one in running.values():
            one.tell(do="prepare", case=dataclasses.asdict(case))
        found = {name: one.answer(deadline) for name, one in running.items()}
        if case.batch < 4 or not any(one.get("outOfMemory") for one in found.values()):
            return found, case
        for one in running.values():
            one.tell(do="forget")
            one.answer(deadline)
        case = dataclasses.replace(case, batch=case.batch // 2)


def _row(case: Case, name: str) -> Json:
    return {
        "network": case.network,
        "imageSize": case.side,
        "batch": case.batch,
        "precision": case.precision,
        "execution": case.execution,
        "contestant": name,
    }


def _figures(speeds: dict[str, list[float]], name: str) -> Json:
    if not speeds.get(name):
        return {}
    figures: Json = {"imagesPerSecond": round(statistics.median(speeds[name]), 2)}
    if name != "trainer" and speeds.get("trainer"):
        pairs = zip(speeds["trainer"], speeds[name], strict=False)
        figures["trainerIsTimesAsFast"] = round(
            statistics.median(own / other for own, other in pairs), 3
        )
    return figures


# In the process of a contestant.


class _Loop:
    """The loop of one case, and the device that it runs on."""

    def __init__(self, name: str, case: Case) -> None:
        self._functions = None if case.device == "cpu" else getattr(torch, case.device)
        if self._functions is not None:
            self._functions.reset_peak_memory_stats()
        began = time.perf_counter()
        self._step: Step = contestant(name, case)
        made = time.perf_counter()
        self._steps(1)
        self.first_step_seconds = time.perf_counter() - made
        self.build_seconds = made - began
        self._steps(WARMUP_STEPS - 1)

    def _steps(self, count: int) -> None:
        for _ in range(count):
            self._step()
        if self._functions is not None:
            self._functions.synchronize()

    def turn(self, seconds: float) -> Json:
        """As many steps as fit into ``seconds``, in blocks that are waited for."""
        began = time.perf_counter()
        self._steps(1)
        block = max(1, int(seconds / 4 / max(1e-6, time.perf_counter() - began)))
        steps, began = 0, time.perf_counter()
        while steps == 0 or time.perf_counter() - began < seconds:
            self._steps(block)
            steps += block
        return {"steps": steps, "seconds": time.perf_counter() - began}

    def peak_memory(self) -> int | None:
        return None if self._functions is None else int(self._functions.max_memory_allocated())


def serve(name: str, pipe: Connection) -> None:
    """Answer each command with one dictionary."""
    loop: _Loop | None = None
    while True:
        try:
            command: Json = pipe.recv()
        except EOFError:
            return
        try:
            if command["do"] == "prepare":
                loop = None
                loop = _Loop(name, Case(**command["case"]))
                found: Json = {
                    "buildSeconds": round(loop.build_seconds, 3),
                    "firstStepSeconds": round(loop.first_step_seconds, 3),
                }
            elif command["do"] == "turn":
                assert loop is not None
                found = loop.turn(command["seconds"])
            else:
                found = {"peakMemoryBytes": loop.peak_memory() if loop else None}
                loop = None
                _free_memory()
        except Exception as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            out_of_memory = isinstance(error, torch.OutOfMemoryError)
            found = {"error": text[:300]} | ({"outOfMemory": True} if out_of_memory else {})
        pipe.send(found)


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
