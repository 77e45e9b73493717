"""A document of another operator, and a ledger of what has become of each of its fields.

Whoever reads a field settles it: it is taken over, said in other words, or left out with a note.
What nobody has settled in the end gets a note too, so that nothing is lost without a word.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from inception_operator.contract.types import Json

from .notes import Note, Outcome, RefusedError

Path = tuple[str | int, ...]
_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
UNKNOWN: Final = "nothing is known to make of it"


def path_text(path: Path) -> str:
    """``("spec", "tasks", 0, "a/b")`` as ``spec.tasks[0]['a/b']``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN.fullmatch(part):
            text += f".{part}"
        else:
            text += f"['{part}']"
    return text.removeprefix(".")


@dataclass
class Ledger:
    """One document; ``name`` is what notes call it, ``notes`` are those made so far."""

    name: str
    document: Json
    notes: list[Note] = field(default_factory=list)
    _settled: set[Path] = field(default_factory=set)

    @property
    def root(self) -> Field:
        """The document itself."""
        return Field(self, (), self.document)

    def settle(self, path: Path) -> None:
        """Count a field, with everything below it, as dealt with."""
        self._settled.add(path)

    def note(self, path: Path, outcome: Outcome, problem: str, remedy: str = "") -> Note:
        """Say what became of a field."""
        note = Note(self.name, path_text(path), outcome, problem, remedy)
        self.notes.append(note)
        return note

    def close(self) -> None:
        """Note whatever nobody has dealt with, a whole branch at once where nothing of it was."""
        open_paths, _ = self._open((), self.document)
        for path in open_paths:
            self.note(path, Outcome.DROPPED, UNKNOWN, "see whether the training needs it")

    def _open(self, path: Path, value: Any) -> tuple[list[Path], bool]:
        """What is not settled at and below a path, and whether that is all there is."""
        if path in self._settled or value is None:
            return [], False
        children = _children(value)
        if not children:
            return [path], True
        # A null says nothing, so it makes no branch half settled.
        found = [self._open((*path, key), child) for key, child in children if child is not None]
        whole = bool(found) and all(whole for _, whole in found)
        if whole and path:
            return [path], True
        return [each for paths, _ in found for each in paths], False


def _children(value: Any) -> list[tuple[str | int, Any]]:
    if isinstance(value, dict):
        return [(str(key), child) for key, child in value.items()]
    return list(enumerate(value)) if isinstance(value, list) else []


@dataclass(frozen=True)
class Field:
    """A place in a document; its value is None where nothing is there."""

    ledger: Ledger
    path: Path
    value: Any

    def __getitem__(self, key: str | int) -> Field:
        """A field below; one of nothing is nothing."""
        found: Any = None
        if isinstance(self.value, dict):
            found = self.value.get(key)
        elif isinstance(self.value, list) and isinstance(key, int) and key < len(self.value):
            found = self.value[key]
        return Field(self.ledger, (*self.path, key), found)

    @property
    def present(self) -> bool:
        """Whether there is anything, which a null is not."""
        return self.value is not None

    def children(self) -> Iterator[Field]:
        """The fields of an object or entries of a list that are present."""
        for key, child in _children(self.value):
            if child is not None:
                yield Field(self.ledger, (*self.path, key), child)

    @property
    def key(self) -> str:
        """The last part of the path."""
        return str(self.path[-1])

    def settle(self) -> None:
        """Said otherwise in what is made, or the same without being said."""
        self.ledger.settle(self.path)

    def take(self) -> Any:
        """The value, which is taken over as a whole."""
        self.settle()
        return copy.deepcopy(self.value)

    def drop(self, problem: str, remedy: str = "") -> None:
        """Leave the field out and say so, if it is there."""
        if self.present:
            self.settle()
            self.ledger.note(self.path, Outcome.DROPPED, problem, remedy)

    def change(self, problem: str, remedy: str = "") -> None:
        """Say that something else comes of the field."""
        self.settle()
        self.ledger.note(self.path, Outcome.CHANGED, problem, remedy)

    def refusal(self, problem: str, remedy: str) -> RefusedError:
        """Why nothing can come of the document, to be raised."""
        return RefusedError(
            Note(self.ledger.name, path_text(self.path), Outcome.REFUSED, problem, remedy)
        )

    def number(self) -> int | None:
        """A whole number that is taken over, None where there is none."""
        if not self.present:
            return None
        if isinstance(self.value, int) and not isinstance(self.value, bool):
            self.settle()
            return self.value
        raise self.refusal(f"{self.value!r} is not a whole number", "correct it")

    def text(self) -> str | None:
        """A text that is taken over, None where there is none."""
        if not self.present or self.value == "":
            self.settle()
            return None
        if isinstance(self.value, str):
            self.settle()
            return self.value
        raise self.refusal(f"{self.value!r} is not a text", "correct it")

    def words(self) -> list[str]:
        """A list of texts that is taken over; empty where there is none."""
        if not self.present:
            return []
        if isinstance(self.value, list) and all(isinstance(each, str) for each in self.value):
            self.settle()
            return list(self.value)
        raise self.refusal("is not a list of texts", "quote its numbers, or correct it")
