"""The part of the kubelet's DevicePlugin API ``v1beta1`` that is spoken here, described at run time.

Field numbers are those of ``k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1``; fields that are not listed are ignored by
both sides, as protobuf does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "v1beta1"
VERSION = "v1beta1"
HEALTHY, UNHEALTHY = "Healthy", "Unhealthy"

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {"string": _Field.TYPE_STRING, "bool": _Field.TYPE_BOOL}

# message -> (field name, field number, type, repeated); a type that is no scalar is another message of this table.
_MESSAGES: dict[str, tuple[tuple[str, int, str, bool], ...]] = {
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


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="deviceplugin.proto", package=PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind, repeated in fields:
            label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
            field = message.field.add(name=field_name, number=number, label=label)
            if kind in _SCALARS:
                field.type = _SCALARS[kind]
            else:
                field.type, field.type_name = _Field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
    return file


def _classes() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_file())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in _MESSAGES
    }


_CLASS = _classes()
Empty: Any = _CLASS["Empty"]
DevicePluginOptions: Any = _CLASS["DevicePluginOptions"]
RegisterRequest: Any = _CLASS["RegisterRequest"]
ListAndWatchResponse: Any = _CLASS["ListAndWatchResponse"]
AllocateRequest: Any = _CLASS["AllocateRequest"]
AllocateResponse: Any = _CLASS["AllocateResponse"]


def device_list(count: int, unhealthy: Iterable[int]) -> Any:
    """All devices with their health."""
    broken = set(unhealthy)
    devices = [{"ID": str(index), "health": UNHEALTHY if index in broken else HEALTHY} for index in range(count)]
    return ListAndWatchResponse(devices=devices)


def allocation(request: Any, variable: str) -> Any:
    """One environment variable per container: the indices of its devices in ascending order."""
    containers = []
    for container in request.container_requests:
        indices = sorted(int(device) for device in container.devices_ids)
        containers.append({"envs": [{"key": variable, "value": ",".join(map(str, indices))}]})
    return AllocateResponse(container_responses=containers)
