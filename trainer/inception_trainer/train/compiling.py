"""``torch.compile`` for the network (``execution: Compiled`` and ``CompiledGraphs``).

Compiling takes a minute or more at the first step, and compilers on the machine; whether all that
it needs is there is tried before. In evaluation only batches of the usual sizes are compiled, not
the last one of the data, for which it would not be worth its time.
"""

from __future__ import annotations

import functools
import importlib.util
import shutil
import sysconfig
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from inception_trainer.errors import ConfigError
from inception_trainer.log import logger
from inception_trainer.weights.exported_network import ExportedNetwork

EAGER, COMPILED, GRAPHS = "Eager", "Compiled", "CompiledGraphs"
COMPILERS = ("gcc", "clang", "cc")
"""Any of them builds what starts a kernel on a device that is not the CPU."""
GRAPH_DEVICES = ("cuda",)
"""Types of devices for which torch records graphs of kernels."""
RESERVED_GRAPHS = 8
"""How often torch compiles one function, for training with its modes and sizes of batches."""
MOST_WORDS = 300
"""Characters of a compiler's message that an error quotes."""


def compile_if_asked(network: nn.Module, execution: str, device: torch.device) -> nn.Module:
    """The network that training calls; raises ConfigError where it cannot be compiled."""
    if execution == EAGER:
        return network
    # Before training: torch would say so with a stack of frames, a minute into the first step.
    require(execution, device)
    return _compiled(network, execution)


def compile_for_evaluation(
    network: nn.Module, execution: str, device: torch.device, sizes: Collection[int]
) -> nn.Module:
    """The network that evaluation calls, compiled for batches of these ``sizes``; raises
    ConfigError where it cannot be compiled.
    """
    if execution == EAGER:
        return network
    if isinstance(network, ExportedNetwork):
        logger.warning("execution: %s changes nothing: an exported file is run as it is", execution)
        return network
    require(execution, device)
    _allow_graphs(RESERVED_GRAPHS + len(sizes))
    return _CompiledForSizes(network, _compiled(network, execution), sizes)


def _compiled(network: nn.Module, execution: str) -> nn.Module:
    # Shapes are those of one or two micro-batches: never dynamic.
    if execution == COMPILED:
        return cast(nn.Module, torch.compile(network, dynamic=False))
    return _Graphs(cast(nn.Module, torch.compile(network, dynamic=False, mode="reduce-overhead")))


class _Graphs(nn.Module):
    """Recorded graphs of kernels, whose outputs live until the next call."""

    def __init__(self, compiled: nn.Module) -> None:
        super().__init__()
        self._compiled = compiled

    @override
    def forward(self, images: Tensor) -> Any:
        # A graph writes into the same memory each time. Without the mark torch cannot know that
        # the outputs of the micro-batch before have been used up.
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return self._compiled(images)


class _CompiledForSizes(nn.Module):
    """Runs batches of some sizes compiled, and all others operation by operation."""

    def __init__(self, network: nn.Module, compiled: nn.Module, sizes: Collection[int]) -> None:
        super().__init__()
        self._network = network
        self._compiled = compiled
        self._sizes = frozenset(sizes)

    @override
    def forward(self, images: Tensor) -> Any:
        network = self._compiled if len(images) in self._sizes else self._network
        return network(images)


def _allow_graphs(count: int) -> None:
    """Let torch compile one function for so many sizes; beyond its own limit it gives up."""
    config: Any = torch._dynamo.config  # noqa: SLF001
    # The name before torch 2.7 is the second one.
    for name in ("recompile_limit", "cache_size_limit"):
        if hasattr(config, name):
            setattr(config, name, max(count, getattr(config, name)))
            return


def require(execution: str, device: torch.device) -> None:
    """Raise ConfigError with what is missing for ``execution`` on this device."""
    if execution == GRAPHS and device.type not in GRAPH_DEVICES:
        raise ConfigError(
            f"execution: {GRAPHS} needs a device of type {' or '.join(GRAPH_DEVICES)}, and this is "
            f"{device.type}; choose {COMPILED} or {EAGER}"
        )
    _require_compilers(device)
    _try(device)


@functools.cache
def _try(device: torch.device) -> None:
    """Compile something small and run it: nothing else tells whether all of it works here."""
    function: Callable[[Tensor], Tensor] = torch.compile(_example, dynamic=False)
    try:
        with torch.no_grad():
            function(torch.ones(8, device=device)).sum().item()
    except Exception as error:
        words = " ".join(str(error).split())[:MOST_WORDS]
        _refuse(
            f"torch.compile, which does not work on this {device.type} device "
            f"({type(error).__name__}: {words})",
            "see what it says is missing",
        )


def _example(values: Tensor) -> Tensor:
    return (values * 2 + 1).relu()


def _require_compilers(device: torch.device) -> None:
    names = _cpp_compilers() if device.type == "cpu" else COMPILERS
    if not any(map(shutil.which, names)):
        _refuse(
            f"a compiler ({' or '.join(names)}), and none is installed",
            "install one, for example g++",
        )
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        _refuse("the package triton, and it is not installed", "install the one of this torch")
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
