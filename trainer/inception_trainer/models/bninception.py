"""BN-Inception ("Inception v2"): Ioffe and Szegedy 2015, "Batch Normalization" (arXiv 1502.03167),
with the layout of the published Caffe port.

The state_dict keys are those of Cadene's ``bn_inception`` weights: flat names, each convolution
followed by a sibling ``<name>_bn``. Every convolution has a bias, every pool rounds up, average
pools count the padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

max_pool = partial(functional.max_pool2d, ceil_mode=True)
avg_pool = partial(functional.avg_pool2d, ceil_mode=True, count_include_pad=True)


@dataclass(frozen=True)
class Block:
    """Channels of one inception block's branches, convolution by convolution.

    A block without ``single`` halves the side and projects no pool.
    """

    name: str
    single: int
    """1x1"""
    triple: tuple[int, int]
    """1x1, 3x3"""
    double: tuple[int, int, int]
    """1x1, 3x3, 3x3"""
    pool: int
    """Pool, 1x1"""

    @property
    def halves(self) -> bool:
        """Whether the last convolution of each branch has stride 2."""
        return self.single == 0

    @property
    def width(self) -> int:
        """Channels out, for a block that keeps the side."""
        return self.single + self.triple[-1] + self.double[-1] + self.pool


# Row by row as the paper's table of the architecture.
BLOCKS = (
    Block("3a", 64, (64, 64), (64, 96, 96), 32),
    Block("3b", 64, (64, 96), (64, 96, 96), 64),
    Block("3c", 0, (128, 160), (64, 96, 96), 0),
    Block("4a", 224, (64, 96), (96, 128, 128), 128),
    Block("4b", 192, (96, 128), (96, 128, 128), 128),
    Block("4c", 160, (128, 160), (128, 160, 160), 128),
    Block("4d", 96, (128, 192), (160, 192, 192), 128),
    Block("4e", 0, (128, 192), (192, 256, 256), 0),
    Block("5a", 352, (192, 320), (160, 224, 224), 128),
    Block("5b", 352, (192, 320), (192, 224, 224), 128),
)
MAX_POOL_PROJECTION = "5b"
"""The one block whose projected pool is a maximum; all others average."""


class BNInception(nn.Module):
    """BN-Inception: 11,295,240 parameters and 2.033 GMAC at 1000 classes and 224 pixels.

    Takes ``[n, 3, side, side]`` with ``side`` >= 32 and returns logits ``[n, num_classes]``.
    """

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self._unit("conv1_7x7_s2", 3, 64, size=7, stride=2)
        self._unit("conv2_3x3_reduce", 64, 64, size=1)
        self._unit("conv2_3x3", 64, 192)
        width = 192
        for block in BLOCKS:
            width = self._block(block, width)
        self.last_linear = nn.Linear(width, num_classes)

    def _unit(self, name: str, inputs: int, outputs: int, size: int = 3, stride: int = 1) -> int:
        # With a bias, although the norm that follows takes it away: the weight files have it.
        self.add_module(name, nn.Conv2d(inputs, outputs, size, stride, padding=size // 2))
        self.add_module(f"{name}_bn", nn.BatchNorm2d(outputs))
        return outputs

    def _block(self, block: Block, width: int) -> int:
        name = f"inception_{block.name}"
        stride = 2 if block.halves else 1
        if not block.halves:
            self._unit(f"{name}_1x1", width, block.single, size=1)
        self._unit(f"{name}_3x3_reduce", width, block.triple[0], size=1)
        self._unit(f"{name}_3x3", *block.triple, stride=stride)
        self._unit(f"{name}_double_3x3_reduce", width, block.double[0], size=1)
        self._unit(f"{name}_double_3x3_1", block.double[0], block.double[1])
        self._unit(f"{name}_double_3x3_2", block.double[1], block.double[2], stride=stride)
        if block.halves:
            return width + block.triple[-1] + block.double[-1]
        self._unit(f"{name}_pool_proj", width, block.pool, size=1)
        return block.width

    def _apply_unit(self, name: str, x: Tensor) -> Tensor:
        # By name, because the published keys are flat: there is no module for a branch or a block.
        convolution = self._modules[name]
        norm = self._modules[f"{name}_bn"]
        assert convolution is not None and norm is not None  # noqa: S101, PT018 - built by _unit
        out: Tensor = norm(convolution(x))
        return functional.relu_(out)

    def _chain(self, x: Tensor, *names: str) -> Tensor:
        for name in names:
            x = self._apply_unit(name, x)
        return x

    def _apply_block(self, block: Block, x: Tensor) -> Tensor:
        name = f"inception_{block.name}"
        triple = self._chain(x, f"{name}_3x3_reduce", f"{name}_3x3")
        double = self._chain(
            x, f"{name}_double_3x3_reduce", f"{name}_double_3x3_1", f"{name}_double_3x3_2"
        )
        if block.halves:
            return torch.cat((triple, double, max_pool(x, 3, 2)), 1)
        pool = max_pool if block.name == MAX_POOL_PROJECTION else avg_pool
        projected = self._apply_unit(f"{name}_pool_proj", pool(x, 3, 1, 1))
        single = self._apply_unit(f"{name}_1x1", x)
        return torch.cat((single, triple, double, projected), 1)

    def features(self, x: Tensor) -> Tensor:
        """The last feature map: ``[n, 1024, side / 32, side / 32]``."""
        # Sides for images of 224 pixels.
        x = self._apply_unit("conv1_7x7_s2", x)  # [n, 64, 112, 112]
        x = max_pool(x, 3, 2)  # [n, 64, 56, 56]
        x = self._chain(x, "conv2_3x3_reduce", "conv2_3x3")  # [n, 192, 56, 56]
        x = max_pool(x, 3, 2)  # [n, 192, 28, 28]
        # Blocks 3 are 28 wide with up to 320 channels, 4 are 14 with up to 608, 5 are 7 with 1024.
        for block in BLOCKS:
            x = self._apply_block(block, x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Images ``[n, 3, side, side]`` to logits ``[n, num_classes]``."""
        out: Tensor = self.last_linear(self.features(x).mean((2, 3)))
        return out
