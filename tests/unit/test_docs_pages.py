"""The pages of the documents are short, and are a site that says what the files say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

from docs_commands import ROOT
from docs_site import hooks
from inception_operator.contract.names import Cause, Reason

# The site is built once, which takes half a minute where nothing else runs.
pytestmark = pytest.mark.timeout(900)

CONFIG = ROOT / "tools" / "docs_site" / "mkdocs.yml"
DOCS = sorted((ROOT / "docs").rglob("*.md"))
# A quarter of an hour at 220 words a minute, which is what people read of prose.
MOST_WORDS = 15 * 220
PARSER = MarkdownIt("commonmark").enable("table")


def words(text: str) -> int:
    """What is read of a page: text, cells of tables and what stands in blocks."""
    parts = [token.content for token in PARSER.parse(text) if token.type in ("inline", "fence")]
    # Addresses of links are not read.
    return sum(len(re.sub(r"\]\([^)]*\)", "]", part).split()) for part in parts)


@pytest.mark.parametrize("page", DOCS, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_takes_more_than_a_quarter_of_an_hour(page: Path) -> None:
    assert words(page.read_text(encoding="utf-8")) <= MOST_WORDS, "divide it by subject"


def test_words_of_tables_and_blocks_count_and_addresses_do_not() -> None:
    text = "A [link](../x.md#there).\n\n| a | b |\n|---|---|\n| c | d e |\n\n```bash\nf g\n```\n"
    assert words(text) == 2 + 5 + 2


@pytest.mark.parametrize("kind", [Cause, Reason], ids=lambda kind: str(kind.__name__))
def test_what_ends_or_holds_up_a_job_is_found_in_troubleshooting(kind: type) -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    said = {value for name, value in vars(kind).items() if name.isupper()}
    if kind is Reason:
        said &= TROUBLE
        assert said == TROUBLE
    assert [word for word in sorted(said) if f"`{word}`" not in page] == []


# The other reasons say that all is well, or only what somebody asked for.
TROUBLE = {
    *("InvalidSpec", "PodPolicyViolation", "InternalError", "WaitingForPods", "BackOff"),
    *("Unschedulable", "ImagePullFailed", "ContainerConfigError", "PodStartFailed"),
    *("PodCreationRejected", "PermanentFailure", "FailurePolicy", "OutOfMemory", "NonFinite"),
    *("ContractMismatch", "MaxRestartsExceeded", "DeadlineExceeded"),
    "PreRunningDeadlineExceeded",
}


def build(folder: Path, *more: str, **environment: str) -> str:
    """Build the site as ``make site`` does, and what the builder says."""
    done = subprocess.run(
        [*(sys.executable, "-m", "mkdocs", "build", "--strict"), f"--site-dir={folder}", *more],
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "site"
    build(folder, f"--config-file={CONFIG}")
    return folder


class Untagged(yaml.SafeLoader):
    """Reads the builder's configuration without what its tags make."""


Untagged.add_multi_constructor("", lambda loader, suffix, node: None)

VOID = {"area", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}


@dataclass
class Reader(HTMLParser):
    """Takes the text of the article out of a page, and the addresses that a browser loads."""

    text: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    _depth: int = 0
    _skipped: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        address = values.get("src") or (values.get("href") if tag == "link" else None)
        if address and values.get("rel") != "canonical":
            self.loaded.append(address)
        if tag in VOID:
            return
        classes = (values.get("class") or "").split()
        if self._depth or "md-content__inner" in classes:
            self._depth += 1
            # Of the theme: the mark behind a heading, the pencil, the numbers of lines.
            if self._skipped or {"headerlink", "md-content__button"} & set(classes):
                self._skipped += 1

    def handle_endtag(self, tag: str) -> None:
        if self._depth and tag not in VOID:
            self._depth -= 1
            self._skipped = max(0, self._skipped - 1)

    def handle_data(self, data: str) -> None:
        if self._depth and not self._skipped:
            self.text.append(data)


@cache
def read(page: Path) -> Reader:
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    return reader


def squeezed(text: str) -> str:
    return "".join(text.split())


def test_every_page_of_the_site_says_what_its_file_says(site: Path) -> None:
    sources = {str(page.relative_to(ROOT / "docs")): page for page in DOCS}
    sources |= {name: ROOT / path for path, name in hooks.PAGES.items()}
    for name, source in sources.items():
        page = site / name.replace("README.md", "index.md").replace(".md", ".html")
        expected = Reader()
        shown = hooks.for_site(source.read_text(encoding="utf-8"), name)
        expected.feed(f'<div class="md-content__inner">{PARSER.render(shown)}</div>')
        assert squeezed("".join(read(page).text)) == squeezed("".join(expected.text)), name


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert [a for a in read(page).loaded if re.match(r"([a-z]+:)?//", a)] == [], page.name
    for style in site.rglob("*.css"):
        assert re.findall(r"url\([\"']?(?:https?:)?//", style.read_text(encoding="utf-8")) == []


def test_blocks_and_cells_are_written_as_the_builder_reads_them() -> None:
    assert hooks.for_site("a\n- b\n- c\n", "install.md") == "a\n\n- b\n- c\n"
    table = "| a |\n|---|\n| `b\\|<c>` |\n"
    shown = "| a |\n|---|\n| <code>b&#124;&lt;c&gt;</code> |\n"
    assert hooks.for_site(table, "install.md") == shown


def test_files_of_the_repository_are_links_only_where_its_address_is_said() -> None:
    line = (
        "[The operator](../operator/inception_operator), [all](../README.md#status), [x](api.md)."
    )
    (plain,) = hooks.for_site(line, "install.md").splitlines()
    rest = "[all](project.md#status), [x](api.md)."
    assert plain == f"The operator (`operator/inception_operator`), {rest}"
    (linked,) = hooks.for_site(line, "install.md", "https://example.com/o/r/").splitlines()
    there = "https://example.com/o/r/tree/HEAD/operator/inception_operator"
    assert linked == f"[The operator]({there}), {rest}"


def test_a_link_to_nothing_and_code_that_looks_like_a_link() -> None:
    with pytest.raises(hooks.LinkError, match=r"install.md links to docs/none.md"):
        hooks.for_site("[x](none.md)", "install.md")
    assert hooks.for_site("`[x](none.md)`", "install.md") == "`[x](none.md)`\n"
    block = "```text\n[x](none.md)\n- y\n```\n"
    assert hooks.for_site(block, "install.md") == block


@pytest.mark.parametrize(
    ("text", "nav", "words"),
    [
        ("# A\n", ["a.md"], "b.md"),
        ("# A\n", ["a.md", "b.md", "c.md"], "c.md"),
        ("# A\n[c](c.md)\n", ["a.md", "b.md"], "c.md"),
        ("# A\n[b](b.md#c)\n", ["a.md", "b.md"], "b.md#c"),
    ],
    ids=["no place in the navigation", "a place without a page", "a link", "an anchor"],
)
def test_a_broken_site_is_not_built(tmp_path: Path, text: str, nav: list[str], words: str) -> None:
    real = Untagged(CONFIG.read_text(encoding="utf-8")).get_single_data()
    config = {"site_name": "x", "plugins": [], "nav": nav, "validation": real["validation"]}
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text(text, encoding="utf-8")
    (tmp_path / "docs" / "b.md").write_text("# B\n", encoding="utf-8")
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with pytest.raises(AssertionError, match=words):
        build(tmp_path / "site", f"--config-file={tmp_path / 'mkdocs.yml'}")
