"""A torchrun command line, read for what the spec of a training says in its place.

The launcher in the pod understands such a line too and ignores these options; here they are taken
out, so that nobody takes them for valid.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

PYTHON: Final = re.compile(r"(.*/)?python(\d+(\.\d+)?)?")
_MODULES: Final = ("torch.distributed.run", "torch.distributed.launch")
_OLD_MODULE: Final = _MODULES[1]
_WITH_VALUE: Final = frozenset(
    (
        "nnodes",
        "nproc-per-node",
        "node-rank",
        "master-addr",
        "master-port",
        "local-addr",
        "rdzv-backend",
        "rdzv-endpoint",
        "rdzv-id",
        "rdzv-conf",
        "max-restarts",
        "monitor-interval",
        "start-method",
        "event-log-handler",
        "role",
        "log-dir",
        "redirects",
        "tee",
        "local-ranks-filter",
        "logs-specs",
        "numa-binding",
        "signals-to-handle",
        "shutdown-timeout",
        "duplicate-stdout-filters",
        "duplicate-stderr-filters",
        "log-line-prefix-template",
    )
)
_GONE_FLAGS: Final = frozenset(("standalone", "use-env", "virtual-local-rank"))
_KEPT_FLAGS: Final = frozenset(("module", "no-python", "run-path"))
_SHORT: Final = {"-r": "redirects", "-t": "tee", "-m": "module"}


@dataclass(frozen=True)
class Torchrun:
    """What a line says: the line without the options, and the options by their dashed names.

    ``old_launch`` is the module that handed each rank a ``--local-rank``.
    """

    program: tuple[str, ...]
    options: dict[str, str] = field(default_factory=dict)
    old_launch: bool = False

    @property
    def has_script(self) -> bool:
        """Whether there is a program behind the options."""
        return bool(self.program) and not self.program[-1].startswith("torchrun")


def option_name(word: str) -> str | None:
    """The dashed name of an option of torchrun, None for every other word."""
    if word in _SHORT:
        return _SHORT[word]
    name = word.partition("=")[0].replace("_", "-").removeprefix("--")
    known = name in _WITH_VALUE or name in _GONE_FLAGS or name in _KEPT_FLAGS
    return name if word.startswith("--") and known else None


def takes_value(name: str) -> bool:
    """Whether an option is followed by a value."""
    return name in _WITH_VALUE


def is_kept(name: str) -> bool:
    """Whether an option says what the program is, and so stays."""
    return name in _KEPT_FLAGS


def read(words: Sequence[str]) -> Torchrun | None:
    """What a command line says, None when it does not call torchrun."""
    start = _start(words)
    if start is None:
        return None
    rest = list(words[start:])
    options: dict[str, str] = {}
    kept: list[str] = []
    while rest and (name := option_name(rest[0])) is not None:
        word = rest.pop(0)
        if is_kept(name):
            kept.append(word)
        elif "=" in word:
            options[name] = word.partition("=")[2]
        else:
            options[name] = rest.pop(0) if takes_value(name) and rest else ""
    old = start > 1 and words[start - 1] == _OLD_MODULE
    head = ["torchrun"] if old else list(words[:start])
    return Torchrun((*head, *kept, *rest), options, old and "use-env" not in options)


def _start(words: Sequence[str]) -> int | None:
    """Where the options begin."""
    if not words:
        return None
    if words[0].rpartition("/")[2] == "torchrun":
        return 1
    if not PYTHON.fullmatch(words[0]):
        return None
    at = 2 if words[1:2] == ["-u"] else 1
    if list(words[at : at + 1]) == ["-m"] and list(words[at + 1 : at + 2])[:1] != []:
        return at + 2 if words[at + 1] in _MODULES else None
    return None
