"""What torch is told once per process about the arithmetic of CUDA devices, and of those that
present themselves as such: TF32 and the choice of convolutions.
"""

from __future__ import annotations

from typing import Any

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
    # Since torch 2.9 there is another switch, and torch refuses to read the old one after the new
    # one was set; its own compiler reads the new one.
    convolutions: Any = getattr(torch.backends.cudnn, "conv", None)
    if hasattr(torch.backends, "fp32_precision") and convolutions is not None:
        kind = "tf32" if allowed else "ieee"
        torch.backends.cuda.matmul.fp32_precision = kind
        convolutions.fp32_precision = kind
        # Not that anything here is recurrent: the exporters read the old switch, which torch refuses
        # to tell where the two of cuDNN differ.
        torch.backends.cudnn.rnn.fp32_precision = kind  # type: ignore[attr-defined]
        return
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def is_tf32_allowed() -> tuple[bool, bool]:
    """Whether matrices and convolutions are multiplied in TF32."""
    convolutions: Any = getattr(torch.backends.cudnn, "conv", None)
    if hasattr(torch.backends, "fp32_precision") and convolutions is not None:
        return (
            torch.backends.cuda.matmul.fp32_precision == "tf32",
            convolutions.fp32_precision == "tf32",
        )
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
