"""Everything that only an accelerator shows, in under nine minutes and with nothing from outside:
speed of the networks beside other loops, loader, time line, recovery, checkpoints.

    make bench-gpu                                    # the device that is there, or the CPU, small
    PYTHONPATH=.:trainer python -m benchmarks.gpu --device cuda --only steps --networks resnet50

Leaves results.json, results.md, pictures and time lines in ``--output``, written again after every
part. On the CPU networks get tiny images, every figure is taken once and nothing is compiled: that
shows that the program works, and nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks import gpu_report, gpu_steps
from benchmarks.gpu_parts import PARTS, Options
from benchmarks.gpu_steps import Json

BUDGET = 530.0
"""Seconds for everything: a little under nine minutes."""
LIMITS = {"pipeline": 100.0, "checkpoints": 50.0, "recovery": 120.0}
"""Most seconds of a part within that budget."""


def device_of(name: str) -> str:
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def machine(device: str) -> Json:
    is_cuda = device == "cuda"
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "device": torch.cuda.get_device_name() if is_cuda else f"CPU ({platform.machine()})",
        "devices": torch.cuda.device_count() if is_cuda else 0,
        "memoryBytes": torch.cuda.get_device_properties(0).total_memory if is_cuda else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if is_cuda else None,
        "cpus": len(os.sched_getaffinity(0)),
        "commit": commit.stdout.strip() or "unknown",
    }


def run_part(part: str, options: Options) -> Json:
    """The rows of one part, as far as it came, and why it ended early where it did."""
    given = dataclasses.asdict(options) | {"output": str(options.output)}
    command = [sys.executable, "-m", "benchmarks.gpu_parts", part, json.dumps(given)]
    # As in the trainer: threads that spin while they wait take the cores from the others.
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    if options.small:
        environment["OMP_NUM_THREADS"] = "1"
    # A process group of its own: what a part leaves behind at its end goes with it.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, start_new_session=True, env=environment
    )
    found: Json = {"rows": []}
    began = time.monotonic()
    try:
        for line in _lines(process, began + options.seconds):
            found["rows"].append(json.loads(line))
            print(f"{part}: {line.decode().strip()[:200]}", file=sys.stderr, flush=True)
        # Its output has ended; taking down what it has loaded takes seconds on a busy machine.
        if process.wait(max(5.0, began + options.seconds - time.monotonic())):
            found["error"] = f"ended with {process.returncode}, see the output above"
    except (TimeoutError, subprocess.TimeoutExpired):
        found["error"] = f"took longer than the {options.seconds:.0f} s that it had"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    found["seconds"] = round(time.monotonic() - began, 1)
    return found


def _lines(process: subprocess.Popen[bytes], deadline: float) -> Iterator[bytes]:
    """The lines of the process; raises TimeoutError once the time is over."""
    assert process.stdout is not None
    stream, rest = process.stdout.fileno(), b""
    while True:
        ready, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError
        piece = os.read(stream, 65536)
        if not piece:
            return
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines


def run(parts: list[str], options: Options, budget: float) -> Json:
    """All parts one after the other, within ``budget`` seconds; results are kept after each."""
    began = time.monotonic()
    options.output.mkdir(parents=True, exist_ok=True)
    results: Json = {
        "machine": machine(options.device),
        "small": options.small,
        "seconds": 0.0,
        "parts": {},
    }
    for part in parts:
        left = budget - (time.monotonic() - began)
        # The last part gets all that is left, whichever it is.
        limit = left if part == parts[-1] else LIMITS.get(part, left) * budget / BUDGET
        seconds = min(left, limit)
        if seconds < 1:
            results["parts"][part] = {"rows": [], "error": "no time was left"}
        else:
            results["parts"][part] = run_part(part, dataclasses.replace(options, seconds=seconds))
        results["seconds"] = round(time.monotonic() - began, 1)
        _keep(results, options.output)
    gpu_report.pictures(results, options.output)
    return results


def _keep(results: Json, folder: Path) -> None:
    text = json.dumps(results, indent=1)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")
    (folder / "results.md").write_text(gpu_report.markdown(results), encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--output", type=Path, default=Path("out/bench-gpu"))
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--networks", nargs="+", choices=list(gpu_steps.NETWORKS))
    parser.add_argument("--precisions", nargs="+", choices=gpu_steps.PRECISIONS)
    parser.add_argument("--executions", nargs="+", choices=("Eager", "Compiled"))
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for everything")
    chosen = parser.parse_args(arguments)
    device = device_of(chosen.device)
    small = device == "cpu"
    options = Options(
        device,
        small,
        chosen.output.absolute(),
        chosen.budget,
        tuple(chosen.networks or gpu_steps.NETWORKS),
        tuple(chosen.precisions or (("FP32", "BF16") if small else gpu_steps.PRECISIONS)),
        tuple(chosen.executions or (("Eager",) if small else ("Eager", "Compiled"))),
    )
    results = run([part for part in PARTS if part in chosen.only], options, chosen.budget)
    print((options.output / "results.md").read_text(encoding="utf-8"))
    return 1 if any("error" in part for part in results["parts"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
