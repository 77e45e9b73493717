"""This rank's device: plug-in imported, device taken, precision decided; all before there is a
process group.

The order matters to several vendors: import the plug-in, choose the device, then make the process
group.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from inception_trainer.affinity import cpus_of_rank
from inception_trainer.comm import Comm
from inception_trainer.config.settings import Settings, current
from inception_trainer.config.training import AcceleratorConfig
from inception_trainer.errors import ConfigError
from inception_trainer.log import logger

from . import nodes, numerics, plugins, precision
from .choice import Choice, choose
from .clock import StepClock, step_clock
from .figures import Figures, Reader
from .hostmemory import keep_freed_memory
from .scaling import loss_scaler
from .table import CPU


@dataclass(frozen=True)
class Accelerator:
    """A chosen device with what training needs to know of it."""

    profile: str
    """Row of the operator's table, or the device type outside Kubernetes."""
    device: torch.device
    backend: str
    """Collective back end of the device."""
    precision: str
    """``FP32``, ``TF32``, ``BF16`` or ``FP16``, resolved."""
    name: str
    """What the vendor calls the device, for logs."""
    functions: Any = None
    """The vendor's module with device functions, like ``torch.cuda``."""
    flush: Callable[[], Any] | None = None
    """Sends the operations of a step to a device that collects them."""
    seeder: Callable[[int], Any] | None = None
    """Begins the random numbers of a device that ``torch.manual_seed`` does not know."""
    numbered: bool = False
    """Whether the process may use several devices and so names its own by number."""
    _reader: Reader = field(default_factory=lambda: Reader(None, None))

    @property
    def is_cpu(self) -> bool:
        """Whether computation happens on the host."""
        return self.device.type == CPU

    @property
    def device_ids(self) -> list[int] | None:
        """The argument ``device_ids`` of DistributedDataParallel; None for unnumbered devices."""
        return [self.device.index] if self.numbered else None

    @property
    def process_group_backend(self) -> str:
        """The argument ``backend`` of ``init_process_group``.

        There is always a back end for CPU tensors, for the small agreements between ranks.
        """
        return self.backend if self.is_cpu else f"cpu:gloo,{self.device.type}:{self.backend}"

    def autocast(self) -> torch.autocast:
        """The context of every forward pass; without effect where the precision is FP32 or TF32."""
        kind = precision.KINDS.get(self.precision)
        return torch.autocast(self.device.type, kind or torch.bfloat16, enabled=kind is not None)

    @property
    def compute_type(self) -> torch.dtype:
        """What convolutions compute in."""
        return precision.KINDS.get(self.precision, torch.float32)

    def loss_scaler(self, initial_scale: float | None = None) -> Any:
        """A new GradScaler, or None: only FP16 is so narrow that small gradients become 0."""
        if self.precision != "FP16":
            return None
        return loss_scaler(self.device, self.functions, initial_scale)

    def seed(self, value: int) -> None:
        """Begin the random numbers of the host and of the device anew."""
        torch.manual_seed(value)
        if self.seeder is not None:
            self.seeder(value)

    def end_of_step(self) -> None:
        """Tell devices that collect operations that a step is complete."""
        if self.flush is not None:
            self.flush()

    def step_clock(self) -> StepClock:
        """A new clock for steps, true also where the host runs ahead of the device."""
        return step_clock(self.device, self.functions)

    def release_memory(self) -> None:
        """Give back what the allocator of the device keeps for later."""
        release = getattr(self.functions, "empty_cache", None)
        if callable(release):
            release()

    def figures(self) -> Figures:
        """Read memory, load and health of this rank's device; never raises."""
        return self._reader.read()

    def peak_memory_bytes(self) -> int | None:
        """Most bytes of device memory allocated so far; None where the device does not say."""
        return self._reader.peak_memory()


def resolve(config: AcceleratorConfig, requested: str, settings: Settings) -> Accelerator:
    """Choose the device of this local rank and the precision that it computes in.

    ``requested`` is the configuration's precision, Auto included. Raises ConfigError when the
    accelerator is not there: falling back to the CPU is never silent.
    """
    closed = nodes.explain_closed() if config.device not in (None, CPU) else ""
    if closed and settings.local_rank == 0:
        logger.warning("%s", closed)
    try:
        return _resolve(config, requested, settings)
    except Exception as error:
        if not closed:
            raise
        # Vendors' libraries have errors of their own, which do not name the reason.
        text = str(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
        raise ConfigError(f"{text}; {closed}") from error


def _resolve(config: AcceleratorConfig, requested: str, settings: Settings) -> Accelerator:
    choice = choose(config, requested)
    if choice.device == CPU or settings.pinned:
        torch.set_num_threads(threads_per_rank(settings))
    if choice.device == CPU:
        keep_freed_memory()
        device = torch.device(CPU)
        return Accelerator(
            profile=choice.profile,
            device=device,
            backend=choice.backend,
            precision=precision.resolve(requested, choice.rule, device, None),
            name=torch.backends.cpu.get_cpu_capability(),
        )
    functions = _functions(choice)
    _check_count(choice, functions, settings)
    device = _take(choice, functions, settings)
    numbered = choice.device_type.chooser is None
    resolved = precision.resolve(requested, choice.rule, device, functions)
    numerics.prepare(device, resolved)
    return Accelerator(
        profile=choice.profile,
        device=device,
        backend=choice.backend,
        precision=resolved,
        name=str(_name(functions, device) or choice.device),
        functions=functions,
        flush=plugins.function(choice.device_type.marker),
        seeder=plugins.function(choice.device_type.seeder),
        numbered=numbered,
        _reader=Reader(functions, device.index if numbered else None),
    )


def _functions(choice: Choice) -> Any:
    """The module with the device functions; they are the same for CUDA and all that follow it."""
    other = choice.device_type.functions
    if other is not None:
        return importlib.import_module(other)
    functions = getattr(torch, choice.device, None)
    if functions is None:
        remedy = (
            f"{choice.module} does not add it"
            if choice.module
            else "accelerator.module names no plug-in"
        )
        raise ConfigError(f"{choice.where} is unknown to torch {torch.__version__}: {remedy}")
    available = getattr(functions, "is_available", None)
    if available is None or not available():
        raise ConfigError(
            f"{choice.where} is not available in this process: "
            f"no device or no driver is visible ({_visible(choice)}); "
            "check that the pod requests the device and that the image holds its driver libraries"
        )
    return functions


def _check_count(choice: Choice, functions: Any, settings: Settings) -> None:
    """Compare what torch sees with what the pod was given and with the number of ranks."""
    count = getattr(functions, "device_count", None)
    if count is None:
        return
    seen = int(count())
    ranks = settings.local_world_size
    given = choice.devices
    if given is not None and given != seen:
        raise ConfigError(
            f"{choice.where}: the pod was given {given} devices, torch sees {seen} "
            f"({_visible(choice)}); "
            "check the device plug-in, and that nothing in the template sets these variables"
        )
    if ranks > seen:
        raise ConfigError(
            f"{choice.where}: {ranks} ranks in this pod but torch sees {seen} devices "
            f"({_visible(choice)}); "
            "set numProcPerNode to the number of devices, or request more of them"
        )
    if ranks < seen and settings.local_rank == 0:
        logger.warning(
            "%d of %d visible devices are used: %d ranks (%s)", ranks, seen, ranks, _visible(choice)
        )


def _visible(choice: Choice) -> str:
    """The variables that hide devices and their values, which explain most wrong counts."""
    values = current(choice.visible)
    shown = [
        f"{name}={value}" if value is not None else f"{name} is not set"
        for name, value in values.items()
    ]
    return ", ".join(shown) or "no variable is known that would hide devices"


def _take(choice: Choice, functions: Any, settings: Settings) -> torch.device:
    choose_device = plugins.function(choice.device_type.chooser)
    if choose_device is not None:
        taken = choose_device()
        # XLA's returns the device, Habana's the numbers of the rank.
        return taken if isinstance(taken, torch.device) else torch.device(choice.device)
    try:
        functions.set_device(settings.local_rank)
    except Exception as error:
        raise ConfigError(
            f"{choice.where}: device {settings.local_rank} cannot be taken: {error} "
            f"({_visible(choice)})"
        ) from error
    return torch.device(choice.device, settings.local_rank)


def _name(functions: Any, device: torch.device) -> Any:
    ask = getattr(functions, "get_device_name", None)
    if ask is None or device.index is None:
        return None
    try:
        return ask(device.index)
    except Exception:
        # Only for logs: no vendor's error is worth a failed job here.
        return None


def of_ranks(accelerator: Accelerator, comm: Comm) -> tuple[Figures, ...]:
    """Gather the figures of every rank's device, in rank order; empty on the CPU.

    Collective: every rank must call it.
    """
    if accelerator.is_cpu:
        return ()
    # A tensor has no None; double precision, because bytes of a device exceed that of float32.
    figures = dataclasses.astuple(accelerator.figures())
    row = [math.nan if value is None else value for value in figures]
    rows = comm.gather(torch.tensor(row, dtype=torch.float64)).tolist()
    return tuple(Figures(*(None if math.isnan(value) else value for value in row)) for row in rows)


def threads_per_rank(settings: Settings) -> int:
    """The CPU limit of this pod, or what the process may run on, divided by its ranks; at most
    OMP_NUM_THREADS.
    """
    share = max(1, int(cpus_of_rank(settings)))
    return min(share, settings.threads or share)


def supports_fused_sgd(device: torch.device) -> bool:
    """Whether the device has a kernel of its own for torch's one-kernel SGD, and it works."""
    if not _has_kernel("aten::_fused_sgd_", device):
        return False
    parameter = torch.nn.Parameter(torch.zeros(1, device=device))
    parameter.grad = torch.zeros_like(parameter)
    try:
        torch.optim.SGD([parameter], lr=0.1, momentum=0.9, fused=True).step()
    except (RuntimeError, TypeError, NotImplementedError):
        return False
    return True


def _has_kernel(operation: str, device: torch.device) -> bool:
    """Whether the device does an operation itself.

    torch lists every plug-in's device as one that has fused optimizers. Where it has none, the
    plug-in leaves them to the CPU: each step then copies all weights there and back.
    """
    try:
        key = torch._C._dispatch_key_for_device(device.type)  # noqa: SLF001 - nothing public tells
        return torch._C._dispatch_has_kernel_for_dispatch_key(operation, key)  # noqa: SLF001
    except (AttributeError, RuntimeError):
        # Older releases of torch know neither these functions nor, before 2.3, the operation.
        return device.type in ("cpu", "cuda")
