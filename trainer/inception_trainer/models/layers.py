"""What the networks are made of: a convolution without bias, batch norm and ReLU, and how weights
begin.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional

max_pool = partial(functional.max_pool2d, kernel_size=3, stride=2)
avg_pool = partial(functional.avg_pool2d, kernel_size=3, stride=1, padding=1)
Size = int | tuple[int, int]


class ConvNorm(nn.Module):
    """Convolution, batch norm, ReLU; the map keeps its side unless there is a stride or ``padded``
    is false.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: Size = 3,
        stride: int = 1,
        *,
        padded: bool = True,
        eps: float = 1e-3,
    ) -> None:
        super().__init__()
        height, width = (size, size) if isinstance(size, int) else size
        padding = (height // 2, width // 2) if padded else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """The map after the activation, which is never negative."""
        return functional.relu(self.bn(self.conv(x)), inplace=True)


def xavier_uniform(network: nn.Module) -> None:
    """Glorot's uniform values on convolutions and linear layers, as the MindSpore recipes of v3 and
    v4 begin.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def kaiming_normal(network: nn.Module) -> None:
    """He's normal values by the inputs of each convolution, as the recipe of ResNet-50 begins."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
