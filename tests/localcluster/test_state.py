"""What is noted about clusters, and what of it is swept."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from localcluster import paths, ports, state
from localcluster.errors import ClusterStateError
from localcluster.linux import ProcessIdentity
from localcluster.model import ClusterSpec, DeviceSpec


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # Not below tmp_path: that is too deep for sockets.
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv(paths.CACHE_VARIABLE, folder)
        paths.clusters_dir().mkdir(parents=True)
        yield


def test_a_deep_checkout_keeps_its_clusters_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    near = paths.clusters_dir()
    assert near.is_relative_to(paths.cache_dir())
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path / ("deep" * 20)))
    far = paths.clusters_dir()
    assert not far.is_relative_to(paths.cache_dir())
    assert len(str(state.root_of("test-node-1234567"))) < len(str(tmp_path)) + 80
    assert far == paths.clusters_dir() != near


def _dead() -> ProcessIdentity:
    with subprocess.Popen(["sleep", "60"]) as process:
        identity = ProcessIdentity.of(process.pid)
        process.kill()
    return identity


def _cluster(name: str, supervisor: ProcessIdentity | None, phase: state.Phase) -> Path:
    root = state.create(ClusterSpec(name, flavour="control-plane")).root
    if supervisor is not None:
        state.write_supervisor(root, supervisor)
    state.write_status(root, state.Status(phase))
    return root


def test_a_spec_survives_the_way_to_another_process() -> None:
    spec = ClusterSpec(
        "x", "node", 3, {"a/b": "1"}, (DeviceSpec("cambricon.com/mlu", 4, "MLU_VISIBLE_DEVICES"),)
    )
    root = state.create(spec).root
    assert state.read_spec(root) == spec


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a b", ".", "ü"])
def test_names_that_are_no_folder_names_are_refused(name: str) -> None:
    with pytest.raises(ClusterStateError, match="use letters, digits"):
        state.root_of(name)


def test_a_name_too_long_for_sockets_is_refused() -> None:
    with pytest.raises(ClusterStateError, match="too long for sockets") as caught:
        state.root_of("n" * 90)
    longest = int(str(caught.value).split()[-2])
    assert state.root_of("n" * longest).name == "n" * longest
    with pytest.raises(ClusterStateError):
        state.root_of("n" * (longest + 1))


def test_only_what_is_dead_is_swept() -> None:
    alive = _cluster("alive", ProcessIdentity.of(os.getpid()), "running")
    dead = _cluster("dead", _dead(), "running")
    young = _cluster("young", None, "starting")
    state.sweep()
    assert (alive.exists(), dead.exists(), young.exists()) == (True, False, True)


def test_the_logs_of_a_failed_start_stay_until_the_name_is_used_again() -> None:
    failed = _cluster("failed", _dead(), "failed")
    state.sweep(also="other")
    assert failed.exists()
    state.sweep(also="failed")
    assert not failed.exists()


def test_the_logs_of_a_failed_start_are_swept_after_a_while() -> None:
    failed = _cluster("failed", _dead(), "failed")
    os.utime(failed, (0, 0))
    state.sweep()
    assert not failed.exists()


def test_a_cluster_whose_supervisor_vanished_is_dead() -> None:
    assert state.read_status(_cluster("a", _dead(), "running")).phase == "dead"


def test_a_reused_pid_is_another_process() -> None:
    mine = ProcessIdentity.of(os.getpid())
    assert mine.is_alive()
    assert not ProcessIdentity(mine.pid, mine.start_time - 1).is_alive()


def test_signals_and_waiting_end_with_the_process() -> None:
    dead = _dead()
    dead.signal(signal.SIGTERM)
    assert dead.wait(0)
    assert not ProcessIdentity.of(os.getpid()).wait(0)


def test_a_folder_with_a_mount_below_is_not_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    root = _cluster("a", _dead(), "running")
    monkeypatch.setattr(state, "mounts_under", lambda path: [f"{path}/kubelet"])
    state.sweep(also="another")
    assert root.exists()
    with pytest.raises(ClusterStateError, match="still mounted"):
        state.sweep(also="a")
    assert root.exists()


def test_removal_can_keep_the_logs() -> None:
    root = _cluster("a", _dead(), "failed")
    state.remove(root, keep=frozenset({"logs", "status.json"}))
    assert {path.name for path in root.iterdir()} == {"logs", "status.json"}


def test_ports_differ_between_clusters_and_avoid_listeners() -> None:
    first = state.create(ClusterSpec("a"))
    taken = ports.taken([first.root])
    assert len(taken) == len(ports.NAMES)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        occupied = listener.getsockname()[1]
        chosen = set(ports.choose(taken).values())
    assert not chosen & (taken | {occupied})
    assert first.api_port == ports.read(first)["apiserver"]


def test_a_log_that_is_not_there_names_those_that_are() -> None:
    root = _cluster("a", None, "starting")
    (root / "logs" / "etcd.log").write_text("hello\n")
    assert state.read_log(root, "etcd") == "hello\n"
    with pytest.raises(ClusterStateError, match="has no log of kubelet; there are etcd"):
        state.read_log(root, "kubelet")
