"""Another attempt takes over while one is in the middle of something: for tests of both fences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from inception_trainer.checkpoint.base import FORMAT
from inception_trainer.checkpoint.owner import Owner

FIRST = ("default/test", "0a1b-first", "2026-11-30T03:33:11Z")
"""A job: its name, UID and time of creation."""
ANEW = ("default/test", "0a1b-anew", "2026-11-30T03:35:00Z")
"""The same job, deleted and made anew."""
NEIGHBOUR = ("team-b/test", "0a1b-neighbour", "2026-11-30T03:34:00Z")
"""A job of another namespace."""
LINES = {
    "numbers only": [Owner.of(1), Owner.of(2), Owner.of(3)],
    "one job": [Owner.of(1, *FIRST), Owner.of(2, *FIRST), Owner.of(3, *FIRST)],
    "made anew": [Owner.of(7, *FIRST), Owner.of(1, *ANEW), Owner.of(2, *ANEW)],
    "after version 0.1": [Owner.of(7), Owner.of(2, *FIRST), Owner.of(1, *ANEW)],
}
"""Three owners that follow one another."""


class Interruption:
    """Runs ``takeover`` right before the operation ``number`` that is performed; one call for each
    operation.
    """

    def __init__(self, number: int, takeover: Callable[[], Any]) -> None:
        self.left, self.takeover, self.happened, self.busy = number, takeover, False, False

    def __call__(self) -> None:
        if self.busy or self.happened:
            return
        if self.left == 0:
            self.busy = self.happened = True
            self.takeover()
            self.busy = False
        self.left -= 1


def small_checkpoint(step: int, writer: int) -> dict[str, Any]:
    """A small checkpoint that says who wrote it."""
    return {
        "format": FORMAT,
        "model": {"w": torch.full((10,), float(writer))},
        "progress": {"step": step},
    }
