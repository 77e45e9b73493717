"""A script behind ``sh -c``: the one program that it starts, or torchrun within it made ours.

Read cautiously. What is more than ``cd``, ``export`` and one program stays a script.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from . import torchrun

_SHELL: Final = re.compile(r"(.*/)?(ba|da|a|z|k)?sh")
_OPTIONS: Final = re.compile(r"-[a-z]*c")
_OTHER_OPTIONS: Final = re.compile(r"-[a-z]+|--[a-z]+|-o|pipefail")
_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*"
_ASSIGNMENT: Final = re.compile(rf"({_NAME})=(.*)", re.DOTALL)
_VARIABLE: Final = re.compile(rf"\$(?:{{({_NAME})}}|({_NAME}))")
# What only the shell does with a word: substitution, globs, home directories, comments.
_SHELL_ONLY: Final = re.compile(r"[`*?]|\$[^A-Za-z_{(]|\$\(\(|^~|^#|\{.*,.*\}")
_SEPARATORS: Final = frozenset(("", ";", "&&"))
_CALL: Final = re.compile(
    r"(?<![\w./-])(?:[\w./-]*/)?(?:torchrun|python[\d.]*(?:\s+-u)?\s+-m\s+"
    r"torch\.distributed\.(?:run|launch))(?![\w./-])"
)
_GAP: Final = re.compile(r"(?:[ \t]|\\\n)+")
_WORD: Final = re.compile(r"""(?:"[^"]*"|'[^']*'|\$\([^)]*\)|\$\{[^}]*\}|\\[^\n]|[^\s\\;&|"'])+""")


@dataclass(frozen=True)
class Simple:
    """One program, its variables and its working directory; ``left_out`` are words of no effect."""

    words: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)
    directory: str | None = None
    left_out: tuple[str, ...] = ()


def script_of(words: Sequence[str]) -> str | None:
    """The script that a shell is to run, None where no shell is called with one."""
    if not words or not _SHELL.fullmatch(words[0]):
        return None
    for index, word in enumerate(words[1:], start=1):
        if _OPTIONS.fullmatch(word):
            return words[index + 1] if len(words) == index + 2 else None
        if not _OTHER_OPTIONS.fullmatch(word):
            return None
    return None


def simplify(script: str) -> Simple | None:
    """The one program that a script runs, None when it does more; its words may have variables."""
    commands = _commands(script)
    if not commands:
        return None
    variables: dict[str, str] = {}
    directory: str | None = None
    left_out: list[str] = []
    for command in commands[:-1]:
        first, *rest = command
        if first == "cd" and len(rest) == 1 and rest[0].startswith("/") and "$" not in rest[0]:
            directory = rest[0]
        elif first == "export" and rest and all(_ASSIGNMENT.fullmatch(word) for word in rest):
            variables |= dict(word.split("=", 1) for word in rest)
        elif first in ("set", "echo"):
            left_out.append(" ".join(command))
        else:
            return None
    words = _program(commands[-1], variables)
    if words is None or any("$" in value for value in variables.values()):
        return None
    return Simple(tuple(words), variables, directory, tuple(left_out))


def _commands(script: str) -> list[list[str]] | None:
    """The words of each command of a script, None when there is more than a sequence of them."""
    lines = (line for line in script.splitlines() if not line.lstrip().startswith("#"))
    text = "\n".join(lines).replace("\\\n", " ").strip()
    if "'" in text and "$" in text:
        return None
    lexer = shlex.shlex(text, posix=True, punctuation_chars="();<>|&\n")
    lexer.whitespace, lexer.commenters, lexer.whitespace_split = " \t\r", "", True
    commands: list[list[str]] = [[]]
    try:
        tokens = list(lexer)
    except ValueError:
        return None
    for token in tokens:
        if token and set(token) <= set("();<>|&\n"):
            if token.strip("\n") not in _SEPARATORS:
                return None
            commands.append([])
        elif _SHELL_ONLY.search(token):
            return None
        else:
            commands[-1].append(token)
    return [command for command in commands if command]


def _program(command: Sequence[str], variables: dict[str, str]) -> list[str] | None:
    """The words of a program behind ``exec`` and assignments, which go to the variables."""
    words = list(command)
    while words and (words[0] in ("exec", "env") or _ASSIGNMENT.fullmatch(words[0])):
        word = words.pop(0)
        if match := _ASSIGNMENT.fullmatch(word):
            variables[match[1]] = match[2]
    return words if words and words[0] != "export" else None


def translate(word: str, known: Collection[str]) -> str | None:
    """A word with its variables as Kubernetes writes them, None where it cannot fill them in."""
    if "$" not in word:
        return word
    names = {one or other for one, other in _VARIABLE.findall(word)}
    if "$" in _VARIABLE.sub("", word) or not names <= set(known):
        return None
    return _VARIABLE.sub(lambda match: f"$({match[1] or match[2]})", word)


def calls_torchrun(script: str) -> bool:
    """Whether torchrun is called anywhere in a script."""
    return _CALL.search(script) is not None


def rewrite(script: str, ranks: str) -> tuple[str, dict[str, str]]:
    """The script with each torchrun made to meet the others of this job, and its old options.

    The script runs once on each node then, as the only rank there, and torchrun starts ``ranks``
    unless it says itself how many.
    """
    made, at = "", 0
    found: dict[str, str] = {}
    while match := _CALL.search(script, at):
        options, end = _read_options(script, match.end())
        count = options.get("nproc-per-node") or ranks
        ours = (
            f" --nnodes=$WORLD_SIZE --node-rank=$RANK --nproc-per-node={count}"
            " --master-addr=$MASTER_ADDR --master-port=$MASTER_PORT"
        )
        made += script[at : match.end()] + ours
        found |= options
        at = end
    return made + script[at:], found


def _read_options(script: str, at: int) -> tuple[dict[str, str], int]:
    """The options behind torchrun that say where and how often ranks run, and where they end."""
    options: dict[str, str] = {}
    while gap := _GAP.match(script, at):
        word = _WORD.match(script, gap.end())
        name = torchrun.option_name(word[0]) if word else None
        if word is None or name is None or torchrun.is_kept(name):
            break
        at = word.end()
        if "=" in word[0]:
            options[name] = word[0].partition("=")[2]
        elif torchrun.takes_value(name) and (gap := _GAP.match(script, at)):
            value = _WORD.match(script, gap.end())
            options[name] = value[0] if value else ""
            at = value.end() if value else at
        else:
            options[name] = ""
    return options, at
