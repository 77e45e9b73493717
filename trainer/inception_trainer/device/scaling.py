"""The loss scale, which FP16 needs on every device."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from inception_trainer.errors import ConfigError


def loss_scaler(
    device: torch.device, functions: Any = None, initial_scale: float | None = None
) -> Any:
    """The vendor's scaler where its module has one (it knows how the device reports overflows),
    else torch's; it begins with ``initial_scale``, or what it chooses.
    """
    options: dict[str, Any] = {} if initial_scale is None else {"init_scale": initial_scale}
    if device.type not in ("cpu", "cuda"):
        of_vendor = getattr(getattr(functions, "amp", None), "GradScaler", None)
        if of_vendor is not None:
            return of_vendor(**options)
    # torch.amp.GradScaler came with torch 2.3; before, there was one for CUDA only.
    general = getattr(torch.amp, "GradScaler", None)
    if general is not None and "device" in inspect.signature(general).parameters:
        return general(device.type, **options)
    if device.type == "cuda":
        return torch.cuda.amp.GradScaler(**options)
    raise ConfigError(
        f"precision: FP16 on {device.type} needs torch 2.3 or newer, this is {torch.__version__}; "
        "use BF16 or FP32"
    )


def try_scaler(device: torch.device, functions: Any = None) -> None:
    """Scale the gradient of one parameter and unscale it again; raises an error where that is not
    what it was.

    torch's scaler can be made for every device, and only then it turns out whether the plug-in has
    the operation behind it, leaves it to the CPU, or loses what that has computed.
    """
    parameter = torch.nn.Parameter(torch.ones(1, device=device))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scaler = loss_scaler(device, functions)
    torch.autograd.backward(scaler.scale(parameter.sum()))
    scaler.unscale_(optimizer)
    gradient = None if parameter.grad is None else parameter.grad.item()
    if gradient != 1:
        raise ConfigError(f"a loss scaler makes {gradient} of a gradient of 1")
