"""What the generators of pages share: writing or checking a page, and the tests that a page names
as proofs.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class ProofError(Exception):
    """A page claims what no test proves."""


def generate(
    about: str | None, target: Path, make: Callable[[], str], arguments: list[str] | None
) -> int:
    """Write a page, or with ``--check`` say that it is out of date; the exit status of the
    command.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument(
        "--check", action="store_true", help="write nothing, fail when the page is out of date"
    )
    options = parser.parse_args(arguments)
    text = make()
    if target.exists() and target.read_text(encoding="utf-8") == text:
        return 0
    if options.check:
        print(f"out of date: {target.relative_to(ROOT)}", file=sys.stderr)
        return 1
    target.parent.mkdir(exist_ok=True)
    target.write_text(text, encoding="utf-8")
    return 0


def refuse(source: Path, error: ProofError) -> int:
    """Say what is wrong with a source; the exit status of the command."""
    print(f"{source.relative_to(ROOT)}: {error}", file=sys.stderr)
    return 1


def exists(test: str) -> bool:
    """Whether there is such a test, ``file::name``."""
    file, _, name = test.partition("::")
    return (ROOT / file).is_file() and name in functions(ROOT / file)


@cache
def functions(path: Path) -> frozenset[str]:
    """The tests of a file, without importing it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(
        node.name for node in tree.body if isinstance(node, kinds) and node.name.startswith("test_")
    )


def link(test: str) -> str:
    """A test as a page of ``docs/`` shows it."""
    file, _, name = test.partition("::")
    return f"[{name.removeprefix('test_').replace('_', ' ')}](../{file})"


def flat(text: str) -> str:
    """Text for one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")
