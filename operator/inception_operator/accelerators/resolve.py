"""The table of accelerators: loading the data files, and what a job gets from its row.

Names are compared as a whole first, by anchored pattern second, never by substring:
``nvidia.com/gpumem`` is no device.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from inception_operator.contract.names import CONTAINER
from inception_operator.spec import claims
from inception_operator.spec.claims import Claim
from inception_operator.spec.fields import SpecError
from inception_operator.spec.job import Job

from .profile import Profile, ProfileError, parse_profile

__all__ = [
    "Devices",
    "Profile",
    "ProfileError",
    "check_disjoint",
    "load_profiles",
    "parse_profile",
    "resolve",
]

DIRECTORY: Final = Path(__file__).with_name("profiles")
# Names of networks, which come beside devices of any vendor.
_NETWORKS: Final = re.compile(r"rdma/.+|vpc\.amazonaws\.com/efa|([a-z0-9.-]+\.)?kubernetes\.io/.+")


@dataclass(frozen=True)
class Devices:
    """What one node of a job gets: ``count`` of ``resource`` (None: no device, or by claims) and
    ``nproc`` ranks.
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
        """The column for people."""
        if self.claims:
            return claims.summary(self.claims)
        return self.profile.name if self.resource is None else f"{self.resource} x{self.count}"


def load_profiles(directory: Path = DIRECTORY) -> dict[str, Profile]:
    """All rows of a directory of YAML files, by name."""
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
            others = [
                other.name
                for other in rows
                if other is not row and name is not None and other.counts(name)
            ]
            if others:
                raise ProfileError(f"{row.name}: {name} is claimed by {others[0]} too")


def resolve(job: Job, profiles: Mapping[str, Profile]) -> Devices:
    """Devices and ranks of each node; raises `SpecError` instead of guessing."""
    wanted = job.accelerator
    profile = profiles.get(wanted.profile)
    if profile is None:
        known = ", ".join(sorted(profiles))
        raise SpecError(
            "spec.accelerator.profile", f"{wanted.profile} is unknown; choose one of {known}"
        )
    _refuse_unequal(job)
    requested = _requested(job, profiles)
    _refuse_strangers(job, profile, requested, profiles)
    _refuse_unknown(job, profile, profiles)
    if not profile.has_devices:
        return _without_devices(job, profile)
    if wanted.claims:
        claims.check(job, sorted(requested))
        count = claims.count(wanted.claims)
        nproc = (job.num_proc_per_node or 0) if count is None else _nproc(job, profile, count)
        return Devices(profile, None, count or 0, nproc, wanted.claims)
    resource = _resource(job, profile, requested)
    count = _count(job, resource, requested.get(resource))
    return Devices(profile, resource, count, _nproc(job, profile, count, resource))


def _path(job: Job) -> str:
    """Where the template says what the trainer container requests."""
    containers = (job.template.get("spec") or {}).get("containers") or []
    index = next(
        (i for i, container in enumerate(containers) if container.get("name") == CONTAINER), 0
    )
    return f"spec.template.spec.containers[{index}].resources"


def _extended(job: Job) -> dict[str, list[Any]]:
    """What the template requests and limits of extended resources; cpu, memory and their like have
    no domain.
    """
    resources = job.trainer_overlay.get("resources") or {}
    found: dict[str, list[Any]] = {}
    for side in ("requests", "limits"):
        for name, quantity in (resources.get(side) or {}).items():
            if "/" in name:
                found.setdefault(name, []).append(quantity)
    return found


def _refuse_unequal(job: Job) -> None:
    """Extended resources cannot be overcommitted, so the API server would refuse every pod."""
    for name, quantities in sorted(_extended(job).items()):
        if len({str(quantity) for quantity in quantities}) > 1:
            requested, limit = quantities
            raise SpecError(
                _path(job), f"{name}: the request {requested} and the limit {limit} must be equal"
            )


def _requested(job: Job, profiles: Mapping[str, Profile]) -> dict[str, Any]:
    """Device resources that the template asks for itself; memory and core companions pass through
    untouched.
    """
    own = job.accelerator.resource_name
    return {
        name: quantities[0]
        for name, quantities in _extended(job).items()
        if name == own or any(p.counts(name) for p in profiles.values())
    }


def _refuse_strangers(
    job: Job, profile: Profile, requested: Mapping[str, Any], profiles: Mapping[str, Profile]
) -> None:
    named = job.accelerator.resource_name
    if named and (other := _owner(named, profile, profiles)):
        raise SpecError(
            "spec.accelerator.resourceName",
            f"{named} is a device of profile {other}, but the profile is {profile.name}; set the profile to {other}",
        )
    for name in sorted(requested):
        if other := _owner(name, profile, profiles):
            raise SpecError(
                "spec.accelerator.profile",
                f"the template requests {name}, a device of profile {other}, but the profile is {profile.name}; "
                f"set the profile to {other} or remove the request",
            )


def _owner(name: str, profile: Profile, profiles: Mapping[str, Profile]) -> str | None:
    """The other profile whose devices this resource counts."""
    if profile.counts(name):
        return None
    return next((other.name for other in profiles.values() if other.counts(name)), None)


def _refuse_unknown(job: Job, profile: Profile, profiles: Mapping[str, Profile]) -> None:
    """A name that looks like a vendor's, or any beside a profile without devices, may be a device
    that is not seen.
    """
    rows = profiles.values()
    for name in sorted(_extended(job)):
        known = (
            any(row.counts(name) or name in row.ignore for row in rows)
            or name == job.accelerator.resource_name
        )
        if known or _NETWORKS.fullmatch(name):
            continue
        if not profile.has_devices or any(name.partition("/")[0] in row.domains for row in rows):
            raise SpecError(_path(job), f"{name} is unknown: {_remedy(name, profile, rows)}")


def _remedy(name: str, profile: Profile, rows: Iterable[Profile]) -> str:
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
    wanted = job.accelerator
    named = {
        "resourceName": wanted.resource_name,
        "devicesPerNode": wanted.devices_per_node,
        "claims": wanted.claims or None,
    }
    for key, value in named.items():
        if value is not None:
            raise SpecError(
                f"spec.accelerator.{key}",
                f"profile {profile.name} requests no device; remove it or set another profile",
            )
    return Devices(profile, None, 0, job.num_proc_per_node or 1)


def _resource(job: Job, profile: Profile, requested: Mapping[str, Any]) -> str:
    if len(requested) > 1:
        names = " and ".join(sorted(requested))
        raise SpecError(_path(job), f"{names} both count devices; keep one of them")
    asked = next(iter(requested), None)
    named = job.accelerator.resource_name
    if named and asked and named != asked:
        raise SpecError(
            "spec.accelerator.resourceName",
            f"is {named} but the template requests {asked}; make them the same",
        )
    resource = named or asked or profile.resource
    if resource is None:
        raise SpecError(
            "spec.accelerator.resourceName",
            f"profile {profile.name} has no known resource name; set the name that the nodes advertise",
        )
    if resource in profile.ignore:
        raise SpecError(
            "spec.accelerator.resourceName",
            f"{resource} does not count devices; the default is {profile.resource}",
        )
    return resource


def _count(job: Job, resource: str, quantity: Any) -> int:
    wanted = job.accelerator.devices_per_node
    if quantity is None:
        return wanted or 1
    if not re.fullmatch(r"[1-9][0-9]{0,3}", str(quantity)):
        raise SpecError(_path(job), f"{resource}: {quantity} is not a whole number of devices")
    if wanted not in (None, int(quantity)):
        raise SpecError(
            "spec.accelerator.devicesPerNode",
            f"is {wanted} but the template requests {quantity} of {resource}",
        )
    return int(quantity)


def _nproc(job: Job, profile: Profile, count: int, resource: str | None = None) -> int:
    unit = profile.unit_of(resource)
    if job.num_proc_per_node is None:
        if unit is None:
            of = f" and {resource}" if resource in profile.units else ""
            raise SpecError(
                "spec.numProcPerNode",
                f"auto is unknown for profile {profile.name}{of}; set the number of devices torch sees per node",
            )
        return count * unit
    if unit is not None and job.num_proc_per_node > count * unit:
        raise SpecError(
            "spec.numProcPerNode",
            f"{job.num_proc_per_node} ranks cannot share {count * unit} devices; "
            f"lower it or raise accelerator.{'claims.count' if job.accelerator.claims else 'devicesPerNode'}",
        )
    return job.num_proc_per_node
