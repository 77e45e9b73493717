"""A real control plane: it starts, it carries pods on fake nodes, and however it ends, nothing of
it is left.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from localcluster import Cluster, ClusterSpec, components, controlplane, kwok, paths, state
from localcluster.errors import ClusterStateError, ComponentError
from localcluster.linux import ProcessIdentity

pytestmark = pytest.mark.timeout(240)
ROOT = Path(__file__).resolve().parents[2]


def _eventually(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def _pod(name: str, resource: str, count: int, **annotations: str) -> dict[str, Any]:
    limits = {"limits": {resource: str(count)}}
    container = {"name": "trainer", "image": "example.invalid/none", "resources": limits}
    metadata = {
        "name": name,
        "annotations": {f"kwok.localcluster/{key}": text for key, text in annotations.items()},
    }
    spec = {"containers": [container], "restartPolicy": "Never"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _create(cluster: Cluster, namespace: str, pod: dict[str, Any]) -> None:
    cluster.kubectl("create", f"--namespace={namespace}", "--filename=-", input=json.dumps(pod))


def _wait(cluster: Cluster, namespace: str, name: str, phase: str) -> dict[str, Any]:
    jsonpath = f"--for=jsonpath={{.status.phase}}={phase}"
    cluster.kubectl("wait", jsonpath, "--timeout=30s", f"--namespace={namespace}", f"pod/{name}")
    pod = json.loads(
        cluster.kubectl("get", "pod", name, f"--namespace={namespace}", "--output=json")
    )
    status: dict[str, Any] = pod["status"]
    return status


# --- a running control plane


def test_it_is_ready_and_says_its_version(control_plane: Cluster) -> None:
    assert control_plane.kubectl("get", "--raw", "/readyz") == "ok"
    version = json.loads(control_plane.kubectl("version", "--output=json"))
    assert (
        version["serverVersion"]["gitVersion"]
        == version["clientVersion"]["gitVersion"]
        == "v1.36.3"
    )
    assert set(control_plane.status().components.values()) == {"running"}


def test_a_fake_node_carries_a_pod_that_wants_an_accelerator(
    control_plane: Cluster, namespace: str
) -> None:
    _create(control_plane, namespace, _pod("a", "cambricon.com/mlu", 8))
    status = _wait(control_plane, namespace, "a", "Running")
    assert status["podIP"].startswith("10.")
    assert {one["type"]: one["status"] for one in status["conditions"]}["Ready"] == "True"
    assert status["containerStatuses"][0]["state"]["running"]


def test_an_accelerator_that_no_node_has_leaves_the_pod_pending(
    control_plane: Cluster, namespace: str
) -> None:
    _create(control_plane, namespace, _pod("a", "cambricon.com/mlu", 9))
    condition = "--for=jsonpath={.status.conditions[0].reason}=Unschedulable"
    control_plane.kubectl("wait", condition, "--timeout=30s", f"--namespace={namespace}", "pod/a")


@pytest.mark.parametrize(
    ("annotations", "phase", "code", "message"),
    [
        ({"succeed-after": "100ms"}, "Succeeded", 0, None),
        ({"fail-after": "100ms"}, "Failed", 1, None),
        (
            {"fail-after": "0s", "exit-code": "78", "message": '{"reason": "BadConfig"}'},
            "Failed",
            78,
            '"BadConfig"',
        ),
    ],
    ids=["success", "failure", "failure-with-code-and-message"],
)
def test_annotations_end_a_fake_pod(
    control_plane: Cluster,
    namespace: str,
    annotations: dict[str, str],
    phase: str,
    code: int,
    message: str | None,
) -> None:
    _create(control_plane, namespace, _pod("a", "nvidia.com/gpu", 1, **annotations))
    status = _wait(control_plane, namespace, "a", phase)
    ended = status["containerStatuses"][0]["state"]["terminated"]
    assert ended["exitCode"] == code
    assert message is None or message in ended["message"]
    assert {one["type"]: one["status"] for one in status["conditions"]}["Ready"] == "False"


def test_a_held_pod_stays_pending_until_it_is_let_go(
    control_plane: Cluster, namespace: str
) -> None:
    _create(control_plane, namespace, _pod("held", "nvidia.com/gpu", 1, hold="true"))
    _create(control_plane, namespace, _pod("free", "nvidia.com/gpu", 1))
    _wait(control_plane, namespace, "free", "Running")
    assert _wait(control_plane, namespace, "held", "Pending").get("podIP") is None
    control_plane.kubectl("annotate", "pod", "held", f"--namespace={namespace}", f"{kwok.HOLD}-")
    _wait(control_plane, namespace, "held", "Running")


def test_a_status_written_by_a_test_stays(control_plane: Cluster, namespace: str) -> None:
    _create(control_plane, namespace, _pod("a", "nvidia.com/gpu", 1))
    _wait(control_plane, namespace, "a", "Running")
    patch = '--patch={"status": {"phase": "Failed", "reason": "Evicted"}}'
    control_plane.kubectl(
        "patch",
        "pod",
        "a",
        f"--namespace={namespace}",
        "--subresource=status",
        "--type=merge",
        patch,
    )
    assert _wait(control_plane, namespace, "a", "Failed")["reason"] == "Evicted"


def test_a_deleted_pod_goes_away(control_plane: Cluster, namespace: str) -> None:
    _create(control_plane, namespace, _pod("a", "nvidia.com/gpu", 1))
    _wait(control_plane, namespace, "a", "Running")
    control_plane.kubectl("delete", "pod", "a", f"--namespace={namespace}", "--timeout=30s")


def test_more_fake_nodes_of_another_kind(control_plane: Cluster) -> None:
    control_plane.add_kwok_nodes(["big"], {"huawei.com/Ascend910": "16"}, {"zone": "b"})
    node = json.loads(control_plane.kubectl("get", "node", "big", "--output=json"))
    assert node["status"]["allocatable"]["huawei.com/Ascend910"] == "16"
    control_plane.kubectl("delete", "node", "big")


def test_the_name_of_a_running_cluster_is_taken(control_plane: Cluster) -> None:
    with pytest.raises(ClusterStateError, match="is already running"):
        Cluster.up(control_plane.spec)
    assert Cluster.attach(control_plane.name).kubeconfig == control_plane.kubeconfig


# --- start and end, in a cache of its own so that nothing of another test is met


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache with the common binaries and no clusters. Not below tmp_path: that is too deep for
    sockets.
    """
    with tempfile.TemporaryDirectory() as folder:
        yield from _cache_in(Path(folder), monkeypatch)


def _cache_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    paths_by_name = components.build(
        controlplane.required_components(ClusterSpec(flavour="control-plane", kwok_nodes=1))
    )
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(folder))
    for name, binary in paths_by_name.items():
        copy = components.binary_path(components.COMPONENTS[name])
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.symlink_to(binary)
    yield folder
    for root in state.roots():
        Cluster.remove(root.name)


def _spec(name: str) -> ClusterSpec:
    return ClusterSpec(name, flavour="control-plane")


def _processes_of(folder: Path) -> list[str]:
    """Command lines of living processes that name the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in text and str(os.getpid()) != path.parent.name:
            found.append(text)
    return found


def test_two_side_by_side_share_nothing_and_leave_nothing(cache: Path) -> None:
    with Cluster.up(_spec("a")) as first, Cluster.up(_spec("b")) as second:
        first.kubectl("create", "namespace", "only-here")
        assert "only-here" not in second.kubectl("get", "namespaces", "--output=name")
        assert len(_processes_of(cache)) >= 10
    assert _processes_of(cache) == []
    assert state.roots() == []


@pytest.fixture
def owner(cache: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has started a cluster called ``owned`` and waits."""
    code = (
        "from localcluster import *; c = Cluster.up(ClusterSpec('owned', 'control-plane')); "
        "print('up'); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", code],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process
        process.kill()


def test_a_killed_owner_takes_its_cluster_along(cache: Path, owner: subprocess.Popen[str]) -> None:
    assert state.read_status(state.root_of("owned")).phase == "running"
    owner.kill()
    _eventually(lambda: _processes_of(cache) == [] and state.roots() == [])


def test_after_a_killed_supervisor_nothing_runs_and_the_next_start_cleans_up(
    cache: Path, owner: subprocess.Popen[str]
) -> None:
    root = state.root_of("owned")
    supervisor = state.supervisor(root)
    assert supervisor is not None
    supervisor.signal(signal.SIGKILL)
    _eventually(lambda: _processes_of(cache) == [])
    assert state.read_status(root).phase == "dead"
    with Cluster.up(_spec("other")):
        assert [one.name for one in state.roots()] == ["other"]


def test_a_component_that_fails_to_start_is_named_with_its_last_lines(cache: Path) -> None:
    binary = components.binary_path(components.COMPONENTS["kube-scheduler"])
    binary.unlink()
    binary.write_text("#!/bin/sh\necho no such flag\nexit 3\n")
    binary.chmod(0o755)
    with pytest.raises(ComponentError, match="kube-scheduler: exited with code 3") as caught:
        Cluster.up(_spec("a"))
    assert caught.value.tail == "no such flag"
    assert _processes_of(cache) == []
    assert state.read_status(state.root_of("a")).phase == "failed"
    assert state.read_log(state.root_of("a"), "kube-scheduler") == "no such flag\n"


def _localcluster(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "localcluster", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command_line_from_up_to_down(cache: Path) -> None:
    up = ("up", "--name", "cli", "--flavour", "control-plane")
    first = _localcluster(*up)
    assert (first.returncode, first.stdout.split("=")[0]) == (0, "export KUBECONFIG"), first.stderr
    assert "cluster cli is already running" in _localcluster(*up).stderr
    assert "etcd: running" in _localcluster("status").stdout
    assert _localcluster("kubectl", "--name", "cli", "get", "--raw", "/readyz").stdout == "ok"
    _kill_component(cache, "kube-scheduler")
    _eventually(lambda: "kube-scheduler: killed by signal 9" in _localcluster("status").stdout)
    assert _localcluster("status").returncode == 1
    assert _localcluster("down", "--name", "cli").returncode == 0
    assert _processes_of(cache) == []
    assert state.roots() == []


def _kill_component(cache: Path, name: str) -> None:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        if path.read_bytes().startswith(str(cache / "bin" / name).encode()):
            ProcessIdentity.of(int(path.parent.name)).signal(signal.SIGKILL)


def test_an_ordinary_user_can_run_a_control_plane(cache: Path) -> None:
    code = (
        "from localcluster import *; c = Cluster.up(ClusterSpec('x', 'control-plane')); "
        "print(c.status().phase)"
    )
    # In a user namespace of its own a process of root's is nobody, but still reads root's files:
    # the interpreter, say.
    drop = ["unshare", "--user"] if os.geteuid() == 0 else []
    result = subprocess.run(
        [*drop, sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.stdout == "running\n", result.stderr
    _eventually(lambda: _processes_of(cache) == [] and state.roots() == [])
