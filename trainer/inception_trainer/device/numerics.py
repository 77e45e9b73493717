"""What torch is told once per process about the arithmetic of CUDA devices, and of those that
present themselves as such: TF32 and the choice of convolutions.
"""

from __future__ import annotations

import torch

TF32 = "TF32"
"""The precision of FP32 numbers that are multiplied with ten bits behind the point."""


def prepare(device: torch.device, precision: str) -> None:
    """Settle the arithmetic of this process before the first operation."""
    if device.type != "cuda":
        return
    # By default matrices are multiplied in FP32 and convolutions in TF32: what is asked for should
    # be the same for both. With BF16 and FP16 only what is left of FP32 is concerned.
    allow_tf32(allowed=precision != "FP32")
    # Batches have one or two sizes: what is found out at the first of each pays in all others.
    torch.backends.cudnn.benchmark = True


def allow_tf32(*, allowed: bool) -> None:
    """Multiply FP32 numbers of matrices and convolutions in TF32, or in FP32."""
    # By the old switches, although torch 2.9 has others: these set the new ones too, which its
    # compiler reads. After the new ones alone torch refuses to tell the old ones, which its
    # exporters read.
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def is_tf32_allowed() -> tuple[bool, bool]:
    """Whether matrices and convolutions are multiplied in TF32."""
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
