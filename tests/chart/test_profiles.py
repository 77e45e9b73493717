"""The table of accelerators as data: valid rows, anchored patterns, no name that means two
things.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DIRECTORY = ROOT / "operator" / "inception_operator" / "accelerators" / "profiles"
SCHEMA: dict[str, Any] = json.loads((DIRECTORY / "schema.json").read_text(encoding="utf-8"))
ROWS: dict[str, dict[str, Any]] = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted(DIRECTORY.glob("*.yaml"))
}


def counts(row: dict[str, Any], resource: str) -> bool:
    """What the table says, read anew: whole names, then the ignored ones, then patterns."""
    if resource == row["resource"] or resource in row.get("exact", ()):
        return True
    if resource in row.get("ignore", ()):
        return False
    return any(re.fullmatch(pattern, resource) for pattern in row.get("patterns", ()))


# What every row of ours says, so that people find the same in each; rows of others may leave it
# out.
WHOLE = {"name", "resource", "unit", "torch", "visible", "precision", "exporter", "verified"}


@pytest.mark.parametrize("name", ROWS)
def test_rows_are_whole(name: str) -> None:
    assert ROWS[name].keys() >= (WHOLE if name != "cpu" else WHOLE - {"unit"})
    assert "module" in ROWS[name]["torch"]


@pytest.mark.parametrize("name", ROWS)
def test_rows_fit_the_schema_and_their_file(name: str) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(ROWS[name])
    assert ROWS[name]["name"] == name


def test_the_schema_itself_is_valid_and_closed() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["additionalProperties"] is False
    with pytest.raises(jsonschema.ValidationError, match="unexpected"):
        jsonschema.Draft202012Validator(SCHEMA).validate({**ROWS["cpu"], "colour": []})


@pytest.mark.parametrize("name", ROWS)
def test_patterns_are_anchored_and_compile(name: str) -> None:
    for pattern in ROWS[name].get("patterns", ()):
        assert pattern.startswith("^")
        assert pattern.endswith("$")
        re.compile(pattern)


def test_no_name_is_claimed_twice() -> None:
    rows = ROWS.values()
    names = [
        n
        for row in rows
        for n in (row["resource"], *row.get("exact", ()), *row.get("ignore", ()))
        if n
    ]
    assert len(names) == len(set(names))
    for row in ROWS.values():
        for name in names:
            if counts(row, name):
                assert name in (row["resource"], *row.get("exact", ()))
