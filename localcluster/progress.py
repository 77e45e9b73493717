"""How long-running steps tell the person in front of them what happens."""

from __future__ import annotations

import sys
from collections.abc import Callable

Progress = Callable[[str], None]


def quiet(message: str) -> None:
    """Say nothing."""
    del message


def to_stderr(message: str) -> None:
    """One line per step on standard error."""
    print(message, file=sys.stderr, flush=True)
