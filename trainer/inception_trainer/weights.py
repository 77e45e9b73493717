"""Weight files from elsewhere into a network: tolerant of what is known to differ, strict about everything else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inception_trainer.errors import ConfigError, DataError, InputMissing
from inception_trainer.log import logger

HEADS = ("last_linear.weight", "last_linear.bias")
COUNTER = "num_batches_tracked"
WRAPPERS = ("model", "state_dict")


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill ``model``; a head of another class count keeps its random weights, and says so.

    Accepts a plain state_dict, our checkpoints, and dicts with ``model`` or ``state_dict``. Raises InputMissing,
    DataError for an unreadable file, ConfigError listing the names of keys that do not fit.
    """
    weights = state_of(read_weights(path), path)
    own = model.state_dict()
    for name in HEADS:
        if name in weights and name in own and weights[name].shape != own[name].shape:
            logger.warning("%s: %s is for another number of classes and starts afresh", path, name)
            weights[name] = own[name]
    wrong = [name for name in weights if name in own and weights[name].shape != own[name].shape]
    missing = [name for name in own if name not in weights and not name.endswith(COUNTER)]
    extra = [name for name in weights if name not in own]
    if wrong or missing or extra:
        found = "; ".join(f"{what}: {_some(names)}" for what, names in _pairs(missing, extra, wrong) if names)
        raise ConfigError(f"model.weights: {path} does not fit this network: {found}")
    model.load_state_dict(own | weights)


def read_weights(path: Path) -> dict[str, Any]:
    """What the file holds; nothing beyond tensors and plain values is unpickled."""
    if not path.is_file():
        raise InputMissing(f"model.weights: no file {path}")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise DataError(f"model.weights: {path} is no file of plain tensors: {error}") from None
    if not isinstance(loaded, Mapping):
        raise DataError(f"model.weights: {path} holds no state_dict")
    return dict(loaded)


def state_of(loaded: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The state_dict inside a file's content."""
    for wrapper in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise DataError(f"model.weights: {path} holds no state_dict")
    return {str(name).removeprefix("module."): value for name, value in loaded.items()}


def _pairs(missing: list[str], extra: list[str], wrong: list[str]) -> tuple[tuple[str, list[str]], ...]:
    return ("missing", missing), ("unknown", extra), ("another shape", wrong)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
