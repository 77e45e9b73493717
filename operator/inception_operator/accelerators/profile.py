"""One row of the table of accelerators, as its file and the chart's values have it.

The JSON schema beside the rows (``profiles/schema.json``) and its copy in the chart are made from
this model by ``make sync``, so the descriptions here are what an administrator reads.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema
from typing_extensions import TypeAliasType

from inception_operator.contract.errors import ProfileError
from inception_operator.contract.types import Json
from inception_operator.spec.validation import AS_TUPLE, Model, Remedy, first_problem, refusal

NO_RESOURCE: Final = "none"
_RESOURCE: Final = r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"
_HUGE_PAGES: Final = r"hugepages-[1-9][0-9]*(Ki|Mi|Gi)"
# YAML calls its objects mappings, and all whole numbers of a row but groups may be null.
_WORDS: Final = {
    "model_type": lambda error: "must be a mapping",
    "dict_type": lambda error: "must be a mapping",
    "int_type": lambda error: "must be integer or null",
}


# A row has three kinds of optional keys: with a default, with null for "not known", and this one.
class _NeverNull:
    """A key that may be left out, then its value here is None, but that null is no value of."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Take the null out of the schema of ``X | None``; a default is not validated."""
        schema = handler(source)
        return schema["schema"] if schema["type"] == "nullable" else schema


NEVER_NULL: Final = _NeverNull()


def _unique(entries: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(entries)) < len(entries):
        raise refusal("has an entry twice")
    return entries


def _compile(patterns: tuple[str, ...]) -> tuple[str, ...]:
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise refusal(f"{pattern}: {error}") from error
    return patterns


# Named types appear once in the JSON schema and are referred to from each place. Those of keys have
# to be: of a key that is written out pydantic makes patternProperties, which refuses no other key.
ResourceName = TypeAliasType(
    "ResourceName", Annotated[str, Field(max_length=317, pattern=f"^{_RESOURCE}$")]
)
Note = TypeAliasType("Note", Annotated[str, Field(min_length=1, max_length=512)])
Variable = TypeAliasType("Variable", Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] | None)
VariableName = TypeAliasType(
    "VariableName", Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
)
ExtraResource = TypeAliasType(
    "ExtraResource", Annotated[str, Field(pattern=f"^({_HUGE_PAGES}|{_RESOURCE})$")]
)
Quantity = TypeAliasType("Quantity", Annotated[str, Field(pattern=r"^[1-9][0-9]*(Ki|Mi|Gi)?$")])
Unit = TypeAliasType("Unit", Annotated[int, Field(ge=1, le=64)] | None)
FolderPath = TypeAliasType("FolderPath", Annotated[str, Field(max_length=256, pattern=r"^/[^:]*$")])
GROUP: Final = Remedy("{input!r} is not the number of a group")
UNIQUE: Final = (AfterValidator(_unique), Field(json_schema_extra={"uniqueItems": True}))
ResourceNames = Annotated[tuple[ResourceName, ...], AS_TUPLE, Field(max_length=64), *UNIQUE]


class Entry(Model):
    """A part of a row. A key that is not known is refused: it is most likely misspelt."""

    model_config = ConfigDict(extra="forbid", validate_by_name=False)


class Torch(Entry):
    """How torch reaches the device."""

    module: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*$")] | None = Field(
        default=None,
        description="Module to import before the first use of the device; null when torch itself "
        "brings it.",
    )
    device: str = Field(pattern=r"^[a-z]+$", description="Device type, as in torch.device.")
    backend: str = Field(
        pattern=r"^[a-z]+$", description="Collective library, as torch.distributed calls it."
    )
    precision_rule: Annotated[
        Literal["FP32", "BF16", "FP16", "ComputeCapability", "AskDevice"] | None, NEVER_NULL
    ] = Field(
        default=None,
        description="What precision Auto means: a fixed one, by CUDA compute capability, or what "
        "the device's module says of bf16. Without it by the device type.",
    )


class Toleration(Entry):
    """A toleration, as in any pod."""

    key: str = Field(min_length=1)
    operator: Literal["Exists", "Equal"]
    value: Annotated[str | None, NEVER_NULL] = None
    effect: Annotated[Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None, NEVER_NULL] = (
        None
    )


class Mount(Entry):
    """A folder of the node that the vendor's driver needs in the container."""

    host_path: FolderPath
    mount_path: Annotated[FolderPath | None, NEVER_NULL] = Field(
        default=None, description="Where it appears in the container; without it at the same path."
    )
    read_only: bool = Field(default=True, description="True unless it says otherwise.")
    reason: Note


class Security(Entry):
    """What the device needs beyond the restricted security context, with the reason."""

    capabilities: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[A-Z][A-Z_]*$")], ...], AS_TUPLE, *UNIQUE
    ] = Field(default=(), max_length=8, description="Capabilities that the trainer container gets.")
    supplemental_groups: Annotated[
        tuple[Annotated[int, Field(ge=1, le=2**31 - 1), GROUP], ...], AS_TUPLE, *UNIQUE
    ] = Field(default=(), max_length=8, description="Groups of the node that own the device files.")
    reason: Note


class Exporter(Entry):
    """The vendor's exporter of device metrics."""

    name: Note
    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        description="Null when it is unknown."
    )


class Verified(Entry):
    """Where the row was read, and what only the hardware can show."""

    read: Note
    hardware: Note


class Profile(Entry):
    """One row of the table: what a vendor calls its devices and how torch reaches them."""

    name: str = Field(
        max_length=63,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        description="Name that spec.accelerator.profile refers to.",
    )
    resource: Annotated[
        Literal["none"] | ResourceName | None,
        Remedy("{input!r} does not match none, null or a name such as example.com/gpu"),
    ] = Field(
        description="Extended resource that counts devices. none requests no device; null means "
        "that no name is known and spec.accelerator.resourceName is required.",
    )
    exact: ResourceNames = Field(
        default=(), description="Other names that count devices, compared as a whole."
    )
    patterns: Annotated[
        tuple[Annotated[str, Field(pattern=r"^\^.*\$$")], ...],
        AS_TUPLE,
        *UNIQUE,
        AfterValidator(_compile),
    ] = Field(
        default=(),
        max_length=16,
        description="Anchored regular expressions of names that count devices; consulted after "
        "exact and ignore.",
    )
    ignore: ResourceNames = Field(
        default=(),
        description="Names that never count devices, such as memory and cores; consulted before "
        "patterns.",
    )
    unit: Unit = Field(
        default=1,
        description="Devices that torch sees for each one of the resource; null means unknown, "
        "then numProcPerNode auto is refused. Without it 1.",
    )
    units: dict[ResourceName, Unit] = Field(
        default={},
        max_length=16,
        description="Units of single resources that have another one than unit.",
    )
    torch: Torch = Field(description="How torch reaches the device.")
    visible: Annotated[tuple[Variable, ...], AS_TUPLE] = Field(
        default=(),
        min_length=2,
        max_length=2,
        description="Variables that select devices: of the process, and of the container "
        "runtime. The operator sets neither.",
    )
    tolerations: Annotated[tuple[Toleration, ...], AS_TUPLE] = Field(
        default=(), max_length=16, description="Tolerations that pods with this device get."
    )
    runtime_class: (
        Annotated[str, Field(max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")] | None
    ) = Field(default=None, description="RuntimeClass of pods with this device, if they need one.")
    env: dict[VariableName, str] = Field(
        default={},
        max_length=32,
        description="Variables that pods with this device get, unless the template sets them.",
    )
    mounts: Annotated[tuple[Mount, ...], AS_TUPLE] = Field(
        default=(),
        max_length=8,
        description="Folders of the node that the driver needs in the container, each with the "
        "reason. Pods with one are refused where Pod Security is baseline or restricted.",
    )
    security: Annotated[Security | None, NEVER_NULL] = Field(
        default=None,
        description="What the device needs beyond the restricted security context, with the "
        "reason.",
    )
    shm: Annotated[str, Field(pattern=r"^[1-9][0-9]*(Mi|Gi)$")] | None = Field(
        default=None,
        description="Upper limit of /dev/shm; without it the kubelet's, which is the memory limit "
        "of the pod.",
    )
    extra_resources: dict[ExtraResource, Quantity] = Field(
        default={},
        max_length=16,
        description="More resources that every pod with this device gets, with their quantities, "
        "unless the template says otherwise: network devices or huge pages that come with the "
        "devices of a cluster.",
    )
    # The rest is for people: docs/accelerators.md is made of it.
    precision: Annotated[Note | None, NEVER_NULL] = Field(
        default=None, description="What precision Auto chooses, for humans."
    )
    node_labels: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=128)], ...], AS_TUPLE
    ] = Field(
        default=(),
        max_length=16,
        description="Labels by which the vendor's plug-in tells nodes apart, for nodeSelector; "
        "for humans.",
    )
    exporter: Exporter | None = Field(
        default=None,
        description="The vendor's exporter of device metrics, for humans; null when none is known.",
    )
    verified: Annotated[Verified | None, NEVER_NULL] = Field(
        default=None,
        description="Where the row was read, and what only the hardware can show; for humans.",
    )
    remark: Annotated[Note | None, NEVER_NULL] = Field(
        default=None, description="What users of the device should know; for humans."
    )

    @property
    def has_devices(self) -> bool:
        """False for the CPU, which requests no resource."""
        return self.resource != NO_RESOURCE

    @cached_property
    def domains(self) -> frozenset[str]:
        """The first parts of all names that this row knows, such as ``nvidia.com``."""
        names = (self.resource or "", *self.exact, *self.ignore)
        return frozenset(name.partition("/")[0] for name in names if "/" in name)

    def counts(self, resource: str) -> bool:
        """Whether this resource counts devices of this row."""
        # "none" is no name that a cluster could advertise.
        if not self.has_devices:
            return False
        if resource == self.resource or resource in self.exact:
            return True
        return resource not in self.ignore and any(
            re.fullmatch(pattern, resource) for pattern in self.patterns
        )

    def unit_of(self, resource: str | None) -> int | None:
        """Devices that torch sees for each one of the resource; None when that is unknown."""
        return self.unit if resource is None else self.units.get(resource, self.unit)

    def known_names(self) -> str:
        """What counts devices of this row, for messages."""
        names = [name for name in (self.resource, *self.exact) if name]
        return ", ".join([*names, *self.patterns])


def parse_profile(row: Any, source: str) -> Profile:
    """One row from its YAML form; raises `ProfileError` that names ``source`` and the key."""
    try:
        return Profile.model_validate(row)
    except ValidationError as error:
        path, problem = first_problem(error, _WORDS)
        place = f"{source}: {path}" if path else source
        raise ProfileError(f"{place}: {problem}") from error


def json_schema() -> Json:
    """The JSON schema of a row, as ``profiles/schema.json`` holds it."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Accelerator profile",
        **_without_notes(Profile.model_json_schema()),
    }


def _without_notes(schema: Any) -> Any:
    """The schema without titles, which repeat the keys, and defaults, which nothing reads.

    The docstrings of the classes stay as descriptions.
    """
    if isinstance(schema, dict):
        return {
            key: _without_notes(value)
            for key, value in schema.items()
            if key != "default" and not (key == "title" and isinstance(value, str))
        }
    return [_without_notes(each) for each in schema] if isinstance(schema, list) else schema
