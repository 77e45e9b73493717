"""Reads weight files into a network: published ones, our checkpoints, and safetensors files.

Tolerant of what is known to differ between publishers (``layouts``), strict about everything else:
a network that is half random must be an error, not a job that learns slowly.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inception_trainer.checkpoint import checksums, safetensors_file
from inception_trainer.config.model import AVERAGE, RAW_WEIGHTS
from inception_trainer.config.normalization import Normalization
from inception_trainer.config.timm_networks import TIMM
from inception_trainer.errors import (
    ConfigError,
    DataError,
    InputMissing,
    StorageFailed,
    TrainerError,
)
from inception_trainer.log import logger
from inception_trainer.storage import describe, patiently
from inception_trainer.stores import place, temporary_folder, without_query

from . import layouts, left_out
from .layouts import Layout
from .left_out import Reading
from .pickles import check_pickle

COUNTER = "num_batches_tracked"
"""Batch norm's counter of batches, which files of early PyTorch versions lack."""
AVERAGES = ("average", "state_dict_ema", "model_ema", "ema_state_dict", "ema")
"""Keys under which files keep the running average of the weights: ours, timm's, torchvision's."""
RAW = ("model", "state_dict", "model_state_dict", "net")
"""Keys under which they keep the weights that were trained."""
COUNT_OF_AVERAGES = "n_averaged"
"""What torch's AveragedModel has beside the weights."""
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
    remarks: tuple[str, ...] = ()
    """What was not taken, for the log."""

    @property
    def classes(self) -> int:
        """How many classes the classifier tells apart."""
        key = f"{layouts.head(self.model)}weight"
        if key not in self.state:
            raise ConfigError(
                f"model.weights: {self.path} holds no {key}, the classifier of {self.model}; its "
                f"keys begin with {_some(list(self.state))}"
            )
        return len(self.state[key])

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
    logger.info("fetching %s", without_query(text))
    path = temporary_folder() / (source.name or "weights")
    try:
        content = patiently(source.read_bytes, source.name)
    except FileNotFoundError:
        raise InputMissing(f"model.weights: no object {without_query(text)}") from None
    checksum_file = checksums.beside(path)
    checksum_source = source.parent / checksum_file.name
    checksum = b""
    # Who may not list a bucket, and whose signature is for one file only, is refused where there
    # is none.
    with suppress(FileNotFoundError, ConfigError):
        checksum = patiently(checksum_source.read_bytes, checksum_file.name)
    try:
        path.write_bytes(content)
        if checksum:
            checksum_file.write_bytes(checksum)
    except OSError as error:
        raise StorageFailed(
            f"model.weights: no copy of {source.name} at {path}: {describe(error)}"
        ) from error
    return path


def load_weights(
    network: nn.Module,
    name: str,
    path: Path,
    *,
    new_classifier: bool = False,
    may_unpickle: bool = False,
    kind: str = AVERAGE,
) -> WeightsSource:
    """Fill ``network``, the model ``name``, with the weights of a file.

    With ``new_classifier`` the classifier keeps its random weights. ``kind`` is
    ``model.weightsKind``. Raises what :func:`open_weights` raises, and ConfigError listing the
    names that do not fit.
    """
    file = open_weights(name, path, may_unpickle=may_unpickle, kind=kind)
    for remark in file.remarks:
        logger.info("%s", remark)
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


def open_weights(
    name: str | None, path: Path, *, may_unpickle: bool = False, kind: str = AVERAGE
) -> WeightFile:
    """Read a weight file of the model ``name`` (None: of any), onto the CPU.

    Nothing beyond tensors and plain values is unpickled, and nothing at all by a torch that may run
    what a pickle holds, unless ``may_unpickle`` says that the file is trusted. ``kind`` says which
    weights are taken where there are two. Raises InputMissing, DataError for a file that cannot be
    read, ConfigError for one that must not be read and for weights of another network.
    """
    reading = _read(path, may_unpickle)
    content: Mapping[str, Any] = reading.content
    remarks: list[str] = []
    if reading.left_out:
        remarks.append(
            f"{path} holds more than tensors and plain values; left out, and not run: "
            f"{_some(list(reading.left_out))}"
        )
    raw_state = _state_dict(_unwrapped(content, path, kind, remarks), path)
    # Among timm's there are networks with the names of ours; files of our own say whose they are.
    of_timm = next((each for each in (name, _own_name(content)) if each and each[:5] == TIMM), None)
    layout = layouts.of_timm(of_timm) if of_timm else layouts.detect(raw_state)
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
    return WeightFile(path, layout.model, state, content, source, tuple(remarks))


def _own_name(content: Mapping[str, Any]) -> str | None:
    """The network that a checkpoint of ours says it is of."""
    config = content.get("config")
    model = config.get("model") if isinstance(config, Mapping) else None
    name = model.get("name") if isinstance(model, Mapping) else content.get("model_name")
    return name if isinstance(name, str) else None


def _read(path: Path, may_unpickle: bool) -> Reading:
    if not path.is_file():
        raise InputMissing(f"model.weights: no file {path}")
    try:
        checksums.check(path)
        if path.suffix == ".safetensors":
            reading = Reading(safetensors_file.read(path))
        else:
            if not may_unpickle:
                check_pickle(path, str(torch.__version__))
            reading = _unpickled(path)
    except TrainerError:
        raise
    except Exception as error:
        # Broken pickles and archives raise whatever their first wrong byte leads to.
        raise DataError(f"model.weights: {path} is no file of plain tensors: {error}") from None
    if isinstance(reading.content, left_out.LeftOut):
        raise DataError(
            f"model.weights: {path} holds a whole object ({_some(list(reading.left_out))}), which "
            "only the program that made it can build; save its state_dict() instead"
        )
    if not isinstance(reading.content, Mapping):
        raise _without_weights(path)
    return reading


def _unpickled(path: Path) -> Reading:
    try:
        return Reading(torch.load(path, "cpu", weights_only=True))
    except pickle.UnpicklingError:
        # It holds more than torch knows to be safe, or is damaged, which then shows again.
        return left_out.read(path)


def _unwrapped(
    content: Mapping[str, Any], path: Path, kind: str, remarks: list[str]
) -> Mapping[str, Any]:
    """The state_dict of a file without what is around it: the running average or the weights that
    were trained, as ``kind`` says. What was passed over is added to ``remarks``.
    """
    while True:
        average, raw = _first_mapping(content, AVERAGES), _first_mapping(content, RAW)
        if average is None and raw is None:
            return content
        if kind == RAW_WEIGHTS and raw is None:
            raise ConfigError(
                f"model.weightsKind: {path} holds an average only ({average}), no raw weights; "
                "leave the key out"
            )
        if average is not None and raw is not None:
            taken = f"the running average ({average}); model.weightsKind Raw takes the raw ({raw})"
            if kind == RAW_WEIGHTS:
                taken = f"the raw ({raw}) as model.weightsKind says, not the average ({average})"
            remarks.append(f"{path} holds two sets of weights; taken are {taken}")
        chosen = average if raw is None or (average is not None and kind == AVERAGE) else raw
        content = content[str(chosen)]


def _first_mapping(content: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The first of ``names`` that has entries below it."""
    return next(
        (name for name in names if isinstance(content.get(name), Mapping) and content[name]), None
    )


def _state_dict(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Tensors under the names that they have without the wrappers of the network."""
    tensors = {
        str(key): value
        for key, value in left_out.without(content).items()
        if key != COUNT_OF_AVERAGES
    }
    if not tensors or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise _without_weights(path)
    bare = {layouts.bare(key): value for key, value in tensors.items()}
    if len(bare) < len(tensors):
        raise DataError(
            f"model.weights: {path} holds some weights twice, with and without the prefixes of "
            "wrappers (module., _orig_mod.); save the state_dict of the bare network"
        )
    return bare


def _without_weights(path: Path) -> DataError:
    return DataError(f"model.weights: {path} holds no state_dict")


def _drop_background(state: dict[str, Tensor], layout: Layout) -> None:
    # The files converted from TensorFlow have a class 0 that no image belongs to.
    if layout.model != "inception_v4":
        return
    for key in _keys_below(state, layouts.head(layout.model)):
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
        *_keys_below(network_state, layouts.head(file.model)),
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
