"""Inception-v3 for 32-pixel images, the network of Tecorigin's CIFAR-10 system.

Architecture and state_dict keys are those of weiaicunzai's pytorch-cifar100. It differs from
Inception-v3 in more than its stem, which keeps the side: the pool branch of block A projects with a
3x3, block D pools averages, block C turns its 7x7 round, batch norm has eps 1e-5, and there is no
auxiliary head.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from .layers import ConvNorm

DROPOUT = 0.5
Unit = partial(ConvNorm, eps=1e-5)


class InceptionA(nn.Module):
    """1x1 | 5x5 | double 3x3 | pool, 3x3."""

    def __init__(self, inputs: int, pool: int) -> None:
        super().__init__()
        self.branch1x1 = Unit(inputs, 64, 1)
        self.branch5x5 = nn.Sequential(Unit(inputs, 48, 1), Unit(48, 64, 5))
        self.branch3x3 = nn.Sequential(Unit(inputs, 64, 1), Unit(64, 96), Unit(96, 96))
        self.branchpool = nn.Sequential(nn.AvgPool2d(3, 1, 1), Unit(inputs, pool, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Join 64, 64, 96 and ``pool`` channels; the side stays."""
        return torch.cat(
            (self.branch1x1(x), self.branch5x5(x), self.branch3x3(x), self.branchpool(x)), 1
        )


class InceptionB(nn.Module):
    """Halves the side: 3x3 | double 3x3 | max pool."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = Unit(inputs, 384, stride=2, padded=False)
        self.branch3x3stack = nn.Sequential(
            Unit(inputs, 64, 1), Unit(64, 96), Unit(96, 96, stride=2, padded=False)
        )
        self.branchpool = nn.MaxPool2d(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Join 384, 96 and ``inputs`` channels."""
        return torch.cat((self.branch3x3(x), self.branch3x3stack(x), self.branchpool(x)), 1)


class InceptionC(nn.Module):
    """1x1 | 7x7 in two parts | double 7x7 in four parts | pool projection; 768 channels in and out.

    ``width``: channels inside of the 7x7 branches.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch1x1 = Unit(768, 192, 1)
        # 7x1 before 1x7, the other way round than Inception-v3.
        self.branch7x7 = nn.Sequential(
            Unit(768, width, 1), Unit(width, width, (7, 1)), Unit(width, 192, (1, 7))
        )
        self.branch7x7stack = nn.Sequential(
            Unit(768, width, 1),
            Unit(width, width, (7, 1)),
            Unit(width, width, (1, 7)),
            Unit(width, width, (7, 1)),
            Unit(width, 192, (1, 7)),
        )
        self.branch_pool = nn.Sequential(nn.AvgPool2d(3, 1, 1), Unit(768, 192, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Join four times 192 channels."""
        return torch.cat(
            (self.branch1x1(x), self.branch7x7(x), self.branch7x7stack(x), self.branch_pool(x)), 1
        )


class InceptionD(nn.Module):
    """Halves the side: 3x3 | 7x7 in two parts, 3x3 | average pool; 768 channels to 1280."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3 = nn.Sequential(Unit(768, 192, 1), Unit(192, 320, stride=2, padded=False))
        self.branch7x7 = nn.Sequential(
            Unit(768, 192, 1),
            Unit(192, 192, (1, 7)),
            Unit(192, 192, (7, 1)),
            Unit(192, 192, stride=2, padded=False),
        )
        # An average where the paper has a maximum.
        self.branchpool = nn.AvgPool2d(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Join 320, 192 and 768 channels."""
        return torch.cat((self.branch3x3(x), self.branch7x7(x), self.branchpool(x)), 1)


class InceptionE(nn.Module):
    """1x1 | 3x3 spread into 1x3 and 3x1 | 3x3 before such a spread | pool projection; to 2048
    channels.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch1x1 = Unit(inputs, 320, 1)
        self.branch3x3_1 = Unit(inputs, 384, 1)
        self.branch3x3_2a = Unit(384, 384, (1, 3))
        self.branch3x3_2b = Unit(384, 384, (3, 1))
        self.branch3x3stack_1 = Unit(inputs, 448, 1)
        self.branch3x3stack_2 = Unit(448, 384)
        self.branch3x3stack_3a = Unit(384, 384, (1, 3))
        self.branch3x3stack_3b = Unit(384, 384, (3, 1))
        self.branch_pool = nn.Sequential(nn.AvgPool2d(3, 1, 1), Unit(inputs, 192, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Join 320, 2 x 384, 2 x 384 and 192 channels."""
        three = self.branch3x3_1(x)
        stack = self.branch3x3stack_1(x)
        stack = self.branch3x3stack_2(stack)
        three_a = self.branch3x3_2a(three)
        three_b = self.branch3x3_2b(three)
        stack_a = self.branch3x3stack_3a(stack)
        stack_b = self.branch3x3stack_3b(stack)
        one = self.branch1x1(x)
        pool = self.branch_pool(x)
        return torch.cat((one, three_a, three_b, stack_a, stack_b, pool), 1)


class InceptionV3Cifar(nn.Module):
    """Inception-v3 for CIFAR: 22,133,738 parameters and 3.391 GMAC at 10 classes and 32 pixels.

    Takes ``[n, 3, side, side]`` with ``side`` >= 9 and returns logits ``[n, num_classes]``.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        # Modules in the order in which the random weights are drawn: another order begins with
        # other weights from the same seed.
        self.Conv2d_1a_3x3 = Unit(3, 32)
        self.Conv2d_2a_3x3 = Unit(32, 32)
        self.Conv2d_2b_3x3 = Unit(32, 64)
        self.Conv2d_3b_1x1 = Unit(64, 80, 1)
        self.Conv2d_4a_3x3 = Unit(80, 192, padded=False)
        self.Mixed_5b = InceptionA(192, 32)
        self.Mixed_5c = InceptionA(256, 64)
        self.Mixed_5d = InceptionA(288, 64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(128)
        self.Mixed_6c = InceptionC(160)
        self.Mixed_6d = InceptionC(160)
        self.Mixed_6e = InceptionC(192)
        self.Mixed_7a = InceptionD()
        self.Mixed_7b = InceptionE(1280)
        self.Mixed_7c = InceptionE(2048)
        self.dropout = nn.Dropout(DROPOUT)
        self.linear = nn.Linear(2048, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[n, 3, side, side]`` to logits ``[n, num_classes]``."""
        # Sides for images of 32 pixels.
        x = self.Conv2d_1a_3x3(x)  # [n, 32, 32, 32]
        x = self.Conv2d_2a_3x3(x)  # [n, 32, 32, 32]
        x = self.Conv2d_2b_3x3(x)  # [n, 64, 32, 32]
        x = self.Conv2d_3b_1x1(x)  # [n, 80, 32, 32]
        x = self.Conv2d_4a_3x3(x)  # [n, 192, 30, 30]
        x = self.Mixed_5b(x)  # [n, 256, 30, 30]
        x = self.Mixed_5c(x)  # [n, 288, 30, 30]
        x = self.Mixed_5d(x)  # [n, 288, 30, 30]
        x = self.Mixed_6a(x)  # [n, 768, 14, 14]
        x = self.Mixed_6b(x)
        x = self.Mixed_6c(x)
        x = self.Mixed_6d(x)
        x = self.Mixed_6e(x)
        x = self.Mixed_7a(x)  # [n, 1280, 6, 6]
        x = self.Mixed_7b(x)  # [n, 2048, 6, 6]
        x = self.Mixed_7c(x)  # [n, 2048, 6, 6]
        pooled = x.mean((2, 3))  # [n, 2048]
        out: Tensor = self.linear(self.dropout(pooled))
        return out
