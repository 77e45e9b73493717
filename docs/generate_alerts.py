"""Writes the table of docs/alerts.md from the rules for Prometheus.

With ``--check`` it only says that the table is out of date. An alert without a page in
docs/runbooks is refused.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import yaml

from docs import pages
from docs.pages import ROOT, ProofError

RULES = ROOT / "monitoring" / "rules"
TARGET = ROOT / "docs" / "alerts.md"
RUNBOOKS = ROOT / "docs" / "runbooks"
START, END = "<!-- alerts: made by docs/generate_alerts.py -->", "<!-- end of alerts -->"


def main(arguments: list[str] | None = None) -> int:
    """Write the page; the exit status of the command."""
    try:
        return pages.generate(__doc__, TARGET, page, arguments)
    except ProofError as error:
        return pages.refuse(RULES, error)


def page() -> str:
    """The page with its table made anew."""
    return document(TARGET.read_text(encoding="utf-8"), list(alerts()))


def alerts() -> Iterator[dict[str, Any]]:
    """The alerts of all files, in their order."""
    # Alphabetically the devices would come first.
    for name in ("jobs", "accelerators", "operator"):
        groups = yaml.safe_load((RULES / f"{name}.yaml").read_text(encoding="utf-8"))["groups"]
        yield from (rule for group in groups for rule in group["rules"] if "alert" in rule)


def document(text: str, rules: list[dict[str, Any]]) -> str:
    """A page with the table of these alerts; raises ProofError where one has no runbook."""
    head, start, rest = text.partition(START)
    _, end, tail = rest.partition(END)
    if not start or not end:
        raise ProofError(f"{TARGET.relative_to(ROOT)} must hold the lines {START} and {END}")
    rows = "".join(_row(rule) for rule in rules)
    table = f"| alert | severity | it says | after |\n|---|---|---|---|\n{rows}"
    return f"{head}{start}\n\n{table}\n{end}{tail}"


def _row(rule: dict[str, Any]) -> str:
    name = rule["alert"]
    if not (RUNBOOKS / f"{name}.md").is_file():
        raise ProofError(f"{name} has no page in {RUNBOOKS.relative_to(ROOT)}")
    summary = pages.flat(rule["annotations"]["summary"])
    severity, wait = rule["labels"]["severity"], rule.get("for", "at once")
    return f"| [{name}](runbooks/{name}.md) | {severity} | {summary} | {wait} |\n"


if __name__ == "__main__":
    sys.exit(main())
