"""Writes docs/api.md from the CustomResourceDefinition, or says with ``--check`` that it is out of
date.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from docs import pages
from docs.pages import ROOT

CRD = ROOT / "manifests" / "crd.yaml"
TARGET = ROOT / "docs" / "api.md"
_OPAQUE = "x-kubernetes-preserve-unknown-fields"
Schema = Mapping[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Write the page; the exit status of the command."""
    return pages.generate(
        __doc__,
        TARGET,
        lambda: document(yaml.safe_load(CRD.read_text(encoding="utf-8"))),
        arguments,
    )


def document(crd: Mapping[str, Any]) -> str:
    """The whole page."""
    names, version = crd["spec"]["names"], crd["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    lines = [
        f"# API reference: {names['kind']}",
        "",
        f"`{crd['spec']['group']}/{version['name']}`, kind `{names['kind']}`, short name "
        f"`{names['shortNames'][0]}`. "
        "This page is made from `manifests/crd.yaml` by `docs/generate_api.py`; `kubectl "
        "explain` says the same.",
        "",
        schema["description"],
        "",
        *_rules(schema, ""),
        *_columns(version["additionalPrinterColumns"]),
    ]
    for name in ("spec", "status"):
        for path, part in _objects(name, schema["properties"][name]):
            lines += _section(path, part)
    return "\n".join(lines).rstrip() + "\n"


def _columns(columns: list[Mapping[str, Any]]) -> list[str]:
    rows = [
        f"| {column['name']} | {'with `-o wide`' if column.get('priority') else ''} | "
        f"{column['description']} |"
        for column in columns
    ]
    return ["## Columns of kubectl get", "", "| Column | | Meaning |", "|---|---|---|", *rows, ""]


def _objects(path: str, schema: Schema) -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        below = f"{path}.{name}"
        if child.get("type") == "array":
            below, child = f"{below}[]", child["items"]
        if "properties" in child:
            yield from _objects(below, child)


def _section(path: str, schema: Schema) -> list[str]:
    required = schema.get("required", [])
    lines = [f"## {path}", "", schema["description"], "", *_rules(schema, path)]
    lines += ["| Field | Type | Meaning |", "|---|---|---|"]
    for name, child in schema["properties"].items():
        mark = " (required)" if name in required else ""
        lines.append(f"| `{name}`{mark} | {_type(child)} | {_meaning(child)} |")
    return [*lines, ""]


def _rules(schema: Schema, path: str) -> list[str]:
    rules = schema.get("x-kubernetes-validations", [])
    if not rules:
        return []
    return [
        "The API server rejects:" if not path else "Rejected with:",
        "",
        *(f"- {r['message']}" for r in rules),
        "",
    ]


def _type(schema: Schema) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        return "integer or string"
    kind: str = schema["type"]
    if kind == "array":
        return f"list of {_type(schema['items'])}"
    if "additionalProperties" in schema:
        return f"map of {_type(schema['additionalProperties'])}"
    if schema.get("format") == "date-time":
        return "time"
    return kind


def _meaning(schema: Schema) -> str:
    notes = [
        schema["description"],
        *(f"Rejected with: {r['message']}." for r in _leaf_rules(schema)),
    ]
    if "enum" in schema:
        notes.append("One of " + ", ".join(f"`{value}`" for value in schema["enum"]) + ".")
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        notes.append(f"From {low} to {high}.")
    elif low is not None:
        notes.append(f"At least {low}.")
    if "maxItems" in schema:
        notes.append(f"At most {schema['maxItems']} items.")
    if schema.get("default") not in (None, {}):
        notes.append(f"Default: `{str(schema['default']).lower()}`.")
    if "pattern" in schema:
        notes.append(f"Pattern: `{schema['pattern']}`.".replace("|", "\\|"))
    if schema.get(_OPAQUE):
        notes.append("Other fields are kept as they are.")
    return " ".join(notes)


def _leaf_rules(schema: Schema) -> list[Mapping[str, Any]]:
    return [] if "properties" in schema else list(schema.get("x-kubernetes-validations", []))


if __name__ == "__main__":
    sys.exit(main())
