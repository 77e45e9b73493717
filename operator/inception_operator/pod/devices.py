"""What a row of the table brings into a pod: devices, the driver's folders, groups, capabilities,
tolerations.
"""

from __future__ import annotations

from typing import Final

from inception_operator.accelerators.profile import Profile
from inception_operator.accelerators.resolve import Devices
from inception_operator.contract.types import Json

_SIDES: Final = ("requests", "limits")


def equip(pod: Json, container: Json, profile: Profile) -> None:
    """Add to a pod that nobody has changed yet; what the template says comes over it."""
    pod["tolerations"] = [dict(toleration) for toleration in profile.tolerations]
    if profile.runtime_class:
        pod["runtimeClassName"] = profile.runtime_class
    if profile.groups:
        pod["securityContext"]["supplementalGroups"] = list(profile.groups)
    if profile.capabilities:
        container["securityContext"]["capabilities"]["add"] = list(profile.capabilities)
    for index, mount in enumerate(profile.mounts):
        name = f"accelerator-{index}"
        pod["volumes"].append({"name": name, "hostPath": {"path": mount.host_path}})
        entry = {"name": name, "mountPath": mount.mount_path, "readOnly": mount.read_only}
        container["volumeMounts"].append(entry)


def request(container: Json, devices: Devices) -> None:
    """Request and limit the devices, and what comes with them, alike: Kubernetes does not
    overcommit either.
    """
    resources: Json = container.get("resources") or {}
    wanted = {**dict(devices.profile.extra_resources), **_whole(resources)}
    if devices.resource is not None:
        wanted[devices.resource] = str(devices.count)
    if wanted:
        container["resources"] = {
            **resources,
            **{side: (resources.get(side) or {}) | wanted for side in _SIDES},
        }


def _whole(resources: Json) -> Json:
    """What the template says, on either side, about resources that cannot be overcommitted; of both
    the limit.
    """
    sides = [resources.get(side) or {} for side in _SIDES]
    return {
        name: value
        for side in sides
        for name, value in side.items()
        if "/" in name or name.startswith("hugepages-")
    }
