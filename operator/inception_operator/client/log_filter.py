"""Which lines of a pod's log are of one rank or of one attempt. Pure.

A pod outlives attempts and has several ranks, so its log mixes both. Three kinds of lines say whose
they are: those of the bundled trainer, the launcher's about the state of an attempt, and those at
the head of the stacks that it prints. All others are passed on by the launcher as the program wrote
them: they are of the attempt that began last, and of some rank of that pod.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from inception_operator.contract import names
from inception_operator.contract.types import Json

from .figures import part

_TRAINER: Final = re.compile(r"\d\d:\d\d:\d\d \[(?:\S+ )?attempt (\d{1,9}) rank (\d{1,9})\] ")
_LAUNCHER: Final = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} inception-launcher: attempt (?P<attempt>\d{1,9}): "
    r"(?P<state>[A-Z][a-z]+)"
    r"(?: ranks (?P<first>\d{1,9}) to (?P<last>\d{1,9}) of \d{1,9})?"
)
_STACKS: Final = re.compile(r"inception-launcher: stacks of attempt (\d{1,9}), rank (\d{1,9}), ")
_OF_STACKS: Final = re.compile(
    r"\s*$|  File \"|  \.\.\.|(?:Current thread|Thread) 0x|Stack \(most recent|\(it cannot show"
)
_BEGINS: Final = "Running"


@dataclass(frozen=True)
class Choice:
    """The rank and the attempt whose lines are wanted; None is any."""

    rank: int | None = None
    attempt: int | None = None

    @property
    def is_all(self) -> bool:
        """Whether every line is wanted."""
        return self.rank is None and self.attempt is None

    def __str__(self) -> str:
        words = [] if self.rank is None else [f"rank {self.rank}"]
        return " in ".join([*words, *([] if self.attempt is None else [f"attempt {self.attempt}"])])


EVERY_LINE: Final = Choice()


class LineFilter:
    """Reads the lines of one pod in their order, and says of each whether it is wanted."""

    def __init__(self, choice: Choice, pod: Json) -> None:
        self._choice = choice
        self._assigned = ranks_of(pod)
        self._attempt: int | None = None
        # Before the first attempt a launcher has no ranks.
        self._ranks = {0: range(0)}
        self._stacks_of: int | None = None
        self.unknown = 0
        """Lines left out because nothing says whose they are."""

    def wants(self, line: str) -> bool:
        """Whether the next line is one of those wanted."""
        if self._choice.is_all:
            return True
        attempt, rank = self._origin(line)
        if self._choice.attempt not in (None, attempt):
            self.unknown += attempt is None
            return False
        if self._choice.rank is None:
            return True
        if rank is not None:
            return rank == self._choice.rank
        ranks = self._ranks_in(attempt)
        self.unknown += ranks is None
        return ranks is not None and self._choice.rank in ranks

    def _origin(self, line: str) -> tuple[int | None, int | None]:
        """Attempt and rank of a line; None for what is not known."""
        if found := _TRAINER.match(line) or _STACKS.match(line):
            attempt, rank = int(found[1]), int(found[2])
            self._stacks_of = rank if found.re is _STACKS else None
            # Two streams meet in a log: a last line of the attempt before may come late.
            self._attempt = max(attempt, self._attempt or 0)
            return attempt, rank
        if found := _LAUNCHER.match(line):
            self._stacks_of = None
            self._attempt = int(found["attempt"])
            if found["state"] == _BEGINS and found["first"]:
                self._ranks[self._attempt] = range(int(found["first"]), int(found["last"]) + 1)
            return self._attempt, None
        if self._stacks_of is not None and _OF_STACKS.match(line):
            return self._attempt, self._stacks_of
        self._stacks_of = None
        return self._attempt, None

    def _ranks_in(self, attempt: int | None) -> range | None:
        if attempt is not None and attempt in self._ranks:
            return self._ranks[attempt]
        if self._assigned is not None and self._assigned[0] == attempt:
            return self._assigned[1]
        return None


def ranks_of(pod: Json) -> tuple[int, range] | None:
    """The attempt that a pod is assigned to, and its ranks in it; None for one that stands by."""
    # A tenth of a second with what decodes it; the other commands need none of it.
    from inception_operator.contract.assignment import from_json

    text = part(pod, "metadata", "annotations", names.ANNOTATION_ASSIGNMENT)
    assignment = from_json(text) if isinstance(text, str) else None
    if assignment is None or assignment.is_standby:
        return None
    first = assignment.node_rank * assignment.nproc_per_node
    return assignment.attempt, range(first, first + assignment.nproc_per_node)
