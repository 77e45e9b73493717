"""The processes of the control plane: etcd, kube-apiserver, kube-controller-manager,
kube-scheduler, kwok.
"""

from __future__ import annotations

from . import kwok, network, ports, probes
from .model import ClusterSpec, Layout, ProcessSpec

_COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")


def required_components(spec: ClusterSpec) -> tuple[str, ...]:
    """Binaries that the spec needs, for the node flavour those of the node too."""
    if spec.flavour == "image-builder":
        from . import node

        return node.IMAGE_BUILDERS
    names = _COMPONENTS + (("kwok",) if spec.kwok_nodes else ())
    if spec.flavour == "node":
        from . import node

        names += node.required_components(spec)
    return names


def batches(layout: Layout, spec: ClusterSpec) -> list[list[ProcessSpec]]:
    """Processes in the order in which they start; those of one batch start together."""
    numbers = ports.read(layout)
    last = [_controller_manager(layout, spec, numbers), _scheduler(layout, numbers)]
    if spec.kwok_nodes:
        last.append(kwok.process(layout, numbers["kwok"]))
    return [[_etcd(layout, numbers)], [_apiserver(layout, spec, numbers)], last]


def _etcd(layout: Layout, numbers: dict[str, int]) -> ProcessSpec:
    client, peer = (f"https://127.0.0.1:{numbers[name]}" for name in ("etcd", "etcd-peer"))
    certificate, key, authority = (
        str(layout.pki(name)) for name in ("etcd.crt", "etcd.key", "ca.crt")
    )
    argv = (
        layout.binary("etcd"),
        "--name=default",
        f"--data-dir={layout.root / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--client-cert-auth",
        f"--cert-file={certificate}",
        f"--key-file={key}",
        f"--trusted-ca-file={authority}",
        "--peer-client-cert-auth",
        f"--peer-cert-file={certificate}",
        f"--peer-key-file={key}",
        f"--peer-trusted-ca-file={authority}",
        # The data is thrown away with the cluster: nothing is worth waiting for a disk.
        "--unsafe-no-fsync",
        "--log-level=warn",
    )
    return ProcessSpec("etcd", argv, ready=probes.https_ok(layout, numbers["etcd"], "/health"))


def _apiserver(layout: Layout, spec: ClusterSpec, numbers: dict[str, int]) -> ProcessSpec:
    port = numbers["apiserver"]
    argv = (
        layout.binary("kube-apiserver"),
        f"--secure-port={port}",
        f"--etcd-servers=https://127.0.0.1:{numbers['etcd']}",
        f"--etcd-cafile={layout.pki('ca.crt')}",
        f"--etcd-certfile={layout.pki('etcd.crt')}",
        f"--etcd-keyfile={layout.pki('etcd.key')}",
        f"--client-ca-file={layout.pki('ca.crt')}",
        f"--tls-cert-file={layout.pki('apiserver.crt')}",
        f"--tls-private-key-file={layout.pki('apiserver.key')}",
        f"--kubelet-client-certificate={layout.pki('apiserver-kubelet-client.crt')}",
        f"--kubelet-client-key={layout.pki('apiserver-kubelet-client.key')}",
        f"--service-account-issuer=https://kubernetes.default.svc.{network.CLUSTER_DOMAIN}",
        f"--service-account-key-file={layout.pki('service-account.key')}",
        f"--service-account-signing-key-file={layout.pki('service-account.key')}",
        f"--service-cluster-ip-range={network.SERVICE_CIDR}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--profiling=false",
        *_flavour_flags(layout, spec),
    )
    ready = probes.https_ok(layout, port, "/readyz")
    return ProcessSpec("kube-apiserver", argv, ready=ready, ready_timeout=120.0)


def _flavour_flags(layout: Layout, spec: ClusterSpec) -> tuple[str, ...]:
    if spec.flavour == "node":
        from . import node

        return node.apiserver_flags(layout, spec)
    # Without nodes nobody reaches the API server through its Service, and a loopback address is no
    # valid endpoint.
    return (
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        "--endpoint-reconciler-type=none",
    )


def _controller_manager(layout: Layout, spec: ClusterSpec, numbers: dict[str, int]) -> ProcessSpec:
    name = "kube-controller-manager"
    argv = (
        *_controller(layout, name, numbers[name]),
        f"--root-ca-file={layout.pki('ca.crt')}",
        f"--service-account-private-key-file={layout.pki('service-account.key')}",
        f"--cluster-signing-cert-file={layout.pki('ca.crt')}",
        f"--cluster-signing-key-file={layout.pki('ca.key')}",
        "--use-service-account-credentials=true",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        *_node_flags(spec),
    )
    return ProcessSpec(
        name, argv, ready=probes.https_ok(layout, numbers[name], "/healthz", verify=False)
    )


def _node_flags(spec: ClusterSpec) -> tuple[str, ...]:
    if spec.flavour == "node":
        from . import node

        return node.controller_flags()
    return ()


def _scheduler(layout: Layout, numbers: dict[str, int]) -> ProcessSpec:
    name = "kube-scheduler"
    argv = (*_controller(layout, name, numbers[name]), "--kube-api-qps=200", "--kube-api-burst=400")
    return ProcessSpec(
        name, argv, ready=probes.https_ok(layout, numbers[name], "/readyz", verify=False)
    )


def _controller(layout: Layout, name: str, port: int) -> tuple[str, ...]:
    configuration = layout.kubeconfig(name)
    return (
        layout.binary(name),
        f"--kubeconfig={configuration}",
        f"--authentication-kubeconfig={configuration}",
        f"--authorization-kubeconfig={configuration}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        "--leader-elect=false",
        "--profiling=false",
    )
