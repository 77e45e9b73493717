"""Writes docs/lifecycle.md from docs/lifecycle.yaml, or says with ``--check`` that it is out of
date.

Every row names the tests that prove it; a test that does not exist is an error, and so is a row
that neither has tests nor says what is missing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from docs import pages
from docs.pages import ROOT, ProofError, flat

SOURCE = ROOT / "docs" / "lifecycle.yaml"
TARGET = ROOT / "docs" / "lifecycle.md"
KEYS = {"number", "failure", "action", "tests"}
Row = Mapping[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Write the page; the exit status of the command."""
    try:
        return pages.generate(__doc__, TARGET, page, arguments)
    except ProofError as error:
        return pages.refuse(SOURCE, error)


def page() -> str:
    """The page, made of rows that are proven."""
    source = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))
    check(source["rows"])
    return document(source)


def check(rows: Sequence[Row]) -> None:
    """Raise ProofError for the first row that is malformed or unproven."""
    for number, row in enumerate(rows, start=1):
        if row.get("number") != number:
            raise ProofError(f"row {row.get('number')} stands where {number} is expected")
        unknown = row.keys() - KEYS - {"missing"}
        if unknown or KEYS - row.keys():
            raise ProofError(
                f"row {number} needs the keys {', '.join(sorted(KEYS))} and may have missing"
            )
        if not row["tests"] and not row.get("missing"):
            raise ProofError(f"row {number} has neither tests nor missing")
        for test in row["tests"]:
            _check_test(number, test)


def _check_test(number: int, test: str) -> None:
    file, _, name = test.partition("::")
    path = ROOT / file
    if not path.is_file():
        raise ProofError(f"row {number} names {file}, which does not exist")
    if name not in pages.functions(path):
        raise ProofError(f"row {number} names {test}, but the file has no such test")


def document(source: Mapping[str, Any]) -> str:
    """The whole page."""
    lines = [
        "# What goes wrong, what the operator does, and the tests that prove it",
        "",
        "This page is made from `docs/lifecycle.yaml` by `docs/generate_lifecycle.py`, which "
        "refuses a row whose tests "
        "do not exist. Conditions, reasons and deadlines are described in "
        "[life-cycle.md](architecture/life-cycle.md).",
        "",
        source["introduction"].strip(),
        "",
        "| # | What goes wrong | What the operator does | Proved by |",
        "|---|---|---|---|",
        *(_line(row) for row in source["rows"]),
    ]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    proof = "<br>".join(_proofs(row))
    return f"| {row['number']} | {flat(row['failure'])} | {flat(row['action'])} | {proof} |"


def _proofs(row: Row) -> Iterator[str]:
    for test in row["tests"]:
        yield pages.link(test)
    if row.get("missing"):
        yield f"**not yet:** {flat(row['missing'])}"


if __name__ == "__main__":
    sys.exit(main())
