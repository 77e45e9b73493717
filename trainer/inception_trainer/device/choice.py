"""Which device is meant: the one that the configuration names, else what an installed plug-in adds,
else the CPU.

A device that is asked for is never replaced by another: only a run that asks for none may end up on
the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist

from inception_trainer.config.settings import prefer
from inception_trainer.config.training import AcceleratorConfig
from inception_trainer.errors import ConfigError
from inception_trainer.log import logger

from . import nodes, plugins, table
from .table import CPU, DeviceType


@dataclass(frozen=True)
class Choice:
    """A complete row: whatever the configuration left out is filled in."""

    profile: str
    module: str | None
    device: str
    backend: str
    rule: str
    visible: tuple[str, ...]
    devices: int | None
    """How many this pod was given; None: not known."""

    @property
    def where(self) -> str:
        """The beginning of every error about this device."""
        return f"accelerator.device: {self.device!r} (profile {self.profile})"

    @property
    def device_type(self) -> DeviceType:
        """The row of the trainer's own table; of an unknown type what was configured."""
        return table.of(self.device) or DeviceType(self.module, self.backend, self.rule)


def choose(config: AcceleratorConfig, precision: str) -> Choice:
    """Find the device and import its plug-in, in that order. Raises ConfigError."""
    if config.device is not None:
        choice = _row(config, config.device)
        if precision == "FP32":
            prefer(choice.device_type.fp32_variables)
        for module in (choice.module, *choice.device_type.companions):
            if module is not None:
                plugins.load(module, choice.profile)
        return choice
    if config.module is not None:
        plugins.load(config.module, config.profile or "none")
        return _row(config, _added_by(config.module))
    plugins.load_installed()
    device = _current()
    if device is None:
        logger.warning(
            "NO ACCELERATOR FOUND: training on the CPU; set accelerator.device to ask for one"
        )
        closed = nodes.explain_closed()
        if closed:
            logger.warning("%s", closed)
    return _row(config, device or CPU)


def _row(config: AcceleratorConfig, device: str) -> Choice:
    """Complete the configuration from the table, key by key."""
    known = table.of(device)
    profile = config.profile or device
    backend = config.backend or (known.backend if known else _registered_backend(device))
    if backend is None:
        raise ConfigError(
            f"accelerator.backend: missing; name the collective back end of device {device!r}"
        )
    rule_of_type = known.rule if known else "AskDevice"
    return Choice(
        profile=profile,
        module=config.module or (known.module if known else None),
        device=device,
        backend=backend,
        # By profile first: vendors that present their devices as CUDA differ in it.
        rule=config.precision_rule or table.RULES.get(profile) or rule_of_type,
        visible=config.visible or (known.visible if known else ()),
        devices=config.devices,
    )


def _registered_backend(device: str) -> str | None:
    # Plug-ins register their back end with torch.distributed when they are imported.
    name: str | None = dist.Backend.default_device_backend_map.get(device)
    return name


def _added_by(module: str) -> str:
    device = _current()
    if device is None:
        raise ConfigError(
            f"accelerator.device: missing, and torch {torch.__version__} shows no accelerator "
            f"after importing {module!r}; name the device type, and check that a device is visible"
        )
    return device


def _current() -> str | None:
    """The accelerator that torch has and sees; releases before 2.6 know CUDA and XPU only."""
    ask = getattr(getattr(torch, "accelerator", None), "current_accelerator", None)
    if ask is not None:
        try:
            device = ask()
            return device.type if device is not None and torch.accelerator.is_available() else None
        except RuntimeError as error:
            # torch 2.6 raises where it has none ("Cannot access accelerator device when none is
            # available"). Whatever else a vendor's library raises is no device to compute on.
            logger.warning("torch %s shows no accelerator: %s", torch.__version__, error)
            return None
    seen = (
        name
        for name in ("cuda", "xpu")
        if hasattr(torch, name) and getattr(torch, name).is_available()
    )
    return next(seen, None)
