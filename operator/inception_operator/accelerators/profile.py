"""One row of the table of accelerators, as it is read from its file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from inception_operator.contract.types import Json

from . import schema

NO_RESOURCE: Final = "none"


class ProfileError(ValueError):
    """A row of the table that cannot be used; the text names the row and the key."""


@dataclass(frozen=True)
class Mount:
    """A folder of the node that the vendor's driver needs in the container."""

    host_path: str
    mount_path: str
    read_only: bool = True


@dataclass(frozen=True)
class Profile:
    """One row.

    ``resource`` is `NO_RESOURCE`, a name, or None when only the user knows it. ``unit`` is how many
    devices torch sees for each one of a resource, None where that is unknown; ``units`` are
    resources with another one.
    """

    name: str
    resource: str | None
    device: str
    backend: str
    module: str | None = None
    precision_rule: str | None = None
    visible: tuple[str, ...] = ()
    exact: tuple[str, ...] = ()
    patterns: tuple[re.Pattern[str], ...] = ()
    ignore: frozenset[str] = frozenset()
    unit: int | None = 1
    units: Mapping[str, int | None] = field(default_factory=dict)
    tolerations: tuple[Json, ...] = ()
    runtime_class: str | None = None
    env: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    capabilities: tuple[str, ...] = ()
    groups: tuple[int, ...] = ()
    shm: str | None = None
    extra_resources: tuple[tuple[str, str], ...] = ()

    @property
    def has_devices(self) -> bool:
        """False for the CPU, which requests no resource."""
        return self.resource != NO_RESOURCE

    @property
    def domains(self) -> frozenset[str]:
        """The first parts of all names that this row knows."""
        names = (self.resource or "", *self.exact, *self.ignore)
        return frozenset(name.partition("/")[0] for name in names if "/" in name)

    def counts(self, resource: str) -> bool:
        """Whether this resource counts devices of this row."""
        if not self.has_devices:
            return False
        if resource == self.resource or resource in self.exact:
            return True
        return resource not in self.ignore and any(
            pattern.fullmatch(resource) for pattern in self.patterns
        )

    def unit_of(self, resource: str | None) -> int | None:
        """Devices that torch sees for each one of the resource; None when that is unknown."""
        return self.unit if resource is None else self.units.get(resource, self.unit)

    def known_names(self) -> str:
        """What counts devices of this row, for messages."""
        names = [name for name in (self.resource, *self.exact) if name]
        return ", ".join([*names, *(pattern.pattern for pattern in self.patterns)])


def parse_profile(row: Any, source: str) -> Profile:
    """One row from its YAML form."""
    try:
        schema.check(row)
    except schema.RowError as error:
        raise ProfileError(f"{source}: {error}") from error
    torch, security = row["torch"], row.get("security") or {}
    return Profile(
        name=row["name"],
        resource=row["resource"],
        device=torch["device"],
        backend=torch["backend"],
        module=torch.get("module"),
        precision_rule=torch.get("precisionRule"),
        visible=tuple(name for name in row.get("visible") or () if name),
        exact=tuple(row.get("exact") or ()),
        patterns=tuple(_pattern(text, source) for text in row.get("patterns") or ()),
        ignore=frozenset(row.get("ignore") or ()),
        unit=row.get("unit", 1),
        units=dict(row.get("units") or {}),
        tolerations=tuple(row.get("tolerations") or ()),
        runtime_class=row.get("runtimeClass"),
        env=tuple((row.get("env") or {}).items()),
        mounts=tuple(_mount(entry) for entry in row.get("mounts") or ()),
        capabilities=tuple(security.get("capabilities") or ()),
        groups=tuple(security.get("supplementalGroups") or ()),
        shm=row.get("shm"),
        extra_resources=tuple((row.get("extraResources") or {}).items()),
    )


def _mount(entry: Json) -> Mount:
    return Mount(
        entry["hostPath"],
        entry.get("mountPath") or entry["hostPath"],
        bool(entry.get("readOnly", True)),
    )


def _pattern(text: str, source: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ProfileError(f"{source}: patterns: {text}: {error}") from error
