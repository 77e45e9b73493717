"""ResNet-50 v1.5: He et al. 2015, with the stride on the 3x3 convolution of each bottleneck instead
of the first 1x1.

The state_dict keys are torchvision's and timm's.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from .layers import kaiming_normal

EXPANSION = 4


def _conv(inputs: int, outputs: int, size: int = 1, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 beside a shortcut, which is projected where side or channels change."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * EXPANSION
        self.conv1, self.bn1 = _conv(inputs, width), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = _conv(width, outputs), nn.BatchNorm2d(outputs)
        projects = stride != 1 or inputs != outputs
        projection = (
            nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
            if projects
            else None
        )
        self.downsample = projection

    def forward(self, x: Tensor) -> Tensor:
        """Four times ``width`` channels."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        x = functional.relu(self.bn2(self.conv2(x)), inplace=True)
        return functional.relu(self.bn3(self.conv3(x)) + shortcut, inplace=True)


def _stage(inputs: int, width: int, depth: int, stride: int) -> nn.Sequential:
    rest = (Bottleneck(width * EXPANSION, width, 1) for _ in range(depth - 1))
    return nn.Sequential(Bottleneck(inputs, width, stride), *rest)


class ResNet50(nn.Module):
    """ResNet-50 v1.5: 25,557,032 parameters and 4.089 GMAC at 1000 classes and 224 pixels.

    Takes ``[batch, 3, side, side]`` with ``side`` >= 32 and returns logits ``[batch,
    num_classes]``.
    """

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(3, 64, 7, 2), nn.BatchNorm2d(64)
        self.layer1 = _stage(64, 64, 3, stride=1)
        self.layer2 = _stage(256, 128, 4, stride=2)
        self.layer3 = _stage(512, 256, 6, stride=2)
        self.layer4 = _stage(1024, 512, 3, stride=2)
        self.fc = nn.Linear(2048, num_classes)
        kaiming_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[batch, num_classes]``."""
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        x = functional.max_pool2d(x, 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        out: Tensor = self.fc(x.mean((2, 3)))
        return out
