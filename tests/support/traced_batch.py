"""Runs a tiny training and notes which of some functions are called, when and in which process.

The profiler of Python survives a fork, so the calls of loader workers are noted as well.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import time
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple


class Hop(NamedTuple):
    """A function: its file below the package, and its qualified name."""

    file: str
    function: str

    def code(self) -> CodeType:
        """What Python runs; raises ModuleNotFoundError or AttributeError when it does not exist."""
        name = self.file.removesuffix(".py").replace("/", ".")
        found: Any = importlib.import_module(f"inception_trainer.{name}")
        for part in self.function.split("."):
            found = getattr(found, part)
        code: CodeType = inspect.unwrap(found).__code__
        return code


class Call(NamedTuple):
    """The first call of a hop in one process."""

    nanoseconds: int
    process: int
    hop: Hop


def train(config: dict[str, Any], hops: list[Hop], notes: str) -> None:
    """Train with the small network, leaving a line per first call in the file ``notes``."""
    import small_network
    from inception_trainer.config.settings import Settings
    from inception_trainer.config.training import from_mapping
    from inception_trainer.train import build

    small_network.take_the_place_of("bninception")
    numbers = {hop.code(): number for number, hop in enumerate(hops)}
    file = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    noted: set[tuple[int, int]] = set()

    def note(frame: FrameType, event: str, _argument: object) -> None:
        number = numbers.get(frame.f_code) if event == "call" else None
        if number is not None and (os.getpid(), number) not in noted:
            noted.add((os.getpid(), number))
            os.write(file, f"{time.monotonic_ns()} {os.getpid()} {number}\n".encode())

    sys.setprofile(note)
    try:
        build.run(from_mapping(config), Settings())
    finally:
        sys.setprofile(None)


def calls(notes: Path, hops: list[Hop]) -> list[Call]:
    """What :func:`train` has noted, in the order of time over all processes."""
    rows = [tuple(map(int, line.split())) for line in notes.read_text().splitlines()]
    return sorted(Call(when, process, hops[number]) for when, process, number in rows)
