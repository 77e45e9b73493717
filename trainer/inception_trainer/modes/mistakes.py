"""The worst mistakes of mode Evaluate, as a picture and a table: the images whose true class the
network thought least likely.

Each rank keeps a few of its own, made small, so the memory that this takes follows from neither the
number of images nor their size; the worst of all ranks are put together at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from inception_trainer.comm import Comm
from inception_trainer.log import logger, printable
from inception_trainer.reporting.outputs import replacing, write_rows
from inception_trainer.train.evaluation import Seen

MOST = 25
"""Mistakes that are kept."""
COLUMNS = 5
SIDE = 160
"""The longest side of their pictures in pixels."""
DIGITS = 6
"""Decimals of a probability."""
LONGEST_NAME = 26
"""Characters that there is room for above a picture."""
_EMPTY = -1.0
"""The loss of a place that no mistake has taken; real ones are positive."""
_COLUMNS = ("loss", "image", "label", "predicted", "confidence", "probability")


@dataclass(frozen=True)
class Mistake:
    """One image that the network takes for something else."""

    image: int
    """Its number in the validation split."""
    label: int
    predicted: int
    confidence: float
    """The probability of the predicted class, 0 to 1."""
    probability: float
    """That of the true one."""
    loss: float
    """Cross entropy."""
    pixels: Tensor
    """What the network saw, made small: uint8 ``[3, height, width]``."""


class Worst:
    """The worst mistakes of one rank, so far."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._values = torch.full((most, len(_COLUMNS)), _EMPTY, dtype=torch.float64)
        """A row for each mistake, the worst one first."""
        self._pixels = torch.zeros(most, 3, SIDE, SIDE, dtype=torch.uint8)
        self._size = (SIDE, SIDE)
        """Height and width of the pictures: in one split all are of one size."""

    def add(self, seen: Seen) -> None:
        """Look at a batch."""
        labels = seen.labels.cpu()
        confidence, predicted = seen.guesses
        wrong = ((labels >= 0) & (predicted != labels)).nonzero().flatten()
        if not len(wrong):
            return
        logits = seen.logits.float().cpu()[wrong]
        losses = functional.cross_entropy(logits, labels[wrong], reduction="none").double()
        # Numbers that are none at all could not be sorted.
        losses = losses.nan_to_num(nan=math.inf, posinf=math.inf).clamp(max=1e300)
        numbers = torch.as_tensor(seen.indices)[wrong].double()
        columns = (losses, numbers, labels[wrong], predicted[wrong], confidence[wrong])
        values = torch.stack([*(column.double() for column in columns), (-losses).exp()], 1)
        self._merge(values, seen.images[wrong.to(seen.images.device)])

    def _merge(self, values: Tensor, images: Tensor) -> None:
        """Keep the worst of what there is and these."""
        both = torch.cat((self._values, values))
        order = _worst_first(both)[: self._most]
        new = (order >= self._most).nonzero().flatten()
        if not len(new):
            return
        kept = self._pixels[order.clamp(max=self._most - 1)]
        chosen = order[new] - self._most
        small = _small(images[chosen.to(images.device)].cpu())
        self._size = (small.shape[2], small.shape[3])
        kept[new] = 0
        kept[new, :, : small.shape[2], : small.shape[3]] = small
        self._values, self._pixels = both[order], kept

    def result(self, comm: Comm) -> list[Mistake]:
        """The worst ones of all ranks, the worst first; every rank must call it."""
        gathered = comm.gather(self._values).flatten(0, 1)
        order = _worst_first(gathered)[: self._most]
        # A place is filled by the rank whose mistake it is, and the others add nothing to it.
        pixels = torch.zeros_like(self._pixels, dtype=torch.int32)
        first = comm.rank * self._most
        for place, at in enumerate(order.tolist()):
            if first <= at < first + self._most:
                pixels[place] = self._pixels[at - first]
        pixels = comm.sum(pixels).to(torch.uint8)
        height, width = comm.gather(torch.tensor(self._size)).amin(0).tolist()
        return [
            _mistake(row, picture[:, :height, :width])
            for row, picture in zip(gathered[order].tolist(), pixels, strict=True)
            if row[0] != _EMPTY
        ]


def _worst_first(values: Tensor) -> Tensor:
    """The order of the rows; of equal losses the first image comes first, on any number of
    ranks.
    """
    by_image = values[:, 1].argsort(stable=True)
    return by_image[values[by_image, 0].argsort(descending=True, stable=True)]


def _small(images: Tensor) -> Tensor:
    """uint8 ``[n, 1 or 3, h, w]`` in colour, no side longer than SIDE."""
    images = images.expand(-1, 3, -1, -1)
    longest = max(images.shape[2:])
    if longest <= SIDE:
        return images
    size = [max(1, round(side * SIDE / longest)) for side in images.shape[2:]]
    small = functional.interpolate(images.float(), size, mode="area")
    return small.round().to(torch.uint8)


def _mistake(row: list[float], pixels: Tensor) -> Mistake:
    loss, image, label, predicted, confidence, probability = row
    return Mistake(
        int(image), int(label), int(predicted), confidence, probability, loss, pixels.clone()
    )


def write(
    mistakes: Sequence[Mistake], labels: Sequence[str], name: Callable[[int], str], folder: Path
) -> None:
    """Leave ``mistakes.csv`` and, where there are any, ``mistakes.png``.

    ``labels`` are the names of the classes, ``name`` says what an image is called. A disk or an
    image without matplotlib that refuses is a warning: the accuracy is known.
    """
    picture = folder / "mistakes.png"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_rows(folder / "mistakes.csv", _rows(mistakes, labels, name))
        if mistakes:
            _draw(picture, mistakes, labels, name)
        else:
            # That of an earlier run would be taken for this one's.
            picture.unlink(missing_ok=True)
    except (OSError, ImportError) as error:
        logger.warning("no gallery of mistakes in %s: %s", folder, error)


def _rows(
    mistakes: Sequence[Mistake], labels: Sequence[str], name: Callable[[int], str]
) -> list[list[object]]:
    header = ["image", "class", "name", "predicted", "predictedName"]
    rows: list[list[object]] = [[*header, "confidence", "probability", "loss"]]
    for each in mistakes:
        figures = (each.confidence, each.probability, each.loss)
        classes = [each.label, labels[each.label], each.predicted, labels[each.predicted]]
        decimals = [f"{figure:.{DIGITS}f}" for figure in figures]
        rows.append([name(each.image), *classes, *decimals])
    return rows


def _draw(
    path: Path, mistakes: Sequence[Mistake], labels: Sequence[str], name: Callable[[int], str]
) -> None:
    import matplotlib as mpl

    # The back end that needs no display.
    mpl.use("Agg")
    from matplotlib.figure import Figure

    lines = math.ceil(len(mistakes) / COLUMNS)
    figure = Figure(figsize=(2.6 * COLUMNS, 3.0 * lines + 0.4), dpi=110, layout="constrained")
    places = figure.subplots(lines, COLUMNS, squeeze=False).flatten()
    for place in places:
        place.set_axis_off()
    for place, each in zip(places, mistakes, strict=False):
        place.imshow(each.pixels.permute(1, 2, 0).numpy(), interpolation="nearest")
        title = (
            f"{_short(labels[each.label])}\n"
            f"taken for {_short(labels[each.predicted], LONGEST_NAME - 10)}, "
            f"{100 * each.confidence:.0f} %\n{_short(name(each.image), end=True)}"
        )
        # Names of people's files are no formulas.
        place.set_title(printable(title), fontsize=7, parse_math=False)
    figure.suptitle("Worst mistakes: class, what it was taken for and how surely, file", fontsize=9)
    with replacing(path) as draft:
        figure.savefig(draft, format="png")


def _short(text: str, longest: int = LONGEST_NAME, *, end: bool = False) -> str:
    """A text that fits; of paths the ``end`` tells them apart."""
    if len(text) <= longest:
        return text
    return f"…{text[1 - longest :]}" if end else f"{text[: longest - 1]}…"
