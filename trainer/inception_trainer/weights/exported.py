"""Exported files as networks: what mode Export wrote, or somebody else's ONNX, can be evaluated
like weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inception_trainer.config.normalization import Normalization
from inception_trainer.errors import ConfigError, DataError, InputMissing

from .exporters import DTYPES, METADATA, Compute, OnnxSession, load_program, load_torchscript

SUFFIXES = (".pt2", ".onnx", ".torchscript")


@dataclass(frozen=True)
class Exported:
    """A file that computes logits, and what it says of itself; ``described`` is empty for files of
    others.
    """

    path: Path
    compute: Compute
    described: Mapping[str, Any]

    @property
    def classes(self) -> int | None:
        """How many there are, if the file says it."""
        shape = self.described.get("output", {}).get("shape", [None])
        return shape[-1] if isinstance(shape[-1], int) else None

    @property
    def image_size(self) -> int | None:
        """The only side of its images, if the file says it."""
        side = self.described.get("preprocessing", {}).get("imageSize")
        return side if isinstance(side, int) else None

    @property
    def normalization(self) -> Normalization | None:
        """What its inputs are."""
        saved = self.described.get("preprocessing")
        return Normalization.from_dict(saved) if saved else None


class Runner(nn.Module):
    """Looks like a network: any batch size in, FP32 logits out, computed on the host."""

    def __init__(self, exported: Exported) -> None:
        super().__init__()
        # Not as a part of this module: torch.export's programs refuse train() and eval().
        self._compute = partial(exported.compute)
        shape = exported.described.get("input", {}).get("shape", ["batch"])
        self._fixed = shape[0] if isinstance(shape[0], int) else None
        self._dtype = DTYPES[exported.described.get("precision", "FP32")]

    def forward(self, images: Tensor) -> Tensor:
        """Cut into batches of the size that the file takes, the last one filled up."""
        pixels = images.detach().to("cpu", self._dtype).contiguous()
        # The file has the precision that it was exported with.
        with torch.autocast("cpu", enabled=False):
            logits = [
                self._part(part) for part in torch.split(pixels, self._fixed or max(1, len(pixels)))
            ]
        return torch.cat(logits).to(images.device, torch.float32)

    def _part(self, images: Tensor) -> Tensor:
        missing = (self._fixed or 0) - len(images)
        if missing <= 0:
            return self._compute(images)
        padded = torch.cat((images, images.new_zeros(missing, *images.shape[1:])))
        return self._compute(padded)[: len(images)]


def open_exported(path: Path) -> Exported:
    """Read the file; InputMissing, DataError for one that cannot be read, ConfigError for a package
    that is missing.
    """
    if not path.is_file():
        raise InputMissing(f"model.weights: no file {path}")
    try:
        compute, text = _read(path)
        return Exported(path, compute, json.loads(text) if text else {})
    except ConfigError:
        raise
    except Exception as error:
        raise DataError(
            f"model.weights: {path} cannot be read: {str(error).splitlines()[0]}"
        ) from None


def _read(path: Path) -> tuple[Compute, str]:
    if path.suffix == ".onnx":
        session = OnnxSession(path)
        return session, session.metadata.get(METADATA, "")
    extra: dict[str, Any] = {METADATA: ""}
    compute = load_program(path, extra) if path.suffix == ".pt2" else load_torchscript(path, extra)
    text = extra[METADATA]
    return compute, text.decode() if isinstance(text, bytes) else text
