"""Inception-v3: Szegedy et al. 2015, "Rethinking the Inception Architecture for Computer Vision"
(arXiv 1512.00567).

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
    """1x1 | 5x5 | double 3x3 | pool projection; ``inputs`` channels to 224 and ``pool`` more."""

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
        """Join 64, 64, 96 and ``pool`` channels."""
        five = self.branch5x5_1(x)
        five = self.branch5x5_2(five)
        double = self.branch3x3dbl_1(x)
        double = self.branch3x3dbl_2(double)
        double = self.branch3x3dbl_3(double)
        one = self.branch1x1(x)
        pool = self.branch_pool(avg_pool(x))
        return torch.cat((one, five, double, pool), 1)


class InceptionB(nn.Module):
    """Halves the side: 3x3 | double 3x3 | max pool; ``inputs`` channels to 480 more."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = ConvNorm(inputs, 384, stride=2, padded=False)
        self.branch3x3dbl_1 = ConvNorm(inputs, 64, 1)
        self.branch3x3dbl_2 = ConvNorm(64, 96)
        self.branch3x3dbl_3 = ConvNorm(96, 96, stride=2, padded=False)

    def forward(self, x: Tensor) -> Tensor:
        """Join 384, 96 and ``inputs`` channels."""
        double = self.branch3x3dbl_1(x)
        double = self.branch3x3dbl_2(double)
        double = self.branch3x3dbl_3(double)
        return torch.cat((self.branch3x3(x), double, max_pool(x)), 1)


class InceptionC(nn.Module):
    """1x1 | 7x7 in two parts | double 7x7 in four parts | pool projection; 768 channels in and out.

    ``width``: channels inside of the 7x7 branches.
    """

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
        """Join four times 192 channels."""
        seven = self.branch7x7_1(x)
        seven = self.branch7x7_2(seven)
        seven = self.branch7x7_3(seven)
        double = self.branch7x7dbl_1(x)
        double = self.branch7x7dbl_2(double)
        double = self.branch7x7dbl_3(double)
        double = self.branch7x7dbl_4(double)
        double = self.branch7x7dbl_5(double)
        one = self.branch1x1(x)
        pool = self.branch_pool(avg_pool(x))
        return torch.cat((one, seven, double, pool), 1)


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
        """Join 320, 192 and 768 channels."""
        seven = self.branch7x7x3_1(x)
        seven = self.branch7x7x3_2(seven)
        seven = self.branch7x7x3_3(seven)
        three = self.branch3x3_1(x)
        three = self.branch3x3_2(three)
        seven = self.branch7x7x3_4(seven)
        return torch.cat((three, seven, max_pool(x)), 1)


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
        """Join 320, 2 x 384, 2 x 384 and 192 channels."""
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_1(x)
        double = self.branch3x3dbl_2(double)
        three_a = self.branch3x3_2a(three)
        three_b = self.branch3x3_2b(three)
        double_a = self.branch3x3dbl_3a(double)
        double_b = self.branch3x3dbl_3b(double)
        one = self.branch1x1(x)
        pool = self.branch_pool(avg_pool(x))
        return torch.cat((one, three_a, three_b, double_a, double_b, pool), 1)


class Auxiliary(nn.Module):
    """The head beside the network that brings gradients to its middle.

    Takes the map before block D, ``[n, 768, 17, 17]`` or larger.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv0 = ConvNorm(768, 128, 1)
        self.conv1 = ConvNorm(128, 768, 5, padded=False)
        self.fc = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """The map to logits ``[n, num_classes]``."""
        x = functional.avg_pool2d(x, 5, 3)  # [n, 768, 5, 5]
        x = self.conv0(x)  # [n, 128, 5, 5]
        x = self.conv1(x)  # [n, 768, 1, 1]
        out: Tensor = self.fc(x.mean((2, 3)))
        return out


class InceptionV3(nn.Module):
    """Inception-v3: 23,834,568 parameters (27,161,264 with auxiliary head), 5.713 GMAC at 1000
    classes and 299 pixels.

    Takes ``[n, 3, side, side]`` with ``side`` >= 75. Returns logits ``[n, num_classes]``; a pair of
    logits (classifier, auxiliary head) while training with the auxiliary head, which needs ``side``
    >= 299.
    """

    def __init__(self, num_classes: int = 1000, *, auxiliary: bool = False) -> None:
        super().__init__()
        # Names and order are part of the contract: names are the keys of weight files, and in this
        # order the random weights are drawn from the seed.
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
        # Between the blocks, where torchvision has it.
        self.AuxLogits = Auxiliary(num_classes) if auxiliary else None
        self.Mixed_7a = InceptionD()
        self.Mixed_7b = InceptionE(1280)
        self.Mixed_7c = InceptionE(2048)
        self.dropout = nn.Dropout(DROPOUT)
        self.fc = nn.Linear(2048, num_classes)
        xavier_uniform(self)

    def _middle(self, x: Tensor) -> Tensor:
        """The map that both heads go on from: ``[n, 768, 17, 17]`` for images of 299 pixels."""
        x = self.Conv2d_1a_3x3(x)  # [n, 32, 149, 149]
        x = self.Conv2d_2a_3x3(x)  # [n, 32, 147, 147]
        x = self.Conv2d_2b_3x3(x)  # [n, 64, 147, 147]
        x = max_pool(x)  # [n, 64, 73, 73]
        x = self.Conv2d_3b_1x1(x)  # [n, 80, 73, 73]
        x = self.Conv2d_4a_3x3(x)  # [n, 192, 71, 71]
        x = max_pool(x)  # [n, 192, 35, 35]
        x = self.Mixed_5b(x)  # [n, 256, 35, 35]
        x = self.Mixed_5c(x)  # [n, 288, 35, 35]
        x = self.Mixed_5d(x)  # [n, 288, 35, 35]
        x = self.Mixed_6a(x)  # [n, 768, 17, 17], and so to the end
        x = self.Mixed_6b(x)
        x = self.Mixed_6c(x)
        x = self.Mixed_6d(x)
        out: Tensor = self.Mixed_6e(x)
        return out

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Images ``[n, 3, side, side]`` to logits; to a pair while training with both heads."""
        middle = self._middle(x)
        x = self.Mixed_7a(middle)  # [n, 1280, 8, 8]
        x = self.Mixed_7b(x)  # [n, 2048, 8, 8]
        x = self.Mixed_7c(x)  # [n, 2048, 8, 8]
        # A mean instead of a pool of 8x8, so that images of any side will do.
        pooled = x.mean((2, 3))  # [n, 2048]
        logits: Tensor = self.fc(self.dropout(pooled))
        if self.training and self.AuxLogits is not None:
            return logits, self.AuxLogits(middle)
        return logits
