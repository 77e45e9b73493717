"""What a row of the accelerator table brings into a pod, and the devices that it requests.

The vendor's row adds tolerations, a runtime class, groups, capabilities and the driver's folders;
the request is for extended resources of a device plug-in. Devices by claims are in
`resource_claims`.
"""

from __future__ import annotations

from typing import Final

from inception_operator.accelerators.profile import Profile
from inception_operator.accelerators.resolve import Devices
from inception_operator.contract.types import Json

_SIDES: Final = ("requests", "limits")


def apply_profile(pod: Json, container: Json, profile: Profile) -> None:
    """Add to a pod that nobody has changed yet; what the template says comes over it."""
    # Whoever keeps other pods off nodes with devices taints them with the vendor's key.
    pod["tolerations"] = [
        toleration.model_dump(by_alias=True, exclude_unset=True)
        for toleration in profile.tolerations
    ]
    if profile.runtime_class:
        pod["runtimeClassName"] = profile.runtime_class
    if profile.security and profile.security.supplemental_groups:
        pod["securityContext"]["supplementalGroups"] = list(profile.security.supplemental_groups)
    if profile.security and profile.security.capabilities:
        container["securityContext"]["capabilities"]["add"] = list(profile.security.capabilities)
    for index, mount in enumerate(profile.mounts):
        name = f"accelerator-{index}"
        pod["volumes"].append({"name": name, "hostPath": {"path": mount.host_path}})
        container["volumeMounts"].append(
            {
                "name": name,
                "mountPath": mount.mount_path or mount.host_path,
                "readOnly": mount.read_only,
            }
        )


def request_devices(container: Json, devices: Devices) -> None:
    """Request and limit the devices, and what comes with them, to the same amount.

    Kubernetes does not overcommit extended resources and huge pages, so both must be equal.
    """
    resources: Json = container.get("resources") or {}
    amounts = {**devices.profile.extra_resources, **_template_amounts(resources)}
    # The count was checked against the template's own request, so it replaces an equal one.
    if devices.resource is not None:
        amounts[devices.resource] = str(devices.count)
    if amounts:
        container["resources"] = {
            **resources,
            **{side: (resources.get(side) or {}) | amounts for side in _SIDES},
        }


def _template_amounts(resources: Json) -> Json:
    """What the template says, on either side, about resources that cannot be overcommitted.

    Of two sides that differ the limit counts.
    """
    sides = [resources.get(side) or {} for side in _SIDES]
    return {
        name: quantity
        for side in sides
        for name, quantity in side.items()
        if "/" in name or name.startswith("hugepages-")
    }
