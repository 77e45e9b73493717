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
