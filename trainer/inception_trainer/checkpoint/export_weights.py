"""The weights of a checkpoint as safetensors: tensors under this trainer's names, and what they
expect of the inputs.

The metadata holds plain text, as the format has it: ``model``, ``step``, ``preprocessing``,
``class_names`` (JSON).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from inception_trainer.errors import ConfigError
from inception_trainer.log import logger


def exported(payload: Mapping[str, Any]) -> bytes | None:
    """The content of a safetensors file; None, with a warning, where the package safetensors is
    missing.
    """
    try:
        from safetensors.torch import save
    except ImportError:
        logger.warning(
            "the Python package safetensors is not here: no final.safetensors, the weights are in final.pt"
        )
        return None
    state: Mapping[str, Tensor] = (
        payload["average"]["model"] if "average" in payload else payload["model"]
    )
    # One after the other in plain order: the format knows no channels last.
    tensors = {name: value.detach().contiguous() for name, value in state.items()}
    return save(tensors, metadata=_metadata(payload))


def read(path: Path) -> dict[str, Any]:
    """Tensors of a safetensors file, of one of ours in the form of a checkpoint.

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
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the file is no mapping
        metadata: Mapping[str, str] = file.metadata() or {}
    if "preprocessing" not in metadata:
        return tensors
    return {
        "model": tensors,
        "preprocessing": json.loads(metadata["preprocessing"]),
        "class_names": json.loads(metadata.get("class_names", "[]")),
        "progress": {"step": int(metadata.get("step", "0"))},
    }


def _metadata(payload: Mapping[str, Any]) -> dict[str, str]:
    known = {"format": "pt", "trainer": str(payload.get("version", ""))}
    if "preprocessing" in payload:
        known["preprocessing"] = json.dumps(payload["preprocessing"])
        known["class_names"] = json.dumps(payload.get("class_names", []))
    model = payload.get("config", {}).get("model", {}).get("name")
    return (
        known
        | ({"model": model} if model else {})
        | {"step": str(payload.get("progress", {}).get("step", 0))}
    )
