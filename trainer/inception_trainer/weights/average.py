"""The mean of several weight files of one network (command ``average``).

The mean of the last checkpoints of a job is often a little better than each of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inception_trainer import __version__
from inception_trainer.checkpoint import safetensors_file
from inception_trainer.checkpoint.base import FORMAT
from inception_trainer.config import preprocessing
from inception_trainer.config.declare import camel
from inception_trainer.errors import ConfigError, InputMissing, UsageError
from inception_trainer.reporting.outputs import replacing

from .load import OWN_LAYOUT, WeightFile, open_weights

SUFFIXES = (".pt", ".safetensors")
FEWEST = 2


def write_mean(paths: Sequence[Path], output: Path, *, may_unpickle: bool = False) -> str:
    """Average the files into ``output``; returns a line for people.

    Batch norm statistics are averaged like weights. Raises UsageError, InputMissing, DataError, and
    ConfigError for files that do not belong together.
    """
    if len(paths) < FEWEST or output.suffix not in SUFFIXES:
        raise UsageError(
            f"average needs at least {FEWEST} files and "
            f"an output that ends in {' or '.join(SUFFIXES)}"
        )
    if not output.parent.is_dir():
        raise InputMissing(f"--output: {output} cannot be written: no folder {output.parent}")
    if output.exists():
        raise UsageError(f"--output: {output} is there already; name another file or remove it")
    files = [open_weights(None, path, may_unpickle=may_unpickle) for path in paths]
    for file in files[1:]:
        _check_pair(files[0], file)
    newest = max(files, key=lambda file: file.step)
    state = mean([file.state for file in files], newest.state)
    try:
        _write(state, newest, [str(path) for path in paths], output)
    except OSError as error:
        raise InputMissing(f"--output: {output} cannot be written: {error.strerror}") from None
    return f"{output}: mean of {len(files)} files of {newest.model}, {newest.classes} classes"


def mean(states: Sequence[Mapping[str, Tensor]], newest: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mean of each floating-point tensor, in its own dtype; the rest is that of ``newest``.

    All states have the same keys and shapes.
    """
    averaged: dict[str, Tensor] = {}
    for name, value in newest.items():
        if value.is_floating_point():
            # In float64, because the sum of a few FP16 weights can be beyond what FP16 holds.
            stacked = torch.stack([state[name].double() for state in states])
            averaged[name] = stacked.mean(0).to(value.dtype)
        else:
            # Counters of batches: a mean of them would mean nothing.
            averaged[name] = value
    return averaged


def _check_pair(first: WeightFile, other: WeightFile) -> None:
    """Raise ConfigError when two files are not of one network, trained on the same inputs."""
    pair = f"{first.path} and {other.path}"
    if first.model != other.model:
        raise ConfigError(
            f"{pair} hold {first.model} and {other.model}; only one network has a mean"
        )
    first_shapes = {name: value.shape for name, value in first.state.items()}
    other_shapes = {name: value.shape for name, value in other.state.items()}
    names = sorted(first_shapes.keys() | other_shapes.keys())
    differing = [name for name in names if first_shapes.get(name) != other_shapes.get(name)]
    if differing:
        raise ConfigError(f"{pair} differ in {len(differing)} tensors, for example {differing[0]}")
    for key, of_first, of_other in (
        ("preprocessing", _inputs(first), _inputs(other)),
        *(
            (key, first.content.get(key), other.content.get(key))
            for key in ("class_names", "batch_norm_epsilon")
        ),
    ):
        if of_first != of_other:
            raise ConfigError(
                f"{pair} differ in {key.replace('_', ' ')}: "
                "they were trained on other inputs or classes"
            )


def _inputs(file: WeightFile) -> dict[str, Any] | None:
    """What a file of ours says of its inputs, early versions of which said it in two places."""
    said = file.content.get("preprocessing")
    if file.source.layout != OWN_LAYOUT or not isinstance(said, Mapping):
        return None
    keys = preprocessing.of_file(file.content).items()
    return {**file.source.normalization.as_dict(), **{camel(name): value for name, value in keys}}


def _write(state: dict[str, Tensor], newest: WeightFile, names: list[str], output: Path) -> None:
    """Write the mean with what the newest file says of its inputs and classes."""
    described: dict[str, Any] = {}
    # Files of others do not say it.
    if newest.source.layout == OWN_LAYOUT:
        described["preprocessing"] = _inputs(newest)
        for key in ("class_names", "progress"):
            described[key] = newest.content[key]
        described["batch_norm_epsilon"] = newest.content.get("batch_norm_epsilon")
    with replacing(output) as draft:
        if output.suffix == ".safetensors":
            draft.write_bytes(_safetensors(state, newest, names, described))
        else:
            content = {
                "format": FORMAT,
                "version": __version__,
                "model": state,
                "averaged": names,
            }
            # A file object, because torch.save would take the name of the draft into the archive.
            with draft.open("wb") as file:
                torch.save(content | described, file)


def _safetensors(
    state: dict[str, Tensor], newest: WeightFile, names: list[str], described: Mapping[str, Any]
) -> bytes:
    metadata = safetensors_file.metadata(
        model=newest.model,
        step=newest.step,
        preprocessing=described.get("preprocessing"),
        class_names=described.get("class_names"),
        averaged=names,
        batch_norm_epsilon=described.get("batch_norm_epsilon"),
    )
    try:
        return safetensors_file.encode(state, metadata)
    except ImportError:
        raise UsageError(
            "--output: the Python package safetensors is not here; name a .pt file"
        ) from None
