"""Weights in the safetensors format, which other programs read without unpickling anything.

The tensors have this trainer's names. The metadata say what the network expects of its inputs; the
format allows texts only, so ``preprocessing``, ``class_names``, ``averaged`` and
``batch_norm_epsilon`` are JSON, and ``model``, ``step`` and ``trainer`` (its version) are plain.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from inception_trainer.errors import ConfigError
from inception_trainer.log import logger


def metadata(
    *,
    model: str | None,
    step: int,
    trainer: str | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
    averaged: Sequence[str] | None = None,
    batch_norm_epsilon: float | None = None,
) -> dict[str, str]:
    """The metadata of a file; what is None is left out. ``averaged`` names the files of a mean."""
    texts = {
        # Other readers (transformers) refuse files that do not name the framework.
        "format": "pt",
        "trainer": trainer,
        "model": model,
        "step": str(step),
    }
    structures = {
        "preprocessing": preprocessing,
        "class_names": class_names,
        "averaged": averaged,
        "batch_norm_epsilon": batch_norm_epsilon,
    }
    encoded = {key: json.dumps(value) for key, value in structures.items() if value is not None}
    return {key: text for key, text in texts.items() if text is not None} | encoded


def encode(tensors: Mapping[str, Tensor], file_metadata: Mapping[str, str]) -> bytes:
    """The content of a file; raises ImportError without the package safetensors."""
    from safetensors.torch import save

    # One after the other in plain order: the format knows no channels last.
    plain = {name: value.detach().contiguous() for name, value in tensors.items()}
    return save(plain, metadata=dict(file_metadata))


def encode_weights(checkpoint: Mapping[str, Any]) -> bytes | None:
    """The weights of a checkpoint as the content of a file, the averaged ones where there are any.

    None, with a warning, where the package safetensors is missing: an image without it can train.
    """
    average = checkpoint.get("average")
    tensors: Mapping[str, Tensor] = (average or checkpoint)["model"]
    preprocessing = checkpoint.get("preprocessing")
    file_metadata = metadata(
        model=checkpoint.get("config", {}).get("model", {}).get("name"),
        step=checkpoint.get("progress", {}).get("step", 0),
        trainer=str(checkpoint.get("version", "")),
        preprocessing=preprocessing,
        class_names=None if preprocessing is None else checkpoint.get("class_names", []),
        batch_norm_epsilon=checkpoint.get("batch_norm_epsilon"),
    )
    try:
        return encode(tensors, file_metadata)
    except ImportError:
        logger.warning(
            "the Python package safetensors is not here: "
            "no final.safetensors, the weights are in final.pt"
        )
        return None


def read(path: Path) -> dict[str, Any]:
    """Tensors of a file by their names; of one of ours, its content under a checkpoint's keys.

    Raises ConfigError without the package, and what the package raises for a file that it cannot
    read.
    """
    try:
        from safetensors import safe_open
    except ImportError:
        raise ConfigError(
            f"model.weights: {path} needs the Python package safetensors, which is not here"
        ) from None
    with safe_open(path, framework="pt") as file:
        tensors = {
            name: file.get_tensor(name)
            for name in file.keys()  # noqa: SIM118 - the file is no mapping
        }
        texts: Mapping[str, str] = file.metadata() or {}
    # The key that only our files have; without it nothing says what the inputs must be.
    if "preprocessing" not in texts:
        return tensors
    return {
        "model": tensors,
        "preprocessing": json.loads(texts["preprocessing"]),
        "class_names": json.loads(texts.get("class_names", "[]")),
        "batch_norm_epsilon": json.loads(texts.get("batch_norm_epsilon", "null")),
        "model_name": texts.get("model"),
        "progress": {"step": int(texts.get("step", "0"))},
    }
