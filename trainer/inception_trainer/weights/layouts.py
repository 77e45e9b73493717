"""Layouts of published weight files: whose names the keys of a state_dict are, and ours for them.

A layout is recognised by keys that only its publisher's files have together. Pure functions over
names; nothing here reads a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from inception_trainer.config.catalog import facts
from inception_trainer.config.normalization import (
    CAFFE_BGR,
    CIFAR100,
    IMAGENET,
    INCEPTION,
    Normalization,
)
from inception_trainer.errors import ConfigError


@dataclass(frozen=True)
class Layout:
    """How one publisher names the tensors of one network."""

    model: str
    publisher: str
    distinctive_keys: tuple[str, ...]
    """Keys that only this layout has together."""
    normalization: Normalization
    """What the published weights of this layout expect of their inputs."""
    renames: tuple[tuple[str, str], ...] = ()
    """Regular expressions and what replaces them, to get our names; applied in order."""

    def rename(self, key: str) -> str:
        """Our name for a key of this layout."""
        for pattern, replacement in self.renames:
            key = re.sub(pattern, replacement, key)
        return key


# Cadene's pretrainedmodels call every classifier last_linear.
_LAST_LINEAR = ((r"^last_linear\.", "fc."),)
# NVIDIA's examples count the stages of ResNet from 0, in one list.
_STAGES = tuple((rf"^layers\.{number}\.", f"layer{number + 1}.") for number in range(4))
_INCEPTION_V3 = "Mixed_5b.branch5x5_1.conv.weight"
_INCEPTION_V3_CLASSIFIER = "fc.weight"
_RESNET50 = "layer3.5.conv3.weight"

LAYOUTS: tuple[Layout, ...] = (
    Layout("bninception", "Cadene", ("conv1_7x7_s2.weight", "last_linear.weight"), CAFFE_BGR),
    Layout(
        "inception_v3",
        "torchvision",
        (_INCEPTION_V3, _INCEPTION_V3_CLASSIFIER, "AuxLogits.conv0.conv.weight"),
        INCEPTION,
    ),
    Layout("inception_v3", "timm", (_INCEPTION_V3, _INCEPTION_V3_CLASSIFIER), INCEPTION),
    Layout(
        "inception_v3", "Cadene", (_INCEPTION_V3, "last_linear.weight"), INCEPTION, _LAST_LINEAR
    ),
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
    Layout("resnet50", "torchvision", (_RESNET50, "fc.weight"), IMAGENET),
    Layout("resnet50", "Cadene", (_RESNET50, "last_linear.weight"), IMAGENET, _LAST_LINEAR),
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
"""Prefix of the classifier's keys in our networks."""


def head(model: str) -> str:
    """The prefix of the classifier's keys; raises ConfigError for a network without one."""
    prefix = HEADS.get(model) or facts(model).head
    if prefix is None:
        raise ConfigError(f"model.name: {model} has no classifier whose weights could be loaded")
    return prefix


def of_timm(model: str) -> Layout:
    """That of a network of timm, whose names are ours."""
    normalization = facts(model).normalization
    assert normalization is not None  # noqa: S101 - of timm
    return Layout(model, "timm", (), normalization)


WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""What torch.compile, FSDP and activation checkpointing put into names, wherever they wrap."""
OUTER_WRAPPER = "module"
"""What DataParallel, DistributedDataParallel and AveragedModel put before all names."""
AUXILIARY = "AuxLogits."
AUXILIARY_HEAD = "AuxLogits.fc."


def detect(keys: Iterable[str]) -> Layout | None:
    """The layout that the keys of a state_dict belong to; None when it is none of these."""
    # A subset is enough: files may have more, such as an auxiliary head, and often lack counters.
    present = set(keys)
    return next((layout for layout in LAYOUTS if present.issuperset(layout.distinctive_keys)), None)


def bare(key: str) -> str:
    """``module._orig_mod.fc.weight`` to ``fc.weight``: a name without the wrappers of its network,
    in whatever order they were put around it.
    """
    parts = [part for part in key.split(".") if part not in WRAPPERS]
    while parts[:1] == [OUTER_WRAPPER]:
        parts.pop(0)
    return ".".join(parts)
