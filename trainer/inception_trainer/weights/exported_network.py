"""Exported files as networks: what mode Export wrote, or somebody else's ONNX file.

They can be evaluated like weights. Their neighbours: ``exporters`` writes such files,
``trained_network`` chooses between them and weight files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from inception_trainer.config.normalization import Normalization
from inception_trainer.errors import ConfigError, DataError, InputMissing
from inception_trainer.launcher import json_text

from .exporters import (
    DTYPES,
    METADATA,
    PRECISIONS,
    Compute,
    Input,
    OnnxSession,
    Program,
    load_torchscript,
)

SUFFIXES = (".pt2", ".onnx", ".torchscript")


@dataclass(frozen=True)
class ExportedFile:
    """A file that computes logits, and its metadata of ours; for files of others what they say of
    their input, if anything.

    The keys of ``metadata`` are those that ``modes.export.describe`` gives.
    """

    path: Path
    compute: Compute
    """Images ``[n, 3, side, side]`` on the CPU to logits ``[n, classes]``, in the file's dtype."""
    metadata: Mapping[str, Any]

    @property
    def classes(self) -> int | None:
        """How many classes there are, if the file says it."""
        output = self.metadata.get("output", {})
        shape = output.get("shape", [None])
        return _number(shape[-1])

    @property
    def image_size(self) -> int | None:
        """Side of its images in pixels, if the file says it; it takes no others."""
        preprocessing = self.metadata.get("preprocessing") or {}
        shape = self.metadata.get("input", {}).get("shape", [None])
        return _number(preprocessing.get("imageSize", shape[-1]))

    @property
    def normalization(self) -> Normalization | None:
        """How pixels become its inputs, if the file says it."""
        preprocessing = self.metadata.get("preprocessing")
        if not preprocessing:
            return None
        return Normalization.from_dict(preprocessing)


class ExportedNetwork(nn.Module):
    """An exported file behind the interface of a network; it computes on the host.

    Takes any batch size and device, gives FP32 logits on the device of the images.
    """

    def __init__(self, exported: ExportedFile) -> None:
        super().__init__()
        # Not as a part of this module: torch.export's programs refuse train() and eval().
        self._compute = partial(exported.compute)
        description = exported.metadata.get("input", {})
        shape = description.get("shape", ["batch"])
        # None where the batch is free: the file has the word "batch" there.
        self._batch_size = _number(shape[0])
        precision = exported.metadata.get("precision", "FP32")
        self._dtype = DTYPES[precision]

    @override
    def forward(self, images: Tensor) -> Tensor:
        """Images ``[n, 3, side, side]`` to logits ``[n, classes]``.

        Cut into batches of the size that the file takes, the last one filled up.
        """
        pixels = images.detach().to("cpu", self._dtype).contiguous()
        size = self._batch_size or max(1, len(pixels))
        batches = torch.split(pixels, size)
        # The file has the precision that it was exported with.
        with torch.autocast("cpu", enabled=False):
            logits = [self._batch(batch) for batch in batches]
        return torch.cat(logits).to(images.device, torch.float32)

    def _batch(self, images: Tensor) -> Tensor:
        missing = (self._batch_size or 0) - len(images)
        if missing <= 0:
            return self._compute(images)
        # Black images, whose logits are dropped: batch norm in evaluation mode mixes no images.
        black = images.new_zeros(missing, *images.shape[1:])
        padded = torch.cat((images, black))
        return self._compute(padded)[: len(images)]


def open_exported(path: Path) -> ExportedFile:
    """Read an exported file.

    Raises InputMissing, DataError for a file that cannot be read, ConfigError for a package that is
    missing.
    """
    if not path.is_file():
        raise InputMissing(f"model.weights: no file {path}")
    try:
        compute, text = _read(path)
        metadata = json_text.decode(text) if text else _of_others(path, compute)
        return ExportedFile(path, compute, metadata)
    except ConfigError:
        raise
    except Exception as error:
        # onnxruntime's exceptions derive from Exception alone, and say it in many lines.
        raise DataError(f"model.weights: {path} cannot be read: {first_line(error)}") from None


def first_line(error: Exception) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _read(path: Path) -> tuple[Compute, str]:
    """What the file computes, and our metadata in it as JSON, empty where there are none."""
    if path.suffix == ".onnx":
        session = OnnxSession(path)
        return session, session.metadata.get(METADATA, "")
    # torch fills in the values of the keys that it is given, as str or bytes by its version.
    extra_files: dict[str, Any] = {METADATA: ""}
    compute: Compute
    if path.suffix == ".pt2":
        compute = Program(path, extra_files)
    else:
        compute = load_torchscript(path, extra_files)
    text = extra_files[METADATA]
    if isinstance(text, bytes):
        text = text.decode()
    return compute, text


def _of_others(path: Path, compute: Compute) -> dict[str, Any]:
    """What a file of others says of its input: most are for one size of images and of batches."""
    found: Input | None = getattr(compute, "input", None)
    if found is None:
        return {}
    side = found.shape[-1] if found.shape else None
    fits = len(found.shape) == 4 and found.shape[1] in (3, None) and found.shape[2] == side
    if not fits or found.dtype not in PRECISIONS:
        sizes = ", ".join("any" if size is None else str(size) for size in found.shape)
        raise ConfigError(
            f"model.weights: {path} takes {found.dtype} [{sizes}], and not images "
            "[any, 3, side, side] in float32, float16 or bfloat16; export it with such an input"
        )
    shape = [found.shape[0] or "batch", 3, side or "side", side or "side"]
    return {"input": {"shape": shape}, "precision": PRECISIONS[found.dtype]}


def _number(value: object) -> int | None:
    """A size of the metadata; None where it is missing or the name of a free dimension."""
    return value if isinstance(value, int) else None
