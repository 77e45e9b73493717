"""A trained network out of a file: our checkpoints bring their preprocessing and class names along."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from inception_trainer import models
from inception_trainer.checkpoint import object_store
from inception_trainer.comm import Comm
from inception_trainer.config.catalog import facts
from inception_trainer.config.normalization import Normalization
from inception_trainer.config.training import TrainingConfig
from inception_trainer.data import Splits
from inception_trainer.errors import ConfigError, InputMissing
from inception_trainer.stores import Remote, is_url, place, temporary_folder

from .exported import SUFFIXES, Exported, Runner, open_exported
from .load import OWN, load_weights, local_file, open_weights


@dataclass(frozen=True)
class Trained:
    """What is known of a weight file; what a plain state_dict does not say is None or empty."""

    path: Path
    model: str
    classes: int
    class_names: tuple[str, ...] = ()
    normalization: Normalization | None = None
    """What its inputs were."""
    image_size: int | None = None
    step: int | None = None

    def check(self, splits: Splits) -> None:
        """Raise ConfigError when the data has other classes than the network."""
        if splits.num_classes > self.classes:
            raise ConfigError(
                f"model.weights: {self.path} knows {self.classes} classes, the data has {splits.num_classes}"
            )
        known, found = self.class_names[: len(splits.class_names)], splits.class_names
        if self.class_names and known != found:
            pairs = zip(known, found, strict=False)
            at = next((i for i, (one, other) in enumerate(pairs) if one != other), len(known))
            raise ConfigError(
                f"data: class {at} is {found[at]!r} here and "
                f"{known[at] if at < len(known) else 'unknown'!r} in {self.path}; use the data it was trained on"
            )


def weight_file(config: TrainingConfig) -> Path:
    """``model.weights``, or the best, final or newest checkpoint of ``checkpoint.path``."""
    if config.model.weights is not None:
        return local_file(config.model.weights)
    if config.checkpoint.path is None:
        raise ConfigError(f"model.weights: missing; mode {config.mode} needs a trained network")
    if is_url(config.checkpoint.path):
        return _fetched(config.checkpoint.path)
    folder = Path(str(place(config.checkpoint.path))) / "checkpoints"
    candidates = [
        folder / "best.pt",
        folder / "final.pt",
        *sorted(folder.glob("step-*.pt"), reverse=True),
    ]
    for path in candidates:
        if path.is_file():
            return path
    raise InputMissing(
        f"model.weights: not set, and {folder} holds no checkpoint; name the file to use"
    )


@functools.cache
def _fetched(url: str) -> Path:
    """The job's best checkpoint in a store, brought into a temporary folder for as long as this
    process lives.
    """
    found = object_store.best_of(Remote(url))
    if found is None:
        raise InputMissing(
            f"model.weights: not set, and {url} holds no checkpoint; name the file to use"
        )
    path = temporary_folder() / found[0]
    path.write_bytes(found[1])
    return path


def open_trained(
    config: TrainingConfig, comm: Comm, device: torch.device
) -> tuple[nn.Module, Trained]:
    """The network in evaluation mode on ``device``, equal on all ranks; only rank 0 reads the file."""
    path = comm.from_first(lambda: weight_file(config))
    if path.suffix in SUFFIXES and config.mode != "Export":
        exported = open_exported(path)
        return Runner(exported).eval(), _self_described(exported, config)
    trained = comm.from_first(lambda: _described(config))
    with torch.device("meta"):
        network = models.create(trained.model, trained.classes)
    network.to_empty(device="cpu")
    for buffer in network.buffers():  # files may leave out the counters of batch norm
        buffer.zero_()
    comm.from_first(lambda: load_weights(network, trained.model, trained.path))
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    comm.broadcast_tensors([*network.parameters(), *network.buffers()])
    return network.eval(), trained


def _self_described(exported: Exported, config: TrainingConfig) -> Trained:
    described, wanted = exported.described, config.data.image_size
    side = exported.image_size
    if side is not None and wanted not in (0, side):
        raise ConfigError(
            f"data.imageSize: {exported.path} takes images of {side} pixels, not {wanted}; set it to {side}"
        )
    model = described.get("model", models.canonical(config.model.name))
    classes = exported.classes
    if classes is None:
        images = torch.zeros(1, 3, *(wanted or facts(model).image_size,) * 2)
        classes = Runner(exported)(images).shape[1]
    names = tuple(described.get("classNames", ()))
    return Trained(
        exported.path, model, classes, names, exported.normalization, side, described.get("step")
    )


def _described(config: TrainingConfig) -> Trained:
    file = open_weights(models.canonical(config.model.name), weight_file(config))
    own = file.loaded.layout == OWN
    content: Mapping[str, Any] = file.content if own else {}
    return Trained(
        file.path,
        file.model,
        file.classes,
        tuple(content.get("class_names") or ()),
        file.loaded.normalization,
        int(content["preprocessing"]["imageSize"]) if own else None,
        int(content["progress"]["step"]) if own else None,
    )
