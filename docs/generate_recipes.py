"""Writes docs/recipes.md from docs/recipes.yaml, or says with ``--check`` that it is out of date.

Every row names the tests that do it on small data; a test or a sample that does not exist is an
error. That the trainer takes the commands is what tests/trainer/test_recipe_rows.py proves, by
running them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import yaml

from docs import pages
from docs.pages import ROOT, ProofError, flat

SOURCE = ROOT / "docs" / "recipes.yaml"
TARGET = ROOT / "docs" / "recipes.md"
SAMPLES = ROOT / "manifests" / "samples"
RUNNER = "tests/trainer/test_recipe_rows.py::test_commands_run_on_small_data"
KEYS = {"row", "there", "here", "tests"}
OPTIONAL = {"command", "samples", "missing"}
INTRODUCTION = """\
What the users of four model-zoo systems can do there, and how it is done here. The commands need
no Kubernetes; the samples (`kubectl apply -f manifests/samples/<sample>.yaml`) do the same as jobs
of a cluster. Every command is run on small data by a test, beside the tests that the row names.
Nothing on this page was measured on the vendors' hardware; what was measured is in [benchmarks.md](benchmarks.md)."""
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
    for system in source["systems"]:
        for row in system["rows"]:
            check(row)
    return document(source)


def check(row: Row) -> None:
    """Raise ProofError for a row that is malformed or names what does not exist."""
    name = row.get("row")
    if row.keys() - KEYS - OPTIONAL or KEYS - row.keys():
        raise ProofError(
            f"row {name} needs {', '.join(sorted(KEYS))} and may have {', '.join(sorted(OPTIONAL))}"
        )
    if not proofs(row):
        raise ProofError(f"row {name} names no test")
    for test in proofs(row):
        if not pages.exists(test):
            raise ProofError(f"row {name} names {test}, which does not exist")
    for sample in row.get("samples", ()):
        if not (SAMPLES / f"{sample}.yaml").is_file():
            raise ProofError(f"row {name} names the sample {sample}, which does not exist")


def proofs(row: Row) -> list[str]:
    """Tests of a row: its own, and the one that runs its command."""
    return [*row["tests"], *([RUNNER] if "command" in row else [])]


def document(source: Mapping[str, Any]) -> str:
    """The whole page."""
    lines = [
        "# The four systems, row by row",
        "",
        "This page is made from `docs/recipes.yaml` by `docs/generate_recipes.py`, which refuses "
        "rows whose tests or "
        "samples do not exist. What is not offered is said in bold.",
        "",
        INTRODUCTION,
    ]
    for system in source["systems"]:
        lines += ["", f"## {system['title']}", flat(system["about"]), ""]
        lines += ["| | there | here | samples | proved by |", "|---|---|---|---|---|"]
        lines += [_line(row) for row in system["rows"]]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    here = flat(row["here"])
    if "command" in row:
        here += f"<br>`{flat(row['command'])}`"
    if "missing" in row:
        here += f"<br>**Not offered:** {flat(row['missing'])}"
    samples = "<br>".join(
        f"[{name}](../manifests/samples/{name}.yaml)" for name in row.get("samples", ())
    )
    return (
        f"| {row['row']} | {flat(row['there'])} | {here} | {samples} | "
        f"{'<br>'.join(map(pages.link, proofs(row)))} |"
    )


if __name__ == "__main__":
    sys.exit(main())
