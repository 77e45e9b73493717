"""The table of accelerators: loading the data files, and what a job gets from its row.

Names are compared as a whole first, by anchored pattern second, never by substring: ``nvidia.com/gpumem`` is no device.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .fields import SpecError
from .model import Json
from .spec import Job

DIRECTORY = Path(__file__).with_name("profiles")
NO_RESOURCE = "none"
_REQUIRED = ("name", "resource", "torch")
_KNOWN = frozenset(
    (
        *_REQUIRED,
        *("exact", "patterns", "ignore", "unit", "visible", "precision"),
        *("tolerations", "runtimeClass", "env"),
    )
)


class ProfileError(ValueError):
    """A row of the table that cannot be used; the text names the row and the key."""


@dataclass(frozen=True)
class Profile:
    """One row.

    ``resource`` is `NO_RESOURCE`, a name, or None when only the user knows it; ``unit`` None is unknown too.
    """

    name: str
    resource: str | None
    device: str
    backend: str
    module: str | None = None
    exact: tuple[str, ...] = ()
    patterns: tuple[re.Pattern[str], ...] = ()
    ignore: frozenset[str] = frozenset()
    unit: int | None = 1
    tolerations: tuple[Json, ...] = ()
    runtime_class: str | None = None
    env: tuple[tuple[str, str], ...] = ()

    @property
    def has_devices(self) -> bool:
        """False for the CPU, which requests no resource."""
        return self.resource != NO_RESOURCE

    def counts(self, resource: str) -> bool:
        """Whether this resource counts devices of this row."""
        if not self.has_devices:
            return False
        if resource == self.resource or resource in self.exact:
            return True
        return resource not in self.ignore and any(pattern.fullmatch(resource) for pattern in self.patterns)


@dataclass(frozen=True)
class Devices:
    """What one node of a job gets: ``count`` of ``resource`` (None: no device) and ``nproc`` ranks."""

    profile: Profile
    resource: str | None
    count: int
    nproc: int

    @property
    def summary(self) -> str:
        """The column for people."""
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


def parse_profile(row: Any, source: str) -> Profile:
    """One row from its YAML form."""
    if not isinstance(row, dict):
        raise ProfileError(f"{source}: must be a mapping")
    for key in _REQUIRED:
        if key not in row:
            raise ProfileError(f"{source}: {key}: missing")
    for key in sorted(row.keys() - _KNOWN):
        raise ProfileError(f"{source}: {key}: unknown key")
    torch = row["torch"]
    try:
        return Profile(
            name=row["name"],
            resource=row["resource"],
            device=torch["device"],
            backend=torch["backend"],
            module=torch.get("module"),
            exact=tuple(row.get("exact") or ()),
            patterns=tuple(_pattern(text, source) for text in row.get("patterns") or ()),
            ignore=frozenset(row.get("ignore") or ()),
            unit=row.get("unit", 1),
            tolerations=tuple(row.get("tolerations") or ()),
            runtime_class=row.get("runtimeClass"),
            env=tuple((row.get("env") or {}).items()),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ProfileError(f"{source}: torch: needs device and backend ({error})") from error


def check_disjoint(profiles: Iterable[Profile]) -> None:
    """Refuse a table in which one resource would mean two vendors."""
    rows = list(profiles)
    for row in rows:
        for name in (row.resource, *row.exact):
            others = [other.name for other in rows if other is not row and name is not None and other.counts(name)]
            if others:
                raise ProfileError(f"{row.name}: {name} is claimed by {others[0]} too")


def resolve(job: Job, profiles: Mapping[str, Profile]) -> Devices:
    """Devices and ranks of each node; raises `SpecError` instead of guessing."""
    wanted = job.accelerator
    profile = profiles.get(wanted.profile)
    if profile is None:
        known = ", ".join(sorted(profiles))
        raise SpecError("spec.accelerator.profile", f"{wanted.profile} is unknown; choose one of {known}")
    requested = _requested(job, profiles)
    _refuse_strangers(profile, requested, profiles)
    if not profile.has_devices:
        return _without_devices(job, profile)
    resource = _resource(job, profile, requested)
    count = _count(job, resource, requested.get(resource))
    return Devices(profile, resource, count, _nproc(job, profile, count))


def _pattern(text: str, source: str) -> re.Pattern[str]:
    if not (text.startswith("^") and text.endswith("$")):
        raise ProfileError(f"{source}: patterns: {text} is not anchored with ^ and $")
    try:
        return re.compile(text)
    except re.error as error:
        raise ProfileError(f"{source}: patterns: {text}: {error}") from error


def _requested(job: Job, profiles: Mapping[str, Profile]) -> dict[str, Any]:
    """Device resources that the template asks for itself; memory and core companions pass through untouched."""
    resources = job.trainer_overlay.get("resources") or {}
    asked = {**(resources.get("requests") or {}), **(resources.get("limits") or {})}
    own = job.accelerator.resource_name
    return {
        name: value for name, value in asked.items() if name == own or any(p.counts(name) for p in profiles.values())
    }


def _refuse_strangers(profile: Profile, requested: Mapping[str, Any], profiles: Mapping[str, Profile]) -> None:
    for name in sorted(requested):
        if profile.counts(name):
            continue
        for other in profiles.values():
            if other.counts(name):
                raise SpecError(
                    "spec.accelerator.profile",
                    f"the template requests {name}, a device of profile {other.name}, "
                    f"but the profile is {profile.name}; "
                    f"set the profile to {other.name} or remove the request",
                )


def _without_devices(job: Job, profile: Profile) -> Devices:
    wanted = job.accelerator
    for key, value in (("resourceName", wanted.resource_name), ("devicesPerNode", wanted.devices_per_node)):
        if value is not None:
            raise SpecError(
                f"spec.accelerator.{key}",
                f"profile {profile.name} requests no device; remove it or set another profile",
            )
    return Devices(profile, None, 0, job.num_proc_per_node or 1)


def _resource(job: Job, profile: Profile, requested: Mapping[str, Any]) -> str:
    if len(requested) > 1:
        names = " and ".join(sorted(requested))
        raise SpecError("spec.template.spec.containers", f"{names} both count devices; keep one of them")
    asked = next(iter(requested), None)
    named = job.accelerator.resource_name
    if named and asked and named != asked:
        raise SpecError(
            "spec.accelerator.resourceName", f"is {named} but the template requests {asked}; make them the same"
        )
    resource = named or asked or profile.resource
    if resource is None:
        raise SpecError(
            "spec.accelerator.resourceName",
            f"profile {profile.name} has no known resource name; set the name that the nodes advertise",
        )
    if resource in profile.ignore:
        raise SpecError(
            "spec.accelerator.resourceName", f"{resource} does not count devices; the default is {profile.resource}"
        )
    return resource


def _count(job: Job, resource: str, quantity: Any) -> int:
    wanted = job.accelerator.devices_per_node
    if quantity is None:
        return wanted or 1
    if not re.fullmatch(r"[1-9][0-9]{0,3}", str(quantity)):
        raise SpecError("spec.template.spec.containers", f"{resource}: {quantity} is not a whole number of devices")
    if wanted not in (None, int(quantity)):
        raise SpecError(
            "spec.accelerator.devicesPerNode", f"is {wanted} but the template requests {quantity} of {resource}"
        )
    return int(quantity)


def _nproc(job: Job, profile: Profile, count: int) -> int:
    if job.num_proc_per_node is None:
        if profile.unit is None:
            raise SpecError(
                "spec.numProcPerNode",
                f"auto is unknown for profile {profile.name}; set the number of devices torch sees per node",
            )
        return count * profile.unit
    if profile.unit is not None and job.num_proc_per_node > count * profile.unit:
        raise SpecError(
            "spec.numProcPerNode",
            f"{job.num_proc_per_node} ranks cannot share {count * profile.unit} devices; "
            "lower it or raise accelerator.devicesPerNode",
        )
    return job.num_proc_per_node
