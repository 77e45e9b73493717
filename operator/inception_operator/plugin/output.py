"""``-o``: objects as JSON, YAML or names, or as a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from inception_operator.client.figures import name_of
from inception_operator.contract import names
from inception_operator.contract.types import Json

FORMATS: Final = ("json", "yaml", "name", "wide")


def objects(found: Sequence[Json], form: str, *, as_list: bool) -> str:
    """The objects in one of the formats json, yaml and name."""
    if form == "name":
        return "\n".join(f"{names.PLURAL[:-1]}.{names.GROUP}/{name_of(each)}" for each in found)
    if as_list:
        return document({"apiVersion": "v1", "kind": "List", "items": list(found)}, form)
    return document(found[0], form)


def document(value: Any, form: str) -> str:
    """The value in JSON or YAML. All but ASCII is escaped, so that a terminal obeys nothing."""
    plain = without_managed_fields(value)
    if form == "json":
        return json.dumps(plain, indent=2)
    # Tenths of a second: the other formats need none of it.
    import yaml

    text: str = yaml.safe_dump(plain, sort_keys=False, width=100)
    return text.rstrip("\n")


def without_managed_fields(value: Any) -> Any:
    """The value without what only server-side apply reads; kubectl leaves it out, too."""
    if isinstance(value, dict):
        return {
            key: without_managed_fields(inner)
            for key, inner in value.items()
            if key != "managedFields"
        }
    if isinstance(value, list):
        return [without_managed_fields(inner) for inner in value]
    return value
