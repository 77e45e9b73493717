"""The node half of a cluster: kubelet, containerd, pod network, DNS, storage, image builder, device
plugins, drivers.

Of an image builder it is the whole: containerd and BuildKit.

The supervisor calls, in this order:

1. ``required_components`` and ``debian_packages``, to know what must be built and installed;
2. ``fetch``, outside the namespaces: the base image, which needs the package mirrors;
3. ``prepare``, inside the namespaces, before any process starts;
4. ``apiserver_flags``, ``controller_flags`` and ``processes``;
5. ``finish``, inside, when all processes are ready;
6. ``cleanup_cgroups``, outside, when the cluster is dead.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from . import cgroups, deviceplugin, dra, images, nodeconfig, objects
from .components import tail
from .dra.objects import Offer
from .errors import CommandError, ComponentError
from .imagestore import borrow_store
from .model import ClusterSpec, DeviceSpec, DriverSpec, Layout, ProcessSpec
from .network import NODE_ADDRESS, NODE_NAME, SERVICE_CIDR, bridge_is_filtered, prepare_network
from .paths import child_environment

IMAGE_BUILDERS = ("containerd", "containerd-shim-runc-v2", "ctr", "runc", "buildkitd", "buildctl")
"""What building images takes."""

_CAP_SYS_RESOURCE = 24
_FINISH_TIMEOUT = 60.0
_DEVICE_PLUGINS = "device-plugins"

# The kubelet would set these for the whole machine. It is shown files with the values it wants
# instead.
_KERNEL_DEFAULTS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


def required_components(spec: ClusterSpec) -> tuple[str, ...]:
    """Names of the binaries that a node needs besides the control plane's."""
    names = ("kubelet", "kube-proxy", "kubectl", "bridge", "host-local", "loopback", "pause")
    return names + IMAGE_BUILDERS + (("coredns",) if spec.dns else ())


def debian_packages() -> tuple[str, ...]:
    """Packages of the host that a node needs at build time or run time."""
    return ("conntrack", "iproute2", "libseccomp-dev", "mmdebstrap", "nftables", "pkg-config")


def fetch(layout: Layout, spec: ClusterSpec) -> None:
    """Make the image files that need the network; quick when they are cached. Runs outside the
    namespaces.
    """
    del layout, spec
    images.ensure_base_archive()


def prepare(layout: Layout, spec: ClusterSpec) -> None:
    """Set up the namespaces, write all configuration. Runs once, in the process that lives as long
    as the cluster.
    """
    del spec
    prepare_network()
    _prepare_mounts(layout)
    cgroups.create_cgroups(layout)
    # The descriptor stays open: the store is given back when this process ends, however it ends.
    store, _ = borrow_store(layout)
    texts = nodeconfig.render_all(
        layout,
        store,
        restrict_oom_score=not _has_capability(_CAP_SYS_RESOURCE),
        masquerade_all=not bridge_is_filtered(),
    )
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def bind_mounts(layout: Layout) -> Mapping[Path, Path]:
    """Fixed paths of the kubelet, containerd and CNI, and the directory of the cluster that covers
    each.
    """
    return {
        Path("/var/lib/kubelet"): layout.root / "kubelet",
        Path("/var/lib/cni"): layout.root / "cni",
        Path("/var/log/pods"): layout.root / "logs" / "pods",
        Path("/var/log/containers"): layout.root / "logs" / "containers",
    }


def _prepare_mounts(layout: Layout) -> None:
    _mount("--make-rprivate", "/")
    for directory in ("run", "opt", "volumes"):
        (layout.root / directory).mkdir(parents=True, exist_ok=True)
    # Sockets and network namespaces of containerd, the runtime and the CNI plugins go where nobody
    # else sees them.
    _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for target, source in bind_mounts(layout).items():
        source.mkdir(parents=True, exist_ok=True)
        target.mkdir(parents=True, exist_ok=True)
        _mount("--bind", str(source), str(target))
        _mount("--make-rshared", str(target))
    _show_kernel_defaults(layout.root / "sysctl")


def _show_kernel_defaults(directory: Path) -> None:
    for name, value in _KERNEL_DEFAULTS.items():
        source = directory / name
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_text(f"{value}\n")
        _mount("--bind", str(source), f"/proc/sys/{name}")


def _mount(*arguments: str) -> None:
    subprocess.run(("mount", *arguments), check=True)


def _has_capability(number: int) -> bool:
    status = Path("/proc/self/status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> number & 1)


def apiserver_flags(layout: Layout, spec: ClusterSpec) -> tuple[str, ...]:
    """Flags the API server needs besides those of a control plane without nodes."""
    del layout, spec
    return (
        f"--advertise-address={NODE_ADDRESS}",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        "--kubelet-preferred-address-types=InternalIP",
        "--allow-privileged=true",
    )


def controller_flags() -> tuple[str, ...]:
    """Flags of the controller manager: a kubelet that is silent is noticed after seconds."""
    return (
        f"--node-monitor-grace-period={nodeconfig.NODE_GRACE_SECONDS}s",
        "--node-monitor-period=2s",
    )


def processes(layout: Layout, spec: ClusterSpec) -> list[ProcessSpec]:
    """The node's processes, in the order in which they start."""
    images_only = [_containerd(layout), _buildkitd(layout)]
    if spec.flavour == "image-builder":
        return images_only
    return [
        *images_only,
        *([_coredns(layout)] if spec.dns else []),
        _kubelet(layout),
        _kube_proxy(layout),  # waits for the node to exist
        _provisioner(layout),
        *_device_plugins(layout, spec.devices),
        *(_dra_driver(layout, driver) for driver in spec.drivers),
    ]


def _environment(layout: Layout) -> dict[str, str]:
    system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": f"{layout.binaries}:{system}"}


def _python_environment(layout: Layout) -> dict[str, str]:
    return {**child_environment(), **_environment(layout), "PYTHONUNBUFFERED": "1"}


def _containerd(layout: Layout) -> ProcessSpec:
    argv = (
        layout.binary("containerd"),
        "--config",
        str(nodeconfig.config_path(layout, "containerd.toml")),
    )
    probe = (
        layout.binary("ctr"),
        "--address",
        str(layout.containerd_socket),
        "--timeout",
        "2s",
        "version",
    )
    return ProcessSpec("containerd", argv, _environment(layout), ready=lambda: _succeeds(probe))


def _buildkitd(layout: Layout) -> ProcessSpec:
    argv = (
        layout.binary("buildkitd"),
        "--config",
        str(nodeconfig.config_path(layout, "buildkitd.toml")),
    )
    return ProcessSpec(
        "buildkitd", argv, _environment(layout), ready=layout.buildkit_socket.is_socket
    )


def _coredns(layout: Layout) -> ProcessSpec:
    argv = (layout.binary("coredns"), "-conf", str(nodeconfig.config_path(layout, "Corefile")))
    return ProcessSpec(
        "coredns",
        argv,
        _environment(layout),
        ready=lambda: _answers(nodeconfig.COREDNS_READY, "/ready"),
    )


def _kube_proxy(layout: Layout) -> ProcessSpec:
    argv = (
        layout.binary("kube-proxy"),
        "--config",
        str(nodeconfig.config_path(layout, "kube-proxy.yaml")),
    )
    return ProcessSpec(
        "kube-proxy",
        argv,
        _environment(layout),
        ready=lambda: _answers(nodeconfig.KUBE_PROXY_HEALTH, "/healthz"),
    )


def _kubelet(layout: Layout) -> ProcessSpec:
    argv = (
        layout.binary("kubelet"),
        f"--config={nodeconfig.config_path(layout, 'kubelet.yaml')}",
        f"--kubeconfig={layout.kubeconfig('kubelet')}",
        f"--hostname-override={NODE_NAME}",
        f"--node-ip={NODE_ADDRESS}",
        "--cert-dir=/var/lib/kubelet/pki",
    )
    return ProcessSpec("kubelet", argv, _environment(layout), ready=lambda: _node_ready(layout))


def _provisioner(layout: Layout) -> ProcessSpec:
    argv = (
        sys.executable,
        "-m",
        "localcluster.storage",
        f"--kubeconfig={layout.kubeconfig('admin')}",
        f"--directory={layout.root / 'volumes'}",
    )
    return ProcessSpec("storage-provisioner", argv, _python_environment(layout))


def _device_plugins(layout: Layout, devices: Sequence[DeviceSpec]) -> list[ProcessSpec]:
    """One process for all resources, if there are any."""
    argv = (
        sys.executable,
        "-m",
        "localcluster.deviceplugin",
        f"--unhealthy-folder={deviceplugin.unhealthy_folder(layout)}",
        *(f"--device={device}" for device in devices),
    )
    return [ProcessSpec(_DEVICE_PLUGINS, argv, _python_environment(layout))] if devices else []


def _dra_driver(layout: Layout, driver: DriverSpec) -> ProcessSpec:
    argv = (
        sys.executable,
        "-m",
        "localcluster.dra",
        f"--driver={driver.name}",
        f"--node={NODE_NAME}",
        f"--count={driver.count}",
        f"--visible-variable={dra.visible_variable(driver)}",
        f"--unhealthy-file={dra.unhealthy_file(layout, driver.name)}",
        f"--kubeconfig={layout.kubeconfig('admin')}",
    )
    return ProcessSpec(_dra_driver_name(driver), argv, _python_environment(layout))


def _dra_driver_name(driver: DriverSpec) -> str:
    return f"dra-driver-{driver.name}"


def _answers(address: str, path: str) -> bool:
    connection = http.client.HTTPConnection(address, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def _succeeds(command: tuple[str, ...]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _kubectl(
    layout: Layout, *arguments: str, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    command = (layout.binary("kubectl"), f"--kubeconfig={layout.kubeconfig('admin')}", *arguments)
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)


def _node(layout: Layout) -> dict[str, object] | None:
    answer = _kubectl(layout, "get", "node", NODE_NAME, "--output=json")
    if answer.returncode != 0:
        return None
    node: dict[str, object] = json.loads(answer.stdout)
    return node


def _node_ready(layout: Layout) -> bool:
    node = _node(layout)
    return node is not None and objects.is_ready(node)


def finish(layout: Layout, spec: ClusterSpec) -> None:
    """Bring in the images, create the cluster's standard objects, and wait until DNS and devices
    are usable.
    """
    _apply(layout)
    images.import_archive(
        layout, nodeconfig.PAUSE_IMAGE, images.ensure_pause_archive(Path(layout.binary("pause")))
    )
    images.import_base(layout, images.PYTHON_BASE)
    for device in spec.devices:
        complaint = f"{device.count} {device.resource} are not on {NODE_NAME}"
        _wait(layout, _DEVICE_PLUGINS, complaint, partial(_offers, layout, device))
    for driver in spec.drivers:
        complaint = f"the devices of {driver.name} are not published"
        _wait(layout, _dra_driver_name(driver), complaint, partial(_publishes, layout, driver))


def _apply(layout: Layout) -> None:
    manifest = json.dumps(
        {"apiVersion": "v1", "kind": "List", "items": list(objects.standard_objects())}
    )
    answer = _kubectl(layout, "apply", "--server-side", "--filename=-", stdin=manifest)
    if answer.returncode != 0:
        raise CommandError(("kubectl", "apply"), answer.returncode, answer.stderr)


def _offers(layout: Layout, device: DeviceSpec) -> bool:
    node = _node(layout)
    return node is not None and objects.allocatable(node, device.resource) == device.count


def _publishes(layout: Layout, driver: DriverSpec) -> bool:
    name = Offer(driver.name, NODE_NAME, driver.count).slice_name
    return _kubectl(layout, "get", "resourceslice", name).returncode == 0


def _wait(layout: Layout, component: str, complaint: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _FINISH_TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            reason = f"{complaint} after {_FINISH_TIMEOUT:.0f} s"
            raise ComponentError(component, reason, tail(layout.log(component)))
        time.sleep(0.2)


def cleanup_cgroups(layout: Layout) -> None:
    """Remove what a dead cluster leaves on the host; everything else went with its namespaces."""
    cgroups.remove_cgroups(layout)
