"""ResNet-50 v1.5: He et al. 2015, "Deep Residual Learning for Image Recognition".

arXiv 1512.03385. Version 1.5 has the stride on the 3x3 convolution of each bottleneck instead of
the first 1x1, as torchvision and NVIDIA have it. The state_dict keys are torchvision's and timm's.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from .layers import kaiming_normal

EXPANSION = 4
"""Channels out of a bottleneck per channel inside of it."""


def _conv(inputs: int, outputs: int, size: int = 1, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 beside a shortcut, which is projected where side or channels change.

    ``[n, inputs, h, w]`` to ``[n, 4 * width, h / stride, w / stride]``.
    """

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * EXPANSION
        self.conv1 = _conv(inputs, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, outputs)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            projection = _conv(inputs, outputs, 1, stride)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both ways, after ReLU."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn1(self.conv1(x))
        x = functional.relu(x, inplace=True)
        x = self.bn2(self.conv2(x))
        x = functional.relu(x, inplace=True)
        x = self.bn3(self.conv3(x))
        return functional.relu(x + shortcut, inplace=True)


def _stage(inputs: int, width: int, depth: int, stride: int) -> nn.Sequential:
    # Only the first bottleneck of a stage changes side and channels.
    rest = (Bottleneck(width * EXPANSION, width, 1) for _ in range(depth - 1))
    return nn.Sequential(Bottleneck(inputs, width, stride), *rest)


class ResNet50(nn.Module):
    """ResNet-50 v1.5: 25,557,032 parameters and 4.089 GMAC at 1000 classes and 224 pixels.

    Takes ``[n, 3, side, side]`` with ``side`` >= 32 and returns logits ``[n, num_classes]``.
    """

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = _conv(3, 64, 7, 2)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(64, 64, 3, stride=1)
        self.layer2 = _stage(256, 128, 4, stride=2)
        self.layer3 = _stage(512, 256, 6, stride=2)
        self.layer4 = _stage(1024, 512, 3, stride=2)
        self.fc = nn.Linear(2048, num_classes)
        # Of the convolutions only: norms begin as 1 and 0, the classifier as torch begins it.
        kaiming_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[n, 3, side, side]`` to logits ``[n, num_classes]``."""
        # Sides for images of 224 pixels.
        x = self.bn1(self.conv1(x))  # [n, 64, 112, 112]
        x = functional.relu(x, inplace=True)
        x = functional.max_pool2d(x, 3, 2, 1)  # [n, 64, 56, 56]
        x = self.layer1(x)  # [n, 256, 56, 56]
        x = self.layer2(x)  # [n, 512, 28, 28]
        x = self.layer3(x)  # [n, 1024, 14, 14]
        x = self.layer4(x)  # [n, 2048, 7, 7]
        out: Tensor = self.fc(x.mean((2, 3)))
        return out
