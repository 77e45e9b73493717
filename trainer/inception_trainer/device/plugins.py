"""Imports vendors' plug-ins for torch, with an error that says what to do when that fails."""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import torch

from inception_trainer.errors import ConfigError

AUTOLOADED = "torch.backends"
"""The group of entry points where plug-ins announce themselves to torch 2.5 and newer."""


def load(module: str, profile: str) -> Any:
    """Import ``module``; raises ConfigError with the remedy, whatever goes wrong inside it."""
    try:
        return importlib.import_module(module)
    except Exception as error:
        raise _broken(
            f"accelerator.module: {module!r} (profile {profile}) cannot be imported", error
        ) from error


def load_installed() -> None:
    """Load the plug-ins that announce themselves, as ``import torch`` does from 2.5 on."""
    # In our processes torch is told not to (TORCH_DEVICE_BACKEND_AUTOLOAD=0): a broken plug-in
    # would break `import torch`, where no error can name a remedy, and in the fork server a plug-in
    # might open a device context.
    for plugin in entry_points(group=AUTOLOADED):
        _start(plugin)


def _start(plugin: EntryPoint) -> None:
    try:
        plugin.load()()
    except Exception as error:
        raise _broken(
            f"the installed plug-in {plugin.name!r} ({plugin.value}) cannot be loaded", error
        ) from error


def _broken(what: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"{what}: {type(error).__name__}: {error}; use an image that holds the vendor's plug-in "
        f"for torch {torch.__version__} and the vendor's driver libraries, "
        "or another accelerator.profile"
    )


def function(path: tuple[str, str] | None) -> Any:
    """Look up a function by module and name; None where the plug-in does not have it."""
    if path is None:
        return None
    try:
        return getattr(importlib.import_module(path[0]), path[1], None)
    except ImportError:
        return None
