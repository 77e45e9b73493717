"""The blocks of a network, from its first layers to its classifier."""

from __future__ import annotations

import re

from torch import nn

BLOCK = re.compile(r"conv\d(?=_)|inception_\d[a-z]|features\.\d+|[^.]+")
"""The beginning of a parameter's name that says its block. Names of BN-Inception are flat, those of
Inception-v4 are numbered within ``features``; the others have their block before the first dot."""
SAME_BLOCK = {"bn1": "conv1"}
"""The first norm of ResNet-50 belongs to the convolution before it."""
HEADS = ("AuxLogits",)
"""Classifiers beside the last one."""


def depths(network: nn.Module) -> dict[str, int]:
    """How many blocks come after each parameter, by its name: 0 for those of the classifiers."""
    blocks = {name: _block(name) for name, _ in network.named_parameters()}
    order = list(dict.fromkeys(block for block in blocks.values() if block not in HEADS))
    from_the_end = {block: depth for depth, block in enumerate(reversed(order))}
    return {name: from_the_end.get(block, 0) for name, block in blocks.items()}


def _block(name: str) -> str:
    match = BLOCK.match(name)
    assert match is not None  # noqa: S101 - the last alternative matches every name
    return SAME_BLOCK.get(match[0], match[0])
