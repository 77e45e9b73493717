"""Makes a site of the pages of ``docs/``, which are written for the place that hosts the
repository.

Three things differ there. Pages link to files outside ``docs/``: some of them are pages of the
site as well (`PAGES`), the others are shown as paths, or as links where the repository's address
is known. A link to a folder shows what is in it: here it leads to the page ``README.md`` of the
folder. And lists and tables may follow a line without an empty one between, and code in tables has
its bars escaped.
"""

from __future__ import annotations

import html
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from markdown_it import MarkdownIt
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = {
    "README.md": "project.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changes.md",
    "charts/inception-operator/README.md": "chart.md",
}
"""Files outside ``docs/`` that are pages, by their path in the repository: their names there."""
_SOURCES: Final = {page: path for path, page in PAGES.items()}
_PARSER: Final = MarkdownIt("commonmark").enable("table")
_LINK: Final = re.compile(
    r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\[\]]*\])*)\]\((?P<to>[^()\s]+)\)"
)
_CODE: Final = re.compile(r"(`+)(?:(?!\1).)+?\1(?!`)")


class LinkError(Exception):
    """A page links to what the repository does not have."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Write the pages of folders where the navigation says ``folder/*``."""
    docs = Path(config.docs_dir)
    named = set(_paths(config.nav or []))
    config.nav = [_expanded(entry, docs, named) for entry in config.nav or []]
    config.edit_uri = "blob/HEAD/docs/" if config.repo_url else None
    return config


def _paths(entry: Any) -> Iterator[str]:
    match entry:
        case str():
            yield entry
        case list():
            for part in entry:
                yield from _paths(part)
        case dict():
            yield from _paths(list(entry.values()))


def _expanded(entry: Any, docs: Path, named: set[str]) -> Any:
    if isinstance(entry, dict):
        return {title: _expanded(part, docs, named) for title, part in entry.items()}
    if not isinstance(entry, list):
        return entry
    pages: list[Any] = []
    for part in entry:
        if isinstance(part, str) and part.endswith("/*"):
            found = (f"{part[:-1]}{page.name}" for page in sorted((docs / part[:-2]).glob("*.md")))
            pages += [page for page in found if page not in named]
        else:
            pages.append(_expanded(part, docs, named))
    return pages


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside of ``docs/``."""
    for path, name in PAGES.items():
        if files.get_file_from_path(name):
            raise LinkError(f"docs/{name} has the name that the site gives {path}: rename one")
        files.append(File.generated(config, name, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Write links and blocks as MkDocs reads them."""
    return for_site(markdown, page.file.src_uri, config.repo_url or "")


def for_site(markdown: str, page: str, repository: str = "") -> str:
    """The text of a page of the site, from the one in the repository."""
    lines = markdown.splitlines()
    starts: set[int] = set()
    kinds: dict[int, str] = {}
    for token in _PARSER.parse(markdown):
        if token.map and token.level == 0 and token.nesting >= 0:
            starts.add(token.map[0])
        if token.map and token.type in ("fence", "code_block", "table_open"):
            kinds |= dict.fromkeys(range(*token.map), token.type)
    base = posixpath.dirname(_SOURCES.get(page, f"docs/{page}"))
    written: list[str] = []
    for number, line in enumerate(lines):
        if number in starts and number and lines[number - 1].strip():
            written.append("")
        kind = kinds.get(number, "")
        if kind not in ("fence", "code_block"):
            line = _linked(line, page, base, repository)
        written.append(_CODE.sub(_with_bars, line) if kind == "table_open" else line)
    return "\n".join(written) + "\n"


def _with_bars(found: re.Match[str]) -> str:
    """Code in a cell of a table: MkDocs shows the backslash of ``\\|``, too."""
    if "\\|" not in found[0]:
        return found[0]
    text = html.escape(found[0].strip("`"), quote=False)
    return f"<code>{text.replace(chr(92) + '|', '&#124;')}</code>"


def _linked(line: str, page: str, base: str, repository: str) -> str:
    quoted = [found.span() for found in _CODE.finditer(line)]

    def target(found: re.Match[str]) -> str:
        if any(start <= found.start() and found.end() <= end for start, end in quoted):
            return found[0]
        return _link(found, page, base, repository)

    return _LINK.sub(target, line)


def _link(found: re.Match[str], page: str, base: str, repository: str) -> str:
    path, mark, anchor = found["to"].partition("#")
    if not path or re.match(r"[a-z]+:", path):
        return found[0]
    path = posixpath.normpath(posixpath.join(base, path))
    if not (ROOT / path).exists():
        raise LinkError(f"{page} links to {path}, which the repository does not have")
    inside = _page(path)
    if inside:
        to = posixpath.relpath(inside, posixpath.dirname(page) or ".")
        return f"{found['image']}[{found['text']}]({to}{mark}{anchor})"
    if repository:
        kind = "tree" if (ROOT / path).is_dir() else "blob"
        to = f"{repository.rstrip('/')}/{kind}/HEAD/{path}{mark}{anchor}"
        return f"[{found['text']}]({to})"
    text = found["text"]
    return f"`{path}`" if path.endswith(text.strip("`")) else f"{text} (`{path}`)"


def _page(path: str) -> str:
    """The file of the site that a file or folder of the repository is; empty for none."""
    if path in PAGES:
        return PAGES[path]
    if (ROOT / path).is_dir():
        path = f"{path}/README.md"
    if (
        path.startswith("docs/")
        and path.endswith((".md", ".svg", ".png"))
        and (ROOT / path).exists()
    ):
        return path.removeprefix("docs/")
    return ""
