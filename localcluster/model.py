"""Plain descriptions of a local cluster: what is wanted, where its files lie, which processes make
it up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

Flavour = Literal["control-plane", "node", "image-builder"]


@dataclass(frozen=True)
class DeviceSpec:
    """A fake accelerator that a real device plugin offers: ``cambricon.com/mlu=4``."""

    resource: str
    count: int
    visible_variable: str | None = None

    def __str__(self) -> str:
        """The form that ``parse`` reads."""
        variable = f":{self.visible_variable}" if self.visible_variable else ""
        return f"{self.resource}={self.count}{variable}"

    @classmethod
    def parse(cls, text: str) -> DeviceSpec:
        """Read ``RESOURCE=COUNT[:VARIABLE]``; raises ValueError that shows the expected form."""
        resource, separator, rest = text.partition("=")
        count, _, variable = rest.partition(":")
        if not separator or "/" not in resource or not count.isdigit():
            raise ValueError(
                f"device {text!r}: expected RESOURCE=COUNT[:VARIABLE], for example "
                "cambricon.com/mlu=4"
            )
        return cls(resource, int(count), variable or None)


@dataclass(frozen=True)
class DriverSpec:
    """Fake accelerators that a real DRA driver offers by ResourceSlices: ``mlu.example.com=4``."""

    name: str
    count: int
    visible_variable: str | None = None

    @classmethod
    def parse(cls, text: str) -> DriverSpec:
        """Read ``DRIVER=COUNT[:VARIABLE]``; raises ValueError that shows the expected form."""
        name, separator, rest = text.partition("=")
        count, _, variable = rest.partition(":")
        if not separator or not name or "/" in name or not count.isdigit():
            raise ValueError(
                f"driver {text!r}: expected DRIVER=COUNT[:VARIABLE], for example mlu.example.com=4"
            )
        return cls(name, int(count), variable or None)


@dataclass(frozen=True)
class ClusterSpec:
    """What is wanted."""

    name: str = "default"
    flavour: Flavour = "node"
    kwok_nodes: int = 0
    kwok_resources: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[DeviceSpec, ...] = ()
    drivers: tuple[DriverSpec, ...] = ()
    dns: bool = True

    @property
    def namespaced(self) -> bool:
        """Whether it runs in namespaces of its own, which takes root."""
        return self.flavour != "control-plane"

    def to_json(self) -> str:
        """For another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ClusterSpec:
        """The reverse of to_json."""
        raw = json.loads(text)
        raw["devices"] = tuple(DeviceSpec(**device) for device in raw["devices"])
        raw["drivers"] = tuple(DriverSpec(**driver) for driver in raw.get("drivers", ()))
        return cls(**raw)


@dataclass(frozen=True)
class Layout:
    """Where the files of one cluster lie. Everything is under ``root``; ``binaries`` is shared and
    read-only.
    """

    root: Path
    binaries: Path
    api_port: int

    def binary(self, name: str) -> str:
        """Path of a built program."""
        return str(self.binaries / name)

    def log(self, component: str) -> Path:
        """Where a component's output goes."""
        return self.root / "logs" / f"{component}.log"

    def pki(self, name: str) -> Path:
        """A key or certificate: ``ca.crt``, ``admin.key``, …"""
        return self.root / "pki" / name

    def kubeconfig(self, user: str) -> Path:
        """Kubeconfig of a component (``kubelet``, ``kube-proxy``, ``coredns``, …); ``admin`` is the
        user's.
        """
        return self.root / "kubeconfig" / f"{user}.yaml"

    @property
    def api_url(self) -> str:
        """The same address inside the cluster's network namespace and, through a forwarder, outside
        of it.
        """
        return f"https://127.0.0.1:{self.api_port}"

    @property
    def containerd_socket(self) -> Path:
        """Reachable from inside and outside of the cluster's namespaces."""
        return self.root / "run" / "containerd.sock"

    @property
    def buildkit_socket(self) -> Path:
        """Reachable from inside and outside of the cluster's namespaces."""
        return self.root / "run" / "buildkitd.sock"


@dataclass(frozen=True)
class ProcessSpec:
    """One supervised process.

    ``ready`` is polled until it answers True; the supervisor reports the end of the log if it never
    does.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    ready: Callable[[], bool] | None = None
    ready_timeout: float = 60.0
