"""What mode Evaluate says beyond top-1 and top-5: how well each class is known, which classes are
mistaken for one another, and how far the network's confidence may be trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from inception_trainer.comm import Comm
from inception_trainer.log import logger, printable
from inception_trainer.reporting.outputs import replacing, write_rows
from inception_trainer.train.evaluation import Seen

BINS = 15
"""Intervals of confidence of the calibration error (Guo et al. 2017)."""
MOST_DRAWN = 200
"""A picture of more classes would show nothing."""
BATCHES_WAITING = 100
"""After so many the pairs of their images are added up."""
DIGITS = 6
"""Decimals of a share."""


class ByClass:
    """Counts of one rank, of every evaluated image."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        # Only pairs of classes that occur: of 20,000 classes all pairs would be gigabytes.
        self._pairs = torch.zeros(2, 0, dtype=torch.int64)
        """Columns of a pair (``classes`` x true + predicted class) and its images."""
        self._waiting: list[Tensor] = []
        """Columns that are not yet added up."""
        # float64 holds every count exactly.
        self._bins = torch.zeros(3 * BINS, dtype=torch.float64)

    def add(self, seen: Seen) -> None:
        """Count a batch; negative labels are skipped."""
        labels = seen.labels.cpu()
        readable = labels >= 0
        labels = labels[readable]
        confidence, predicted = (guess[readable] for guess in seen.guesses)
        ones = torch.ones(len(labels), dtype=torch.float64)
        self._waiting.append(torch.stack((labels * self._classes + predicted, ones.long())))
        if len(self._waiting) >= BATCHES_WAITING:
            self._add_up()
        # (0, 1/15] is the first interval: what lies on a border belongs to the lower one.
        number = (confidence.double() * BINS).ceil().long().clamp(1, BINS) - 1
        hits = (predicted == labels).double()
        for part, values in enumerate((ones, confidence.double(), hits)):
            self._bins.index_add_(0, number + part * BINS, values)

    def _add_up(self) -> None:
        self._pairs = _added_up(torch.cat((self._pairs, *self._waiting), 1))
        self._waiting = []

    def result(self, comm: Comm) -> ClassResult:
        """The counts of all ranks; every rank must call it."""
        self._add_up()
        # Ranks have seen different numbers of pairs, and gather tensors of one shape.
        longest = int(comm.gather(torch.tensor([self._pairs.shape[1]])).max())
        padded = functional.pad(self._pairs, [0, longest - self._pairs.shape[1]])
        pairs = _added_up(torch.cat(comm.gather(padded).unbind(), 1))
        bins = comm.sum(self._bins.clone()).view(3, BINS)
        return ClassResult(self._classes, pairs, *bins.unbind())


def _added_up(columns: Tensor) -> Tensor:
    """Pairs and their images, each pair once and in order."""
    pairs, place = torch.unique(columns[0], return_inverse=True)
    images = torch.zeros_like(pairs).index_add_(0, place, columns[1])
    # What only made the tensors of all ranks equally long has no images.
    return torch.stack((pairs, images))[:, images > 0]


@dataclass(frozen=True)
class ClassResult:
    """Counts over all evaluated images."""

    classes: int
    pairs: Tensor
    """``[2, k]``, in order: ``classes`` x true + predicted class; images of the pair."""
    images: Tensor
    """In each interval of confidence, ``[BINS]``."""
    confidence: Tensor
    """Their confidences, added up."""
    hits: Tensor
    """How many of them are predicted right."""

    @cached_property
    def of_class(self) -> Tensor:
        """Images of each class, ``[classes]``."""
        return self._summed(self.pairs[0] // self.classes)

    @cached_property
    def predicted(self) -> Tensor:
        """Images that are taken for each class, ``[classes]``."""
        return self._summed(self.pairs[0] % self.classes)

    @cached_property
    def correct(self) -> Tensor:
        """Images of each class that are taken for it, ``[classes]``."""
        true, predicted = self.pairs[0] // self.classes, self.pairs[0] % self.classes
        return self._summed(true, self.pairs[1] * (true == predicted))

    def _summed(self, numbers: Tensor, images: Tensor | None = None) -> Tensor:
        """The images of all pairs, added up by class number."""
        images = self.pairs[1] if images is None else images
        return torch.zeros(self.classes, dtype=torch.int64).index_add_(0, numbers, images)

    @property
    def confusion(self) -> Tensor:
        """``[true class, predicted class]``, for few classes."""
        dense = torch.zeros(self.classes**2, dtype=torch.int64)
        dense[self.pairs[0]] = self.pairs[1]
        return dense.view(self.classes, self.classes)

    @property
    def calibration_error(self) -> float:
        """Mean distance of confidence and accuracy over the images, 0 to 1 (ECE)."""
        return float((self.confidence - self.hits).abs().sum() / self.images.sum())

    @property
    def mean_class_accuracy(self) -> float:
        """Mean of the accuracies of the classes that there are images of."""
        there = self.of_class > 0
        return float((self.correct[there] / self.of_class[there]).mean())

    def figures(self) -> dict[str, Any]:
        """For summary.json."""
        return {
            "calibrationError": self.calibration_error,
            "meanClassAccuracy": self.mean_class_accuracy,
        }


def write(result: ClassResult, labels: Sequence[str], folder: Path) -> None:
    """Leave ``classes.csv``, ``confusion.csv`` and, for not too many classes, ``confusion.png``.

    ``labels`` are the names of all classes. A disk or an image without matplotlib that refuses is a
    warning: the accuracy is known.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_rows(folder / "classes.csv", _class_rows(result, labels))
        write_rows(folder / "confusion.csv", _confusion_rows(result, labels))
        if len(labels) <= MOST_DRAWN:
            _draw(folder / "confusion.png", result.confusion, labels)
    except (OSError, ImportError) as error:
        logger.warning("no figures by class in %s: %s", folder, error)


def _class_rows(result: ClassResult, labels: Sequence[str]) -> list[list[Any]]:
    rows: list[list[Any]] = [
        ["class", "name", "images", "correct", "accuracy", "predicted", "precision"]
    ]
    images, predicted = result.of_class.tolist(), result.predicted.tolist()
    for number, correct in enumerate(result.correct.tolist()):
        rows.append(
            [
                number,
                labels[number],
                images[number],
                correct,
                _share(correct, images[number]),
                predicted[number],
                _share(correct, predicted[number]),
            ]
        )
    return rows


def _share(part: int, whole: int) -> float | str:
    # Of a class without images nothing is known, which is not the same as 0.
    return round(part / whole, DIGITS) if whole else ""


def _confusion_rows(result: ClassResult, labels: Sequence[str]) -> list[list[Any]]:
    """A row for each pair of classes that there is an image of."""
    rows: list[list[Any]] = [["class", "name", "predicted", "predictedName", "images"]]
    for pair, count in result.pairs.T.tolist():
        true, predicted = divmod(pair, result.classes)
        rows.append([true, labels[true], predicted, labels[predicted], count])
    return rows


def _draw(path: Path, confusion: Tensor, labels: Sequence[str]) -> None:
    """Each row as shares of the images of its class."""
    import matplotlib as mpl

    # The back end that needs no display.
    mpl.use("Agg")
    from matplotlib.figure import Figure

    side = max(5.0, min(24.0, 1.5 + 0.3 * len(labels)))
    figure = Figure(figsize=(side, side), dpi=110, layout="constrained")
    axes = figure.subplots()
    shares = confusion / confusion.sum(1, keepdim=True).clamp(min=1)
    image = axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    places = range(len(labels))
    # Fonts have no letters for bytes that are no text, and names of folders are no formulas.
    names = [printable(label) for label in labels]
    axes.set_xticks(places, names, rotation=90, fontsize=7, parse_math=False)
    axes.set_yticks(places, names, fontsize=7, parse_math=False)
    axes.set(xlabel="predicted", ylabel="class", title="Share of the images of each class")
    figure.colorbar(image, ax=axes, shrink=0.7)
    with replacing(path) as draft:
        figure.savefig(draft, format="png")
