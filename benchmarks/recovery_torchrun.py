"""The peer of the benchmark of recovery: torchrun alone. Two or more of its agents run side by side
on loopback as nodes of one rank each, and start their ranks anew when one ends (`--max-restarts`).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from typing_extensions import override

from benchmarks.recovery_jobs import PROGRAM, ROOT
from benchmarks.recovery_pods import is_alive
from benchmarks.recovery_records import StepRecord
from benchmarks.recovery_tools import FileSteps
from benchmarks.recovery_trials import DidNotComeError, Say, Training, Trial

MOST_RESTARTS = 10_000
SUCCESS_SECONDS = 3600.0
LOG_CHARACTERS = 3000


class TorchrunTraining(Training):
    """The program of one's own under torchrun; a context manager that ends it."""

    def __init__(self, folder: Path, data: Path, nodes: int, steps: int, say: Say) -> None:
        super().__init__(nodes, steps, say)
        self.folder = folder
        self._data = data
        self._files = FileSteps(folder / "steps")
        self._agents: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True)
        port = _free_port()
        for node in range(self.ranks):
            argv = [
                *(sys.executable, "-m", "torch.distributed.run"),
                *(f"--nnodes={self.ranks}", f"--node-rank={node}", "--nproc-per-node=1"),
                *("--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}"),
                *(f"--max-restarts={MOST_RESTARTS}", "--local-addr=127.0.0.1"),
                *(str(PROGRAM), "--data", str(self._data), "--folder", str(self.folder)),
                *("--steps", str(self.steps)),
            ]
            with self._log(node).open("wb") as log:
                agent = subprocess.Popen(
                    argv,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._environment(),
                    start_new_session=True,
                )
            self._agents.append(agent)
        return self

    def __exit__(self, *_: object) -> None:
        # Not SIGKILL: an agent that is killed leaves its rank behind, which would never end.
        for agent in self._agents:
            agent.terminate()
        for agent in self._agents:
            agent.wait()

    def _environment(self) -> dict[str, str]:
        # One thread a rank, as a pod has with its limit of one core; loopback, as pods have theirs.
        path = os.pathsep.join([str(ROOT / "trainer"), os.environ.get("PYTHONPATH", "")])
        own = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": path}
        return {**os.environ, **own}

    def _log(self, node: int) -> Path:
        return self.folder / f"node-{node}.log"

    @override
    def drain(self) -> Iterable[StepRecord]:
        return self._files.drain()

    @override
    def look(self) -> None:
        if any(agent.poll() for agent in self._agents):
            raise DidNotComeError(f"torchrun has failed\n{self.story()}")

    @override
    def is_ready(self) -> bool:
        return len(self._processes()) == self.ranks

    @override
    def disturb(self, kind: str, rank: int, patience: float) -> Trial:
        attempt = self.book.attempt
        process = self._processes()[rank]
        moment = time.time()
        os.kill(process, signal.SIGKILL)
        recovery = self.recovery(attempt, patience)
        if recovery is None:
            raise DidNotComeError(f"torchrun: no new step\n{self.story()}")
        return Trial(
            kind,
            rank,
            first_step=round(recovery.first_step - moment, 3),
            first_new_step=round(recovery.first_new_step - moment, 3),
            repeated_steps=recovery.repeated,
            skipped_steps=recovery.skipped,
            attempts=recovery.attempts,
        )

    def wait_succeeded(self) -> None:
        """Until all agents have ended well."""
        self.wait(
            "success",
            lambda: all(agent.poll() == 0 for agent in self._agents) or None,
            SUCCESS_SECONDS,
        )

    @override
    def story(self) -> str:
        logs = (self._log(node) for node in range(self.ranks))
        return "\n".join(log.read_text(errors="replace")[-LOG_CHARACTERS:] for log in logs)

    def final_checkpoint(self) -> Path:
        """The snapshot, once all steps are done."""
        return self.folder / "snapshot.pt"

    def _processes(self) -> dict[int, int]:
        """The living ranks of the newest attempt."""
        told = {rank: self._files.process(rank) for rank in range(self.ranks)}
        return {rank: pid for rank, pid in told.items() if pid is not None and is_alive(pid)}


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
