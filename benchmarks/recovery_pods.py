"""Worker pods as this machine sees them: their processes by role, and the steps of their ranks.

Signals come from outside, so that no command in a pod takes processor time from what is measured.
Steps are read from the heartbeats of the ranks (docs/architecture/wire.md), files in the pods' own
memory, which this reads a hundred times a second through /proc.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.recovery_records import StepRecord

LOOK_SECONDS = 0.01
SEARCH_SECONDS = 0.3
"""Between two searches for the processes of a pod that has just begun to run."""
LINE_BYTES = 64
ATTEMPT_FOLDER = re.compile(r"attempt-([0-9]+)-")
# The launcher's folder; the second is where a read-only root without /tmp leaves it.
LAUNCHER_FOLDERS = ("tmp/inception-*", "dev/shm/inception-*")


class NotThereError(Exception):
    """A process of a pod is not there (yet, or any more)."""


@dataclass(frozen=True)
class Worker:
    """A running worker pod; process numbers are this machine's."""

    pod: str
    uid: str
    launcher: int
    folder: Path
    """The launcher's temporary folder, seen from outside."""

    def fork_server(self) -> int:
        """The process from which the ranks of every attempt are forked."""
        for pid in _processes_of(self.uid):
            if _parent(pid) == self.launcher and b"forkserver" in _read(pid, "cmdline"):
                return pid
        raise NotThereError(f"{self.pod}: no fork server")

    def rank(self, local_rank: int = 0) -> int:
        """The process of a local rank of the newest attempt."""
        folder = max(self.attempts(), key=lambda item: item[0], default=(0, None))[1]
        if folder is None:
            raise NotThereError(f"{self.pod}: no attempt")
        try:
            inside = int((folder / f"pid-{local_rank}").read_text(encoding="ascii"))
        except (OSError, ValueError):
            raise NotThereError(f"{self.pod}: no rank {local_rank}") from None
        space = _namespace(self.launcher)
        for pid in _processes_of(self.uid):
            if _namespace(pid) == space and _number_inside(pid) == inside:
                return pid
        raise NotThereError(f"{self.pod}: rank {local_rank} has ended")

    def attempts(self) -> list[tuple[int, Path]]:
        """The folders of its attempts with their numbers; OSError once the launcher is gone."""
        names = ((ATTEMPT_FOLDER.match(name), name) for name in os.listdir(self.folder))  # noqa: PTH208
        return [(int(match[1]), self.folder / name) for match, name in names if match]


def find_worker(pod: str, uid: str) -> Worker | None:
    """The worker pod of this UID, None before its launcher has begun."""
    for pid in _processes_of(uid):
        if _number_inside(pid) != 1:
            continue
        for pattern in LAUNCHER_FOLDERS:
            with contextlib.suppress(OSError):
                for folder in Path(f"/proc/{pid}/root").glob(pattern):
                    return Worker(pod, uid, pid, folder)
    return None


def is_alive(pid: int) -> bool:
    """Whether a process runs: neither gone nor only waiting to be buried."""
    state = _read(pid, "stat").rpartition(b")")[2].split()
    return bool(state) and state[0] not in (b"Z", b"X")


@dataclass
class _Watched:
    """A pod whose heartbeats are read: open files by attempt and name, and the last step of
    each.
    """

    worker: Worker
    files: dict[tuple[int, str], int] = field(default_factory=dict)
    steps: dict[tuple[int, str], int] = field(default_factory=dict)


class HeartbeatSteps:
    """Reads the steps of all worker pods that it was shown, in a thread of its own."""

    def __init__(self) -> None:
        self.records: queue.SimpleQueue[StepRecord] = queue.SimpleQueue()
        self.read: dict[int, dict[str, float]] = {}
        """By attempt, when the launcher of each pod was seen to have read its assignment."""
        self.begun: dict[int, dict[str, float]] = {}
        """By attempt, when the first rank of each pod was seen to run."""
        self._wanted: dict[str, str] = {}
        """Names of running pods by UID; filled by the watch of pods."""
        self._watched: dict[str, _Watched] = {}
        self._searched_at = 0.0
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeats", daemon=True)

    def __enter__(self) -> HeartbeatSteps:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()
        for watched in self._watched.values():
            _close(watched)

    def see_pod(self, event: dict[str, Any], _moment: float) -> None:
        """Take note of a pod's beginning and end."""
        pod = event["object"]
        uid = str(pod["metadata"]["uid"])
        if event["type"] == "DELETED" or pod["status"].get("phase") not in ("Pending", "Running"):
            self._wanted.pop(uid, None)
        elif pod["status"].get("phase") == "Running":
            self._wanted[uid] = str(pod["metadata"]["name"])

    def worker(self, pod: str) -> Worker:
        """The worker of this name; NotThereError while it is not found."""
        for watched in list(self._watched.values()):
            if watched.worker.pod == pod:
                return watched.worker
        raise NotThereError(f"{pod}: no launcher")

    def drain(self) -> Iterator[StepRecord]:
        """The steps since the last call."""
        with contextlib.suppress(queue.Empty):
            while True:
                yield self.records.get_nowait()

    def _run(self) -> None:
        while not self._ends.wait(LOOK_SECONDS):
            self._search()
            for uid, watched in list(self._watched.items()):
                if not self._look(watched):
                    _close(watched)
                    del self._watched[uid]

    def _search(self) -> None:
        """Find the launchers of pods that are new. A scan of all processes is not for every
        turn.
        """
        wanted = dict(self._wanted)
        missing = [uid for uid in wanted if uid not in self._watched]
        now = time.monotonic()
        if not missing or now - self._searched_at < SEARCH_SECONDS:
            return
        for uid in missing:
            worker = find_worker(wanted[uid], uid)
            if worker is not None:
                self._watched[uid] = _Watched(worker)
        self._searched_at = time.monotonic()

    def _look(self, watched: _Watched) -> bool:
        """Read the heartbeats of a pod; False once its launcher is gone."""
        try:
            attempts = watched.worker.attempts()
        except OSError:
            attempts = []
        pod, now = watched.worker.pod, time.time()
        for number, folder in attempts:
            self.read.setdefault(number, {}).setdefault(pod, now)
            if pod not in self.begun.setdefault(number, {}) and (folder / "pid-0").exists():
                self.begun[number][pod] = now
            _open_heartbeats(watched, number, folder)
        # Also those of attempts whose folders are gone: their last steps may not have been read.
        for key, descriptor in list(watched.files.items()):
            self._read_line(watched, key, descriptor)
        newest = max((number for number, _ in attempts), default=0)
        for key in [key for key in watched.files if attempts and key[0] < newest]:
            os.close(watched.files.pop(key))
        return bool(attempts) or watched.worker.folder.exists()

    def _read_line(self, watched: _Watched, key: tuple[int, str], descriptor: int) -> None:
        step, _, _ = os.pread(descriptor, LINE_BYTES, 0).partition(b" ")
        if not step.isdigit() or int(step) <= watched.steps.get(key, 0):
            return
        watched.steps[key] = int(step)
        attempt, name = key
        rank = f"{watched.worker.pod}/{name}"
        self.records.put(StepRecord(time.time(), attempt, rank, int(step)))


def _open_heartbeats(watched: _Watched, attempt: int, folder: Path) -> None:
    # Ranks have numbers without gaps, and their files stay: mostly there is one look in vain.
    for local_rank in range(64):
        name = f"heartbeat-{local_rank}"
        key = (attempt, name)
        if key in watched.files:
            continue
        try:
            watched.files[key] = os.open(folder / name, os.O_RDONLY)
        except OSError:
            return


def _close(watched: _Watched) -> None:
    for descriptor in watched.files.values():
        os.close(descriptor)


def _processes_of(uid: str) -> Iterator[int]:
    """The processes of a pod, in this machine's numbers."""
    wanted = f"pod{uid}".encode()
    for entry in os.listdir("/proc"):  # noqa: PTH208 - a Path per process takes as long as all else
        if entry.isdigit() and wanted in _read(int(entry), "cgroup"):
            yield int(entry)


def _number_inside(pid: int) -> int:
    """The number of a process in its own container, 0 when it has ended."""
    match = re.search(rb"^NSpid:.*?(\d+)$", _read(pid, "status"), re.MULTILINE)
    return int(match[1]) if match else 0


def _parent(pid: int) -> int:
    match = re.search(rb"^PPid:\s*(\d+)$", _read(pid, "status"), re.MULTILINE)
    return int(match[1]) if match else 0


def _namespace(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return ""


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it has ended
        return b""
