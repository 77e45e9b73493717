"""Cgroups of a cluster, on directories that look like each kind of host."""

from __future__ import annotations

from pathlib import Path

import pytest

from localcluster import cgroups
from localcluster.errors import ClusterStateError
from localcluster.model import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "clusters" / "one", tmp_path / "bin", 20123)


def _host(tmp_path: Path, version: int) -> Path:
    host = tmp_path / "cgroup"
    host.mkdir()
    if version == 2:
        (host / "cgroup.controllers").write_text("cpu memory\n")
        (host / "cgroup.subtree_control").write_text("")
        return host
    for controller in ("cpu", "cpuset", "memory"):
        (host / controller).mkdir()
        (host / controller / "cgroup.procs").write_text("")
    (host / "not-a-hierarchy").mkdir()
    return host


def test_version_1_has_one_cgroup_per_controller(tmp_path: Path, layout: Layout) -> None:
    host = _host(tmp_path, 1)
    cgroups.create_cgroups(layout, host)
    assert [path.parent.name for path in cgroups.existing_cgroups(layout, host)] == [
        "cpu",
        "cpuset",
        "memory",
    ]


def test_version_2_has_one_cgroup_with_all_controllers(tmp_path: Path, layout: Layout) -> None:
    host = _host(tmp_path, 2)
    cgroups.create_cgroups(layout, host)
    assert cgroups.existing_cgroups(layout, host) == (host / cgroups.cgroup_name(layout),)
    assert (host / "cgroup.subtree_control").read_text().split() == ["+cpu", "+memory"]


def test_removal_takes_nested_cgroups_and_is_idempotent(tmp_path: Path, layout: Layout) -> None:
    host = _host(tmp_path, 1)
    cgroups.create_cgroups(layout, host)
    (host / "cpu" / cgroups.cgroup_name(layout) / "kubepods" / "pod1" / "container").mkdir(
        parents=True
    )
    cgroups.remove_cgroups(layout, host)
    cgroups.remove_cgroups(layout, host)
    assert cgroups.existing_cgroups(layout, host) == ()


def test_a_cgroup_in_use_is_reported(tmp_path: Path, layout: Layout) -> None:
    host = _host(tmp_path, 1)
    cgroups.create_cgroups(layout, host)
    # A file makes rmdir fail on an ordinary file system as a living process does on a real one.
    (host / "cpu" / cgroups.cgroup_name(layout) / "busy").write_text("")
    with pytest.raises(ClusterStateError, match="processes are left"):
        cgroups.remove_cgroups(layout, host, timeout=0)


def test_two_checkouts_never_share_a_cgroup(tmp_path: Path) -> None:
    names = {
        cgroups.cgroup_name(Layout(tmp_path / part / "default", tmp_path, 1)) for part in ("a", "b")
    }
    assert len(names) == 2
