"""A cluster with a real node does what pods, tests and the demo rely on, and leaves nothing
behind.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from localcluster import Cluster, ClusterSpec, DeviceSpec, deviceplugin, state
from localcluster.cgroups import existing_cgroups
from localcluster.images import BASE_IMAGE, ImageBuild
from localcluster.linux import mounts_under

pytestmark = pytest.mark.timeout(180)

_NAMESPACES = ("net", "mnt", "pid")
_WAIT = 60.0


def _pod(name: str, program: str, **container: Any) -> dict[str, Any]:
    main = {"name": "main", "image": BASE_IMAGE, "command": ["python3", "-c", program], **container}
    volumes = [
        {"name": mount["name"], "persistentVolumeClaim": {"claimName": mount["name"]}}
        for mount in container.get("volumeMounts", ())
    ]
    spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0,
        "containers": [main],
        "volumes": volumes,
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


class Pods:
    """Pods of one namespace."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self._namespace = namespace

    def kubectl(self, *arguments: str) -> str:
        return self._cluster.kubectl(f"--namespace={self._namespace}", *arguments)

    def create(self, *manifests: dict[str, Any]) -> None:
        self._cluster.apply(
            *(
                {**item, "metadata": {**item["metadata"], "namespace": self._namespace}}
                for item in manifests
            )
        )

    def wait(self, name: str, phase: str) -> None:
        self.kubectl(
            "wait",
            f"pod/{name}",
            f"--for=jsonpath={{.status.phase}}={phase}",
            f"--timeout={_WAIT:.0f}s",
        )

    def output(self, name: str, program: str, **container: Any) -> str:
        """Run a program to its end."""
        self.create(_pod(name, program, **container))
        self.wait(name, "Succeeded")
        return self.kubectl("logs", name).strip()


@pytest.fixture
def pods(node_cluster: Cluster, namespace: str) -> Pods:
    return Pods(node_cluster, namespace)


def test_logs_and_exec(pods: Pods) -> None:
    pods.create(_pod("sleeper", "import time; print('up', flush=True); time.sleep(600)"))
    pods.wait("sleeper", "Running")
    _eventually(lambda: pods.kubectl("logs", "sleeper") == "up\n")
    assert pods.kubectl("exec", "sleeper", "--", "python3", "-c", "print(6 * 7)") == "42\n"


def test_exit_code_and_reason_are_reported(pods: Pods) -> None:
    pods.create(_pod("broken", "raise SystemExit(78)"))
    pods.wait("broken", "Failed")
    (status,) = json.loads(pods.kubectl("get", "pod", "broken", "--output=json"))["status"][
        "containerStatuses"
    ]
    assert status["state"]["terminated"]["exitCode"] == 78


def test_memory_limit_is_enforced(pods: Pods) -> None:
    limits = {"limits": {"memory": "64Mi"}}
    pods.create(_pod("greedy", "bytearray(1 << 30)", resources=limits))
    pods.wait("greedy", "Failed")
    (status,) = json.loads(pods.kubectl("get", "pod", "greedy", "--output=json"))["status"][
        "containerStatuses"
    ]
    assert status["state"]["terminated"]["exitCode"] == 137


def test_names_resolve_and_others_fail_at_once(pods: Pods) -> None:
    program = """
import socket, time
print(socket.gethostbyname("kubernetes.default"))
started = time.monotonic()
try:
    socket.gethostbyname("name.invalid")
except socket.gaierror:
    print(time.monotonic() - started < 2)
"""
    assert pods.output("names", program).split() == ["10.96.0.1", "True"]


def test_the_api_server_answers_at_its_service_address(pods: Pods) -> None:
    program = """
import ssl, urllib.request
account = "/var/run/secrets/kubernetes.io/serviceaccount"
context = ssl.create_default_context(cafile=f"{account}/ca.crt")
headers = {"Authorization": "Bearer " + open(f"{account}/token").read()}
request = urllib.request.Request("https://kubernetes.default.svc/version", headers=headers)
print(urllib.request.urlopen(request, context=context, timeout=10).status)
"""
    assert pods.output("client", program) == "200"


def test_pods_reach_one_another_through_a_service(pods: Pods) -> None:
    server = _pod(
        "server", "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8000)"
    )
    server["metadata"]["labels"] = {"app": "server"}
    spec = {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8000}]}
    pods.create(
        server, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}
    )
    program = """
import time, urllib.error, urllib.request
for _ in range(100):
    try:
        print(urllib.request.urlopen("http://web/", timeout=5).status)
        break
    except urllib.error.URLError:
        time.sleep(0.2)
"""
    assert pods.output("client", program) == "200"


def test_a_claim_is_provisioned_shared_and_removed(pods: Pods, node_cluster: Cluster) -> None:
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    pods.create(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data"},
            "spec": spec,
        }
    )
    mounts = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    user = {"securityContext": {"runAsUser": 1234, "runAsNonRoot": True}}
    pods.output("writer", "open('/data/note', 'w').write('hello')", **mounts, **user)
    assert pods.output("reader", "print(open('/data/note').read())", **mounts) == "hello"
    volume = pods.kubectl("get", "pvc", "data", "--output=jsonpath={.spec.volumeName}")
    directory = node_cluster.layout.root / "volumes" / volume
    assert (directory / "note").read_text() == "hello"
    pods.kubectl("delete", "pod", "writer", "reader")
    pods.kubectl("delete", "pvc", "data")
    _eventually(lambda: not directory.exists())


def test_devices_are_allocated_by_the_plugin(pods: Pods) -> None:
    limits = {"resources": {"limits": {"cambricon.com/mlu": "2"}}}
    indices = pods.output(
        "accelerated", "import os; print(os.environ['MLU_VISIBLE_DEVICES'])", **limits
    ).split(",")
    assert len(set(indices)) == 2
    assert set(indices) <= set("0123")


def test_a_broken_device_is_no_longer_offered(node_cluster: Cluster) -> None:
    path = deviceplugin.unhealthy_file(node_cluster.layout, "cambricon.com/mlu")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("3")
    try:
        _eventually(lambda: _allocatable(node_cluster) == "3")
    finally:
        path.unlink()
    _eventually(lambda: _allocatable(node_cluster) == "4")


def _allocatable(cluster: Cluster) -> str:
    path = r"--output=jsonpath={.items[0].status.allocatable.cambricon\.com/mlu}"
    return cluster.kubectl("get", "nodes", path)


def test_an_image_is_built_once_for_the_same_inputs(
    pods: Pods, node_cluster: Cluster, tmp_path: Path
) -> None:
    context, wheels = tmp_path / "context", tmp_path / "wheels"
    context.mkdir()
    wheels.mkdir()
    (wheels / "one.whl").write_text("")
    (context / "text").write_text("built")
    (context / "Dockerfile").write_text(
        f"FROM {BASE_IMAGE} AS wanted\n"
        "RUN --mount=type=bind,from=wheels,target=/wheels ls /wheels > /list\n"
        "COPY text /text\n"
        "FROM wanted AS unwanted\n"
        "RUN false\n"
    )
    build = ImageBuild(
        "localhost/localcluster-test:1",
        context,
        context / "Dockerfile",
        target="wanted",
        build_args={"RUN_ID": str(time.time_ns())},
        named_contexts={"wheels": wheels},
    )
    assert node_cluster.build_image(build) is True
    assert node_cluster.build_image(build) is False
    output = pods.output(
        "built", "print(open('/list').read(), open('/text').read())", image=build.tag
    )
    assert output.split() == ["one.whl", "built"]


def test_nothing_survives_a_cluster_however_it_ends() -> None:
    spec = ClusterSpec(f"test-end-{os.getpid()}", devices=(DeviceSpec("nvidia.com/gpu", 1),))
    cluster = Cluster.up(spec)
    namespaces = _run_sleeper(cluster)
    killed = state.supervisor(cluster.layout.root)
    assert killed is not None
    killed.signal(signal.SIGKILL)
    _eventually(lambda: _members(namespaces) == [])
    assert mounts_under(cluster.layout.root) == []

    with Cluster.up(spec) as again:
        namespaces = _run_sleeper(again)
        assert existing_cgroups(again.layout) != ()
    assert _members(namespaces) == []
    assert mounts_under(again.layout.root) == []
    assert existing_cgroups(again.layout) == ()
    assert not again.layout.root.exists()


def test_two_clusters_run_side_by_side(node_cluster: Cluster) -> None:
    with Cluster.up(ClusterSpec(f"test-side-{os.getpid()}")) as other:
        _run_sleeper(other)
        assert "sleeper" not in node_cluster.kubectl("get", "pods", "--namespace=default")


def _run_sleeper(cluster: Cluster) -> set[tuple[str, int]]:
    """Start a pod and answer which namespaces the cluster's processes live in."""
    cluster.kubectl("wait", "--for=create", f"--timeout={_WAIT:.0f}s", "serviceaccount/default")
    cluster.apply(_pod("sleeper", "import time; time.sleep(600)"))
    cluster.kubectl(
        "wait", "pod/sleeper", "--for=jsonpath={.status.phase}=Running", f"--timeout={_WAIT:.0f}s"
    )
    pid = state.init_pid(cluster.layout.root)
    return {(kind, Path(f"/proc/{pid}/ns/{kind}").stat().st_ino) for kind in _NAMESPACES}


def _members(namespaces: set[tuple[str, int]]) -> list[str]:
    """Processes that live in one of the namespaces."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        for kind, inode in namespaces:
            try:
                if (process / "ns" / kind).stat().st_ino == inode:
                    found.append(process.name)
            except OSError:  # it has ended, or is not ours to look at
                continue
    return found


def _eventually(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.1)
