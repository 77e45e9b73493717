"""How images and networks lie in a device's memory."""

from __future__ import annotations

import functools

import torch


@functools.cache
def image_format(device: torch.device) -> torch.memory_format:
    """The colours of a pixel side by side, which convolutions compute fastest, where the device has
    tensors that lie so; else one plane per channel. Tried, for nothing tells.

    Ascend's plug-in refuses to make or to copy to any other tensor than a contiguous one.
    """
    try:
        torch.empty(1, 2, 2, 2, device=device).to(memory_format=torch.channels_last)
        torch.empty(1, 2, 2, 2, device=device, memory_format=torch.channels_last)
    except Exception:
        # Vendors raise what they like.
        return torch.contiguous_format
    return torch.channels_last
