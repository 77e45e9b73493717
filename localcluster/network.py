"""Addresses of a node cluster, and the links inside its own network namespace.

Every cluster has a network namespace of its own, so all clusters use the same addresses.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

NODE_NAME = "node-0"
NODE_ADDRESS = "10.240.0.1"
POD_CIDR = "10.244.0.0/16"
SERVICE_CIDR = "10.96.0.0/16"
DNS_SERVICE_ADDRESS = "10.96.0.10"
CLUSTER_DOMAIN = "cluster.local"

_NODE_LINK = "node0"
_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    # Replies between two pods of the bridge must pass connection tracking, else they carry the wrong address.
    "net/bridge/bridge-nf-call-iptables": "1",
}


def link_commands() -> tuple[tuple[str, ...], ...]:
    """The ``ip`` commands that give the namespace a loopback, the node's address and a default route."""
    return (
        ("ip", "link", "set", "lo", "up"),
        ("ip", "link", "add", _NODE_LINK, "type", "veth", "peer", "name", f"{_NODE_LINK}-peer"),
        ("ip", "address", "add", f"{NODE_ADDRESS}/24", "dev", _NODE_LINK),
        ("ip", "link", "set", f"{_NODE_LINK}-peer", "up"),
        ("ip", "link", "set", _NODE_LINK, "up"),
        # Nothing answers beyond the node; the kubelet and client-go refuse to work without a default route.
        ("ip", "route", "add", "default", "dev", _NODE_LINK),
    )


def prepare_network() -> None:
    """Configure the current network namespace; call once, inside the cluster's namespaces."""
    for command in link_commands():
        subprocess.run(command, check=True, capture_output=True, text=True)
    for name, value in _SYSCTLS.items():
        sysctl = Path("/proc/sys", name)
        if sysctl.exists():
            sysctl.write_text(value)
