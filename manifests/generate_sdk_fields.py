"""Writes the types of the Python SDK's fields from the CustomResourceDefinition, or says with
``--check`` that they are out of date.
"""

from __future__ import annotations

import keyword
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from docs import pages
from docs.pages import ROOT

CRD = ROOT / "manifests" / "crd.yaml"
TARGET = ROOT / "operator" / "inception_operator" / "sdk" / "fields.py"
_WIDTH = 100
_OPAQUE = "x-kubernetes-preserve-unknown-fields"
_SIMPLE = {"integer": "int", "string": "str", "boolean": "bool", "number": "float"}
_HEAD = '''"""The fields of an InceptionTraining as types, by the names that they have in the API.

This file is made from `manifests/crd.yaml` by `manifests/generate_sdk_fields.py`.
"""

from typing import Any, Literal, Required, TypedDict

Json = dict[str, Any]
Decimal = str | float
"""A decimal number, which is a string in the API."""
'''
Schema = Mapping[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Write the file; the exit status of the command."""
    return pages.generate(
        __doc__,
        TARGET,
        lambda: document(yaml.safe_load(CRD.read_text(encoding="utf-8"))),
        arguments,
    )


def document(crd: Schema) -> str:
    """The whole file."""
    root = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    classes = [
        text
        for name in ("spec", "status")
        for text in _classes(name.capitalize(), root[name], is_read=name == "status")
    ]
    return "\n\n".join([_HEAD, *classes])


def _classes(name: str, schema: Schema, *, is_read: bool) -> Iterator[str]:
    """The class of an object, behind those that it names."""
    required = schema.get("required", [])
    kinds = {}
    for key, field in schema["properties"].items():
        below = name + key[:1].upper() + key[1:]
        item = field
        while item.get("type") == "array":
            item = item["items"]
        if _is_section(item):
            yield from _classes(below, item, is_read=is_read)
        kind = _type(field, below, is_read=is_read)
        kinds[key] = f"Required[{kind}]" if key in required else kind
    yield (_as_call if any(map(keyword.iskeyword, kinds)) else _as_class)(name, schema, kinds)


def _as_class(name: str, schema: Schema, kinds: Mapping[str, str]) -> str:
    lines = [f"class {name}(TypedDict, total=False):", *_described(schema["description"])]
    for key, kind in kinds.items():
        described = _described(schema["properties"][key]["description"])
        lines += ["", *_folded(f"    {key}: {kind}"), *described]
    return "\n".join(lines) + "\n"


def _as_call(name: str, schema: Schema, kinds: Mapping[str, str]) -> str:
    """The same for an object with a key that is a keyword of Python."""
    lines = [f"{name} = TypedDict(", f'    "{name}",', "    {"]
    lines += [f'        "{key}": {kind},' for key, kind in kinds.items()]
    lines += ["    },", "    total=False,", ")"]
    described = [line.strip() for line in _described(schema["description"])]
    return "\n".join(lines + described) + "\n"


def _is_section(schema: Schema) -> bool:
    """Whether all fields of an object are known."""
    return "properties" in schema and not schema.get(_OPAQUE)


def _type(schema: Schema, name: str, *, is_read: bool) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        return "int | str"
    kind = schema["type"]
    if kind == "array":
        return f"list[{_type(schema['items'], name, is_read=is_read)}]"
    if kind == "object":
        if _is_section(schema):
            return name
        values = schema.get("additionalProperties")
        return f"dict[str, {_type(values, name, is_read=is_read)}]" if values else "Json"
    if "enum" in schema:
        values = ", ".join(f'"{value}"' for value in schema["enum"])
        return f"Literal[{values}]"
    return "Decimal" if not is_read and _is_decimal(schema) else _SIMPLE[kind]


def _is_decimal(schema: Schema) -> bool:
    """Whether a string is a number: its pattern takes one, and no word."""
    pattern = schema.get("pattern")
    if schema["type"] != "string" or pattern is None:
        return False
    numbers = ("0.5", "0.05", "1.5", "1")
    return any(re.search(pattern, text) for text in numbers) and not re.search(pattern, "a")


def _folded(line: str) -> list[str]:
    """The line, broken as ruff breaks it."""
    found = re.fullmatch(r"(.*?)((?:list\[)*)Literal\[(.*?)\]+", line)
    if len(line) <= _WIDTH or found is None:
        return [line]
    head, lists, values = found.groups()
    opened = [*re.findall(r"list\[", lists), "Literal["]
    indents = ["    " * (depth + 1) for depth in range(len(opened))]
    inner = f"{indents[-1]}    "
    return [
        f"{head}{opened[0]}",
        *(f"{indent}{opening}" for indent, opening in zip(indents[1:], opened[1:], strict=True)),
        *(f"{inner}{value}," for value in values.split(", ")),
        *(f"{indent}]" for indent in reversed(indents)),
    ]


def _described(text: str) -> list[str]:
    plain = " ".join(text.split()).replace("\\", "\\\\").replace('"""', "'''")
    # A quote at the end would be taken for one of the three behind it.
    plain = f"{plain[:-1]}'" if plain.endswith('"') else plain
    return textwrap.wrap(f'"""{plain}"""', _WIDTH, initial_indent="    ", subsequent_indent="    ")


if __name__ == "__main__":
    sys.exit(main())
