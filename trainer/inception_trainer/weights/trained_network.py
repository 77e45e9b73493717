"""Trained networks out of files, for the modes Evaluate, Infer and Export.

Checkpoints of ours bring their preprocessing and class names along, exported files their metadata;
of a plain state_dict little more than the network is known.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from inception_trainer import models
from inception_trainer.checkpoint import object_store
from inception_trainer.comm import Comm
from inception_trainer.config import preprocessing
from inception_trainer.config.catalog import facts
from inception_trainer.config.normalization import Normalization
from inception_trainer.config.timm_networks import TIMM
from inception_trainer.config.training import TrainingConfig
from inception_trainer.data import Splits
from inception_trainer.data.class_names import given_names
from inception_trainer.device import image_format
from inception_trainer.errors import ConfigError, DataError, InputMissing
from inception_trainer.log import logger
from inception_trainer.stores import Remote, is_url, place, temporary_folder, without_query

from .exported_network import SUFFIXES, ExportedFile, ExportedNetwork, first_line, open_exported
from .load import OWN_LAYOUT, load_weights, local_file, open_weights
from .pickles import check_within, is_own, may_unpickle


@dataclass(frozen=True)
class TrainedModel:
    """What is known of a weight file; what a plain state_dict does not say is None or empty."""

    path: Path
    model: str
    classes: int
    class_names: tuple[str, ...] = ()
    normalization: Normalization | None = None
    """How pixels became its inputs."""
    evaluated_with: Mapping[str, Any] = field(default_factory=dict)
    """What evaluation did to images besides: keys of ``data`` and their values."""
    step: int | None = None
    """The optimizer step that it is of."""
    batch_norm_epsilon: float | None = None
    """What its batch norms add to variances, where that is not the network's own."""

    @property
    def image_size(self) -> int | None:
        """Side of its images in pixels."""
        return self.evaluated_with.get("image_size")

    def names(self, splits: Splits | None) -> tuple[str, ...]:
        """Of the classes: as it was trained, else as the data has them; of a part of the classes
        the data does not know them all.
        """
        of_data = splits.class_names if splits else ()
        return given_names(self.class_names) or of_data or self.class_names

    def check(self, splits: Splits) -> None:
        """Raise ConfigError when the data has other classes than the network.

        Fewer are fine: a part of the data may be evaluated.
        """
        if splits.num_classes > self.classes:
            raise ConfigError(
                f"model.weights: {self.path} knows {self.classes} classes, "
                f"the data has {splits.num_classes}"
            )
        names_here = given_names(splits.class_names)
        names = given_names(self.class_names)
        if not names and splits.num_classes < self.classes:
            logger.warning(
                "%s knows %d classes and does not say what they are called, the data has %d: class "
                "number N of the data is taken for output N, which makes no sense unless the "
                "network was trained with these numbers",
                self.path,
                self.classes,
                splits.num_classes,
            )
        names_trained = names[: len(names_here)]
        # Other names at the same numbers would give an accuracy near 0, and no error.
        if not names or names_trained == names_here:
            return
        pairs = zip(names_trained, names_here, strict=False)
        differing = (number for number, (one, other) in enumerate(pairs) if one != other)
        number = next(differing, len(names_trained))
        trained = names_trained[number] if number < len(names_trained) else "unknown"
        raise ConfigError(
            f"data: class {number} is {names_here[number]!r} here and {trained!r} in {self.path}; "
            "use the data it was trained on"
        )


def weight_file(config: TrainingConfig) -> Path:
    """``model.weights``, or the best, final or newest checkpoint of ``checkpoint.path``.

    A file behind a URL is fetched. Raises ConfigError when neither is set, InputMissing when there
    is no such file.
    """
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
            check_within(path, folder.parent)
            return path
    raise InputMissing(
        f"model.weights: not set, and {folder} holds no checkpoint; name the file to use"
    )


def origin(config: TrainingConfig, path: Path) -> str:
    """Where the weight file ``path`` comes from: the copy of one in a store goes with the
    process.
    """
    if config.model.weights is not None:
        return without_query(config.model.weights) if is_url(config.model.weights) else str(path)
    root = config.checkpoint.path or ""
    return f"{root.rstrip('/')}: {path.name}" if is_url(root) else str(path)


@functools.cache
def _fetched(url: str) -> Path:
    """A copy of the job's best checkpoint in a store, there as long as this process lives."""
    # Cached: the file is opened several times, and a job that still trains may replace it.
    best = object_store.best_of(Remote(url))
    if best is None:
        raise InputMissing(
            f"model.weights: not set, and {url} holds no checkpoint; name the file to use"
        )
    name, content = best
    path = temporary_folder() / name
    path.write_bytes(content)
    return path


def open_trained(
    config: TrainingConfig, comm: Comm, device: torch.device
) -> tuple[nn.Module, TrainedModel]:
    """The network in evaluation mode on ``device``, equal on all ranks.

    Only rank 0 reads a weight file; an exported file is read by every rank. Raises what
    :func:`weight_file`, :func:`~.load.load_weights` and :func:`~.exported_network.open_exported`
    raise, on every rank.
    """
    path = comm.from_first(lambda: weight_file(config))
    # Mode Export needs the network itself: an exported file cannot be exported once more.
    if path.suffix in SUFFIXES and config.mode != "Export":
        if comm.is_first and not is_own(config):
            logger.warning(
                "model.weights: %s is a program, not weights: whatever it does, it does with the "
                "rights of this job; take it from where you would take an image",
                path,
            )
        # Of what lies behind a URL every rank has a copy of its own: they may be in several pods.
        exported = open_exported(weight_file(config))
        return ExportedNetwork(exported).eval(), _of_exported_file(exported, config)
    trained = comm.from_first(lambda: _of_weight_file(config))
    network = models.without_values(
        trained.model, lambda: models.create(trained.model, trained.classes)
    )
    asked = config.model.batch_norm_epsilon
    models.set_batch_norm(network, trained.batch_norm_epsilon if asked is None else asked)
    models.with_memory(network)
    may_be_read = may_unpickle(config)
    kind = config.model.weights_kind
    comm.from_first(
        lambda: load_weights(
            network, trained.model, trained.path, may_unpickle=may_be_read, kind=kind
        )
    )
    network.to(device, memory_format=image_format(device))  # type: ignore[call-overload]
    comm.broadcast_tensors([*network.parameters(), *network.buffers()])
    return network.eval(), trained


def _of_exported_file(exported: ExportedFile, config: TrainingConfig) -> TrainedModel:
    """What is known of an exported file; ConfigError for images of another size than it takes."""
    metadata = exported.metadata
    # What the user did not write is a default or a recipe's, and gives way.
    written = "data.imageSize" in config.written
    configured_side = config.data.image_size if written else 0
    side = exported.image_size
    if side is not None and configured_side not in (0, side):
        raise ConfigError(
            f"data.imageSize: {exported.path} takes images of {side} pixels, "
            f"not {configured_side}; set it to {side}"
        )
    model = metadata.get("model", models.canonical(config.model.name))
    classes = exported.classes
    if classes is None:
        # Somebody else's file: only running it shows how many logits come out.
        image_size = side or config.data.image_size or facts(model).image_size
        classes = _count_logits(exported, image_size)
    own_size = {} if side is None else {"image_size": side}
    return TrainedModel(
        path=exported.path,
        model=model,
        classes=classes,
        class_names=tuple(metadata.get("classNames", ())),
        normalization=exported.normalization,
        evaluated_with=own_size | _evaluated_with(exported.path, metadata),
        step=metadata.get("step"),
    )


def _count_logits(exported: ExportedFile, side: int) -> int:
    """How many classes there are by what comes out; ConfigError where the file cannot be run."""
    try:
        logits = ExportedNetwork(exported)(torch.zeros(1, 3, side, side))
        rows, classes = (int(size) for size in logits.shape)
        if rows != 1:
            raise ValueError(f"{rows} rows come out for one image")
        return classes
    except Exception as error:
        # Programs of others fail in any way.
        raise ConfigError(
            f"model.weights: {exported.path} does not give logits for images of {side} pixels "
            f"(data.imageSize): {first_line(error)}"
        ) from error


def _of_weight_file(config: TrainingConfig) -> TrainedModel:
    """What is known of the configuration's weight file."""
    name = models.canonical(config.model.name)
    written = "model.name" in config.written
    # Nobody has to repeat what the file says; timm's names are often those of other networks.
    follows = not written and not name.startswith(TIMM)
    file = open_weights(
        None if follows else name,
        weight_file(config),
        may_unpickle=may_unpickle(config),
        kind=config.model.weights_kind,
    )
    if file.model != name:
        logger.info("model.name: %s, of which the weights are", file.model)
    is_own = file.source.layout == OWN_LAYOUT
    content: Mapping[str, Any] = file.content if is_own else {}
    return TrainedModel(
        path=file.path,
        model=file.model,
        classes=file.classes,
        class_names=tuple(content.get("class_names") or ()),
        normalization=file.source.normalization,
        evaluated_with=_evaluated_with(file.path, content)
        if is_own
        else facts(file.model).evaluation,
        step=file.step if is_own else None,
        batch_norm_epsilon=content.get("batch_norm_epsilon"),
    )


def _evaluated_with(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return preprocessing.of_file(content)
    except ConfigError as error:
        raise DataError(f"model.weights: {path}: {error}") from None
