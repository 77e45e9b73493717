"""The table of accelerators: loading its files, and what a job gets from its row.

Names are compared as a whole first, by anchored pattern second, never by substring:
``nvidia.com/gpumem`` is no device. Whatever does not fit together is refused with a `SpecError`,
because a wrong guess means ranks without devices, or devices without ranks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from inception_operator.contract.errors import ProfileError, SpecError
from inception_operator.contract.names import CONTAINER
from inception_operator.spec import claims
from inception_operator.spec.claims import Claim
from inception_operator.spec.job import Job

from .profile import Profile, parse_profile

DIRECTORY: Final = Path(__file__).with_name("profiles")
# Names of networks, which come beside devices of any vendor.
_NETWORKS: Final = re.compile(r"rdma/.+|vpc\.amazonaws\.com/efa|([a-z0-9.-]+\.)?kubernetes\.io/.+")
_ACCELERATOR: Final = "spec.accelerator"
_PROFILE: Final = f"{_ACCELERATOR}.profile"
_RESOURCE_NAME: Final = f"{_ACCELERATOR}.resourceName"
_RANKS: Final = "spec.numProcPerNode"


@dataclass(frozen=True)
class Devices:
    """What one node of a job gets: ``count`` of ``resource``, and ``nproc`` ranks.

    ``resource`` is None when the node gets no device, or gets them by ``claims``.
    """

    profile: Profile
    resource: str | None
    count: int
    nproc: int
    claims: tuple[Claim, ...] = ()

    @property
    def seen(self) -> int | None:
        """How many devices torch must find in a pod; None where nobody can tell."""
        unit = None if self.resource is None else self.profile.unit_of(self.resource)
        return None if unit is None else self.count * unit

    @property
    def summary(self) -> str:
        """The devices in a column of ``kubectl get``."""
        if self.claims:
            return claims.summarize(self.claims)
        return self.profile.name if self.resource is None else f"{self.resource} x{self.count}"


def load_profiles(directory: Path = DIRECTORY) -> dict[str, Profile]:
    """All rows of a directory of YAML files, by name; raises `ProfileError` for a bad one."""
    rows: dict[str, Profile] = {}
    for path in sorted(directory.glob("*.yaml")):
        profile = parse_profile(yaml.safe_load(path.read_text(encoding="utf-8")), path.name)
        if profile.name in rows:
            raise ProfileError(f"{path.name}: name: there are two profiles {profile.name}")
        rows[profile.name] = profile
    check_disjoint(rows.values())
    return rows


def check_disjoint(profiles: Iterable[Profile]) -> None:
    """Refuse a table in which one resource would mean two vendors."""
    rows = list(profiles)
    for row in rows:
        for name in (row.resource, *row.exact):
            if name is None:
                continue
            for other in rows:
                if other is not row and other.counts(name):
                    raise ProfileError(f"{row.name}: {name} is claimed by {other.name} too")


def resolve(job: Job, profiles: Mapping[str, Profile]) -> Devices:
    """Devices and ranks of each node; raises `SpecError` instead of guessing."""
    accelerator = job.accelerator
    profile = profiles.get(accelerator.profile)
    if profile is None:
        names = ", ".join(sorted(profiles))
        raise SpecError(_PROFILE, f"{accelerator.profile} is unknown; choose one of {names}")
    # Before any request is looked at: below, one quantity stands for both sides.
    _refuse_unequal(job)
    requested = _device_requests(job, profiles)
    _refuse_other_vendors(job, profile, requested, profiles)
    _refuse_unknown(job, profile, profiles)
    if not profile.has_devices:
        return _without_devices(job, profile)
    if accelerator.claims:
        _check_claims(job, sorted(requested))
        count = claims.count_devices(accelerator.claims)
        # Where the claims do not tell the count, the number of ranks was checked to be there.
        nproc = _nproc(job, profile, count) if count else job.num_proc_per_node or 0
        return Devices(
            profile,
            resource=None,
            count=count or 0,
            nproc=nproc,
            claims=accelerator.claims,
        )
    resource = _resource(job, profile, requested)
    count = _count(job, resource, requested.get(resource))
    return Devices(
        profile,
        resource=resource,
        count=count,
        nproc=_nproc(job, profile, count, resource),
    )


def _check_claims(job: Job, requested: Sequence[str]) -> None:
    """Refuse claims that contradict the rest of the spec.

    ``requested`` are the device resources that the template asks for.
    """
    accelerator = job.accelerator
    if accelerator.resource_name is not None or accelerator.devices_per_node is not None:
        raise SpecError(
            claims.PATH,
            "cannot be set beside resourceName and devicesPerNode; remove one or the other",
        )
    if requested:
        raise SpecError(
            claims.PATH,
            f"the template requests {requested[0]} too; remove the request or the claims",
        )
    if job.num_proc_per_node is None and claims.count_devices(accelerator.claims) is None:
        raise SpecError(
            _RANKS,
            "auto needs exactly one claim with a deviceClassName in spec.accelerator.claims; "
            "set the number of ranks",
        )
    taken = {entry.get("name") for entry in job.pod_overlay.get("resourceClaims") or ()}
    for claim in accelerator.claims:
        if claim.name in taken:
            raise SpecError(
                "spec.template.spec.resourceClaims",
                f"{claim.name} is in spec.accelerator.claims too; rename one",
            )


def _resources_path(job: Job) -> str:
    """Where the template says what the trainer container requests."""
    containers = job.pod_overlay.get("containers") or []
    names = [container.get("name") for container in containers]
    index = names.index(CONTAINER) if CONTAINER in names else 0
    return f"spec.template.spec.containers[{index}].resources"


def _extended_resources(job: Job) -> dict[str, list[Any]]:
    """By name, what the template requests and limits of extended resources.

    These have a domain in their names; cpu, memory and their like have none.
    """
    resources = job.trainer_overlay.get("resources") or {}
    quantities: dict[str, list[Any]] = {}
    for side in ("requests", "limits"):
        for name, quantity in (resources.get(side) or {}).items():
            if "/" in name:
                quantities.setdefault(name, []).append(quantity)
    return quantities


def _refuse_unequal(job: Job) -> None:
    """Extended resources cannot be overcommitted, so the API server would refuse every pod."""
    for name, quantities in sorted(_extended_resources(job).items()):
        texts = {str(quantity) for quantity in quantities}
        if len(texts) > 1:
            request, limit = quantities
            raise SpecError(
                _resources_path(job),
                f"{name}: the request {request} and the limit {limit} must be equal",
            )


def _device_requests(job: Job, profiles: Mapping[str, Profile]) -> dict[str, Any]:
    """Quantities of the device resources that the template asks for itself.

    Memory and core companions are none of them and pass through untouched.
    """
    named = job.accelerator.resource_name
    requests: dict[str, Any] = {}
    for name, quantities in _extended_resources(job).items():
        if name == named or any(row.counts(name) for row in profiles.values()):
            requests[name] = quantities[0]
    return requests


def _refuse_other_vendors(
    job: Job, profile: Profile, requested: Mapping[str, Any], profiles: Mapping[str, Profile]
) -> None:
    named = job.accelerator.resource_name
    if named and (other := _other_owner(named, profile, profiles)):
        raise SpecError(
            _RESOURCE_NAME,
            f"{named} is a device of profile {other}, but the profile is {profile.name}; "
            f"set the profile to {other}",
        )
    for name in sorted(requested):
        if other := _other_owner(name, profile, profiles):
            raise SpecError(
                _PROFILE,
                f"the template requests {name}, a device of profile {other}, "
                f"but the profile is {profile.name}; "
                f"set the profile to {other} or remove the request",
            )


def _other_owner(name: str, profile: Profile, profiles: Mapping[str, Profile]) -> str | None:
    """The other profile whose devices this resource counts."""
    if profile.counts(name):
        return None
    return next((other.name for other in profiles.values() if other.counts(name)), None)


def _refuse_unknown(job: Job, profile: Profile, profiles: Mapping[str, Profile]) -> None:
    """Refuse a name that may be a device nobody counts.

    It is one that looks like a vendor's, or any beside a profile without devices.
    """
    rows = profiles.values()
    for name in sorted(_extended_resources(job)):
        if name == job.accelerator.resource_name or _NETWORKS.fullmatch(name):
            continue
        if any(row.counts(name) or name in row.ignore for row in rows):
            continue
        domain = name.partition("/")[0]
        if not profile.has_devices or any(domain in row.domains for row in rows):
            remedy = _remedy(name, profile, rows)
            raise SpecError(_resources_path(job), f"{name} is unknown: {remedy}")


def _remedy(name: str, profile: Profile, rows: Iterable[Profile]) -> str:
    # The row whose vendor has the domain says which names it knows: most often one is misspelt.
    domain = name.partition("/")[0]
    vendor = next((row for row in rows if domain in row.domains), profile)
    ignore = f"if not, add it to ignore of the row {vendor.name} (chart value profiles)"
    if not vendor.has_devices:
        return f"if it counts devices, set spec.accelerator.profile to that of its vendor; {ignore}"
    return (
        f"devices of profile {vendor.name} are {vendor.known_names()}; "
        f"if it counts devices too, set spec.accelerator.resourceName to it; {ignore}"
    )


def _without_devices(job: Job, profile: Profile) -> Devices:
    accelerator = job.accelerator
    about_devices = {
        "resourceName": accelerator.resource_name,
        "devicesPerNode": accelerator.devices_per_node,
        "claims": accelerator.claims or None,
    }
    problem = f"profile {profile.name} requests no device; remove it or set another profile"
    for key, value in about_devices.items():
        if value is not None:
            raise SpecError(f"{_ACCELERATOR}.{key}", problem)
    return Devices(
        profile,
        resource=None,
        count=0,
        nproc=job.num_proc_per_node or 1,
    )


def _resource(job: Job, profile: Profile, requested: Mapping[str, Any]) -> str:
    if len(requested) > 1:
        names = " and ".join(sorted(requested))
        raise SpecError(_resources_path(job), f"{names} both count devices; keep one of them")
    # From here on at most one resource is asked for, so the order of the mapping does not matter.
    asked = next(iter(requested), None)
    named = job.accelerator.resource_name
    if named and asked and named != asked:
        raise SpecError(
            _RESOURCE_NAME,
            f"is {named} but the template requests {asked}; make them the same",
        )
    resource = named or asked or profile.resource
    if resource is None:
        raise SpecError(
            _RESOURCE_NAME,
            f"profile {profile.name} has no known resource name; "
            "set the name that the nodes advertise",
        )
    if resource in profile.ignore:
        raise SpecError(
            _RESOURCE_NAME,
            f"{resource} does not count devices; the default is {profile.resource}",
        )
    return resource


def _count(job: Job, resource: str, quantity: Any) -> int:
    devices = job.accelerator.devices_per_node
    if quantity is None:
        return devices or 1
    # Quantities may be numbers or strings, and "2k" would be one too; no node has so many.
    if not re.fullmatch(r"[1-9][0-9]{0,3}", str(quantity)):
        raise SpecError(
            _resources_path(job), f"{resource}: {quantity} is not a whole number of devices"
        )
    if devices not in (None, int(quantity)):
        raise SpecError(
            f"{_ACCELERATOR}.devicesPerNode",
            f"is {devices} but the template requests {quantity} of {resource}",
        )
    return int(quantity)


def _nproc(job: Job, profile: Profile, count: int, resource: str | None = None) -> int:
    """Ranks of a node with ``count`` devices.

    One for each device that torch sees, unless the user wants another number.
    """
    unit = profile.unit_of(resource)
    ranks = job.num_proc_per_node
    if ranks is None and unit is None:
        row = f"{profile.name} and {resource}" if resource in profile.units else profile.name
        raise SpecError(
            _RANKS,
            f"auto is unknown for profile {row}; set the number of devices torch sees per node",
        )
    # Without a known unit the user alone knows how many ranks the devices can hold.
    if unit is None:
        return ranks or 0
    if ranks is not None and ranks > count * unit:
        key = "claims.count" if job.accelerator.claims else "devicesPerNode"
        raise SpecError(
            _RANKS,
            f"{ranks} ranks cannot share {count * unit} devices; "
            f"lower it or raise accelerator.{key}",
        )
    return ranks or count * unit
