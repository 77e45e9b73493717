"""The commands that the documents show: found in their text, and understood by the programs."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import dropwhile
from pathlib import Path
from typing import Any, Final

import click
from markdown_it import MarkdownIt
from markdown_it.token import Token

import localcluster.cli
from inception_operator.plugin.cli import root as plugin
from inception_trainer import cli as trainer
from inception_trainer.config import sources
from inception_trainer.config import training as schema

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    ROOT / "charts" / "inception-operator" / "README.md",
    # Decisions and the change log tell of the past.
    *sorted(p for p in (ROOT / "docs").rglob("*.md") if p.parent.name != "decisions"),
)
SHELL: Final = ("bash", "sh", "shell")
CONSOLE: Final = "console"
"""Blocks of commands behind ``$ ``, each with what it prints."""
OTHER: Final = ("dockerfile", "json", "promql", "python", "text", "yaml")
_PROGRAMS: Final = re.compile(
    r"(?:[A-Z_]+=\S+ )*(?P<program>cosign|docker|gh|helm|inception-\w+|inceptionctl|kubectl|make|"
    r"pipx?|pytest|python3?|source|torchrun) (?P<rest>[^=].*)"
)
# One word behind these is the name of a subject, as in "`helm upgrade` also upgrades …".
_SUBJECTS: Final = ("helm ", "kubectl ")
_COMMENT: Final = re.compile(r"(?:^|\s+)#\s.*$")


@dataclass(frozen=True)
class Command:
    """One command of a document."""

    page: str
    line: int
    text: str
    in_block: bool
    output: tuple[str, ...] = ()
    """What the document shows of what it prints."""

    @property
    def place(self) -> str:
        """Where it stands."""
        return f"{self.page}:{self.line}"


def commands() -> list[Command]:
    """Every command of every page: those in blocks, and complete ones within the text."""
    return [command for page in PAGES for command in of_page(page, str(page.relative_to(ROOT)))]


def unlabelled(page: Path) -> list[int]:
    """Lines of the blocks that do not say what they hold."""
    known = (*SHELL, CONSOLE, *OTHER)
    return [
        _line(token)
        for token in _tokens(page)
        if token.type == "code_block" or (token.type == "fence" and token.info not in known)
    ]


@cache
def _tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


def _line(token: Token) -> int:
    return token.map[0] + 1 if token.map else 0


def of_page(page: Path, name: str) -> Iterator[Command]:
    """Every command of one page."""
    for token in _tokens(page):
        if token.type == "fence" and token.info in SHELL:
            for text in _joined(token.content):
                yield Command(name, _line(token), text, in_block=True)
        elif token.type == "fence" and token.info == CONSOLE:
            for text, output in _session(token.content):
                yield Command(name, _line(token), text, in_block=True, output=output)
        for part in token.children or ():
            if part.type == "code_inline" and _is_command(part.content):
                yield Command(name, _line(token), _plain(part.content), in_block=False)


def _joined(block: str) -> Iterator[str]:
    """The commands of a block, each on one line and without its comment."""
    for line in re.sub(r"\\\n", " ", block).splitlines():
        if text := _plain(line):
            yield text


def _plain(line: str) -> str:
    return " ".join(_COMMENT.sub("", line).split())


def _session(block: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        text, *output = part.splitlines()
        yield _plain(text), tuple(output)


def _is_command(text: str) -> bool:
    found = _PROGRAMS.fullmatch(_plain(text))
    if found is None:
        return False
    subject = text.startswith(_SUBJECTS) and len(found["rest"].split()) == 1
    return not subject and not text.startswith("inception-operator-")


class NotUnderstoodError(Exception):
    """A program does not know what a document lets its reader type."""


def understand(text: str) -> bool:
    """Whether it is a command of this project's own programs, which take it; NotUnderstoodError
    where one of them refuses.
    """
    return any(_understand(words) for words in _simple(text))


def _understand(words: list[str]) -> bool:
    match words:
        case ["make", *rest]:
            _make([word for word in rest if "=" not in word])
        case ["kubectl", "inception", *rest] | ["inceptionctl", *rest]:
            _plugin(rest)
        case ["inception-trainer", *rest] | [
            "python" | "python3",
            "-m",
            "inception_trainer",
            *rest,
        ]:
            _trainer(rest)
        case ["torchrun", *rest] if "inception_trainer" in rest:
            _trainer(rest[rest.index("inception_trainer") + 1 :])
        case ["python", "-m", "localcluster", *rest]:
            _argparse(localcluster.cli.parser(), rest)
        case _:
            return False
    return True


def _simple(text: str) -> Iterator[list[str]]:
    """The words of each simple command of a line, without variables and redirections."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=";|&>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set(";|&>"):
            yield list(dropwhile(lambda word: "=" in word, words))
            words = []
        else:
            words.append(word)


def _make(targets: list[str]) -> None:
    known = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    if unknown := set(targets) - set(known):
        raise NotUnderstoodError(f"the Makefile has no {', '.join(sorted(unknown))}")


def _plugin(words: list[str]) -> None:
    group: click.Command = plugin
    context = click.Context(group, info_name="inceptionctl")
    try:
        while isinstance(group, click.Group):
            name, found, words = group.resolve_command(context, words)
            assert found is not None
            group, context = found, click.Context(found, parent=context, info_name=name)
        # A folder that an option names need not be here.
        group.make_parser(context).parse_args([word for word in words if word != "…"])
    except click.ClickException as error:
        raise NotUnderstoodError(error.format_message()) from error


def _trainer(words: list[str]) -> None:
    if words == ["explain", "KEY"]:
        return
    options = _argparse(trainer._parser(), words)
    job: dict[str, Any] = {}
    for override in getattr(options, "set", []):
        sources.override(job, override.replace("<device>", "cpu"))
    if job and getattr(options, "config", None) is None:
        mode = "Train" if options.command == "data" else options.command.capitalize()
        try:
            schema.from_mapping({**job, "mode": mode}, "/data/imagenet")
        except Exception as error:
            raise NotUnderstoodError(str(error)) from error


def _argparse(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    try:
        return parser.parse_args(words)
    except (SystemExit, Exception) as error:
        raise NotUnderstoodError(str(error)) from error
