"""JSON schemas of the Kubernetes types that values of the chart have, with every key known.

They come from the package kubernetes-validate, in the newest version of Kubernetes that it knows,
so that a misspelt key of an affinity or a security context is an error before anything is
installed. Whether an older cluster knows a newer key is up to its API server.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

import kubernetes_validate

Schema = dict[str, Any]
PREFIX = "Kubernetes"
_PREFIXES = ("io.k8s.api.core.v1.", "io.k8s.api.networking.v1.", "io.k8s.apimachinery.pkg.")
_REFERENCE = re.compile(r'"#/\$defs/(io\.k8s\.[\w.]+)"')
# Texts, and what only code generators read.
_LEFT_OUT = ("description", "format", "default")


def definitions(names: Iterable[str]) -> dict[str, Schema]:
    """The schemas of the types and of all types in them, by name: ``KubernetesToleration``."""
    known = _newest()
    found: dict[str, Schema] = {}
    wanted = [_full_name(name.removeprefix(PREFIX), known) for name in names]
    while wanted:
        full = wanted.pop()
        if _short_name(full) not in found:
            found[_short_name(full)] = _plain(known[full])
            wanted += _REFERENCE.findall(json.dumps(known[full]))
    return dict(sorted(found.items()))


def _newest() -> dict[str, Schema]:
    version = kubernetes_validate.latest_version()
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}-local-strict"
    schemas: dict[str, Schema] = json.loads((folder / "_definitions.json").read_text("utf-8"))
    return schemas["$defs"]


def _full_name(name: str, known: dict[str, Schema]) -> str:
    (full,) = (prefix + name for prefix in _PREFIXES if prefix + name in known)
    return full


def _short_name(full: str) -> str:
    return PREFIX + full.rsplit(".", 1)[1]


def _plain(node: Any) -> Any:
    """A schema without texts and with short names; a key that only is called like one stays."""
    if isinstance(node, list):
        return [_plain(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    plain: Schema = {}
    for key, value in node.items():
        if key == "properties":
            plain[key] = {name: _plain(child) for name, child in value.items()}
        elif key == "$ref":
            plain[key] = f"#/$defs/{_short_name(value)}"
        elif key not in _LEFT_OUT and not key.startswith("x-kubernetes"):
            plain[key] = _plain(value)
    return plain
