"""What the kubelet and a DRA driver say to each other: plug-in registration, DRA ``v1`` and device
health ``v1alpha1``.

Field numbers are those of ``k8s.io/kubelet/pkg/apis``.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from typing import Any

from localcluster.messages import classes

REGISTRATION = "pluginregistration.Registration"
DRA_PACKAGE = "k8s.io.kubelet.pkg.apis.dra.v1"
DRA = f"{DRA_PACKAGE}.DRAPlugin"
HEALTH = "v1alpha1.DRAResourceHealth"
PLUGIN_TYPE = "DRAPlugin"
SUPPORTED = ("v1.DRAPlugin", "v1alpha1.DRAResourceHealth")
HEALTHY, UNHEALTHY = 1, 2
# The kubelet forgets what it has not heard for so long.
HEALTH_SECONDS = 30

_registration = classes(
    "registration.proto",
    "pluginregistration",
    {
        "InfoRequest": (),
        "PluginInfo": (
            ("type", 1, "string", False),
            ("name", 2, "string", False),
            ("endpoint", 3, "string", False),
            ("supported_versions", 4, "string", True),
        ),
        "RegistrationStatus": (
            ("plugin_registered", 1, "bool", False),
            ("error", 2, "string", False),
        ),
        "RegistrationStatusResponse": (),
    },
)
_dra = classes(
    "dra.proto",
    DRA_PACKAGE,
    {
        "Claim": (
            ("namespace", 1, "string", False),
            ("uid", 2, "string", False),
            ("name", 3, "string", False),
        ),
        "Device": (
            ("request_names", 1, "string", True),
            ("pool_name", 2, "string", False),
            ("device_name", 3, "string", False),
            ("cdi_device_ids", 4, "string", True),
        ),
        "NodePrepareResourcesRequest": (("claims", 1, "Claim", True),),
        "NodePrepareResourceResponse": (
            ("devices", 1, "Device", True),
            ("error", 2, "string", False),
        ),
        "NodePrepareResourcesResponse": (("claims", 1, "map:NodePrepareResourceResponse", False),),
        "NodeUnprepareResourcesRequest": (("claims", 1, "Claim", True),),
        "NodeUnprepareResourceResponse": (("error", 1, "string", False),),
        "NodeUnprepareResourcesResponse": (
            ("claims", 1, "map:NodeUnprepareResourceResponse", False),
        ),
    },
)
_health = classes(
    "health.proto",
    "v1alpha1",
    {
        "NodeWatchResourcesRequest": (),
        "DeviceIdentifier": (
            ("pool_name", 1, "string", False),
            ("device_name", 2, "string", False),
        ),
        "DeviceHealth": (
            ("device", 1, "DeviceIdentifier", False),
            ("health", 2, "int32", False),
            ("last_updated_time", 3, "int64", False),
            ("health_check_timeout_seconds", 4, "int64", False),
            ("message", 5, "string", False),
        ),
        "NodeWatchResourcesResponse": (("devices", 1, "DeviceHealth", True),),
    },
)
InfoRequest: Any = _registration["InfoRequest"]
PluginInfo: Any = _registration["PluginInfo"]
RegistrationStatus: Any = _registration["RegistrationStatus"]
RegistrationStatusResponse: Any = _registration["RegistrationStatusResponse"]
PrepareRequest: Any = _dra["NodePrepareResourcesRequest"]
PrepareResponse: Any = _dra["NodePrepareResourcesResponse"]
UnprepareRequest: Any = _dra["NodeUnprepareResourcesRequest"]
UnprepareResponse: Any = _dra["NodeUnprepareResourcesResponse"]
WatchRequest: Any = _health["NodeWatchResourcesRequest"]
WatchResponse: Any = _health["NodeWatchResourcesResponse"]


def plugin_info(driver: str, endpoint: str) -> Any:
    """What the kubelet asks of a socket that has appeared in its registry."""
    return PluginInfo(
        type=PLUGIN_TYPE, name=driver, endpoint=endpoint, supported_versions=SUPPORTED
    )


def device_health(pool: str, devices: Iterable[str], unhealthy: Collection[str]) -> Any:
    """All devices with their health of this moment."""
    now = int(time.time())
    entries = [
        {
            "device": {"pool_name": pool, "device_name": device},
            "health": UNHEALTHY if device in unhealthy else HEALTHY,
            "last_updated_time": now,
            "health_check_timeout_seconds": HEALTH_SECONDS,
            "message": "declared broken" if device in unhealthy else "",
        }
        for device in devices
    ]
    return WatchResponse(devices=entries)
