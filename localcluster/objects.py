"""Kubernetes objects that a node cluster has from the start, and small readers of the node's
status. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .network import DNS_SERVICE_ADDRESS, NODE_ADDRESS

STORAGE_CLASS = "standard"
PROVISIONER = "localcluster/hostpath"

Object = dict[str, Any]


def standard_objects() -> tuple[Object, ...]:
    """DNS Service, default StorageClass."""
    return (_dns_service(), _dns_endpoints(), _storage_class())


def _dns_service() -> Object:
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kube-dns",
            "namespace": "kube-system",
            "labels": {"k8s-app": "kube-dns"},
        },
        "spec": {"clusterIP": DNS_SERVICE_ADDRESS, "ports": ports},
    }


def _dns_endpoints() -> Object:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kube-dns",
            "namespace": "kube-system",
            "labels": {"kubernetes.io/service-name": "kube-dns"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [NODE_ADDRESS], "conditions": {"ready": True}}],
        "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
        ],
    }


def _storage_class() -> Object:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": STORAGE_CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    }


def is_ready(node: Mapping[str, Any]) -> bool:
    """Whether the node's Ready condition is True."""
    conditions = node.get("status", {}).get("conditions", [])
    return any(
        condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions
    )


def allocatable(node: Mapping[str, Any], resource: str) -> int:
    """How many of an extended resource pods may ask for."""
    return int(node.get("status", {}).get("allocatable", {}).get(resource, 0))
