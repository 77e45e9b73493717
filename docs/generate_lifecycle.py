"""Writes docs/lifecycle.md and docs/lifecycle-proofs.md from docs/lifecycle.yaml, or says with
``--check`` that one is out of date.

Every row names the tests that prove it; a test that does not exist is an error, and so is a row
that neither has tests nor says what is missing.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from docs import pages
from docs.pages import ROOT, ProofError, flat

SOURCE = ROOT / "docs" / "lifecycle.yaml"
TARGET = ROOT / "docs" / "lifecycle.md"
PROOFS = ROOT / "docs" / "lifecycle-proofs.md"
KEYS = {"number", "failure", "action", "tests"}
Row = Mapping[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Write the page; the exit status of the command."""
    try:
        source = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))
        check(source["rows"])
    except ProofError as error:
        return pages.refuse(SOURCE, error)
    return max(
        pages.generate(__doc__, TARGET, lambda: document(source), arguments),
        pages.generate(__doc__, PROOFS, lambda: proofs(source["rows"]), arguments),
    )


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
    """The page of what goes wrong and what is done."""
    lines = [
        "# What goes wrong, and what the operator does",
        "",
        "This page is made from `docs/lifecycle.yaml` by `docs/generate_lifecycle.py`, which "
        "refuses a row whose tests do not exist. Conditions, reasons and deadlines are described "
        "in [life-cycle.md](architecture/life-cycle.md); the tests are listed in "
        "[lifecycle-proofs.md](lifecycle-proofs.md).",
        "",
        source["introduction"].strip(),
        "",
        "| # | What goes wrong | What the operator does | Proved by |",
        "|---|---|---|---|",
        *(_line(row) for row in source["rows"]),
    ]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    number, tests = row["number"], len(row["tests"])
    count = f"{tests} test{'s' if tests > 1 else ''}"
    proof = f"[{count}](lifecycle-proofs.md#row-{number})" if tests else ""
    missing = f"**not yet:** {flat(row['missing'])}" if row.get("missing") else ""
    cells = (flat(row["failure"]), flat(row["action"]), "<br>".join(filter(None, (proof, missing))))
    return f"| {number} | {' | '.join(cells)} |"


def proofs(rows: Sequence[Row]) -> str:
    """The page of the tests."""
    lines = [
        "# The tests that prove what the operator does",
        "",
        "For each row of [lifecycle.md](lifecycle.md). This page is made from "
        "`docs/lifecycle.yaml` by `docs/generate_lifecycle.py`.",
    ]
    for row in rows:
        tests = [f"- {pages.link(test)}" for test in row["tests"]]
        if tests:
            lines += ["", f"## Row {row['number']}", flat(row["failure"]), "", *tests]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
