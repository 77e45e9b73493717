"""What the converter says about the fields of a document: which, what became of it, what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    """What became of a field."""

    CHANGED = "changed"
    DROPPED = "not carried over"
    REFUSED = "refused"


@dataclass(frozen=True)
class Note:
    """One field that is not the same afterwards; ``document`` is its kind and name."""

    document: str
    field: str
    outcome: Outcome
    problem: str
    remedy: str = ""

    def __str__(self) -> str:
        """One line for a terminal."""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.document}: {self.field}: {self.outcome.value}: {self.problem}{remedy}"


class RefusedError(Exception):
    """The document cannot become a training; the note says why and what to do."""

    def __init__(self, note: Note) -> None:
        super().__init__(str(note))
        self.note = note
