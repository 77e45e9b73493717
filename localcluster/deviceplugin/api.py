"""The part of the kubelet's DevicePlugin API ``v1beta1`` that is spoken here, described at run
time.

Field numbers are those of ``k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from localcluster.messages import Field, classes

PACKAGE = "v1beta1"
VERSION = "v1beta1"
HEALTHY, UNHEALTHY = "Healthy", "Unhealthy"

_MESSAGES: dict[str, tuple[Field, ...]] = {
    "Empty": (),
    "DevicePluginOptions": (
        ("pre_start_required", 1, "bool", False),
        ("get_preferred_allocation_available", 2, "bool", False),
    ),
    "RegisterRequest": (
        ("version", 1, "string", False),
        ("endpoint", 2, "string", False),
        ("resource_name", 3, "string", False),
        ("options", 4, "DevicePluginOptions", False),
    ),
    "Device": (("ID", 1, "string", False), ("health", 2, "string", False)),
    "ListAndWatchResponse": (("devices", 1, "Device", True),),
    "ContainerAllocateRequest": (("devices_ids", 1, "string", True),),
    "AllocateRequest": (("container_requests", 1, "ContainerAllocateRequest", True),),
    "Env": (("key", 1, "string", False), ("value", 2, "string", False)),
    "ContainerAllocateResponse": (("envs", 1, "Env", True),),
    "AllocateResponse": (("container_responses", 1, "ContainerAllocateResponse", True),),
}


_CLASS = classes("deviceplugin.proto", PACKAGE, _MESSAGES)
Empty: Any = _CLASS["Empty"]
DevicePluginOptions: Any = _CLASS["DevicePluginOptions"]
RegisterRequest: Any = _CLASS["RegisterRequest"]
ListAndWatchResponse: Any = _CLASS["ListAndWatchResponse"]
AllocateRequest: Any = _CLASS["AllocateRequest"]
AllocateResponse: Any = _CLASS["AllocateResponse"]


def device_list(count: int, unhealthy: Iterable[int]) -> Any:
    """All devices with their health."""
    broken = set(unhealthy)
    devices = [
        {"ID": str(index), "health": UNHEALTHY if index in broken else HEALTHY}
        for index in range(count)
    ]
    return ListAndWatchResponse(devices=devices)


def allocation(request: Any, variable: str) -> Any:
    """One environment variable per container: the indices of its devices in ascending order."""
    containers = []
    for container in request.container_requests:
        indices = sorted(int(device) for device in container.devices_ids)
        containers.append({"envs": [{"key": variable, "value": ",".join(map(str, indices))}]})
    return AllocateResponse(container_responses=containers)
