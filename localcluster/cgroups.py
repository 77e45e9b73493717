"""The cgroup that holds every pod of one cluster, on cgroup v1, v2 and hybrid hosts."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

from .errors import ClusterStateError
from .model import Layout

MOUNT_POINT = Path("/sys/fs/cgroup")


def cgroup_name(layout: Layout) -> str:
    """Name of the cluster's cgroup; it carries a hash of the path so that two checkouts never share
    one.
    """
    digest = hashlib.sha256(str(layout.root).encode()).hexdigest()[:8]
    return f"localcluster-{layout.root.name}-{digest}"


def hierarchies(mount_point: Path = MOUNT_POINT) -> tuple[Path, ...]:
    """Root directory of every mounted hierarchy: one on v2, one per controller on v1."""
    if (mount_point / "cgroup.controllers").exists():
        return (mount_point,)
    return tuple(sorted(path for path in mount_point.iterdir() if (path / "cgroup.procs").exists()))


def create_cgroups(layout: Layout, mount_point: Path = MOUNT_POINT) -> None:
    """Create the cluster's cgroup in every hierarchy; the kubelet wants it to exist."""
    for hierarchy in hierarchies(mount_point):
        cgroup = hierarchy / cgroup_name(layout)
        cgroup.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):
            if (cgroup / setting).exists() and not (hierarchy / "cgroup.controllers").exists():
                (cgroup / setting).write_text((hierarchy / setting).read_text())
    if (mount_point / "cgroup.controllers").exists():
        _delegate(mount_point)


def _delegate(cgroup: Path) -> None:
    for controller in (cgroup / "cgroup.controllers").read_text().split():
        # One that cannot be delegated is not needed, or the kubelet names it.
        with contextlib.suppress(OSError), (cgroup / "cgroup.subtree_control").open("a") as control:
            control.write(f"+{controller}\n")


def remove_cgroups(layout: Layout, mount_point: Path = MOUNT_POINT, timeout: float = 10.0) -> None:
    """Remove the cluster's cgroups; processes that are still dying are waited for."""
    deadline = time.monotonic() + timeout
    for cgroup in existing_cgroups(layout, mount_point):
        _remove_tree(cgroup, deadline)


def existing_cgroups(layout: Layout, mount_point: Path = MOUNT_POINT) -> tuple[Path, ...]:
    """The cluster's cgroups that exist now."""
    candidates = (hierarchy / cgroup_name(layout) for hierarchy in hierarchies(mount_point))
    return tuple(cgroup for cgroup in candidates if cgroup.exists())


def _remove_tree(cgroup: Path, deadline: float) -> None:
    while True:
        for directory in _bottom_up(cgroup):
            _try_remove(directory)
        if not cgroup.exists():
            return
        if time.monotonic() > deadline:
            raise ClusterStateError(f"cgroup {cgroup} cannot be removed: processes are left in it")
        time.sleep(0.1)


def _bottom_up(cgroup: Path) -> Iterator[Path]:
    yield from sorted(
        (path for path in cgroup.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts)
    )
    yield cgroup


def _try_remove(directory: Path) -> None:
    with contextlib.suppress(OSError):  # busy or gone: the caller looks again
        directory.rmdir()
