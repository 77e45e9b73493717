"""Inception-v3: Szegedy et al. 2015, "Rethinking the Inception Architecture for Computer Vision".

The state_dict keys are torchvision's (timm has the same without ``AuxLogits``). Blocks A to E are
the paper's figures 5, 10, 6, 10 and 7; average pools count the padding; batch norm has eps 0.001.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import ConvNorm, avg_pool, max_pool, xavier_uniform

DROPOUT = 0.2


class InceptionA(nn.Module):
    """1x1 | 5x5 | double 3x3 | pool projection."""

    def __init__(self, inputs: int, pool: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNorm(inputs, 64, 1)
        self.branch5x5_1 = ConvNorm(inputs, 48, 1)
        self.branch5x5_2 = ConvNorm(48, 64, 5)
        self.branch3x3dbl_1 = ConvNorm(inputs, 64, 1)
        self.branch3x3dbl_2 = ConvNorm(64, 96)
        self.branch3x3dbl_3 = ConvNorm(96, 96)
        self.branch_pool = ConvNorm(inputs, pool, 1)

    def forward(self, x: Tensor) -> Tensor:
        """224 channels and the pool's."""
        five = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat((self.branch1x1(x), five, double, self.branch_pool(avg_pool(x))), 1)


class InceptionB(nn.Module):
    """Halves the side: 3x3 | double 3x3 | max pool."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = ConvNorm(inputs, 384, stride=2, padded=False)
        self.branch3x3dbl_1 = ConvNorm(inputs, 64, 1)
        self.branch3x3dbl_2 = ConvNorm(64, 96)
        self.branch3x3dbl_3 = ConvNorm(96, 96, stride=2, padded=False)

    def forward(self, x: Tensor) -> Tensor:
        """480 channels and the inputs."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat((self.branch3x3(x), double, max_pool(x)), 1)


class InceptionC(nn.Module):
    """1x1 | 7x7 in two parts | double 7x7 in four parts | pool projection; 768 channels in and out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNorm(768, 192, 1)
        self.branch7x7_1 = ConvNorm(768, width, 1)
        self.branch7x7_2 = ConvNorm(width, width, (1, 7))
        self.branch7x7_3 = ConvNorm(width, 192, (7, 1))
        self.branch7x7dbl_1 = ConvNorm(768, width, 1)
        self.branch7x7dbl_2 = ConvNorm(width, width, (7, 1))
        self.branch7x7dbl_3 = ConvNorm(width, width, (1, 7))
        self.branch7x7dbl_4 = ConvNorm(width, width, (7, 1))
        self.branch7x7dbl_5 = ConvNorm(width, 192, (1, 7))
        self.branch_pool = ConvNorm(768, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """4 x 192 channels."""
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat((self.branch1x1(x), seven, double, self.branch_pool(avg_pool(x))), 1)


class InceptionD(nn.Module):
    """Halves the side: 3x3 | 7x7 in two parts, 3x3 | max pool; 768 channels to 1280."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1 = ConvNorm(768, 192, 1)
        self.branch3x3_2 = ConvNorm(192, 320, stride=2, padded=False)
        self.branch7x7x3_1 = ConvNorm(768, 192, 1)
        self.branch7x7x3_2 = ConvNorm(192, 192, (1, 7))
        self.branch7x7x3_3 = ConvNorm(192, 192, (7, 1))
        self.branch7x7x3_4 = ConvNorm(192, 192, stride=2, padded=False)

    def forward(self, x: Tensor) -> Tensor:
        """320, 192 and 768 channels."""
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat(
            (self.branch3x3_2(self.branch3x3_1(x)), self.branch7x7x3_4(seven), max_pool(x)), 1
        )


class InceptionE(nn.Module):
    """1x1 | 3x3 spread into 1x3 and 3x1 | 3x3 before such a spread | pool projection; to 2048
    channels.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNorm(inputs, 320, 1)
        self.branch3x3_1 = ConvNorm(inputs, 384, 1)
        self.branch3x3_2a = ConvNorm(384, 384, (1, 3))
        self.branch3x3_2b = ConvNorm(384, 384, (3, 1))
        self.branch3x3dbl_1 = ConvNorm(inputs, 448, 1)
        self.branch3x3dbl_2 = ConvNorm(448, 384)
        self.branch3x3dbl_3a = ConvNorm(384, 384, (1, 3))
        self.branch3x3dbl_3b = ConvNorm(384, 384, (3, 1))
        self.branch_pool = ConvNorm(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """320, 768, 768 and 192 channels."""
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        spread = (self.branch3x3_2a(three), self.branch3x3_2b(three))
        double_spread = (self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double))
        return torch.cat(
            (self.branch1x1(x), *spread, *double_spread, self.branch_pool(avg_pool(x))), 1
        )


class Auxiliary(nn.Module):
    """The head beside the network that brings gradients to its middle; takes the map before block
    D, 17x17 or more.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv0 = ConvNorm(768, 128, 1)
        self.conv1 = ConvNorm(128, 768, 5, padded=False)
        self.fc = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[batch, num_classes]``."""
        x = self.conv1(self.conv0(functional.avg_pool2d(x, 5, 3)))
        out: Tensor = self.fc(x.mean((2, 3)))
        return out


class InceptionV3(nn.Module):
    """Inception-v3: 23,834,568 parameters (27,161,264 with auxiliary head), 5.713 GMAC at 1000
    classes and 299 pixels.

    Takes ``[batch, 3, side, side]`` with ``side`` >= 75. Returns logits ``[batch, num_classes]``; a
    pair of logits (classifier, auxiliary head) while training with the auxiliary head, which needs
    ``side`` >= 299.
    """

    def __init__(self, num_classes: int = 1000, *, auxiliary: bool = False) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, stride=2, padded=False)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, padded=False)
        self.Conv2d_2b_3x3 = ConvNorm(32, 64)
        self.Conv2d_3b_1x1 = ConvNorm(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, padded=False)
        self.Mixed_5b = InceptionA(192, 32)
        self.Mixed_5c = InceptionA(256, 64)
        self.Mixed_5d = InceptionA(288, 64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(128)
        self.Mixed_6c = InceptionC(160)
        self.Mixed_6d = InceptionC(160)
        self.Mixed_6e = InceptionC(192)
        self.AuxLogits = Auxiliary(num_classes) if auxiliary else None
        self.Mixed_7a = InceptionD()
        self.Mixed_7b = InceptionE(1280)
        self.Mixed_7c = InceptionE(2048)
        self.dropout = nn.Dropout(DROPOUT)
        self.fc = nn.Linear(2048, num_classes)
        xavier_uniform(self)

    def _middle(self, x: Tensor) -> Tensor:
        x = max_pool(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = max_pool(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        x = self.Mixed_6a(self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x))))
        out: Tensor = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))
        return out

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits; with those of the auxiliary head while training with it."""
        middle = self._middle(x)
        pooled = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(middle))).mean((2, 3))
        logits: Tensor = self.fc(self.dropout(pooled))
        if self.training and self.AuxLogits is not None:
            return logits, self.AuxLogits(middle)
        return logits
