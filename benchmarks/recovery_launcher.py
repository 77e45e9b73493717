"""How long the launcher needs from the death of a rank to the first step of the next attempt.

Two launchers run side by side on loopback, driven by assignment files as the operator and the
kubelet would drive them: a rank is killed with SIGKILL, /readyz is polled until a launcher is no
longer ready, /status is read from both, and the next assignment is written. No Kubernetes is in the
path: watch and kubelet delays come on top.

With the trainer the first new step is measured as well: one whose number no rank had finished
before. Steps of a device are counted once the device has done them.
"""

import argparse
import importlib
import importlib.util
import json
import math
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tests" / "support"), str(HERE.parent / "trainer")]

REAL = "inception_trainer.entry:train"
TINY = "recovery_launcher:tiny"
PHASES = ("detection", "assignment", "fork", "rendezvous", "first step", "total")
NEW_STEP, AGAIN, AFTER_FORK = "first new step", "steps done again", "fork to first step"


@dataclass(frozen=True)
class Options:
    """What to measure, and how often."""

    trials: int
    poll: float
    nproc: int
    program: str
    folder: Path
    launchers: int = 2
    accelerator: Mapping[str, str] = field(default_factory=dict)
    """``accelerator`` of the training; empty: what the machine has."""
    memory: Path | None = None
    """Where the pods keep copies in memory; without it there are only checkpoints."""


def rank() -> None:
    """Run in each rank: the measured program, with marks at its start, its process group and its
    first step.
    """
    marks: dict[str, float] = {"start": time.time()}
    path = (
        Path(os.environ["TINY_FOLDER"])
        / f"mark-{os.environ['INCEPTION_ATTEMPT']}-{os.environ['RANK']}"
    )
    _mark_group(marks)
    _mark_step(marks, path)
    if os.environ["MEASURED_PROGRAM"] == REAL:
        _follow_steps(path.with_name(path.name.replace("mark-", "steps-")))
    module, _, function = os.environ["MEASURED_PROGRAM"].partition(":")
    getattr(importlib.import_module(module), function)()


def tiny() -> None:
    """Train a small network for ever, where the bundled trainer is not what is measured."""
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    dist.init_process_group("gloo")
    model = DistributedDataParallel(torch.nn.Linear(16, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    while True:
        optimizer.zero_grad()
        model(torch.randn(8, 16)).square().mean().backward()
        optimizer.step()
        time.sleep(0.01)


def _mark_group(marks: dict[str, float]) -> None:
    import torch.distributed as dist

    join = dist.init_process_group

    def timed(*arguments: Any, **options: Any) -> None:
        join(*arguments, **options)
        marks["group"] = time.time()

    vars(dist)["init_process_group"] = timed


def _mark_step(marks: dict[str, float], path: Path) -> None:
    from torch.optim.optimizer import register_optimizer_step_post_hook

    def stepped(*_: object) -> None:
        _wait_for_device()
        marks["step"] = time.time()
        _write(path, marks | {"pid": os.getpid()})
        handle.remove()

    handle = register_optimizer_step_post_hook(stepped)


def _follow_steps(path: Path) -> None:
    """Leave a line with number and time of each step that is done, and keep copies in memory where
    this pod has its own.
    """
    from inception_trainer.checkpoint import memory
    from inception_trainer.heartbeat import Heartbeat

    if "MEMORY_ROOT" in os.environ:
        memory.ROOT = Path(os.environ["MEMORY_ROOT"], os.environ["POD_NAME"])
    beat, lines = Heartbeat.step, path.open("w", encoding="ascii", buffering=1)

    def stepped(heart: Heartbeat, step: int) -> None:
        _wait_for_device()
        beat(heart, step)
        lines.write(f"{step} {time.time():.6f}\n")

    setattr(Heartbeat, "step", stepped)  # noqa: B010 - mypy knows methods as constants


def _wait_for_device() -> None:
    import torch

    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()


def _write(path: Path, content: dict[str, float]) -> None:
    draft = path.with_name(f".{path.name}")
    draft.write_text(json.dumps(content), encoding="utf-8")
    draft.replace(path)


def measure(options: Options) -> list[dict[str, float]]:
    """Kill ranks and watch the recovery; returns the seconds of each phase, one row per trial."""
    from launchers import Gang

    environment = {
        "PYTHONPATH": os.pathsep.join([*sys.path[:2], str(HERE)]),
        "MEASURED_PROGRAM": options.program,
        "INCEPTION_CONFIG": json.dumps(_training(options)),
    }
    if options.memory is not None:
        environment |= {"MEMORY_ROOT": str(options.memory), "INCEPTION_JOB_UID": str(uuid.uuid4())}
    program = (f"{Path(__file__).stem}:rank",)
    with Gang(options.folder, options.launchers, program, preload=None, **environment) as gang:
        for launcher in gang.launchers:
            launcher.wait_state("Idle")
        gang.assign(1, options.nproc)
        marks = _marks(options, 1)
        rows = []
        for attempt in range(2, options.trials + 2):
            row, marks = _trial(gang, options, attempt, marks)
            rows.append(row)
            print(f"trial {attempt - 1}: {row['total']:.3f} s", file=sys.stderr)
    return rows


def _training(options: Options) -> dict[str, Any]:
    return {
        "recipe": "bninception-digits",
        "epochs": 10_000,
        "evaluation": {"everyEpochs": 10_000},
        "checkpoint": {"path": str(options.folder / "job"), "everySeconds": 2},
        **({"accelerator": dict(options.accelerator)} if options.accelerator else {}),
    }


def _trial(
    gang: Any, options: Options, attempt: int, marks: list[dict[str, float]]
) -> tuple[dict[str, float], Any]:
    from launchers import wait_for

    # Deaths must hit every phase of a step and of a poll.
    time.sleep(random.uniform(0.5, 1.5))  # noqa: S311
    victim = attempt % len(marks)
    killed = time.time()
    os.kill(int(marks[victim]["pid"]), signal.SIGKILL)
    # A kubelet's probes do not know when a rank dies.
    time.sleep(random.uniform(0, options.poll))  # noqa: S311
    wait_for(
        "a failure",
        lambda: not all(launcher.ready() for launcher in gang.launchers),
        pause=options.poll,
    )
    detected = time.time()
    for launcher in gang.launchers:
        launcher.status()
    gang.assign(attempt, options.nproc)
    new = _marks(options, attempt)
    running = max(
        _moment(launcher.wait_state("Running", attempt)["time"]) for launcher in gang.launchers
    )
    # A rank alone makes no process group.
    moments = [
        killed,
        detected,
        running,
        max(mark["start"] for mark in new),
        max(mark.get("group", mark["start"]) for mark in new),
        max(mark["step"] for mark in new),
    ]
    row = {
        phase: after - before
        for phase, before, after in zip(PHASES, moments, moments[1:], strict=False)
    }
    row |= {"total": moments[-1] - killed, AFTER_FORK: moments[-1] - moments[-3]}
    if options.program == REAL:
        row |= _new_step(options, attempt, killed)
    return row, new


def _new_step(options: Options, attempt: int, killed: float) -> dict[str, float]:
    """When all ranks have done a step of a number that no rank had done before."""
    from launchers import wait_for

    # A rank may die before it has finished a step of its attempt.
    earlier = [
        step for old in range(1, attempt) for steps in _steps(options, old) for step in steps
    ]
    last = max(earlier, default=0)
    wait_for(
        f"a step after {last} in attempt {attempt}",
        lambda: all(max(steps, default=0) > last for steps in _steps(options, attempt)),
        120,
    )
    now = _steps(options, attempt)
    done = max(min(moment for step, moment in steps.items() if step > last) for steps in now)
    return {NEW_STEP: done - killed, AGAIN: float(last + 1 - min(map(min, now)))}


def _steps(options: Options, attempt: int) -> list[dict[int, float]]:
    """For each rank: when it had done which step."""
    ranks = range(options.launchers * options.nproc)
    return [_read_steps(options.folder / f"steps-{attempt}-{rank}") for rank in ranks]


def _read_steps(path: Path) -> dict[int, float]:
    # The last line may be half written.
    lines = path.read_text(encoding="ascii").split("\n")[:-1]
    return {int(step): float(moment) for step, moment in map(str.split, lines)}


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _marks(options: Options, attempt: int) -> list[dict[str, float]]:
    from launchers import wait_for

    paths = [
        options.folder / f"mark-{attempt}-{number}"
        for number in range(options.launchers * options.nproc)
    ]
    wait_for(f"first step of attempt {attempt}", lambda: all(path.exists() for path in paths), 120)
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def table(rows: Sequence[dict[str, float]], options: Options) -> str:
    """Make the Markdown table."""
    statistic: dict[str, Callable[[list[float]], float]] = {
        "p50": statistics.median,
        "p95": lambda values: sorted(values)[math.ceil(0.95 * len(values)) - 1],
        "max": max,
    }
    lines = [
        f"{len(rows)} SIGKILLs of a rank, {options.launchers} launchers x {options.nproc} ranks, "
        f"`{options.program}`, "
        f"readiness polled every {options.poll:g} s, {os.cpu_count()} CPUs, load "
        f"{os.getloadavg()[0]:.1f}:",
        "",
        "| phase | " + " | ".join(f"{name} (s)" for name in statistic) + " |",
        "|---|" + "---:|" * len(statistic),
    ]
    for phase in (*PHASES, *(key for key in (NEW_STEP, AGAIN) if key in rows[0])):
        values = [row[phase] for row in rows]
        lines.append(
            f"| {phase} | "
            + " | ".join(f"{pick(values):.3f}" for pick in statistic.values())
            + " |"
        )
    return "\n".join(lines)


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument(
        "--poll", type=float, default=0.05, help="seconds between readiness probes (a kubelet: 1)"
    )
    parser.add_argument("--nproc", type=int, default=1, help="ranks per launcher")
    parser.add_argument(
        "--program",
        choices=["auto", "real", "tiny"],
        default="auto",
        help="auto: real if it is there",
    )
    arguments = parser.parse_args()
    real = importlib.util.find_spec("inception_trainer.entry") is not None
    program = (
        REAL if arguments.program == "real" or (arguments.program == "auto" and real) else TINY
    )
    folder = Path(tempfile.mkdtemp(prefix="recovery-"))
    options = Options(arguments.trials, arguments.poll, arguments.nproc, program, folder)
    try:
        print(table(measure(options), options))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
