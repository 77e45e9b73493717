"""What is said of an attempt that runs and whose checkpoints cannot be written, or can again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from inception_operator.contract.names import Reason
from inception_operator.contract.types import NORMAL, WARNING, Event, Progress

_UNSAVED: Final = (
    ", but its last checkpoint could not be written to {path}; training goes on, and the next one "
    "tries again: make room there, or raise the quota (the log of its first pod says more)"
)


@dataclass(frozen=True)
class Said:
    """The message of Running, and the event when it changes."""

    text: str
    event: Event


def describe(text: str, before: str, path: str, figures: Progress | None) -> Said:
    """What to say of an attempt of which there is nothing else to say than ``text``; ``before`` is
    the message until now, ``path`` where the checkpoints should lie.
    """
    failing = text + _UNSAVED.format(path=path)
    # Without figures nobody knows: what was said last stays.
    was_failing = is_failing = before.startswith(failing)
    if figures is not None:
        is_failing = figures.checkpoint_failing
    if is_failing:
        return Said(failing, Event(WARNING, Reason.CHECKPOINT_FAILING, failing))
    if was_failing:
        text_of_event = f"{text}, and its checkpoints are written again"
        return Said(text, Event(NORMAL, Reason.ATTEMPT_RUNNING, text_of_event))
    return Said(text, Event(NORMAL, Reason.ATTEMPT_RUNNING, text))
