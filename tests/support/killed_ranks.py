"""Deaths of training ranks at chosen points, for `trainer_ranks`: in a step, while a copy is made,
while it is sent and taken over.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import torch


def die() -> None:
    """End this process as a kernel that is out of memory would."""
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    """Raise what no code expects."""
    raise RuntimeError("bad luck")


def arm(point: str, count: int) -> None:
    """Let this process die when it comes to ``point`` for the ``count``-th time, from 1.

    ``point`` is one of POINTS; with ``!`` behind it an error is raised instead.
    """
    act = fail if point.endswith("!") else die
    left = {"calls": count}

    def pass_by() -> bool:
        left["calls"] -= 1
        return left["calls"] == 0

    POINTS[point.rstrip("!")](pass_by, act)


Pass = Callable[[], bool]
Act = Callable[[], None]


def _before(owner: Any, name: str, due: Pass, act: Act) -> None:
    original = getattr(owner, name)

    def patched(*arguments: Any, **options: Any) -> Any:
        if due():
            act()
        return original(*arguments, **options)

    setattr(owner, name, patched)


def _forward(due: Pass, act: Act) -> None:
    from inception_trainer.train.step import OptimizerStep

    # The forward pass is done, and has moved the batch norm statistics.
    _before(OptimizerStep, "backward", due, act)


def _exchange(due: Pass, act: Act) -> None:
    from inception_trainer.train.step import OptimizerStep

    original = OptimizerStep.backward

    def patched(self: Any, loss: Any) -> None:
        if due():
            # A gradient of the middle: those behind it are on their way to the peers.
            self._parameters[len(self._parameters) // 2].register_hook(lambda _gradient: act())
        original(self, loss)

    OptimizerStep.backward = patched  # type: ignore[method-assign]


def _optimizer(due: Pass, act: Act) -> None:
    from inception_trainer.train.step import OptimizerStep

    original = OptimizerStep.apply

    def patched(self: Any, rate: float, steps: int) -> None:
        if due():
            with torch.no_grad():
                self._parameters[0].mul_(2)
            act()
        original(self, rate, steps)

    OptimizerStep.apply = patched  # type: ignore[method-assign]


def _boundary(due: Pass, act: Act) -> None:
    from inception_trainer.train.memory import MemoryCopies

    _before(MemoryCopies, "finished", due, act)


def _agreement(due: Pass, act: Act) -> None:
    from inception_trainer.comm import Agreement

    _before(Agreement, "propose", due, act)


def _statistics(due: Pass, act: Act) -> None:
    from inception_trainer.checkpoint.memory_statistics import StatisticsFile

    _before(StatisticsFile, "finish", due, act)


def _copy_every(seconds: float) -> None:
    """Periodic copies by the clock of a test, whose steps take milliseconds."""
    from inception_trainer.train.intervals import CopyClock

    CopyClock.SHORTEST_SECONDS = CopyClock.LONGEST_SECONDS = seconds


def _living(_due: Pass, _act: Act) -> None:
    _copy_every(0.15)


def _copying(due: Pass, act: Act) -> None:
    from inception_trainer.train import memory

    _copy_every(0.0)
    _before(memory, "copy_to_view", due, act)


def _committing(due: Pass, act: Act) -> None:
    from inception_trainer.checkpoint import memory_file

    _copy_every(0.0)
    # Tensors and header are written, the prefix is not.
    _before(memory_file.Prefix, "encode", due, act)


def _sending(due: Pass, act: Act) -> None:
    from inception_trainer.comm import Comm

    _before(Comm, "broadcast", due, act)


def _reading(due: Pass, act: Act) -> None:
    from inception_trainer.checkpoint.memory_file import MemoryCopy

    _before(MemoryCopy, "tensors", due, act)


def _taking_over(due: Pass, act: Act) -> None:
    from inception_trainer.checkpoint.memory_file import CopyFile

    _before(CopyFile, "invalidate", due, act)


def _beginning(due: Pass, act: Act) -> None:
    from inception_trainer.train.memory import MemoryCopies

    _before(MemoryCopies, "begin", due, act)


def _room(due: Pass, act: Act) -> None:
    from inception_trainer.checkpoint import memory

    _copy_every(0.0)
    _before(memory, "lack_of_room", due, act)


POINTS: dict[str, Callable[[Pass, Act], None]] = {
    # Dies nowhere, and copies often.
    "living": _living,
    "forward": _forward,
    "exchange": _exchange,
    "optimizer": _optimizer,
    "boundary": _boundary,
    "agreement": _agreement,
    "statistics": _statistics,
    "copying": _copying,
    "committing": _committing,
    "sending": _sending,
    "reading": _reading,
    "taking over": _taking_over,
    "beginning": _beginning,
    "room": _room,
}
