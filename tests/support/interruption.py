"""Another attempt takes over while one is in the middle of something: for tests of both fences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from inception_trainer.checkpoint.base import FORMAT


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
