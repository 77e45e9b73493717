"""Text of a node's configuration files: containerd, CNI, kubelet, kube-proxy, CoreDNS, BuildKit.
Pure functions.
"""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from .cgroups import cgroup_name
from .disk import EVICTION_THRESHOLD
from .model import Layout
from .network import CLUSTER_DOMAIN, NODE_ADDRESS, NODE_NAME, POD_CIDR

PAUSE_IMAGE = "localhost/pause:1"
CONTAINERD_STATE = Path("/run/containerd")
# Where DRA drivers describe devices to containerd; in the mount namespace, so that the host's
# devices stay out.
CDI_DIRECTORY = Path("/var/run/cdi")
COREDNS_READY = "127.0.0.1:8181"
KUBE_PROXY_HEALTH = "127.0.0.1:10256"
KUBELET_HEALTH = "127.0.0.1:10248"
# Kubernetes waits for 50 seconds; on one machine nothing gets lost on the way.
NODE_GRACE_SECONDS = 20
BUILD_CACHE_LIMIT = "3GB"


def config_path(layout: Layout, name: str) -> Path:
    """Where the configuration file called ``name`` lies."""
    return layout.root / "config" / name


def render_all(
    layout: Layout, image_store: Path, *, restrict_oom_score: bool, masquerade_all: bool
) -> dict[Path, str]:
    """Every configuration file of the node with its text."""
    return {
        config_path(layout, "containerd.toml"): containerd(
            layout, image_store, restrict_oom_score=restrict_oom_score
        ),
        config_path(layout, "buildkitd.toml"): buildkitd(layout, image_store),
        config_path(layout, "cni/10-bridge.conflist"): cni(layout),
        config_path(layout, "kubelet.yaml"): kubelet(layout),
        config_path(layout, "kube-proxy.yaml"): kube_proxy(layout, masquerade_all=masquerade_all),
        config_path(layout, "Corefile"): corefile(layout),
    }


def containerd(layout: Layout, image_store: Path, *, restrict_oom_score: bool) -> str:
    """containerd: images survive the cluster in ``image_store``, running state dies with its mount
    namespace.
    """
    return f"""\
version = 3
root = "{image_store / "containerd"}"
state = "{CONTAINERD_STATE}"
disabled_plugins = ["io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs"]

[grpc]
  address = "{layout.containerd_socket}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{layout.root / "opt"}"

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{PAUSE_IMAGE}"

[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = {json.dumps(restrict_oom_score)}
  netns_mounts_under_state_dir = true
  enable_cdi = true
  cdi_spec_dirs = ["{CDI_DIRECTORY}"]

[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{layout.binaries}"]
  conf_dir = "{config_path(layout, "cni")}"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  BinaryName = "{layout.binary("runc")}"
  SystemdCgroup = false
"""


def buildkitd(layout: Layout, image_store: Path) -> str:
    """BuildKit on the node's containerd: what it builds is at once an image of the node."""
    return f"""\
root = "{image_store / "buildkit"}"

[grpc]
  address = ["unix://{layout.buildkit_socket}"]

[worker.oci]
  enabled = false

[worker.containerd]
  enabled = true
  address = "{layout.containerd_socket}"
  namespace = "k8s.io"
  gc = true
  maxUsedSpace = "{BUILD_CACHE_LIMIT}"
  defaultCgroupParent = "/{cgroup_name(layout)}/buildkit"
"""


def cni(layout: Layout) -> str:
    """Pod network: one bridge, addresses from the node's pod range."""
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isDefaultGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": POD_CIDR}]],
            "dataDir": str(layout.root / "cni" / "networks"),
        },
    }
    return json.dumps(
        {"cniVersion": "1.0.0", "name": "localcluster", "plugins": [bridge]}, indent=2
    )


def kubelet(layout: Layout) -> str:
    """Kubelet: no image collection, no swap check, v1 cgroups accepted, only pods live in the
    cluster's cgroup.
    """
    return _yaml(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": NODE_ADDRESS,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(layout.pki("ca.crt"))},
            },
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{cgroup_name(layout)}",
            "clusterDNS": [NODE_ADDRESS],
            "clusterDomain": CLUSTER_DOMAIN,
            "containerRuntimeEndpoint": f"unix://{layout.containerd_socket}",
            "enforceNodeAllocatable": [],
            "evictionHard": {
                "memory.available": "100Mi",
                "nodefs.available": EVICTION_THRESHOLD,
                "imagefs.available": EVICTION_THRESHOLD,
            },
            "failCgroupV1": False,
            "failSwapOn": False,
            "healthzBindAddress": KUBELET_HEALTH.partition(":")[0],
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "makeIPTablesUtilChains": False,
            # Looked at often, so that devices are offered soon; sent only when something changed.
            "nodeStatusUpdateFrequency": "1s",
            "nodeStatusReportFrequency": "5m",
            # Renewed four times in that time.
            "nodeLeaseDurationSeconds": NODE_GRACE_SECONDS,
            "oomScoreAdj": 0,
            "protectKernelDefaults": True,
            "resolvConf": "",
            "serializeImagePulls": False,
            "volumePluginDir": str(layout.root / "opt" / "volume-plugins"),
        }
    )


def kube_proxy(layout: Layout, *, masquerade_all: bool) -> str:
    """kube-proxy in nftables mode; the kernel's connection tracking limits belong to the host and
    stay as they are.
    """
    return _yaml(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": str(layout.kubeconfig("kube-proxy"))},
            "clusterCIDR": POD_CIDR,
            "conntrack": {
                "maxPerCore": 0,
                "min": 0,
                "tcpCloseWaitTimeout": "0s",
                "tcpEstablishedTimeout": "0s",
            },
            "healthzBindAddress": KUBE_PROXY_HEALTH,
            "hostnameOverride": NODE_NAME,
            "mode": "nftables",
            "nftables": {"minSyncPeriod": "100ms", "masqueradeAll": masquerade_all},
            "oomScoreAdj": 0,
        }
    )


def corefile(layout: Layout) -> str:
    """Cluster names are answered and never cached; every other name does not exist, at once."""
    return f"""\
{CLUSTER_DOMAIN}:53 in-addr.arpa:53 ip6.arpa:53 {{
    bind {NODE_ADDRESS}
    errors
    ready {COREDNS_READY}
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {layout.kubeconfig("coredns")}
        pods insecure
        ttl 1
    }}
}}
.:53 {{
    bind {NODE_ADDRESS}
    template IN ANY . {{
        rcode NXDOMAIN
    }}
}}
"""


def _yaml(document: dict[str, object]) -> str:
    return yaml.safe_dump(document, sort_keys=False)
