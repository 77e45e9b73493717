"""What is written down about a cluster, in its own folder, for whoever asks later: ``status``,
``down``, ``up``.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from . import ports
from .components import binaries_dir
from .errors import ClusterStateError
from .linux import ProcessIdentity, mounts_under
from .locks import held
from .model import ClusterSpec, Layout
from .paths import clusters_dir

Phase = Literal["starting", "running", "failed", "dead"]
_FAILED_KEPT_SECONDS = 3600.0
# A socket address holds 107 bytes; the longest socket lies in run/.
_LONGEST_ROOT = 107 - len("/run/buildkitd.sock")


@dataclass
class Status:
    """How a cluster is doing. ``components`` maps a name to ``running`` or to how it ended."""

    phase: Phase = "starting"
    components: dict[str, str] = field(default_factory=dict)
    error: str = ""


def root_of(name: str) -> Path:
    """The folder of a cluster; raises ClusterStateError for a name or place that cannot be used."""
    if not name or not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise ClusterStateError(f"cluster name {name!r}: use letters, digits, '-' and '_'")
    root = clusters_dir() / name
    if len(str(root)) > _LONGEST_ROOT:
        room = _LONGEST_ROOT - len(str(clusters_dir())) - 1
        raise ClusterStateError(
            f"cluster name {name!r} is too long for sockets in {root.parent}; use at most {room} "
            "letters"
        )
    return root


@contextmanager
def clusters_lock() -> Iterator[None]:
    """Held while clusters are created, found dead or removed."""
    with held(clusters_dir() / ".lock"):
        yield


def roots() -> list[Path]:
    """The folders of all clusters, dead or alive."""
    folder = clusters_dir()
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.exists() else []


def layout_of(root: Path) -> Layout:
    """The layout of an existing cluster."""
    return Layout(root, binaries_dir(), json.loads(ports.file_of(root).read_text())["apiserver"])


def create(spec: ClusterSpec) -> Layout:
    """Make the folder of a new cluster; call with the lock held."""
    root = root_of(spec.name)
    root.mkdir(mode=0o700)
    (root / "logs").mkdir()
    numbers = ports.choose(ports.taken(roots()))
    ports.file_of(root).write_text(json.dumps(numbers))
    (root / "spec.json").write_text(spec.to_json())
    return layout_of(root)


def read_spec(root: Path) -> ClusterSpec:
    """What was asked for."""
    return ClusterSpec.from_json((root / "spec.json").read_text())


def write_supervisor(root: Path, identity: ProcessIdentity) -> None:
    """Note who answers for the cluster."""
    _write(root / "supervisor.json", json.dumps(asdict(identity)))


def supervisor(root: Path) -> ProcessIdentity | None:
    """Who answers for the cluster, None if it never got that far."""
    try:
        return ProcessIdentity(**json.loads((root / "supervisor.json").read_text()))
    except FileNotFoundError:
        return None


def write_init_pid(root: Path, pid: int) -> None:
    """Note the first process inside the namespaces, in the host's numbers."""
    _write(root / "init.pid", str(pid))


def init_pid(root: Path) -> int | None:
    """The first process inside the namespaces; None for a cluster without any."""
    try:
        return int((root / "init.pid").read_text())
    except FileNotFoundError:
        return None


def is_alive(root: Path) -> bool:
    """Whether somebody answers for the cluster."""
    identity = supervisor(root)
    return identity is not None and identity.is_alive()


def write_status(root: Path, status: Status) -> None:
    """Replace the status in one step."""
    _write(root / "status.json", json.dumps(asdict(status)))


def read_status(root: Path) -> Status:
    """The last known status; ``dead`` if the supervisor is gone without having said why."""
    try:
        status = Status(**json.loads((root / "status.json").read_text()))
    except FileNotFoundError:
        status = Status()
    if status.phase in {"starting", "running"} and not is_alive(root):
        status.phase = "dead"
    return status


def read_log(root: Path, component: str) -> str:
    """The whole log of a component, also of a cluster that failed to start."""
    path = root / "logs" / f"{component}.log"
    if not path.exists():
        known = ", ".join(sorted(log.stem for log in path.parent.glob("*.log")))
        raise ClusterStateError(
            f"cluster {root.name} has no log of {component}"
            + (f"; there are {known}" if known else "")
        )
    return path.read_text(errors="replace")


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


def sweep(also: str | None = None) -> None:
    """Remove what dead clusters left; call with the lock held.

    The logs of a cluster that failed to start stay for an hour, except those of the cluster named
    ``also``.
    """
    for root in roots():
        if is_alive(root):
            continue
        if root.name == also:
            remove(root)
        elif _is_forgotten(root):
            # What cannot be removed yet must not keep a cluster of another name from starting.
            with contextlib.suppress(OSError, ClusterStateError):
                remove(root)


def _is_forgotten(root: Path) -> bool:
    if read_status(root).phase == "failed":
        return time.time() - root.stat().st_mtime > _FAILED_KEPT_SECONDS
    # A folder without a supervisor is about to get one, or is not ours.
    return supervisor(root) is not None


def clean_host(root: Path) -> None:
    """Remove what a dead node cluster leaves outside of its folder."""
    if (root / "spec.json").exists() and read_spec(root).namespaced:
        from . import node

        node.cleanup_cgroups(layout_of(root))


def remove(root: Path, *, keep: frozenset[str] = frozenset()) -> None:
    """Remove a dead cluster's leavings and its folder, or of the folder all but the entries to
    keep.
    """
    clean_host(root)
    mounts = mounts_under(root)
    if mounts:
        # Deleting through a mount could reach files that are not the cluster's.
        raise ClusterStateError(f"not removing {root}: still mounted: {', '.join(mounts)}")
    if not keep:
        shutil.rmtree(root)
        return
    for entry in root.iterdir():
        if entry.name not in keep:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
