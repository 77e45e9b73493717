"""``torch.compile`` for the network that is trained (``execution: Compiled``).

Compiling takes a minute or more at the first step, and compilers on the machine. Evaluation, whose
batches have several sizes, always runs operation by operation.
"""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from inception_trainer.errors import ConfigError

EAGER, COMPILED = "Eager", "Compiled"
COMPILERS = ("gcc", "clang", "cc")
"""Any of them builds what starts a kernel on a device that is not the CPU."""


def compile_if_asked(network: nn.Module, execution: str, device: torch.device) -> nn.Module:
    """The network that training calls; raises ConfigError where it cannot be compiled."""
    if execution == EAGER:
        return network
    # Before training: torch would say so with a stack of frames, a minute into the first step.
    _require_compilers(device)
    # Shapes are those of one or two micro-batches: never dynamic.
    return cast(nn.Module, torch.compile(network, dynamic=False))


def _require_compilers(device: torch.device) -> None:
    names = _cpp_compilers() if device.type == "cpu" else COMPILERS
    if not any(map(shutil.which, names)):
        _refuse(
            f"a compiler ({' or '.join(names)}), and none is installed",
            "install one, for example g++",
        )
    # Inductor's and Triton's launchers are C extensions.
    header = Path(sysconfig.get_paths()["include"], "Python.h")
    if not header.is_file():
        _refuse(
            f"Python's headers, and there is no {header}", "install them, for example python3-dev"
        )


def _refuse(missing: str, remedy: str) -> None:
    raise ConfigError(f"execution: Compiled needs {missing}; {remedy}, or choose Eager")


def _cpp_compilers() -> tuple[str, ...]:
    from torch._inductor import config

    # CXX or what torch was built with; None in the list stands for torch's own search.
    chosen: Any = config.cpp.cxx
    names = [chosen] if isinstance(chosen, str) else chosen
    return tuple(name for name in names if name)
