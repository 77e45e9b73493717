"""Mode Export: the trained network in formats that other programs run, each run again and compared
before it counts.

The input is ``images``, normalised, ``[batch, 3, side, side]``; the output ``logits``, ``[batch,
classes]``. What the inputs must be, and what the classes are called, is in the file's own metadata
and in ``export.json`` beside it.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inception_trainer import __version__, models
from inception_trainer.checkpoint.checksums import file_sha256
from inception_trainer.config import preprocessing
from inception_trainer.config.normalization import IMAGENET, Normalization
from inception_trainer.config.training import TrainingConfig
from inception_trainer.data.class_names import class_names
from inception_trainer.errors import ExportDiffers, InputMissing
from inception_trainer.log import logger
from inception_trainer.reporting.outputs import replace_file
from inception_trainer.weights.exporters import (
    DTYPES,
    EXPORTERS,
    Exporter,
    ExportRequest,
)
from inception_trainer.weights.trained_network import TrainedModel, open_trained, origin

from .common import Boundary, Run, choose_normalization, with_preprocessing

SEED = 0
"""Of the random images."""
BATCHES = (1, 3)
"""What the check runs where the batch is free: a size of its own, so that none is frozen into the
file.
"""
TOLERANCE = {"FP32": 1e-3, "BF16": 0.1, "FP16": 0.02}
"""Largest difference of a logit, as a share of the largest logit: other programs add up in another
order.
"""
STEPS_PER_FORMAT = 2
"""Signs of progress: a file is begun, a file is done."""


def run(run: Run) -> dict[str, Any]:
    """Write and check every file of ``export.formats``; only rank 0 works, the others wait."""
    exporters = [EXPORTERS[name]() for name in run.config.export.formats]
    # All of them first: a missing package must not show after an hour of writing.
    for exporter in exporters:
        exporter.require(_precision(run.config))
    network, trained = open_trained(run.config, run.comm, torch.device("cpu"))
    run.config = config = with_preprocessing(run.config, trained)
    run.accelerator = dataclasses.replace(run.accelerator, precision=_precision(config))
    models.check_image_size(trained.model, config.data.image_size)
    network = network.to(DTYPES[run.accelerator.precision])
    network.to(memory_format=torch.contiguous_format)
    normalization = choose_normalization(config, trained, trained.normalization or IMAGENET)
    described = describe(config, trained, normalization, run.accelerator.precision)
    info = run.begin(network, trained.model, STEPS_PER_FORMAT * len(exporters), 0)
    boundary = Boundary(run)
    results = []
    for number, exporter in enumerate(exporters):
        boundary.check()
        work = _Work(run, network, trained, described, exporter)
        run.step(STEPS_PER_FORMAT * number + 1, 0, "infer")
        # Tracing and compiling take as long as they take.
        run.heartbeat.pause()
        results.append(run.comm.from_first(work.write_file))
        run.step(STEPS_PER_FORMAT * (number + 1), 0, "infer")
    boundary.settle()
    if run.comm.is_first and run.output is not None:
        content = json.dumps(described | {"files": results}, indent=2) + "\n"
        replace_file(run.output / "export.json", content)
    return run.summary(
        info,
        weights=origin(config, trained.path),
        weightsStep=trained.step,
        normalization=normalization.as_dict(),
        preprocessing=described["preprocessing"],
        classNames=described["classNames"],
        exports=results,
    )


def describe(
    config: TrainingConfig, trained: TrainedModel, normalization: Normalization, precision: str
) -> dict[str, Any]:
    """What a program must know to use the network; plain data."""
    side = config.data.image_size
    batch = config.export.batch_size or "batch"
    asked = config.model.batch_norm_epsilon
    names = class_names(config.inference.class_names, trained.class_names, trained.classes)
    return {
        "trainer": __version__,
        "model": trained.model,
        "step": trained.step,
        "precision": precision,
        "input": {"name": "images", "shape": [batch, 3, side, side]},
        "output": {"name": "logits", "shape": [batch, trained.classes]},
        "preprocessing": preprocessing.described(config.data, normalization),
        "classNames": list(names),
        # Programs have it in them, weights alone do not.
        "batchNormEpsilon": trained.batch_norm_epsilon if asked is None else asked,
    }


@dataclasses.dataclass(frozen=True)
class _Work:
    """One file to be written."""

    run: Run
    network: nn.Module
    trained: TrainedModel
    described: dict[str, Any]
    exporter: Exporter

    def write_file(self) -> dict[str, Any]:
        """Write the file, compare it with the network, and say what came out."""
        run, exporter = self.run, self.exporter
        assert run.output is not None  # noqa: S101 - the configuration has been checked
        path = run.output / f"{self.trained.model.replace('/', '-')}{exporter.suffix}"
        # Under another name until it has been checked: a wrong file must never be taken for one.
        # The end of the name keeps it out of a store that the folder is mirrored into.
        draft = path.with_name(f".{path.name}.{run.settings.attempt or 0}.tmp")
        fixed_batch = run.config.export.batch_size
        # Two images where the batch is free: exporters take a size of one for a constant.
        images = self._images(fixed_batch or 2, 0)
        request = ExportRequest(self.network, images, self.described)
        try:
            run.output.mkdir(parents=True, exist_ok=True)
            with torch.inference_mode(mode=False), torch.no_grad():
                exporter.write(request, draft, fixed=fixed_batch is not None)
                difference = self._check(draft, path)
            size = draft.stat().st_size
            checksum = file_sha256(draft)
            draft.replace(path)
        except OSError as error:
            raise InputMissing(
                f"output.path: {path} cannot be written: {error.strerror or error}"
            ) from None
        finally:
            draft.unlink(missing_ok=True)
        logger.info(
            "%s: %.1f MB, logits differ by at most %.2g (%s)",
            run.place_of(path),
            size / 1e6,
            difference,
            exporter.checked_with,
        )
        return {
            "format": exporter.name,
            "file": run.place_of(path),
            "bytes": size,
            "sha256": checksum,
            "largestDifference": difference,
            "checkedWith": exporter.checked_with,
        }

    def _check(self, draft: Path, path: Path) -> float:
        """The largest difference of a logit; ExportDiffers when it is too large."""
        compute = self.exporter.load(draft, self.network)
        fixed = self.run.config.export.batch_size
        tolerance = TOLERANCE[self.run.accelerator.precision]
        largest = 0.0
        for seed, size in enumerate((fixed, fixed) if fixed else BATCHES, start=1):
            images = self._images(size, seed)
            expected = self.network(images).float()
            logits = compute(images).float()
            difference = (logits - expected).abs().max().item()
            allowed = tolerance * max(1.0, expected.abs().max().item())
            # Not "difference > allowed": that is false where the difference is NaN.
            if logits.shape != expected.shape or not difference <= allowed:
                raise ExportDiffers(
                    f"export.formats: {path.name} gives other logits than the network, "
                    f"by {difference:.3g} where {allowed:.3g} is allowed; "
                    f"leave {self.exporter.name} out or choose another precision"
                )
            largest = max(largest, difference)
        return largest

    def _images(self, count: int, seed: int) -> Tensor:
        side = self.run.config.data.image_size
        generator = torch.Generator().manual_seed(SEED + seed)
        images = torch.randn(count, 3, side, side, generator=generator)
        return images.to(DTYPES[self.run.accelerator.precision])


def _precision(config: TrainingConfig) -> str:
    # TF32 is how FP32 numbers are multiplied; those of a file are FP32.
    return "FP32" if config.precision in ("Auto", "TF32") else config.precision
