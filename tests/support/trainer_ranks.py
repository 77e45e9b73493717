"""Runs the trainer's ranks as real processes, forked from a server that has imported torch."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launchers import free_port

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "inception_trainer.preload",
        "inception_trainer.train.build",
        "torch._dynamo",
        # What a run imports for its curves: a second each time.
        "matplotlib.backends.backend_agg",
        "matplotlib.figure",
    ]
)

VALIDATION = -1
"""Stands for an epoch where samples are evaluated."""

UID = "0f7e2b1c-5a53-4c55-9b57-2f6f0b0c7a11"
"""Of the job whose ranks are in pods."""

TINY: dict[str, Any] = {
    "data": {"kind": "Synthetic", "imageSize": 32, "numClasses": 4, "samples": 48},
    "batch": {"global": 8},
    "epochs": 2,
    "optimizer": {"learningRate": 0.01},
    "precision": "FP32",
    "logEverySteps": 1,
}


@dataclass
class Gang:
    """The ranks of one attempt."""

    folder: Path
    processes: list[Any] = field(default_factory=list)

    def wait(self, timeout: float = 150.0) -> list[int]:
        """Exit codes in rank order, negative for signals."""
        deadline = time.monotonic() + timeout
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
        alive = [process for process in self.processes if process.is_alive()]
        for process in alive:
            process.kill()
        assert not alive, f"ranks still run after {timeout} s:\n{self.output()}"
        return [process.exitcode for process in self.processes]

    def progress(self) -> dict[str, Any]:
        """What local rank 0 reports to the launcher."""
        with contextlib.suppress(OSError, ValueError):
            content: dict[str, Any] = json.loads((self.folder / "progress.json").read_text())
            return content
        return {"step": -1, "metrics": {}}

    def until(self, condition: Callable[[], bool], timeout: float = 100.0) -> None:
        """Wait for something that running ranks bring about."""
        deadline = time.monotonic() + timeout
        while not condition():
            waits = time.monotonic() < deadline and any(
                process.is_alive() for process in self.processes
            )
            if not waits and not condition():
                self.signal(signal.SIGKILL)  # or the test run would wait for them at its end
                raise AssertionError(self.output())
            time.sleep(0.005)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every rank."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)

    def output(self) -> str:
        """What the ranks printed."""
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("rank-*.log")))


def evaluated(folder: Path, weights: Path, world: int) -> Path:
    """The folder that mode Evaluate leaves on so many ranks of the small network."""
    output = folder / f"on {world}"
    changes = {"output": {"path": str(output)}, "model": {"weights": str(weights)}}
    config = {**TINY, "mode": "Evaluate", **changes}
    gang = start(folder / f"ranks {world}", config, world)
    assert gang.wait() == [0] * world, gang.output()
    return output / "evaluate"


def start(
    folder: Path,
    config: dict[str, Any],
    world: int = 1,
    attempt: int = 1,
    seen: Path | None = None,
    *,
    small: bool = True,
    pause: float = 0.0,
    environment: dict[str, str] | None = None,
    pods: Sequence[Path] = (),
    faults: Mapping[int, str] | None = None,
) -> Gang:
    """Start ``world`` ranks; ``seen`` is a folder where each leaves the samples it was given.

    Unless ``small`` is false, bninception means the network of ``small_network``, each step of
    which takes ``pause`` seconds at least: time to stop it before the end. ``environment`` adds
    variables. ``pods`` puts every rank into a pod of its own, whose shared memory is that folder.
    ``faults`` says where ranks die: ``<point> <count>``, as in ``killed_ranks``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    gang = Gang(folder)
    base = {
        "INCEPTION_CONFIG": json.dumps(config),
        "INCEPTION_ATTEMPT": str(attempt),
        "INCEPTION_STOP_FILE": str(folder / "stop"),
        "INCEPTION_PROGRESS_FILE": str(folder / "progress.json"),
        "INCEPTION_JOB": "default/test",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "OMP_NUM_THREADS": "1",
        # These ranks run on the CPU, also on a machine that has a GPU.
        "CUDA_VISIBLE_DEVICES": "",
        "SMALL_NETWORK": str(pause) if small else "",
        **(environment or {}),
    }
    for rank in range(world):
        error_file = folder / f"error-{rank}.json"
        own = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "TORCHELASTIC_ERROR_FILE": str(error_file),
        }
        own["INCEPTION_HEARTBEAT_FILE"] = str(folder / f"heartbeat-{rank}")
        if pods:
            own |= {
                "INCEPTION_JOB_UID": UID,
                "LOCAL_RANK": "0",
                "LOCAL_WORLD_SIZE": "1",
                "POD_MEMORY": str(pods[rank]),
            }
            if rank:
                own["INCEPTION_PROGRESS_FILE"] = str(folder / f"progress-{rank}.json")
        own["RANK_FAULT"] = (faults or {}).get(rank, "")
        process = CONTEXT.Process(target=_rank, args=(base | own, str(folder), str(seen or "")))
        process.start()
        gang.processes.append(process)
    return gang


def run(
    folder: Path,
    config: dict[str, Any],
    world: int = 1,
    attempt: int = 1,
    seen: Path | None = None,
    *,
    small: bool = True,
) -> list[int]:
    """Run to the end."""
    return start(folder, config, world, attempt, seen, small=small).wait()


def seen_samples(folder: Path) -> Iterator[tuple[int, int]]:
    """All (epoch, index) that the ranks trained on, in no order."""
    yield from ((epoch, index) for epoch, index in _lines(folder) if epoch != VALIDATION)


def seen_validation(folder: Path) -> list[int]:
    """The indices of all samples that the ranks evaluated, sorted."""
    return sorted(index for epoch, index in _lines(folder) if epoch == VALIDATION)


def final(path: Path) -> dict[str, Any]:
    """The last checkpoint of a training that has ended, from its folder."""
    import torch

    content: dict[str, Any] = torch.load(path / "checkpoints" / "final.pt", weights_only=True)
    return content


def assert_equal(one: Any, two: Any, name: str = "") -> None:
    """Two checkpoints, or parts of them, bit by bit."""
    import torch

    if isinstance(one, dict):
        assert one.keys() == two.keys(), name
        for key in one:
            assert_equal(one[key], two[key], f"{name}.{key}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, two), name
    else:
        assert one == two, name


def _lines(folder: Path) -> Iterator[tuple[int, int]]:
    for path in folder.iterdir():
        for line in path.read_text().splitlines():
            epoch, *indices = map(int, line.split())
            yield from ((epoch, index) for index in indices)


def _rank(environment: dict[str, str], folder: str, seen: str) -> None:
    os.environ.update(environment)
    # What a fresh interpreter would have read.
    sys.path[:0] = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
    log = open(Path(folder, f"rank-{environment['RANK']}.log"), "a", buffering=1)  # noqa: SIM115, PTH123
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    sys.stdout, sys.stderr = log, log
    if seen:
        _record_samples(Path(seen))
    if environment.get("POD_MEMORY"):
        from inception_trainer.checkpoint import memory
        from inception_trainer.train import intervals

        memory.ROOT = Path(environment["POD_MEMORY"])
        intervals.CopyClock.SHORTEST_SECONDS = 0.0
    if environment.get("TRACKERS_SECONDS"):
        from inception_trainer.sinks import tracking

        tracking.CLOSE_SECONDS = float(environment["TRACKERS_SECONDS"])
    if environment["RANK_FAULT"]:
        import killed_ranks

        point, count = environment["RANK_FAULT"].rsplit(" ", 1)
        killed_ranks.arm(point, int(count))
    if environment.get("RANK_1_WAITS_FOR_0"):
        _wait_for_the_other(int(environment["RANK"]), Path(environment["RANK_1_WAITS_FOR_0"]))
    if environment["SMALL_NETWORK"]:
        import small_network

        small_network.pause_seconds = float(environment["SMALL_NETWORK"])
        small_network.take_the_place_of("bninception")
    from inception_trainer.entry import train

    try:
        train()
    except Exception as error:
        code = getattr(error, "exit_code", None)
        if code is None:
            raise
        print(f"{type(error).__name__}: {error}", flush=True)
        sys.exit(code)


def _wait_for_the_other(rank: int, folder: Path) -> None:
    """Rank 1 begins to compute a step once rank 0 has all gradients of that step.

    Not in the second one: there DistributedDataParallel has the ranks agree on their buckets once.
    """
    from inception_trainer.device.clock import HostClock

    begin, ready = HostClock.begin, HostClock.ready

    def begin_after(self: Any, step: int) -> None:
        deadline = time.monotonic() + 60
        while step > 2 and not (folder / str(step)).exists():
            if time.monotonic() > deadline:
                raise RuntimeError(f"rank 0 is not ready in step {step}")
            time.sleep(0.005)
        begin(self, step)

    def tell_ready(self: Any) -> None:
        ready(self)
        (folder / str(self._step)).touch()

    if rank == 0:
        HostClock.ready = tell_ready  # type: ignore[method-assign]
    else:
        HostClock.begin = begin_after  # type: ignore[method-assign]


def _record_samples(folder: Path) -> None:
    from inception_trainer.data.memory import InMemory

    folder.mkdir(parents=True, exist_ok=True)
    original = InMemory.batch
    path = folder / str(os.getpid())

    def batch(self: Any, indices: Any, epoch: int | None) -> Any:
        with path.open("a") as file:
            file.write(
                " ".join(map(str, [VALIDATION if epoch is None else epoch, *indices.tolist()]))
                + "\n"
            )
        return original(self, indices, epoch)

    InMemory.batch = batch  # type: ignore[method-assign]
