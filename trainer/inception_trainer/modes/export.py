"""Mode Export: the trained network in forms that other programs run, each run again and compared
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
from inception_trainer.config.normalization import IMAGENET, Normalization, choose
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
from inception_trainer.weights.trained_network import TrainedModel, open_trained

from .common import Boundary, Run, sized

SEED = 0
BATCHES = (1, 3)
"""What the check runs where the batch is free: a size of its own, so that none is frozen into the
file.
"""
TOLERANCE = {"FP32": 1e-3, "BF16": 0.1, "FP16": 0.02}
"""Largest difference of a logit, as a share of the largest logit: other programs add up in another
order.
"""
STEPS_PER_FORM = 2


def run(run: Run) -> dict[str, Any]:
    """Write and check every form of ``export.formats``; only rank 0 works, the others wait."""
    forms = [EXPORTERS[name]() for name in run.config.export.formats]
    for form in forms:
        form.require(_precision(run.config))
    network, trained = open_trained(run.config, run.comm, torch.device("cpu"))
    run.config = config = sized(run.config, trained)
    run.accelerator = dataclasses.replace(run.accelerator, precision=_precision(config))
    models.check_image_size(trained.model, config.data.image_size)
    network = network.to(DTYPES[run.accelerator.precision])
    network.to(memory_format=torch.contiguous_format)
    chosen = choose(
        config.data.normalization, trained.normalization or IMAGENET, trained.normalization
    )
    described = describe(config, trained, chosen, run.accelerator.precision)
    info = run.begin(network, trained.model, STEPS_PER_FORM * len(forms), 0)
    boundary, results = Boundary(run), []
    for number, form in enumerate(forms):
        boundary.check()
        work = _Work(run, network, trained, described, form)
        run.step(STEPS_PER_FORM * number + 1, 0, "infer")
        run.heartbeat.pause()
        results.append(run.comm.from_first(work.do))
        run.step(STEPS_PER_FORM * (number + 1), 0, "infer")
    boundary.settle()
    if run.comm.is_first and run.output is not None:
        replace_file(
            run.output / "export.json", json.dumps(described | {"files": results}, indent=2) + "\n"
        )
    return run.summary(
        info,
        weights=str(trained.path),
        weightsStep=trained.step,
        normalization=chosen.as_dict(),
        exports=results,
    )


def describe(
    config: TrainingConfig, trained: TrainedModel, normalization: Normalization, precision: str
) -> dict[str, Any]:
    """What a program must know to use the network; plain data."""
    side = config.data.image_size
    return {
        "trainer": __version__,
        "model": trained.model,
        "step": trained.step,
        "precision": precision,
        "input": {"name": "images", "shape": [config.export.batch_size or "batch", 3, side, side]},
        "output": {
            "name": "logits",
            "shape": [config.export.batch_size or "batch", trained.classes],
        },
        "preprocessing": {**normalization.as_dict(), "imageSize": side},
        "classNames": list(
            class_names(config.inference.class_names, trained.class_names, trained.classes)
        ),
    }


@dataclasses.dataclass(frozen=True)
class _Work:
    run: Run
    network: nn.Module
    trained: TrainedModel
    described: dict[str, Any]
    form: Exporter

    def do(self) -> dict[str, Any]:
        """Write the file and compare it with the network."""
        run, form = self.run, self.form
        assert run.output is not None  # noqa: S101 - the configuration has been checked
        path = run.output / f"{self.trained.model}{form.suffix}"
        draft = path.with_name(f".{run.settings.attempt or 0}.{path.name}")
        request = ExportRequest(
            self.network, self._images(run.config.export.batch_size or 2, 0), self.described
        )
        try:
            run.output.mkdir(parents=True, exist_ok=True)
            with torch.inference_mode(mode=False), torch.no_grad():
                form.write(request, draft, fixed=run.config.export.batch_size is not None)
                difference = self._check(draft, path)
            size, checksum = draft.stat().st_size, file_sha256(draft)
            draft.replace(path)
        except OSError as error:
            raise InputMissing(
                f"output.path: {path} cannot be written: {error.strerror or error}"
            ) from None
        finally:
            draft.unlink(missing_ok=True)
        logger.info(
            "%s: %.1f MB, logits differ by at most %.2g (%s)",
            path,
            size / 1e6,
            difference,
            form.checked_with,
        )
        return {
            "format": form.name,
            "file": str(path),
            "bytes": size,
            "sha256": checksum,
            "largestDifference": difference,
            "checkedWith": form.checked_with,
        }

    def _check(self, draft: Path, path: Path) -> float:
        """The largest difference of a logit; ExportDiffers when it is too large."""
        compute = self.form.load(draft, self.network)
        fixed = self.run.config.export.batch_size
        largest = 0.0
        for seed, size in enumerate((fixed, fixed) if fixed else BATCHES, start=1):
            images = self._images(size, seed)
            wanted, found = self.network(images).float(), compute(images).float()
            difference = (found - wanted).abs().max().item()
            allowed = TOLERANCE[self.run.accelerator.precision] * max(
                1.0, wanted.abs().max().item()
            )
            if found.shape != wanted.shape or not difference <= allowed:
                raise ExportDiffers(
                    f"export.formats: {path.name} gives other logits than the network, by {difference:.3g} where "
                    f"{allowed:.3g} is allowed; leave {self.form.name} out or choose another precision"
                )
            largest = max(largest, difference)
        return largest

    def _images(self, count: int, seed: int) -> Tensor:
        side = self.run.config.data.image_size
        generator = torch.Generator().manual_seed(SEED + seed)
        return torch.randn(count, 3, side, side, generator=generator).to(
            DTYPES[self.run.accelerator.precision]
        )


def _precision(config: TrainingConfig) -> str:
    return "FP32" if config.precision == "Auto" else config.precision
