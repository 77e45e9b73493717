"""Writes docs/api.md and the pages of docs/api/ from the CustomResourceDefinition, or says with
``--check`` that one is out of date.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from docs import pages
from docs.pages import ROOT

CRD = ROOT / "manifests" / "crd.yaml"
FIRST = "api.md"
PAGES = {
    "api/training.md": ("the training and its network", ("spec.training",)),
    "api/training-data.md": (
        "data and augmentation",
        ("spec.training.data", "spec.training.augmentation"),
    ),
    "api/training-optimisation.md": (
        "batch, optimizer, schedule and loss",
        (
            "spec.training.batch",
            "spec.training.optimizer",
            "spec.training.schedule",
            "spec.training.loss",
            "spec.training.weightAverage",
        ),
    ),
    "api/training-modes.md": (
        "evaluation, benchmark, inference, export and profiler",
        (
            "spec.training.evaluation",
            "spec.training.benchmark",
            "spec.training.inference",
            "spec.training.export",
            "spec.training.profiler",
        ),
    ),
    "api/pods.md": (
        "devices, size and pods",
        ("spec.accelerator", "spec.elasticPolicy", "spec.template"),
    ),
    "api/policies.md": (
        "checkpoints and policies",
        ("spec.checkpoint", "spec.runPolicy", "spec.failurePolicy"),
    ),
    "api/status.md": ("status", ("status",)),
}
"""Pages beside the first one: title, and the objects whose fields they have, with all below them.
An object belongs to the page that names most of its path; one that no page names, to the first.
"""
_OPAQUE = "x-kubernetes-preserve-unknown-fields"
Schema = Mapping[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Write the pages; the exit status of the command."""
    texts = documents(yaml.safe_load(CRD.read_text(encoding="utf-8")))
    return max(
        pages.generate(__doc__, ROOT / "docs" / name, lambda text=text: text, arguments)
        for name, text in texts.items()
    )


def documents(crd: Mapping[str, Any]) -> dict[str, str]:
    """The text of each page."""
    version = crd["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    lines = {FIRST: _first(crd)} | {
        name: [f"# API reference: {title}", "", "The whole resource: [api.md](../api.md).", ""]
        for name, (title, _) in PAGES.items()
    }
    for root in ("spec", "status"):
        for path, part in _objects(root, schema["properties"][root]):
            lines[page_of(path)] += _section(path, part)
    return {name: "\n".join(text).rstrip() + "\n" for name, text in lines.items()}


def page_of(path: str) -> str:
    """The page that has the fields of an object."""
    found = [
        (len(begin), name)
        for name, (_, begins) in PAGES.items()
        for begin in begins
        if path == begin or path.startswith((f"{begin}.", f"{begin}[]"))
    ]
    return max(found)[1] if found else FIRST


def _first(crd: Mapping[str, Any]) -> list[str]:
    names, version = crd["spec"]["names"], crd["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    return [
        f"# API reference: {names['kind']}",
        "",
        f"`{crd['spec']['group']}/{version['name']}`, kind `{names['kind']}`, short name "
        f"`{names['shortNames'][0]}`. "
        "These pages are made from `manifests/crd.yaml` by `docs/generate_api.py`; `kubectl "
        "explain` says the same.",
        "",
        schema["description"],
        "",
        "| page | fields |",
        "|---|---|",
        *(
            f"| [{title}]({name}) | {', '.join(f'`{begin}`' for begin in begins)} |"
            for name, (title, begins) in PAGES.items()
        ),
        "",
        *_rules(schema, ""),
        *_columns(version["additionalPrinterColumns"]),
    ]


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
