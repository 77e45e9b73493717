"""What the benchmarks of recovery share: watches on one clock, steps that a program of one's own
has written down, and quantiles.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "operator"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from benchmarks.recovery_records import StepRecord
from localcluster.cluster import Cluster

KILL = """
import glob, os, signal, time
newest = max(glob.glob('/tmp/**/pid-0', recursive=True), key=os.path.getmtime)
number = int(open(newest).read())
print(time.time(), flush=True)
os.kill(number, signal.SIGKILL)
"""


@dataclass
class Watch:
    """Follows objects with `kubectl get --watch` and notes when something first became true."""

    cluster: Cluster
    arguments: tuple[str, ...]
    see: Callable[[dict[str, Any], float], None]
    process: subprocess.Popen[str] | None = field(default=None)

    def start(self) -> None:
        argv = [
            self.cluster.layout.binary("kubectl"),
            f"--kubeconfig={self.cluster.kubeconfig}",
            "get",
        ]
        argv += [*self.arguments, "--watch", "--output-watch-events", "-o", "json"]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.see(json.loads(line), time.time())

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()


class FileSteps:
    """The steps that ranks of recovery_program leave in files: `<attempt>-<rank>`, the process
    number in the first line, then time and number of each step.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, int] = {}
        """Lines of each file that were given before."""

    def drain(self) -> Iterator[StepRecord]:
        """The steps since the last call."""
        paths = sorted(self._folder.glob("*-*"), key=_attempt_and_rank)
        newest = max((_attempt_and_rank(path)[0] for path in paths), default=0)
        for path in paths:
            # Ranks of an attempt before the last one have ended long ago.
            if path.name in self._read and _attempt_and_rank(path)[0] < newest - 1:
                continue
            lines = self._lines(path)
            seen = max(1, self._read.get(path.name, 1))
            attempt, rank = _attempt_and_rank(path)
            for line in lines[seen:]:
                moment, step = line.split()
                yield StepRecord(float(moment), attempt, f"rank {rank}", int(step))
            self._read[path.name] = max(seen, len(lines))

    def process(self, rank: int) -> int | None:
        """The process number of a rank of the newest attempt, where it is told."""
        paths = [path for path in self._folder.glob("*-*") if _attempt_and_rank(path)[1] == rank]
        lines = self._lines(max(paths, key=_attempt_and_rank)) if paths else []
        return int(lines[0]) if lines else None

    def _lines(self, path: Path) -> list[str]:
        # The last line may still be being written.
        return path.read_text(encoding="ascii").split("\n")[:-1]


def _attempt_and_rank(path: Path) -> tuple[int, int]:
    attempt, _, rank = path.name.partition("-")
    return int(attempt), int(rank)


def quantile(values: list[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]
