"""Reads weight files into a network: published ones, our checkpoints, and safetensors files.

Tolerant of what is known to differ between publishers (``layouts``), strict about everything else:
a network that is half random must be an error, not a job that learns slowly.
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

from inception_trainer.checkpoint import checksums, safetensors_file
from inception_trainer.config.normalization import Normalization
from inception_trainer.errors import ConfigError, DataError, InputMissing, TrainerError
from inception_trainer.log import logger
from inception_trainer.stores import place, temporary_folder

from . import layouts
from .layouts import Layout
from .pickles import check_pickle

COUNTER = "num_batches_tracked"
"""Batch norm's counter of batches, which files of early PyTorch versions lack."""
WRAPPERS = ("average", "model", "state_dict")
"""Keys under which files keep the state_dict; the running average first: it was evaluated."""
OWN_LAYOUT = "this trainer"
"""The layout's name for checkpoints of ours."""
BACKGROUND_CLASSES = 1001


@dataclass(frozen=True)
class WeightsSource:
    """Whose layout a weight file had, and what its network expects of the inputs."""

    layout: str
    normalization: Normalization


@dataclass(frozen=True)
class WeightFile:
    """A file that was read: its tensors under our names, and all else it holds."""

    path: Path
    model: str
    state: dict[str, Tensor]
    content: Mapping[str, Any]
    """The whole file as it was; for one of ours with the keys of a checkpoint."""
    source: WeightsSource

    @property
    def classes(self) -> int:
        """How many classes the classifier tells apart."""
        return len(self.state[f"{layouts.HEADS[self.model]}weight"])

    @property
    def step(self) -> int:
        """The optimizer step of a checkpoint of ours; 0 for files of others, which do not say."""
        if self.source.layout != OWN_LAYOUT:
            return 0
        return int(self.content["progress"]["step"])


@functools.cache
def local_file(text: str) -> Path:
    """A weight file on this machine; for a URL a copy, with its checksum if it has one.

    The copy is there as long as this process lives. Raises InputMissing for an object that does
    not exist.
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
    checksum_file = checksums.beside(path)
    with suppress(FileNotFoundError):
        checksum_file.write_bytes((source.parent / checksum_file.name).read_bytes())
    return path


def load_weights(
    network: nn.Module,
    name: str,
    path: Path,
    *,
    new_classifier: bool = False,
    may_unpickle: bool = False,
) -> WeightsSource:
    """Fill ``network``, the model ``name``, with the weights of a file.

    With ``new_classifier`` the classifier keeps its random weights. Raises what
    :func:`open_weights` raises, and ConfigError listing the names that do not fit.
    """
    file = open_weights(name, path, may_unpickle=may_unpickle)
    network_state = network.state_dict()
    weights = dict(file.state)
    if not _keys_below(network_state, layouts.AUXILIARY):
        # Published files bring an auxiliary head along, which matters to training only.
        for key in _keys_below(weights, layouts.AUXILIARY):
            del weights[key]
    for key in _random_keys(weights, network_state, file, new_classifier):
        weights[key] = network_state[key]
    _check_fit(weights, network_state, path)
    network.load_state_dict({**network_state, **weights})
    logger.info(
        "weights from %s: layout of %s, inputs as %s",
        path,
        file.source.layout,
        file.source.normalization.name,
    )
    return file.source


def open_weights(name: str | None, path: Path, *, may_unpickle: bool = False) -> WeightFile:
    """Read a weight file of the model ``name`` (None: of any), onto the CPU.

    Nothing beyond tensors and plain values is unpickled, and nothing at all by a torch that may run
    what a pickle holds, unless ``may_unpickle`` says that the file is trusted. Raises InputMissing,
    DataError for a file that cannot be read, ConfigError for one that must not be read and for
    weights of another network.
    """
    content = _read(path, may_unpickle)
    raw_state = _state_dict(content, path)
    layout = layouts.detect(raw_state)
    if layout is None:
        raise ConfigError(
            f"model.weights: {path} is of no known layout; "
            f"its keys begin with {_some(list(raw_state))}"
        )
    if name not in (None, layout.model):
        raise ConfigError(
            f"model.weights: {path} holds {layout.model}; "
            "set model.name to it, or name another file"
        )
    state = {layout.rename(key): value for key, value in raw_state.items()}
    preprocessing = content.get("preprocessing")
    if isinstance(preprocessing, Mapping):
        source = WeightsSource(OWN_LAYOUT, Normalization.from_dict(preprocessing))
    else:
        _drop_background(state, layout)
        source = WeightsSource(layout.publisher, layout.normalization)
    return WeightFile(path, layout.model, state, content, source)


def _read(path: Path, may_unpickle: bool) -> Mapping[str, Any]:
    if not path.is_file():
        raise InputMissing(f"model.weights: no file {path}")
    try:
        checksums.check(path)
        if path.suffix == ".safetensors":
            content: Any = safetensors_file.read(path)
        else:
            if not may_unpickle:
                check_pickle(path, str(torch.__version__))
            content = torch.load(path, "cpu", weights_only=True)
    except TrainerError:
        raise
    except Exception as error:
        # Broken pickles and archives raise whatever their first wrong byte leads to.
        raise DataError(f"model.weights: {path} is no file of plain tensors: {error}") from None
    if not isinstance(content, Mapping):
        raise DataError(f"model.weights: {path} holds no state_dict")
    return content


def _state_dict(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The tensors of a file without its wrappers, under the names that the file has."""
    for wrapper in WRAPPERS:
        inner = content.get(wrapper)
        content = inner if isinstance(inner, Mapping) else content
    if not all(isinstance(value, Tensor) for value in content.values()):
        raise DataError(f"model.weights: {path} holds no state_dict")
    # DistributedDataParallel puts "module." before every name.
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _drop_background(state: dict[str, Tensor], layout: Layout) -> None:
    # The files converted from TensorFlow have a class 0 that no image belongs to.
    if layout.model != "inception_v4":
        return
    for key in _keys_below(state, layouts.HEADS[layout.model]):
        if len(state[key]) == BACKGROUND_CLASSES:
            state[key] = state[key][1:]


def _random_keys(
    weights: Mapping[str, Tensor],
    network_state: Mapping[str, Tensor],
    file: WeightFile,
    new_classifier: bool,
) -> list[str]:
    """Keys of the network that keep their random values.

    Those of a classifier that is renewed on request, and of an auxiliary head that the file lacks.
    """
    classifiers = [
        *_keys_below(network_state, layouts.HEADS[file.model]),
        *_keys_below(network_state, layouts.AUXILIARY_HEAD),
    ]
    random_keys: list[str] = []
    if new_classifier:
        logger.info("the classifier starts afresh")
        random_keys += classifiers
    else:
        _check_classes(weights, network_state, classifiers, file.path)
    auxiliary = _keys_below(network_state, layouts.AUXILIARY)
    if auxiliary and not _keys_below(weights, layouts.AUXILIARY):
        logger.info("%s has no auxiliary head: it starts afresh", file.path)
        random_keys += auxiliary
    return random_keys


def _check_classes(
    weights: Mapping[str, Tensor],
    network_state: Mapping[str, Tensor],
    classifiers: list[str],
    path: Path,
) -> None:
    """Raise ConfigError when a classifier of the file is for another number of classes."""
    # Before _check_fit, which would only speak of shapes.
    for key in classifiers:
        if key in weights and len(weights[key]) != len(network_state[key]):
            raise ConfigError(
                f"model.weights: {path} is for {len(weights[key])} classes and this network for "
                f"{len(network_state[key])}; set model.classifier to New to train a new classifier "
                "on top of its features"
            )


def _check_fit(
    weights: Mapping[str, Tensor], network_state: Mapping[str, Tensor], path: Path
) -> None:
    """Raise ConfigError when names or shapes differ; counters of batch norm may be missing."""
    common = [key for key in weights if key in network_state]
    problems = {
        "missing": [
            key for key in network_state if key not in weights and not key.endswith(COUNTER)
        ],
        "unknown": [key for key in weights if key not in network_state],
        "another shape": [key for key in common if weights[key].shape != network_state[key].shape],
    }
    if any(problems.values()):
        text = "; ".join(f"{problem}: {_some(keys)}" for problem, keys in problems.items() if keys)
        raise ConfigError(f"model.weights: {path} does not fit this network: {text}")


def _keys_below(state: Mapping[str, Tensor], prefix: str) -> list[str]:
    return [key for key in state if key.startswith(prefix)]


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
