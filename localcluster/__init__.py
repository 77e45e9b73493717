"""A real Kubernetes on this machine, built from source, without a container engine.

``python -m localcluster up`` starts one for the command line; tests use :class:`Cluster` or the
fixtures of :mod:`localcluster.pytest_plugin`.
"""

from __future__ import annotations

from .cluster import Cluster
from .errors import LocalClusterError
from .model import ClusterSpec, DeviceSpec, Layout, ProcessSpec

__all__ = ["Cluster", "ClusterSpec", "DeviceSpec", "Layout", "LocalClusterError", "ProcessSpec"]
