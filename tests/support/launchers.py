"""Launchers as processes of this machine, driven as the operator and the kubelet would."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from inception_trainer.launcher import linux

ROOT = Path(__file__).resolve().parents[2]
TINY = "tiny_program:train"
BUNDLED = ("-m", "inception_trainer.launcher.main")
T = TypeVar("T")


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(
    what: str,
    look: Callable[[], T | None],
    seconds: float = 45.0,
    pause: float = 0.02,
    explain: Callable[[], str] = str,
) -> T:
    """Look until something true is seen."""
    end = time.monotonic() + seconds
    while not (seen := look()):
        if time.monotonic() > end:
            raise AssertionError(f"not seen within {seconds} s: {what}\n{explain()}")
        time.sleep(pause)
    return seen


class Launcher:
    """One launcher process, its assignment file, its port and its termination message."""

    def __init__(
        self,
        folder: Path,
        index: int,
        program: Sequence[str] = (TINY,),
        preload: str | None = "",
        entry: Sequence[str] = BUNDLED,
        **environment: str,
    ) -> None:
        self.index = index
        self.port = free_port()
        self.folder = folder
        self.assignment = folder / f"assignment-{index}"
        self.termination = folder / f"termination-{index}"
        self.log = folder / f"log-{index}"
        paths = [str(ROOT / "trainer"), str(ROOT / "tests" / "support")]
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith("INCEPTION_")
        }
        self.environment = inherited | {
            "PYTHONPATH": os.pathsep.join(paths),
            "TINY_FOLDER": str(folder),
            "OMP_NUM_THREADS": "1",
            "POD_NAME": f"job-{index}-1",
            "TMPDIR": str(folder),
            # Whatever this machine's name resolves to.
            "GLOO_SOCKET_IFNAME": "lo",
            **({} if preload is None else {"INCEPTION_PRELOAD": preload}),
            **environment,
        }
        options = ["--assignment", str(self.assignment), "--port", str(self.port)]
        options += [
            "--termination-log",
            str(self.termination),
            *(["--", *program] if program else []),
        ]
        with self.log.open("wb") as log:
            command = [sys.executable, *entry, *options]
            self.process = subprocess.Popen(
                command, env=self.environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT
            )

    def get(self, path: str) -> tuple[int, bytes] | None:
        """Ask the launcher; ``None`` while nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except OSError:
            return None

    def ready(self) -> bool:
        """Ask as the kubelet does."""
        answer = self.get("/readyz")
        return answer is not None and answer[0] == 200

    def status(self) -> dict[str, Any]:
        """Ask as the operator does; empty while nobody answers."""
        answer = self.get("/status")
        return json.loads(answer[1]) if answer is not None else {}

    def assign(self, attempt: int, **content: object) -> None:
        """Swap the assignment file as the kubelet does."""
        draft = self.assignment.with_suffix(".draft")
        draft.write_text(json.dumps({"attempt": attempt, **content}), encoding="utf-8")
        draft.replace(self.assignment)

    def wait_state(self, state: str, attempt: int | None = None) -> dict[str, Any]:
        """Wait for a state, and return the report that shows it."""

        def look() -> dict[str, Any] | None:
            report = self.status()
            fits = report.get("state") == state and attempt in (None, report["attempt"])
            return report if fits else None

        return wait_for(f"{state} of launcher {self.index}", look, explain=self.read_log)

    def wait_exit(self) -> int:
        """Wait for the end of the launcher."""
        return self.process.wait(45)

    def last_word(self) -> dict[str, Any]:
        """Read the termination message."""
        word: dict[str, Any] = json.loads(self.termination.read_bytes())
        return word

    def read_log(self) -> str:
        """Read what launcher and ranks have printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def terminate(self) -> None:
        """Send SIGTERM as the kubelet does."""
        self.process.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """End the launcher, whatever it does."""
        below = linux.descendants(self.process.pid)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)
        # They die with it, a moment later, and until then they write into its folder.
        wait_for("the end of what it had started", lambda: not any(map(_lives, below)))


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2][1] != "Z"
    except OSError:
        return False


class Gang:
    """The launchers of one job, side by side on loopback."""

    def __init__(
        self,
        folder: Path,
        size: int = 1,
        program: Sequence[str] = (TINY,),
        preload: str | None = "",
        entry: Sequence[str] = BUNDLED,
        **environment: str,
    ) -> None:
        self.folder = folder
        self.launchers = [
            Launcher(folder, index, program, preload, entry, **environment) for index in range(size)
        ]

    def __enter__(self) -> "Gang":
        return self

    def __exit__(self, *_: object) -> None:
        for launcher in self.launchers:
            launcher.close()

    def assign(
        self, attempt: int, nproc: int = 1, graceful: bool = False, master: str = "127.0.0.1"
    ) -> None:
        """Give every launcher its ranks of an attempt."""
        port = free_port()
        for rank, launcher in enumerate(self.launchers):
            launcher.assign(
                attempt,
                nodeRank=rank,
                nnodes=len(self.launchers),
                nprocPerNode=nproc,
                masterAddr=master,
                masterPort=port,
                graceful=graceful,
            )

    def stand_by(self, attempt: int, graceful: bool = False) -> None:
        """Put every launcher on standby."""
        for launcher in self.launchers:
            launcher.assign(attempt, nnodes=0, graceful=graceful)

    def do(self, attempt: int, rank: int, action: str) -> None:
        """Tell a rank of the tiny program what to do."""
        # In one go: the rank may look at any moment, and does what it reads once.
        draft = self.folder / f".do-{attempt}-{rank}"
        draft.write_text(action, encoding="utf-8")
        draft.replace(self.folder / f"do-{attempt}-{rank}")

    def first_steps(self, attempt: int, ranks: int) -> list[int]:
        """Wait until every rank has made its first step; returns their process numbers."""
        paths = [self.folder / f"step-{attempt}-{rank}" for rank in range(ranks)]
        wait_for(
            f"first step of attempt {attempt}",
            # A program that does not rename has made the file before it has written it.
            lambda: all(path.exists() and path.stat().st_size for path in paths),
            explain=self.read_logs,
        )
        return [int(path.read_text(encoding="utf-8")) for path in paths]

    def read_logs(self) -> str:
        """Read what all have printed."""
        return "\n".join(launcher.read_log() for launcher in self.launchers)

    def processes(self) -> list[int]:
        """List all living processes that belong to the gang, wherever they have gone."""
        mark = f"TINY_FOLDER={self.folder}".encode()
        return [pid for pid in all_processes() if mark in environment(pid)]


def all_processes() -> list[int]:
    """List all processes of this machine."""
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def environment(pid: int) -> list[bytes]:
    """The settings a process was started with, none once it is gone."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
