"""Weight files from elsewhere into a network: tolerant of what is known to differ, strict about
everything else.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inception_trainer.checkpoint import checksums, export_weights
from inception_trainer.config.normalization import Normalization
from inception_trainer.errors import ConfigError, DataError, InputMissing, TrainerError
from inception_trainer.log import logger
from inception_trainer.stores import place, temporary_folder

from . import layouts
from .layouts import Layout

COUNTER = "num_batches_tracked"
WRAPPERS = ("average", "model", "state_dict")
"""The running average first: it is what was evaluated."""
OWN = "this trainer"
"""The layout's name for checkpoints of ours."""
BACKGROUND_CLASSES = 1001


@dataclass(frozen=True)
class Loaded:
    """What a weight file was, and what it expects of the inputs."""

    layout: str
    normalization: Normalization


@dataclass(frozen=True)
class WeightFile:
    """A file that was read: its tensors under our names, and all else it holds."""

    path: Path
    model: str
    state: dict[str, Tensor]
    content: Mapping[str, Any]
    loaded: Loaded

    @property
    def classes(self) -> int:
        """How many classes its classifier knows."""
        return len(self.state[f"{layouts.HEADS[self.model]}weight"])


@functools.cache
def local_file(text: str) -> Path:
    """A weight file; of one behind a URL a copy, with its checksum, for as long as this process
    lives.
    """
    source = place(text)
    if isinstance(source, Path):
        return source
    logger.info("fetching %s", source)
    path = temporary_folder() / source.name
    try:
        path.write_bytes(source.read_bytes())
    except FileNotFoundError:
        raise InputMissing(f"model.weights: no object {source}") from None
    with suppress(FileNotFoundError):
        checksums.beside(path).write_bytes(
            (source.parent / checksums.beside(path).name).read_bytes()
        )
    return path


def load_weights(
    network: nn.Module, name: str, path: Path, *, new_classifier: bool = False
) -> Loaded:
    """Fill ``network``, the model ``name``, from a state_dict, one of our checkpoints, or a
    safetensors file.

    With ``new_classifier`` the classifier keeps its random weights. Raises what
    :func:`open_weights` raises, and ConfigError listing the names that do not fit.
    """
    file = open_weights(name, path)
    own, weights = network.state_dict(), dict(file.state)
    for key in () if _keys(own, layouts.AUXILIARY) else _keys(weights, layouts.AUXILIARY):
        del weights[key]
    weights.update({key: own[key] for key in _fresh(weights, own, file, new_classifier)})
    _check(weights, own, path)
    network.load_state_dict({**own, **weights})
    loaded = file.loaded
    logger.info(
        "weights from %s: layout of %s, inputs as %s",
        path,
        loaded.layout,
        loaded.normalization.name,
    )
    return loaded


def open_weights(name: str | None, path: Path) -> WeightFile:
    """Read a weight file of the model ``name`` (None: of any); nothing beyond tensors and plain
    values is unpickled.

    Raises InputMissing, DataError for a file that cannot be read, ConfigError for weights of
    another network.
    """
    content = _read(path)
    raw = _state(content, path)
    layout = layouts.detect(raw)
    if layout is None:
        raise ConfigError(
            f"model.weights: {path} is of no known layout; its keys begin with {_some(list(raw))}"
        )
    if name not in (None, layout.model):
        raise ConfigError(
            f"model.weights: {path} holds {layout.model}; set model.name to it, or name another file"
        )
    state = {layout.rename(key): value for key, value in raw.items()}
    saved = content.get("preprocessing")
    if isinstance(saved, Mapping):
        return WeightFile(
            path, layout.model, state, content, Loaded(OWN, Normalization.from_dict(saved))
        )
    _drop_background(state, layout)
    return WeightFile(
        path, layout.model, state, content, Loaded(layout.publisher, layout.normalization)
    )


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise InputMissing(f"model.weights: no file {path}")
    try:
        checksums.check(path)
        safe = path.suffix == ".safetensors"
        content = export_weights.read(path) if safe else torch.load(path, "cpu", weights_only=True)
    except TrainerError:
        raise
    except Exception as error:
        raise DataError(f"model.weights: {path} is no file of plain tensors: {error}") from None
    if not isinstance(content, Mapping):
        raise DataError(f"model.weights: {path} holds no state_dict")
    return content


def _state(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    for wrapper in WRAPPERS:
        inner = content.get(wrapper)
        content = inner if isinstance(inner, Mapping) else content
    if not all(isinstance(value, Tensor) for value in content.values()):
        raise DataError(f"model.weights: {path} holds no state_dict")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _drop_background(state: dict[str, Tensor], layout: Layout) -> None:
    # The files converted from TensorFlow have a class 0 that no image belongs to.
    for key in _keys(state, layouts.HEADS[layout.model]) if layout.model == "inception_v4" else ():
        if len(state[key]) == BACKGROUND_CLASSES:
            state[key] = state[key][1:]


def _fresh(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor], file: WeightFile, new_classifier: bool
) -> list[str]:
    """Our keys that keep their random values: a classifier renewed on request, an auxiliary head
    the file lacks.
    """
    heads = [*_keys(own, layouts.HEADS[file.model]), *_keys(own, layouts.AUXILIARY_HEAD)]
    if new_classifier:
        logger.info("the classifier starts afresh")
    else:
        _check_classes(weights, own, heads, file.path)
    fresh = heads if new_classifier else []
    if _keys(own, layouts.AUXILIARY) and not _keys(weights, layouts.AUXILIARY):
        logger.info("%s has no auxiliary head: it starts afresh", file.path)
        fresh = [*fresh, *_keys(own, layouts.AUXILIARY)]
    return fresh


def _check_classes(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor], heads: list[str], path: Path
) -> None:
    for key in heads:
        if key in weights and len(weights[key]) != len(own[key]):
            raise ConfigError(
                f"model.weights: {path} is for {len(weights[key])} classes and this network for {len(own[key])}; "
                "set model.classifier to New to train a new classifier on top of its features"
            )


def _check(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path) -> None:
    problems = {
        "missing": [key for key in own if key not in weights and not key.endswith(COUNTER)],
        "unknown": [key for key in weights if key not in own],
        "another shape": [
            key for key in weights if key in own and weights[key].shape != own[key].shape
        ],
    }
    if any(problems.values()):
        found = "; ".join(f"{what}: {_some(keys)}" for what, keys in problems.items() if keys)
        raise ConfigError(f"model.weights: {path} does not fit this network: {found}")


def _keys(state: Mapping[str, Tensor], prefix: str) -> list[str]:
    return [key for key in state if key.startswith(prefix)]


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
