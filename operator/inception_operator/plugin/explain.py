"""``explain``: what a field of the spec means, as the cluster's own definition says it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Final

import click

from inception_operator.client.cluster import Cluster
from inception_operator.client.errors import ClientError, did_you_mean
from inception_operator.client.figures import part
from inception_operator.client.text import clean, clean_line
from inception_operator.contract import names
from inception_operator.contract.types import Json

from .options import cluster_options
from .terminal import say

_WIDTH: Final = 96
_LIMITS: Final = (
    ("enum", "one of"),
    ("default", "default"),
    ("minimum", "at least"),
    ("maximum", "at most"),
    ("minLength", "at least characters"),
    ("maxLength", "at most characters"),
    ("maxItems", "at most items"),
    ("pattern", "pattern"),
)


@click.command("explain")
@cluster_options
@click.argument("path", required=False, default="", metavar="[FIELD]")
def explain(cluster: Cluster, path: str) -> None:
    """Explain a field of a job.

    A key of spec.training, or another one with its whole path.

    \b
    explain checkpoint
    explain optimizer.momentum
    """
    document = cluster.request("GET", f"/openapi/v3/apis/{names.API_VERSION}")
    say(page(schema_of(document), path))


def schema_of(document: Json) -> Json:
    """The schema of the kind, in the API server's description of the group."""
    schemas = part(document, "components", "schemas") or {}
    for schema in schemas.values():
        for kind in schema.get("x-kubernetes-group-version-kind") or []:
            if kind.get("kind") == names.KIND:
                return dict(schema)
    raise ClientError(f"the API server does not describe {names.KIND}")


def page(schema: Json, path: str) -> str:
    """What is said of the field at this path."""
    keys = [key for key in path.split(".") if key]
    for prefix in ((), ("spec",), ("spec", "training")):
        found = _at(schema, [*prefix, *keys])
        if found is not None:
            return "\n".join(_lines(".".join([*prefix, *keys]) or names.KIND, found))
    raise ClientError(
        f"there is no field {clean_line(path)}",
        did_you_mean(path, _paths(schema)) or "Without a field, all of the first level are shown.",
    )


def _at(schema: Json, keys: list[str]) -> Json | None:
    found: Json | None = schema
    for key in keys:
        found = _properties(found or {}).get(key)
        if found is None:
            return None
    return found


def _properties(schema: Json) -> dict[str, Json]:
    """The fields below one; of a list those of its items."""
    inner = schema.get("items") if schema.get("type") == "array" else schema
    return dict((inner or {}).get("properties") or {})


def _paths(schema: Json, depth: int = 4) -> Iterator[str]:
    """All paths, and those below spec and spec.training without that in front."""
    for key, below in _properties(schema).items():
        yield key
        if depth > 1:
            for path in _paths(below, depth - 1):
                yield f"{key}.{path}"
                if key in ("spec", "training"):
                    yield path


def _lines(path: str, schema: Json) -> Iterator[str]:
    yield f"{clean(path)} <{_type(schema)}>"
    yield from _wrapped(schema, "  ")
    for key, words in _LIMITS:
        if key in schema:
            limit = schema[key]
            shown = ", ".join(map(str, limit)) if isinstance(limit, list) else limit
            yield f"  {words}: {clean_line(shown)}"
    below = _properties(schema)
    if below:
        yield ""
    for key, field in below.items():
        yield f"  {clean(key)} <{_type(field)}>"
        yield from _wrapped(field, "      ")


def _wrapped(schema: Json, indent: str) -> list[str]:
    text = clean_line(schema.get("description") or "")
    return textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent)


def _type(schema: Json) -> str:
    kind = schema.get("type") or ("integer or string" if "anyOf" in schema else "object")
    if kind == "array":
        return f"list of {(schema.get('items') or {}).get('type', 'object')}"
    return str(kind)
