"""The mean of several weight files of one network: often a little better than each of the last
checkpoints.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inception_trainer import __version__
from inception_trainer.checkpoint.base import FORMAT
from inception_trainer.errors import ConfigError, InputMissing, UsageError
from inception_trainer.reporting.outputs import replacing

from .load import OWN, WeightFile, open_weights

SUFFIXES = (".pt", ".safetensors")
FEWEST = 2


def write_mean(paths: Sequence[Path], output: Path) -> str:
    """Average the files into ``output``; returns a line for people.

    Batch norm statistics are averaged like weights. Raises UsageError, InputMissing, DataError, and
    ConfigError for files that do not belong together.
    """
    if len(paths) < FEWEST or output.suffix not in SUFFIXES:
        raise UsageError(
            f"average needs at least {FEWEST} files and an output that ends in {' or '.join(SUFFIXES)}"
        )
    if not output.parent.is_dir():
        raise InputMissing(f"--output: {output} cannot be written: no folder {output.parent}")
    if output.exists():
        raise UsageError(f"--output: {output} is there already; name another file or remove it")
    files = [open_weights(None, path) for path in paths]
    for file in files[1:]:
        _check(files[0], file)
    newest = max(files, key=_step)
    state = mean([file.state for file in files], newest.state)
    try:
        _write(state, newest, [str(path) for path in paths], output)
    except OSError as error:
        raise InputMissing(f"--output: {output} cannot be written: {error.strerror}") from None
    return f"{output}: mean of {len(files)} files of {newest.model}, {newest.classes} classes"


def mean(states: Sequence[Mapping[str, Tensor]], newest: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of the floating-point tensors, added up in float64; counters are those of the newest file."""
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in newest.items()
    }


def _check(first: WeightFile, other: WeightFile) -> None:
    pair = f"{first.path} and {other.path}"
    if first.model != other.model:
        raise ConfigError(
            f"{pair} hold {first.model} and {other.model}; only one network has a mean"
        )
    shapes = [{name: value.shape for name, value in file.state.items()} for file in (first, other)]
    differing = sorted(
        name
        for name in shapes[0].keys() | shapes[1].keys()
        if shapes[0].get(name) != shapes[1].get(name)
    )
    if differing:
        raise ConfigError(f"{pair} differ in {len(differing)} tensors, for example {differing[0]}")
    for key in ("preprocessing", "class_names"):
        if first.content.get(key) != other.content.get(key):
            raise ConfigError(
                f"{pair} differ in {key.replace('_', ' ')}: they were trained on other inputs or classes"
            )


def _step(file: WeightFile) -> int:
    return int(file.content["progress"]["step"]) if file.loaded.layout == OWN else 0


def _write(state: dict[str, Tensor], newest: WeightFile, names: list[str], output: Path) -> None:
    content: dict[str, Any] = {
        "format": FORMAT,
        "version": __version__,
        "model": state,
        "averaged": names,
    }
    if newest.loaded.layout == OWN:
        content |= {
            key: newest.content[key] for key in ("preprocessing", "class_names", "progress")
        }
    with replacing(output) as draft:
        if output.suffix == ".safetensors":
            _safetensors(content, newest, draft)
        else:
            with draft.open("wb") as file:
                torch.save(content, file)


def _safetensors(content: Mapping[str, Any], newest: WeightFile, path: Path) -> None:
    try:
        from safetensors.torch import save_file
    except ImportError:
        raise UsageError(
            "--output: the Python package safetensors is not here; name a .pt file"
        ) from None
    metadata = {"format": "pt", "model": newest.model, "averaged": json.dumps(content["averaged"])}
    for key in ("preprocessing", "class_names"):
        if key in content:
            metadata[key] = json.dumps(content[key])
    tensors = {name: value.contiguous() for name, value in content["model"].items()}
    save_file(tensors, path, {**metadata, "step": str(_step(newest))})
