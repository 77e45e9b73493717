"""How far a job is, in one line for people."""

from __future__ import annotations

from typing import Final

from inception_operator.contract.types import Json

from .figures import part, span, state
from .outcome import is_over
from .text import clean_line

_BAR: Final = 30
_FIGURES: Final = (
    ("epoch", "epoch {}"),
    ("step", "step {}"),
    ("samplesPerSecond", "{} img/s"),
    ("loss", "loss {}"),
    ("accuracyTop1", "top-1 {}"),
)


def progress_line(job: Json) -> str:
    """State, attempt, figures and remaining time."""
    trainer = part(job, "status", "trainerStatus") or {}
    parts = [state(job)]
    attempt = part(job, "status", "attempt") or 0
    if attempt > 1:
        parts.append(f"attempt {attempt}")
    if trainer.get("progressPercentage") is not None:
        parts.append(bar(int(trainer["progressPercentage"]), _BAR))
    for key, form in _FIGURES:
        if trainer.get(key) is not None:
            parts.append(form.format(trainer[key]))
    remaining = trainer.get("estimatedRemainingSeconds")
    if remaining is not None and not is_over(job):
        parts.append(f"{span(remaining)} left")
    if len(parts) == 1:
        nodes = part(job, "status", "nodes", "summary")
        parts += [f"{nodes} nodes ready"] if nodes else []
    return "  ".join(clean_line(each) for each in parts)


def bar(percentage: int, width: int) -> str:
    """A bar of progress that any terminal and any log shows."""
    filled = min(100, max(0, percentage)) * width // 100
    return f"[{'#' * filled}{'.' * (width - filled)}] {percentage} %"
