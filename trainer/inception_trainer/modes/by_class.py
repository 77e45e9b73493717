"""What mode Evaluate says beyond top-1 and top-5: how well each class is known, which classes are
mistaken for one another, and how far the network's confidence may be trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inception_trainer.comm import Comm
from inception_trainer.log import logger
from inception_trainer.reporting.outputs import replacing, write_rows
from inception_trainer.train.evaluation import Seen

BINS = 15
"""Intervals of confidence of the calibration error (Guo et al. 2017)."""
MOST_DRAWN = 200
"""A picture of more classes would show nothing."""
DIGITS = 6
"""Decimals of a share."""


class ByClass:
    """Counts of one rank, of every evaluated image."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        # float64 holds every count exactly, and everything travels in one vector.
        self._confusion = torch.zeros(classes * classes, dtype=torch.float64)
        self._bins = torch.zeros(3 * BINS, dtype=torch.float64)

    def add(self, seen: Seen) -> None:
        """Count a batch; negative labels are skipped."""
        labels = seen.labels.cpu()
        readable = labels >= 0
        labels = labels[readable]
        confidence, predicted = (guess[readable] for guess in seen.guesses)
        ones = torch.ones(len(labels), dtype=torch.float64)
        self._confusion.index_add_(0, labels * self._classes + predicted, ones)
        # (0, 1/15] is the first interval: what lies on a border belongs to the lower one.
        number = (confidence.double() * BINS).ceil().long().clamp(1, BINS) - 1
        hits = (predicted == labels).double()
        for part, values in enumerate((ones, confidence.double(), hits)):
            self._bins.index_add_(0, number + part * BINS, values)

    def result(self, comm: Comm) -> ClassResult:
        """The counts of all ranks; every rank must call it."""
        total = comm.sum(torch.cat((self._confusion, self._bins)))
        confusion, bins = torch.split(total, [self._classes**2, 3 * BINS])
        return ClassResult(
            confusion.view(self._classes, self._classes).long(), *bins.view(3, BINS).unbind()
        )


@dataclass(frozen=True)
class ClassResult:
    """Counts over all evaluated images."""

    confusion: Tensor
    """``[true class, predicted class]``."""
    images: Tensor
    """In each interval of confidence, ``[BINS]``."""
    confidence: Tensor
    """Their confidences, added up."""
    hits: Tensor
    """How many of them are predicted right."""

    @property
    def calibration_error(self) -> float:
        """Mean distance of confidence and accuracy over the images, 0 to 1 (ECE)."""
        return float((self.confidence - self.hits).abs().sum() / self.images.sum())

    @property
    def mean_class_accuracy(self) -> float:
        """Mean of the accuracies of the classes that there are images of."""
        images = self.confusion.sum(1)
        there = images > 0
        return float((self.confusion.diagonal()[there] / images[there]).mean())

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
        write_rows(folder / "classes.csv", _class_rows(result.confusion, labels))
        write_rows(folder / "confusion.csv", _confusion_rows(result.confusion, labels))
        if len(labels) <= MOST_DRAWN:
            _draw(folder / "confusion.png", result.confusion, labels)
    except (OSError, ImportError) as error:
        logger.warning("no figures by class in %s: %s", folder, error)


def _class_rows(confusion: Tensor, labels: Sequence[str]) -> list[list[Any]]:
    rows: list[list[Any]] = [
        ["class", "name", "images", "correct", "accuracy", "predicted", "precision"]
    ]
    images, predicted = confusion.sum(1).tolist(), confusion.sum(0).tolist()
    for number, correct in enumerate(confusion.diagonal().tolist()):
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


def _confusion_rows(confusion: Tensor, labels: Sequence[str]) -> list[list[Any]]:
    """A row for each pair of classes that there is an image of: a million of them would be mostly
    zeros.
    """
    rows: list[list[Any]] = [["class", "name", "predicted", "predictedName", "images"]]
    for true, predicted in confusion.nonzero().tolist():
        count = int(confusion[true, predicted])
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
    axes.set_xticks(places, labels, rotation=90, fontsize=7)
    axes.set_yticks(places, labels, fontsize=7)
    axes.set(xlabel="predicted", ylabel="class", title="Share of the images of each class")
    figure.colorbar(image, ax=axes, shrink=0.7)
    with replacing(path) as draft:
        figure.savefig(draft, format="png")
