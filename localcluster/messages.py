"""Protobuf messages described at run time: no generated code, and only the fields that are spoken
here.

Fields that are not listed are ignored by both sides, as protobuf does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Proto = descriptor_pb2.FieldDescriptorProto
_SCALARS = {"string": _Proto.TYPE_STRING, "bool": _Proto.TYPE_BOOL, "int32": _Proto.TYPE_INT32}
_SCALARS["int64"] = _Proto.TYPE_INT64

# Field name, field number, type, repeated. A type that is no scalar is another message of the
# table; "map:" before it makes the field a map from strings.
Field = tuple[str, int, str, bool]
Table = Mapping[str, tuple[Field, ...]]


def classes(file: str, package: str, table: Table) -> dict[str, Any]:
    """The message classes of a table, by name."""
    description = descriptor_pb2.FileDescriptorProto(name=file, package=package, syntax="proto3")
    for name, fields in table.items():
        message = description.message_type.add(name=name)
        for field in fields:
            _add(message, field, package)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(description)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
        for name in table
    }


def _add(message: Any, field: Field, package: str) -> None:
    name, number, kind, repeated = field
    if kind.startswith("map:"):
        kind, repeated = _entry(message, name, kind.removeprefix("map:"), package), True
    label = _Proto.LABEL_REPEATED if repeated else _Proto.LABEL_OPTIONAL
    _set_type(message.field.add(name=name, number=number, label=label), kind, package)


def _entry(message: Any, name: str, value: str, package: str) -> str:
    """A map is a list of entries with key and value, of a type nested in the message."""
    entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
    entry.options.map_entry = True
    for number, (part, kind) in enumerate((("key", "string"), ("value", value)), start=1):
        _set_type(
            entry.field.add(name=part, number=number, label=_Proto.LABEL_OPTIONAL), kind, package
        )
    return f"{message.name}.{entry.name}"


def _set_type(field: Any, kind: str, package: str) -> None:
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type, field.type_name = _Proto.TYPE_MESSAGE, f".{package}.{kind}"
