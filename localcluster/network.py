"""Addresses of a node cluster, and the links inside its own network namespace.

Every cluster has a network namespace of its own, so all clusters use the same addresses.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

NODE_NAME = "node-0"
NODE_ADDRESS = "10.240.0.1"
POD_CIDR = "10.244.0.0/16"
SERVICE_CIDR = "10.96.0.0/16"
DNS_SERVICE_ADDRESS = "10.96.0.10"
CLUSTER_DOMAIN = "cluster.local"

_NODE_LINK = "node0"
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_BRIDGE_FILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


def link_commands() -> tuple[tuple[str, ...], ...]:
    """The ``ip`` commands that give the namespace a loopback, the node's address and a default
    route.
    """
    return (
        ("ip", "link", "set", "lo", "up"),
        ("ip", "link", "add", _NODE_LINK, "type", "veth", "peer", "name", f"{_NODE_LINK}-peer"),
        ("ip", "address", "add", f"{NODE_ADDRESS}/24", "dev", _NODE_LINK),
        ("ip", "link", "set", f"{_NODE_LINK}-peer", "up"),
        ("ip", "link", "set", _NODE_LINK, "up"),
        # Nothing answers beyond the node; the kubelet and client-go refuse to work without a
        # default route.
        ("ip", "route", "add", "default", "dev", _NODE_LINK),
    )


def prepare_network() -> None:
    """Configure the current network namespace; call once, inside the cluster's namespaces."""
    for command in link_commands():
        subprocess.run(command, check=True, capture_output=True, text=True)
    _FORWARDING.write_text("1")
    if not _BRIDGE_FILTER.exists() and shutil.which("modprobe"):
        subprocess.run(("modprobe", "br_netfilter"), check=False, capture_output=True)
    if bridge_is_filtered():
        _BRIDGE_FILTER.write_text("1")


def bridge_is_filtered() -> bool:
    """Whether packets between two pods of the bridge can pass connection tracking.

    Without it, replies of a Service's pod would keep the pod's address; kube-proxy must then
    rewrite the sender too.
    """
    return _BRIDGE_FILTER.exists()
