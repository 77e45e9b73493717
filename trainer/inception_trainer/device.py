"""The accelerator of this process: the only module that knows device types, their modules and back ends.

Order matters to several vendors: import the plug-in, choose the device, then make the process group.
"""

from __future__ import annotations

import importlib
import inspect
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from inception_trainer.config import AcceleratorConfig
from inception_trainer.errors import ConfigError
from inception_trainer.settings import Settings

CPU = "cpu"
EMULATED_BF16 = ("sdaa",)
"""Devices that accept bf16 and compute it worse than fp32 (RECIPES 9)."""


@dataclass(frozen=True)
class Accelerator:
    """A chosen device with what the engine needs to know of it."""

    profile: str
    device: torch.device
    process_group_backend: str
    """For ``init_process_group``; always has a CPU back end, for the small agreements between ranks."""
    precision: str
    """``FP32``, ``BF16`` or ``FP16``, resolved."""
    name: str

    @property
    def is_cpu(self) -> bool:
        """Whether computation happens on the host."""
        return self.device.type == CPU

    def autocast(self) -> torch.autocast:
        """The context of every forward pass."""
        kind = torch.float16 if self.precision == "FP16" else torch.bfloat16
        return torch.autocast(self.device.type, kind, enabled=self.precision != "FP32")

    def peak_memory_bytes(self) -> int | None:
        """Most device memory allocated so far; None where the device does not say."""
        ask = None if self.is_cpu else getattr(_module(self.device.type), "max_memory_allocated", None)
        return int(ask()) if ask else None


def resolve(config: AcceleratorConfig, precision: str, settings: Settings) -> Accelerator:
    """Import the plug-in, choose the device of this local rank, resolve the precision.

    Raises ConfigError when the accelerator is not there: falling back to the CPU is never silent, so it never happens.
    """
    if config.module is not None:
        _import(config)
    if config.device == CPU:
        torch.set_num_threads(threads_per_rank(settings))
        name = torch.backends.cpu.get_cpu_capability()
        return Accelerator(config.profile, torch.device(CPU), "gloo", _cpu_precision(precision), name)
    local_rank = settings.local_rank
    module = _available(config, local_rank)
    module.set_device(local_rank)
    device = torch.device(config.device, local_rank)
    backend = f"cpu:gloo,{config.device}:{config.backend}"
    name = str(getattr(module, "get_device_name", lambda _index: config.device)(local_rank))
    return Accelerator(config.profile, device, backend, _device_precision(precision, config.device, module), name)


def _import(config: AcceleratorConfig) -> None:
    try:
        importlib.import_module(str(config.module))
    except Exception as error:
        raise ConfigError(
            f"accelerator.module: {config.module!r} (profile {config.profile}) cannot be imported: "
            f"{type(error).__name__}: {error}; use an image that holds the vendor's plug-in for torch "
            f"{torch.__version__}, or another accelerator.profile"
        ) from error


def _module(device_type: str) -> Any:
    return getattr(torch, device_type, None)


def _available(config: AcceleratorConfig, local_rank: int) -> ModuleType:
    module = _module(config.device)
    known = f"accelerator.device: {config.device!r} (profile {config.profile})"
    if not isinstance(module, ModuleType):
        remedy = f"{config.module} does not add it" if config.module else "accelerator.module names no plug-in"
        raise ConfigError(f"{known} is unknown to torch {torch.__version__}: {remedy}")
    if not module.is_available():
        raise ConfigError(f"{known} is not available in this process: no device or no driver is visible")
    count = int(module.device_count())
    if local_rank >= count:
        raise ConfigError(f"{known}: local rank {local_rank} has no device, torch sees {count}; start fewer ranks")
    return module


def _cpu_precision(precision: str) -> str:
    if precision != "Auto":
        return precision
    flags = _cpu_flags()
    return "BF16" if flags & {"avx512_bf16", "amx_bf16"} else "FP32"


def _device_precision(precision: str, device_type: str, module: ModuleType) -> str:
    if precision != "Auto":
        return precision
    if device_type in EMULATED_BF16:
        return "FP32"
    capability = getattr(module, "get_device_capability", None)
    # CUDA before 8.0 emulates bf16 and says that it supports it; ROCm reports its own numbers, always above.
    if device_type == "cuda" and capability is not None and capability()[0] < 8:
        return "FP32"
    supported = getattr(module, "is_bf16_supported", None)
    return "BF16" if supported is not None and supported() else "FP32"


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return set()
    line = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return set(line.split())


def threads_per_rank(settings: Settings) -> int:
    """The CPU limit of this pod, or what the process may run on, divided by its ranks; at most OMP_NUM_THREADS."""
    cpus = float(len(os.sched_getaffinity(0)))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        cpus = cpus if quota == "max" else min(cpus, int(quota) / int(period))
    except (OSError, ValueError):
        pass
    share = max(1, int(cpus / max(1, settings.local_world_size)))
    return min(share, settings.threads or share)


def supports_fused_sgd(device: torch.device) -> bool:
    """Whether torch's one-kernel SGD works on this device."""
    parameter = torch.nn.Parameter(torch.zeros(1, device=device))
    parameter.grad = torch.zeros_like(parameter)
    try:
        torch.optim.SGD([parameter], lr=0.1, momentum=0.9, fused=True).step()
    except (RuntimeError, TypeError, NotImplementedError):
        return False
    return True


def loss_scaler(device: torch.device) -> Any:
    """Torch's dynamic loss scaling; older releases have it for CUDA only."""
    general = getattr(torch.amp, "GradScaler", None)
    if general is not None and "device" in inspect.signature(general).parameters:
        return general(device.type)
    if device.type == "cuda":
        return torch.cuda.amp.GradScaler()
    raise ConfigError(
        f"precision: FP16 on {device.type} needs torch 2.3 or newer, this is {torch.__version__}; use BF16"
    )
