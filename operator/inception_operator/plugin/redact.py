"""Takes secrets out of what is given to others: resources, logs, messages. Pure.

What is taken out: values of environment variables, values under names such as password or token,
credentials in URLs and headers, private keys, and tokens known by their shape. Too much rather than
too little: a figure that is missing can be asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from inception_operator.contract.types import Json

REMOVED: Final = "(removed)"
_WORDS: Final = (
    r"(?:pass(?:word|wd|phrase)?|pwd|secret|token|credential|api[-_.]?key|access[-_.]?key|"
    r"private[-_.]?key|auth|authorization|cookie|dsn|signature|connection[-_.]?string)"
)
_SECRET_NAME: Final = re.compile(rf"(?i){_WORDS}s?(?:[-_.]?id)?$")
_SECRET_OPTION: Final = re.compile(rf"(?i)--?[\w.-]{{0,40}}{_WORDS}s?$")
# What the operator sets, and settings of libraries: a slow or broken network is explained by them.
_HARMLESS_VARIABLE: Final = re.compile(r"(INCEPTION|NCCL|GLOO|TORCH|OMP|CUDA|UCX|HCCL|CNCL)_\w+")
_DROPPED_ANNOTATIONS: Final = ("kubectl.kubernetes.io/last-applied-configuration",)
# No shorter value is looked for in logs: it would be found in words.
_LEAST_LETTERS: Final = 8
_KEY_BEGINS: Final = re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----")
_KEY_ENDS: Final = "-----END "
# No line without one of these has a secret of a shape that is known; few lines of a log have one.
_HINT: Final = re.compile(
    r"(?i)pass|pwd|secret|token|credential|key|auth|cookie|dsn|signature|sig=|connection|@|bearer|"
    r"basic|eyj|akia|asia|gh[pousr]_|github_pat|hf_|glpat-|xox|sk-"
)
_LONGEST_LINE: Final = 1 << 14
"""A longer line with such a word is left out: to look through it could take for ever."""
_PATTERNS: Final = (
    (re.compile(r"\b([a-zA-Z][\w+.-]{0,20}://)[^\s/@\"']{1,500}@"), rf"\1{REMOVED}@"),
    (
        re.compile(rf"(?i)([?&][\w.-]{{0,40}}(?:{_WORDS}|sig|key)(?:id)?=)[^&\s\"']{{1,4000}}"),
        rf"\1{REMOVED}",
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s{1,4}[\w.~+/=-]{8,8000}"), rf"\1 {REMOVED}"),
    (re.compile(r"\beyJ[\w-]{8,4000}\.[\w-]{8,8000}(?:\.[\w-]{0,2000})?"), REMOVED),
    (
        re.compile(
            r"\b(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_\w{20,255}|github_pat_\w{20,255}|"
            r"hf_\w{20,255}|glpat-[\w-]{20,255}|xox[abprs]-[\w-]{10,255}|sk-[\w-]{20,255})"
        ),
        REMOVED,
    ),
    (
        re.compile(
            rf"(?i)((?<![\w.-])[\w.-]{{0,40}}{_WORDS}s?[\"']?[ \t]{{0,4}}[=:][ \t]{{0,4}}[\"']?)"
            r"(?!none\b|null\b|true\b|false\b|\(removed\))[^\s\"',;&]{4,4000}"
        ),
        rf"\1{REMOVED}",
    ),
)


class Redactor:
    """Takes out what looks like a secret, and the values of the secret variables of resources."""

    def __init__(self, resources: Iterable[Json] = ()) -> None:
        found: set[str] = set()
        for resource in resources:
            found |= set(_secret_values(resource))
        self._values = sorted(found, key=len, reverse=True)

    def text(self, text: str) -> str:
        """A text without secrets."""
        for value in self._values:
            text = text.replace(value, REMOVED)
        return "".join(map(_line, _without_keys(text)))

    def resource(self, value: Any, name: str = "") -> Any:
        """An object of the API, or a part of it, without secrets."""
        if isinstance(value, dict):
            return {
                key: self.resource(inner, key)
                for key, inner in value.items()
                if key not in _DROPPED_ANNOTATIONS
            }
        if isinstance(value, list):
            if name == "env":
                return [self._variable(each) for each in value]
            return self._items(value)
        if isinstance(value, str):
            return REMOVED if value and _SECRET_NAME.search(name) else self.text(value)
        return value

    def _variable(self, variable: Any) -> Any:
        if not isinstance(variable, dict) or "value" not in variable:
            return self.resource(variable)
        name = str(variable.get("name"))
        shown = _HARMLESS_VARIABLE.fullmatch(name) and not _SECRET_NAME.search(name)
        return {**variable, "value": self.text(str(variable["value"])) if shown else REMOVED}

    def _items(self, items: list[Any]) -> list[Any]:
        """A list; of a command line also the word behind an option such as --password."""
        kept, follows = [], False
        for item in items:
            secret = follows and isinstance(item, str) and not item.startswith("-")
            kept.append(REMOVED if secret else self.resource(item))
            follows = isinstance(item, str) and _SECRET_OPTION.fullmatch(item) is not None
        return kept


def _without_keys(text: str) -> Iterator[str]:
    """The lines of a text, private keys taken out."""
    inside = False
    for line in text.splitlines(keepends=True):
        if not inside and (found := _KEY_BEGINS.search(line)):
            yield f"{line[: found.start()]}{REMOVED}\n"
            line = line[found.end() :]
            inside = True
        if not inside:
            yield line
        elif _KEY_ENDS in line:
            inside = False


def _line(line: str) -> str:
    if not _HINT.search(line):
        return line
    if len(line) > _LONGEST_LINE:
        return f"(a line of {len(line)} characters is left out)\n"
    for pattern, instead in _PATTERNS:
        line = pattern.sub(instead, line)
    return line


def _secret_values(value: Any, name: str = "") -> Iterable[str]:
    """The values of all environment variables whose name says that they are secret."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _secret_values(inner, key)
    elif isinstance(value, list):
        for item in value:
            if name == "env" and isinstance(item, dict):
                text = str(item.get("value") or "")
                if len(text) >= _LEAST_LETTERS and _SECRET_NAME.search(str(item.get("name"))):
                    yield text
            else:
                yield from _secret_values(item)
