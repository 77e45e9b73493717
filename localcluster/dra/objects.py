"""What a DRA driver tells the API server and the container runtime, and what it reads of a claim.
Pure functions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
API_VERSION = "resource.k8s.io/v1"
CDI_VERSION = "0.6.0"


@dataclass(frozen=True)
class Offer:
    """The devices of one driver on one node; the node is also the name of their pool."""

    driver: str
    node: str
    count: int

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of all devices."""
        return tuple(f"device-{index}" for index in range(self.count))

    @property
    def slice_name(self) -> str:
        """Name of the ResourceSlice."""
        return f"{self.node}-{self.driver}"

    @property
    def taint(self) -> str:
        """Key of the taint on a device that is broken."""
        return f"{self.driver}/unhealthy"


def index_of(device: str) -> int:
    """The number of a device."""
    return int(device.rpartition("-")[2])


def device_class(driver: str) -> Object:
    """A class with the driver's name, of all its devices."""
    selector = {"cel": {"expression": f"device.driver == '{driver}'"}}
    return {
        "apiVersion": API_VERSION,
        "kind": "DeviceClass",
        "metadata": {"name": driver},
        "spec": {"selectors": [selector]},
    }


def resource_slice(
    offer: Offer, tainted: Collection[str] = (), *, effect: str = "NoSchedule", generation: int = 1
) -> Object:
    """All devices of the node; no new claim gets one that is tainted."""
    devices: list[Object] = [
        {"name": name, "attributes": {"index": {"int": index}}}
        for index, name in enumerate(offer.devices)
    ]
    for device in devices:
        if device["name"] in tainted:
            device["taints"] = [{"key": offer.taint, "effect": effect}]
    pool = {"name": offer.node, "generation": generation, "resourceSliceCount": 1}
    return {
        "apiVersion": API_VERSION,
        "kind": "ResourceSlice",
        "metadata": {"name": offer.slice_name},
        "spec": {"driver": offer.driver, "nodeName": offer.node, "pool": pool, "devices": devices},
    }


def tainted(found: Mapping[str, Any]) -> frozenset[str]:
    """Names of the devices of a ResourceSlice that have a taint."""
    return frozenset(
        device["name"] for device in found["spec"].get("devices") or () if device.get("taints")
    )


def allocated(claim: Mapping[str, Any], offer: Offer) -> tuple[tuple[str, str], ...]:
    """Request and device of everything that the scheduler gave a ResourceClaim of this offer."""
    allocation = (claim.get("status") or {}).get("allocation") or {}
    results = (allocation.get("devices") or {}).get("results") or ()
    mine = [
        result
        for result in results
        if (result["driver"], result["pool"]) == (offer.driver, offer.node)
    ]
    return tuple((result["request"], result["device"]) for result in mine)


def device_id(driver: str, device: str) -> str:
    """Name of a device for the container runtime."""
    return f"{driver}/device={device}"


def claim_id(driver: str, uid: str) -> str:
    """Name for the container runtime of what a claim brings besides its devices."""
    return f"{driver}/claim={uid}"


def device_spec(offer: Offer, variable: str) -> Object:
    """A CDI file: each device brings its name in a variable of its own, for example
    MLU_VISIBLE_DEVICES_0=device-0.
    """
    return _cdi(
        offer.driver,
        "device",
        {name: f"{variable}_{index_of(name)}={name}" for name in offer.devices},
    )


def claim_spec(driver: str, variable: str, uid: str, devices: Iterable[str]) -> Object:
    """A CDI file: the claim brings the vendor's variable with the indices of all its devices."""
    indices = ",".join(str(index) for index in sorted(map(index_of, devices)))
    return _cdi(driver, "claim", {uid: f"{variable}={indices}"})


def _cdi(driver: str, kind: str, variables: Mapping[str, str]) -> Object:
    devices = [
        {"name": name, "containerEdits": {"env": [text]}} for name, text in variables.items()
    ]
    return {"cdiVersion": CDI_VERSION, "kind": f"{driver}/{kind}", "devices": devices}
