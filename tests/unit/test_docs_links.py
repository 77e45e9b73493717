"""Every link of the documents to a file of this repository leads somewhere, headings included."""

from __future__ import annotations

import itertools
import re
from functools import cache
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from docs_commands import ROOT

PAGES = sorted(
    {*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "charts").rglob("*.md")}
)


@cache
def tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


@cache
def anchors(page: Path) -> set[str]:
    """The names of the headings, as the places that host repositories make them."""
    found: set[str] = set()
    parts = tokens(page)
    for heading, inline in itertools.pairwise(parts):
        if heading.type == "heading_open":
            text = "".join(child.content for child in inline.children or ())
            found.add(re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-"))
    return found


def links(page: Path) -> list[str]:
    children = [child for token in tokens(page) for child in token.children or ()]
    hrefs = [str(child.attrs.get("href") or child.attrs.get("src") or "") for child in children]
    return [href for href in hrefs if href and not re.match(r"[a-z]+:", href)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for href in links(page):
        path, _, anchor = href.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), href
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), href
