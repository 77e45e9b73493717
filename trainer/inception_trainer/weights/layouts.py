"""Published weight files: which network and whose layout the keys of a state_dict show, and how it
maps to ours.

Pure functions over names; nothing here reads a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from inception_trainer.config.normalization import (
    CAFFE_BGR,
    CIFAR100,
    IMAGENET,
    INCEPTION,
    Normalization,
)


@dataclass(frozen=True)
class Layout:
    """Names of one publisher for one network."""

    model: str
    publisher: str
    shows: tuple[str, ...]
    """Keys that only this layout has together."""
    normalization: Normalization
    """What the published weights of this layout expect of their inputs."""
    renames: tuple[tuple[str, str], ...] = ()
    """Regular expressions and what replaces them, to reach our names."""

    def rename(self, key: str) -> str:
        """Our name of ``key``."""
        for pattern, replacement in self.renames:
            key = re.sub(pattern, replacement, key)
        return key


_LAST_LINEAR = ((r"^last_linear\.", "fc."),)
_STAGES = tuple((rf"^layers\.{number}\.", f"layer{number + 1}.") for number in range(4))
_V3, _V3_CLASSIFIER = "Mixed_5b.branch5x5_1.conv.weight", "fc.weight"
_RESNET = "layer3.5.conv3.weight"

LAYOUTS: tuple[Layout, ...] = (
    Layout("bninception", "Cadene", ("conv1_7x7_s2.weight", "last_linear.weight"), CAFFE_BGR),
    Layout(
        "inception_v3",
        "torchvision",
        (_V3, _V3_CLASSIFIER, "AuxLogits.conv0.conv.weight"),
        INCEPTION,
    ),
    Layout("inception_v3", "timm", (_V3, _V3_CLASSIFIER), INCEPTION),
    Layout("inception_v3", "Cadene", (_V3, "last_linear.weight"), INCEPTION, _LAST_LINEAR),
    Layout(
        "inception_v4",
        "timm",
        ("features.21.branch1_1a.conv.weight", "last_linear.weight"),
        INCEPTION,
    ),
    Layout(
        "inceptionv3_cifar",
        "weiaicunzai",
        ("Mixed_5b.branch5x5.0.conv.weight", "linear.weight"),
        CIFAR100,
    ),
    Layout("resnet50", "torchvision", (_RESNET, "fc.weight"), IMAGENET),
    Layout("resnet50", "Cadene", (_RESNET, "last_linear.weight"), IMAGENET, _LAST_LINEAR),
    Layout("resnet50", "NVIDIA", ("layers.2.5.conv3.weight", "fc.weight"), IMAGENET, _STAGES),
)
"""In the order in which they are tried: a layout with more keys comes before one with fewer."""

HEADS = {
    "bninception": "last_linear.",
    "inception_v3": "fc.",
    "inception_v4": "last_linear.",
    "inceptionv3_cifar": "linear.",
    "resnet50": "fc.",
}
"""Prefix of our classifier's keys."""
AUXILIARY = "AuxLogits."
AUXILIARY_HEAD = "AuxLogits.fc."


def detect(keys: Iterable[str]) -> Layout | None:
    """The layout that the names show; None when they are of no known one."""
    present = set(keys)
    return next((layout for layout in LAYOUTS if present.issuperset(layout.shows)), None)


def publishers(model: str) -> tuple[str, ...]:
    """Whose files are understood for this network."""
    return tuple(layout.publisher for layout in LAYOUTS if layout.model == model)
