"""Break a running node on purpose, from outside of its namespaces, and mend it again: for tests and
benchmarks.

What a context manager did is undone at its end, and with the cluster at the latest.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from .cluster import Cluster
from .errors import CommandError, LocalClusterError

_TABLE = "fault"
_COPY = "/dev/shm/frozen"  # noqa: S108 - in the pod's own memory


@contextmanager
def paused(cluster: Cluster, component: str) -> Iterator[None]:
    """A component of the cluster stands still: without its kubelet the node is soon NotReady, and
    its pods run on.
    """
    processes = _component(cluster, component)
    if not processes:
        raise LocalClusterError(f"{component} does not run in cluster {cluster.name}")
    try:
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def kill(uid: str) -> None:
    """All processes of a pod end at once, without a word to anybody, as when its node loses its
    power.
    """
    for pid in _processes(uid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextmanager
def cut_off(uids: Collection[str], ports: Collection[int] = ()) -> Iterator[None]:
    """Drop all that these pods send and get, as if their node's cable were pulled; or only what
    they send to ports.
    """
    rules = _rules(ports)
    pids = [_processes(uid)[0] for uid in uids]
    try:
        for pid in pids:
            _run("nsenter", "--net", f"--target={pid}", "--", "nft", rules)
        yield
    finally:
        for pid in pids:
            # Its network went with it when the pod has ended.
            with contextlib.suppress(CommandError):
                _run(
                    "nsenter",
                    "--net",
                    f"--target={pid}",
                    "--",
                    "nft",
                    f"delete table inet {_TABLE}",
                )


def _rules(ports: Collection[int]) -> str:
    leaving, coming = "type filter hook output priority 0;", "type filter hook input priority 0;"
    if ports:
        numbers = ", ".join(str(port) for port in sorted(ports))
        dropped = f"{leaving} tcp dport {{ {numbers} }} drop;"
        return f"table inet {_TABLE} {{ chain leaving {{ {dropped} }}; }}"
    return (
        f"table inet {_TABLE} {{ chain leaving {{ {leaving} oifname != lo drop; }}; "
        f"chain coming {{ {coming} iifname != lo drop; }}; }}"
    )


@contextmanager
def frozen(uids: Collection[str], folder: str) -> Iterator[None]:
    """What the kubelet writes into a folder of these pods is seen by their containers only
    afterwards.
    """
    pids = [_with_folder(uid, folder) for uid in uids]
    copy = f"set -e; mkdir -p {_COPY}; cp -a {folder}/. {_COPY}; mount --bind {_COPY} {folder}"
    try:
        for pid in pids:
            _in_mounts(pid, copy)
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(CommandError):
                _in_mounts(pid, f"umount {folder}; rm -rf {_COPY}")


def _in_mounts(pid: int, script: str) -> None:
    _run("nsenter", "--mount", f"--target={pid}", "--wd=/", "--", "sh", "-c", script)


def _with_folder(uid: str, folder: str) -> int:
    """A process of the container that has the folder: a pod has others too."""
    for pid in _processes(uid):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/root{folder}").is_dir():
                return pid
    raise LocalClusterError(f"no container of pod {uid} has the folder {folder}")


def _processes(uid: str) -> list[int]:
    """The processes of a pod, in this machine's numbers."""
    found = [pid for pid in _pids() if f"pod{uid}" in _read(pid, "cgroup")]
    if not found:
        raise LocalClusterError(f"pod {uid} has no processes on this machine")
    return found


def _component(cluster: Cluster, name: str) -> list[int]:
    """The processes of a component; the paths in its arguments tell whose it is."""
    argv0, folder = cluster.layout.binary(name), f"{cluster.layout.root}/"
    lines = {pid: _read(pid, "cmdline").split("\0") for pid in _pids()}
    return [
        pid
        for pid, line in lines.items()
        if line[0] == argv0 and any(folder in part for part in line[1:])
    ]


def _pids() -> list[int]:
    return sorted(int(entry.name) for entry in Path("/proc").glob("[0-9]*"))


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:  # it has ended
        return ""


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandError(command, done.returncode, done.stderr)
