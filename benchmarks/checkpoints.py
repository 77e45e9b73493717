"""How long training stands still for a checkpoint, and how long the checkpoint takes: with the
trainer's own parts.

Every save is one of a run whose steps go on while the file is written; the first one, which
allocates the memory of the copies, is shown apart.

    PYTHONPATH=trainer python -m benchmarks.checkpoints --folder /data/scratch --saves 10
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from inception_trainer import device, models
from inception_trainer.checkpoint.base import FORMAT, SaveRecord
from inception_trainer.checkpoint.folder import FolderCheckpoints
from inception_trainer.comm import Comm
from inception_trainer.config.settings import Settings
from inception_trainer.config.training import from_mapping
from inception_trainer.train.state import TrainingState
from inception_trainer.train.step import OptimizerStep

NETWORKS = {
    "bninception": 64,
    "inception_v3": 75,
    "inception_v4": 75,
    "resnet50": 64,
    "inceptionv3_cifar": 32,
}
"""Small inputs: the size of a checkpoint does not depend on them."""


class Training:
    """One network that is trained on noise, saving now and then."""

    def __init__(self, name: str, folder: Path, device_type: str) -> None:
        settings = Settings()
        accelerator = {"device": device_type, "profile": device_type}
        data = {"kind": "Synthetic", "imageSize": NETWORKS[name]}
        config = from_mapping(
            {
                "model": {"name": name},
                "data": data,
                "accelerator": accelerator,
                "loss": {"auxiliaryWeight": 0},
            }
        )
        chosen = device.resolve(config.accelerator, "Auto", settings)
        self.network: nn.Module = models.create(name, 1000).to(
            chosen.device, memory_format=torch.channels_last
        )
        self.updater = OptimizerStep(config, self.network, chosen)
        self.state = TrainingState(self.network, self.updater, Comm(0, 1, "gloo"))
        side = NETWORKS[name]
        self.images = torch.randn(4, 3, side, side, device=chosen.device).contiguous(
            memory_format=torch.channels_last
        )
        self.saved: list[SaveRecord] = []
        self.store = FolderCheckpoints(folder, 1, 2, self.saved.append)
        self.store.acquire()

    def step(self) -> None:
        self.updater.backward(self.network(self.images).square().mean())
        self.updater.apply(0.0, 1)

    def save(self, step: int) -> None:
        if self.images.is_cuda:
            torch.cuda.synchronize()  # what the device still has to do is no part of the save
        self.store.reserve()
        snapshot = self.state.snapshot()
        assert snapshot is not None
        payload = {"format": FORMAT, **snapshot.tensors, "progress": {"step": step}}
        self.store.save(payload, step, complete=snapshot.complete)

    def run(self, saves: int) -> None:
        for number in range(saves):
            self.step()
            self.save(number)
            while self.store.busy:
                self.step()
        self.store.wait()


def measure(name: str, folder: Path | None, device_type: str, saves: int) -> dict[str, float]:
    """Saves of one network: bytes, and seconds of the save and of the stall, medians; the first
    save apart.
    """
    with TemporaryDirectory(dir=folder) as scratch:
        training = Training(name, Path(scratch), device_type)
        training.run(saves + 1)
    first, *others = training.saved
    seconds = [saved.seconds for saved in others]
    stalls = [saved.stalled_seconds for saved in others]
    return {
        "bytes": first.size,
        "saveSeconds": statistics.median(seconds),
        "stallSeconds": statistics.median(stalls),
        "stallShare": sum(stalls) / sum(seconds),
        "firstStallSeconds": first.stalled_seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder", type=Path, help="where to save; default: the folder for temporary files"
    )
    parser.add_argument("--saves", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--network", choices=NETWORKS, action="append")
    options = parser.parse_args()
    print(
        "| network | size, MiB | save, s (median) | training stands still, ms (median) | share | "
        "first save, ms |"
    )
    print("|---|---|---|---|---|---|")
    for name in options.network or NETWORKS:
        began = time.monotonic()
        found = measure(name, options.folder, options.device, options.saves)
        figures = (
            f"{found['bytes'] / 2**20:.0f} | {found['saveSeconds']:.2f} | "
            f"{1000 * found['stallSeconds']:.0f} | {100 * found['stallShare']:.1f} %"
        )
        print(f"| {name} | {figures} | {1000 * found['firstStallSeconds']:.0f} |", flush=True)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
