"""What the networks are made of: a convolution without bias, batch norm and ReLU; and how weights
begin.

Feature maps are ``[n, channels, height, width]``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

max_pool = partial(functional.max_pool2d, kernel_size=3, stride=2)
"""Halves the side: ``(side - 3) // 2 + 1``."""
avg_pool = partial(functional.avg_pool2d, kernel_size=3, stride=1, padding=1)
"""Keeps the side; zeros of the padding count in the average."""
Size = int | tuple[int, int]
"""Of a kernel: one side, or height and width."""


class ConvNorm(nn.Module):
    """Convolution, batch norm, ReLU: ``[n, inputs, h, w]`` to ``[n, outputs, h', w']``.

    The map keeps its side unless there is a stride or ``padded`` is false.
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
        # Batch norm subtracts the mean, and any bias with it.
        self.conv = nn.Conv2d(inputs, outputs, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """The map after the activation, which is never negative."""
        # In place: the backward pass of ReLU needs its output only, and that of batch norm its
        # input, so one map less is kept.
        return functional.relu(self.bn(self.conv(x)), inplace=True)


def xavier_uniform(network: nn.Module) -> None:
    """Set convolutions and linear layers to Glorot's uniform values, and their biases to 0.

    So begin the MindSpore recipes of Inception-v3 and v4.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def kaiming_normal(network: nn.Module) -> None:
    """Set convolutions to He's normal values by their inputs, as the recipe of ResNet-50 begins."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")


def truncated_normal(network: nn.Module) -> None:
    """Set convolutions and linear layers to normal values with a deviation of 0.1, cut at 2.

    So begins timm's Inception-v3.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            # timm wants a smaller one for a convolution of that head, too, but sets it where its
            # own initialization does not look.
            deviation = 0.001 if name == "AuxLogits.fc" else 0.1
            nn.init.trunc_normal_(module.weight, std=deviation, a=-2, b=2)


def pytorch_defaults(network: nn.Module) -> None:
    """Set convolutions and linear layers to what PyTorch begins them with."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.reset_parameters()


INITIALIZATIONS: dict[str, Callable[[nn.Module], None]] = {
    "PyTorch": pytorch_defaults,
    "XavierUniform": xavier_uniform,
    "KaimingNormal": kaiming_normal,
    "TruncatedNormal": truncated_normal,
}
"""By the values of ``model.initialization``."""
