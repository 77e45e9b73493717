"""Number formats: what ``precision: Auto`` means on a device, and whether a device can do what is
asked.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from inception_trainer.errors import ConfigError
from inception_trainer.log import logger

from .numerics import TF32
from .scaling import try_scaler

AUTO = "Auto"
KINDS = {"BF16": torch.bfloat16, "FP16": torch.float16}
"""What autocast computes in; FP32 and TF32 need none."""
NATIVE_BF16 = 8
"""Major CUDA compute capability that computes bf16 natively, and TF32: Ampere, A100."""
TENSOR_FP16 = 7
"""Major CUDA compute capability with FP16 tensor cores: Volta, V100."""


def resolve(requested: str, rule: str, device: torch.device, functions: Any) -> str:
    """Give ``FP32``, ``TF32``, ``BF16`` or ``FP16``.

    What is requested is done or refused with a ConfigError; Auto takes the next best, and logs it.
    """
    if requested != AUTO:
        problem = obstacle(requested, device, functions)
        if problem:
            raise ConfigError(
                f"precision: {requested} does not work on this {device.type} device: {problem}; "
                "use Auto"
            )
        return requested
    chosen = by_rule(rule, functions)
    problem = obstacle(chosen, device, functions)
    if problem:
        logger.warning("precision FP32 instead of %s: %s", chosen, problem)
        return "FP32"
    logger.info("precision: Auto takes %s on this %s device (%s)", chosen, device.type, rule)
    return chosen


def by_rule(rule: str, functions: Any) -> str:
    """Give what Auto means by a rule of the table; a rule may also name the format itself.

    ``functions`` are those of the vendor's module.
    """
    if rule == "CPUFlags":
        # Without one of these bf16 is emulated.
        return "BF16" if cpu_flags() & {"avx512_bf16", "amx_bf16"} else "FP32"
    if rule == "ComputeCapability":
        return _by_capability(functions)
    if rule == "AskDevice":
        return "BF16" if _says_bf16(functions) else "FP16"
    return rule


def _by_capability(functions: Any) -> str:
    # CUDA before 8.0 emulates bf16 and says that it supports it.
    ask = getattr(functions, "get_device_capability", None)
    capability = ask() if ask is not None else None
    major = capability[0] if capability else 0
    if major >= NATIVE_BF16:
        return "BF16" if _says_bf16(functions) else "FP16"
    return "FP16" if major >= TENSOR_FP16 else "FP32"


def _says_bf16(functions: Any) -> bool:
    ask = getattr(functions, "is_bf16_supported", None)
    if ask is None:
        return False
    if functions is torch.cuda:
        # Without emulation it judges by NVIDIA's capability, which those who present their devices
        # as CUDA have numbers of their own for; NVIDIA's own are judged before.
        return bool(ask())
    try:
        # Else some (Moore Threads) count what they emulate, and that is slower than FP16.
        return bool(ask(including_emulation=False))
    except TypeError:
        return bool(ask())


def obstacle(precision: str, device: torch.device, functions: Any) -> str | None:
    """Say why a precision cannot be used, or None."""
    if precision == TF32:
        return _obstacle_to_tf32(device, functions)
    if precision not in KINDS:
        return None
    # Autocast only warns when it cannot do the format, and then computes in FP32.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            torch.autocast(device.type, KINDS[precision])
        # CUDA's is torch's own, which needs no trial.
        if precision == "FP16" and device.type != "cuda":
            try_scaler(device, functions)
    except Exception as error:
        return " ".join(str(error).split())
    return None


def _obstacle_to_tf32(device: torch.device, functions: Any) -> str | None:
    ask = getattr(functions, "get_device_capability", None)
    if device.type == "cuda" and ask is not None and ask()[0] >= NATIVE_BF16:
        return None
    return f"only CUDA devices of compute capability {NATIVE_BF16}.0 or newer have it"


def cpu_flags() -> set[str]:
    """The flags of the processor in /proc/cpuinfo; empty where there are none (ARM, no Linux)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return set()
    line = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return set(line.split())
