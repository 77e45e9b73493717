"""Inception-v4: Szegedy et al. 2016, "Inception-v4, Inception-ResNet and the Impact of Residual
Connections" (arXiv 1602.07261).

The state_dict keys are those of Cadene's and timm's weights: ``features.0`` to ``features.21``,
then ``last_linear``. Average pools do not count the padding; batch norm has eps 0.001.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import ConvNorm, max_pool, xavier_uniform

DROPOUT = 0.2


def _pool_projection(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        # Tensorflow's average, unlike torch's, leaves the padding out.
        nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        ConvNorm(inputs, outputs, 1),
    )


class PoolAndConv(nn.Module):
    """First part of the stem's filter expansion: max pool | 3x3, both with stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = ConvNorm(64, 96, stride=2, padded=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, 64, 147, 147]`` to ``[n, 64 + 96, 73, 73]`` for images of 299 pixels."""
        return torch.cat((max_pool(x), self.conv(x)), 1)


class ShortAndLong(nn.Module):
    """Second part: 1x1, 3x3 | 1x1, 1x7, 7x1, 3x3."""

    def __init__(self) -> None:
        super().__init__()
        self.branch0 = nn.Sequential(ConvNorm(160, 64, 1), ConvNorm(64, 96, padded=False))
        self.branch1 = nn.Sequential(
            ConvNorm(160, 64, 1),
            ConvNorm(64, 64, (1, 7)),
            ConvNorm(64, 64, (7, 1)),
            ConvNorm(64, 96, padded=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[n, 160, 73, 73]`` to ``[n, 2 * 96, 71, 71]``."""
        return torch.cat((self.branch0(x), self.branch1(x)), 1)


class ConvAndPool(nn.Module):
    """Third part: 3x3 | max pool, both with stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = ConvNorm(192, 192, stride=2, padded=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, 192, 71, 71]`` to ``[n, 2 * 192, 35, 35]``."""
        return torch.cat((self.conv(x), max_pool(x)), 1)


class Branches(nn.Module):
    """Runs ``branch0``, ``branch1``, ... on the same map and joins their channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        for number, branch in enumerate(branches):
            self.add_module(f"branch{number}", branch)

    def forward(self, x: Tensor) -> Tensor:
        """The branches' maps, left to right."""
        return torch.cat([branch(x) for branch in self.children()], 1)


def inception_a() -> Branches:
    """1x1 | 3x3 | double 3x3 | pool projection; 384 channels in and out."""
    return Branches(
        ConvNorm(384, 96, 1),
        nn.Sequential(ConvNorm(384, 64, 1), ConvNorm(64, 96)),
        nn.Sequential(ConvNorm(384, 64, 1), ConvNorm(64, 96), ConvNorm(96, 96)),
        _pool_projection(384, 96),
    )


def reduction_a() -> Branches:
    """Halves the side: 3x3 | double 3x3 | max pool; 384 channels to 1024."""
    return Branches(
        ConvNorm(384, 384, stride=2, padded=False),
        nn.Sequential(
            ConvNorm(384, 192, 1), ConvNorm(192, 224), ConvNorm(224, 256, stride=2, padded=False)
        ),
        nn.MaxPool2d(3, 2),
    )


def inception_b() -> Branches:
    """1x1 | 7x7 in two parts | double 7x7 in four parts | pool projection; 1024 channels in and
    out.
    """
    return Branches(
        ConvNorm(1024, 384, 1),
        nn.Sequential(
            ConvNorm(1024, 192, 1), ConvNorm(192, 224, (1, 7)), ConvNorm(224, 256, (7, 1))
        ),
        nn.Sequential(
            ConvNorm(1024, 192, 1),
            ConvNorm(192, 192, (7, 1)),
            ConvNorm(192, 224, (1, 7)),
            ConvNorm(224, 224, (7, 1)),
            ConvNorm(224, 256, (1, 7)),
        ),
        _pool_projection(1024, 128),
    )


def reduction_b() -> Branches:
    """Halves the side: 3x3 | 7x7 in two parts, 3x3 | max pool; 1024 channels to 1536."""
    return Branches(
        nn.Sequential(ConvNorm(1024, 192, 1), ConvNorm(192, 192, stride=2, padded=False)),
        nn.Sequential(
            ConvNorm(1024, 256, 1),
            ConvNorm(256, 256, (1, 7)),
            ConvNorm(256, 320, (7, 1)),
            ConvNorm(320, 320, stride=2, padded=False),
        ),
        nn.MaxPool2d(3, 2),
    )


class InceptionC(nn.Module):
    """1x1 | 1x1 spread into 1x3 and 3x1 | 3x1, 1x3 before such a spread | pool projection; 1536
    channels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.branch0 = ConvNorm(1536, 256, 1)
        self.branch1_0 = ConvNorm(1536, 384, 1)
        self.branch1_1a = ConvNorm(384, 256, (1, 3))
        self.branch1_1b = ConvNorm(384, 256, (3, 1))
        self.branch2_0 = ConvNorm(1536, 384, 1)
        self.branch2_1 = ConvNorm(384, 448, (3, 1))
        self.branch2_2 = ConvNorm(448, 512, (1, 3))
        self.branch2_3a = ConvNorm(512, 256, (1, 3))
        self.branch2_3b = ConvNorm(512, 256, (3, 1))
        self.branch3 = _pool_projection(1536, 256)

    def forward(self, x: Tensor) -> Tensor:
        """Join six times 256 channels."""
        short = self.branch1_0(x)
        long = self.branch2_0(x)
        long = self.branch2_1(long)
        long = self.branch2_2(long)
        spread = (
            self.branch1_1a(short),
            self.branch1_1b(short),
            self.branch2_3a(long),
            self.branch2_3b(long),
        )
        return torch.cat((self.branch0(x), *spread, self.branch3(x)), 1)


class InceptionV4(nn.Module):
    """Inception-v4: 42,679,816 parameters and 12.254 GMAC at 1000 classes and 299 pixels.

    Takes ``[n, 3, side, side]`` with ``side`` >= 75 and returns logits ``[n, num_classes]``.
    """

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        # One flat sequence, because the published keys number it: features.0 to features.21. In
        # the comments what comes out, for images of 299 pixels.
        stem = (
            ConvNorm(3, 32, stride=2, padded=False),  # [n, 32, 149, 149]
            ConvNorm(32, 32, padded=False),  # [n, 32, 147, 147]
            ConvNorm(32, 64),  # [n, 64, 147, 147]
            PoolAndConv(),  # [n, 160, 73, 73]
            ShortAndLong(),  # [n, 192, 71, 71]
            ConvAndPool(),  # [n, 384, 35, 35]
        )
        middle = (
            *(inception_a() for _ in range(4)),  # [n, 384, 35, 35]
            reduction_a(),  # [n, 1024, 17, 17]
            *(inception_b() for _ in range(7)),  # [n, 1024, 17, 17]
            reduction_b(),  # [n, 1536, 8, 8]
        )
        self.features = nn.Sequential(*stem, *middle, *(InceptionC() for _ in range(3)))
        self.dropout = nn.Dropout(DROPOUT)
        self.last_linear = nn.Linear(1536, num_classes)
        xavier_uniform(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[n, 3, side, side]`` to logits ``[n, num_classes]``."""
        pooled = self.features(x).mean((2, 3))  # [n, 1536]
        out: Tensor = self.last_linear(self.dropout(pooled))
        return out
