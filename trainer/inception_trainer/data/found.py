"""Says in a few lines what was found in the data: images, classes, and what was left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inception_trainer.log import logger

from .base import Dataset, Splits

MOST_NAMED = 5
"""Classes that one line names."""


@dataclass(frozen=True)
class ClassCounts:
    """Images of each class in one split, int64 ``[classes]``, and the classes' names."""

    images: NDArray[np.int64]
    names: tuple[str, ...]

    @classmethod
    def of(cls, dataset: Dataset, names: tuple[str, ...]) -> ClassCounts | None:
        """None where samples are made when they are read."""
        classes: NDArray[np.integer[Any]] | None = dataset.classes
        if classes is None:
            return None
        return cls(np.bincount(classes, minlength=len(names)), names)

    @property
    def smallest(self) -> int:
        """The class with the fewest images, of those that have any."""
        return int(np.where(self.images > 0, self.images, self.images.max() + 1).argmin())

    @property
    def largest(self) -> int:
        """The class with the most images."""
        return int(self.images.argmax())

    @property
    def present(self) -> int:
        """Classes that have images."""
        return int(np.count_nonzero(self.images))

    @property
    def missing(self) -> list[str]:
        """Names of the classes without images."""
        return [self.names[number] for number in np.flatnonzero(self.images == 0).tolist()]

    def __str__(self) -> str:
        least, most = (int(self.images[number]) for number in (self.smallest, self.largest))
        if self.present == 1:
            return f"1 class ({self.names[self.largest]})"
        if least == most:
            return f"{self.present:,} classes with {least:,} each"
        return (
            f"{self.present:,} classes, the smallest with {least:,} "
            f"({self.names[self.smallest]}), the largest with {most:,} "
            f"({self.names[self.largest]})"
        )


def found_lines(splits: Splits) -> list[str]:
    """What was found, a line for each split and for everything odd."""
    lines: list[str] = []
    odd: list[str] = []
    for what, dataset in (("training", splits.train), ("validation", splits.val)):
        counts = ClassCounts.of(dataset, splits.class_names)
        of_classes = f"{splits.num_classes:,} classes" if counts is None else str(counts)
        lines.append(f"{what} data: {len(dataset):,} images of {of_classes}")
        if counts is not None and counts.missing:
            odd.append(f"no {what} images of {_named(counts.missing)}")
    return [*lines, *splits.ignored, *odd]


def _named(names: list[str]) -> str:
    some = ", ".join(names[:MOST_NAMED]) + (", ..." if len(names) > MOST_NAMED else "")
    return f"{len(names):,} classes: {some}" if len(names) > 1 else f"the class {some}"


def log_found(splits: Splits) -> None:
    """Log it on the first rank: all ranks find the same."""
    for line in found_lines(splits):
        logger.info("%s", line)
