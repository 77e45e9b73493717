"""How pixels become the numbers that a network sees.

A normalization belongs to the weights: a network trained with one is wrong with another. So
checkpoints carry theirs, and ``data.normalization: Auto`` follows the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Normalization:
    """``(pixel x range / 255 - mean) / std`` per channel, in the channels' order ``order``."""

    name: str
    mean: Triple
    std: Triple
    order: str = "RGB"
    range: float = 1.0
    """The brightest pixel before the mean is taken off: 1 or 255."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for checkpoints and summary.json."""
        return {
            "name": self.name,
            "mean": list(self.mean),
            "std": list(self.std),
            "order": self.order,
            "range": self.range,
        }

    def same_as(self, other: Normalization) -> bool:
        """Whether both compute the same, whatever they are called."""
        return replace(self, name=other.name) == other

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Normalization:
        """The reverse; older checkpoints hold mean and std only."""
        return cls(
            str(data.get("name", DATA)),
            _triple(data["mean"]),
            _triple(data["std"]),
            str(data.get("order", "RGB")),
            float(data.get("range", 1.0)),
        )


def _triple(values: Sequence[float]) -> Triple:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


AUTO, DATA = "Auto", "Data"
# Means and deviations per channel, of pixels from 0 to 1, as torchvision and timm publish them.
IMAGENET = Normalization("ImageNet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
INCEPTION = Normalization("Inception", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CIFAR10 = Normalization("CIFAR10", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
CIFAR100 = Normalization("CIFAR100", (0.50708, 0.48655, 0.44092), (0.26733, 0.25644, 0.27615))
# Weights converted from Caffe saw what OpenCV reads: blue first, 0 to 255, and no deviation.
CAFFE_BGR = Normalization("CaffeBGR", (104.0, 117.0, 128.0), (1.0, 1.0, 1.0), "BGR", 255.0)
NAMED = {
    normalization.name: normalization
    for normalization in (IMAGENET, INCEPTION, CIFAR10, CIFAR100, CAFFE_BGR)
}
CHOICES = (AUTO, DATA, *NAMED)
"""Values of ``data.normalization``."""


def choose(name: str, of_data: Normalization, of_weights: Normalization | None) -> Normalization:
    """What ``data.normalization`` asks for; Auto is that of the weights a run starts from, else
    that of the data.
    """
    if name in NAMED:
        return NAMED[name]
    if name == AUTO and of_weights is not None:
        return of_weights
    return of_data
