"""A program of one's own as it runs under torchrun: plain DDP with a snapshot of its own every
minute, in the manner of PyTorch's tutorial on fault tolerance. It knows nothing of the operator.

    torchrun --nproc-per-node 2 recovery_program.py --data /data/digits --folder /tmp/run

Network, batch and optimizer are those of the reference job. All random numbers are functions of
counters, so that a run that was disturbed ends with the bits of one that was not. For the benchmark
every rank leaves its process number and the time of every step in a file below FOLDER/steps/.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from inception_trainer import models

GLOBAL_BATCH = 64
SIDE = 32
MEAN, DEVIATION = 0.31, 0.34


class Images(Dataset[tuple[Tensor, int]]):
    """PNG files below ``folder``/<class>/, cropped and flipped at random."""

    def __init__(self, folder: Path) -> None:
        self.classes = sorted(path.name for path in folder.iterdir())
        self._files = [
            (path, label)
            for label, name in enumerate(self.classes)
            for path in sorted((folder / name).iterdir())
        ]
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self._files[index]
        generator = torch.Generator().manual_seed(self.epoch * len(self) + index)
        share, left, top, flip = torch.rand(4, generator=generator).tolist()
        side = SIDE * (0.5 + share / 2)
        left *= SIDE - side
        top *= SIDE - side
        with Image.open(path) as file:
            image = file.convert("RGB").resize(
                (SIDE, SIDE), Image.Resampling.BILINEAR, (left, top, left + side, top + side)
            )
        pixels = torch.from_numpy(np.array(image, np.float32)).permute(2, 0, 1) / 255
        pixels = (pixels - MEAN) / DEVIATION
        return (pixels.flip(-1) if flip < 0.5 else pixels), label


class Training:
    """The state of the training, and the loop over epochs and steps."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._snapshot: Path = options.folder / "snapshot.pt"
        self._images = Images(options.data / "train")
        self._sampler = DistributedSampler(self._images, drop_last=True)
        network = models.create("bninception", len(self._images.classes))
        self._optimizer = torch.optim.SGD(
            network.parameters(), lr=0.02, momentum=0.9, nesterov=True, weight_decay=0.0005
        )
        self._step = 0
        if self._snapshot.exists():
            state = torch.load(self._snapshot, map_location="cpu", weights_only=True)
            network.load_state_dict(state["model"])
            self._optimizer.load_state_dict(state["optimizer"])
            self._step = state["step"]
        self._model = DistributedDataParallel(network)
        self._saved_at = time.monotonic()

    def run(self, steps_file: TextIO) -> None:
        """Train to the last step, saving every so many seconds."""
        while self._step < self._options.steps:
            for images, labels in self._rest_of_epoch():
                self._train(images, labels)
                print(f"{time.time():.6f} {self._step}", file=steps_file, flush=True)
                if time.monotonic() - self._saved_at >= self._options.save_seconds:
                    self._save()
                if self._step == self._options.steps:
                    break
        self._save()

    def _rest_of_epoch(self) -> DataLoader[tuple[Tensor, int]]:
        """The batches of this epoch that are still to be done."""
        per_epoch = len(self._images) // GLOBAL_BATCH
        epoch, done = divmod(self._step, per_epoch)
        share = GLOBAL_BATCH // dist.get_world_size()
        self._sampler.set_epoch(epoch)
        self._images.epoch = epoch
        numbers = list(self._sampler)[done * share : per_epoch * share]
        return DataLoader(self._images, share, sampler=numbers, num_workers=2)

    def _train(self, images: Tensor, labels: Tensor) -> None:
        # Dropout draws: the same in every attempt, others on every rank and in every step.
        torch.manual_seed(self._step * dist.get_world_size() + dist.get_rank())
        loss = nn.functional.cross_entropy(self._model(images), labels, label_smoothing=0.1)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._step += 1

    def _save(self) -> None:
        self._saved_at = time.monotonic()
        if dist.get_rank() != 0:
            return
        state: dict[str, Any] = {
            "model": self._model.module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "step": self._step,
        }
        draft = self._snapshot.with_suffix(".new")
        torch.save(state, draft)
        draft.replace(self._snapshot)


def open_steps_file(folder: Path) -> TextIO:
    """The file of this rank and attempt, with its process number in it; attempts are counted by
    the files that are there.
    """
    steps = folder / "steps"
    steps.mkdir(parents=True, exist_ok=True)
    before = max((int(path.name.partition("-")[0]) for path in steps.iterdir()), default=0)
    attempt = torch.tensor(before + 1)
    dist.broadcast(attempt, src=0)
    file = (steps / f"{int(attempt)}-{dist.get_rank()}").open("w", encoding="ascii")
    print(os.getpid(), file=file, flush=True)
    return file


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--save-seconds", type=float, default=60)
    options = parser.parse_args()
    torch.manual_seed(0)
    dist.init_process_group("gloo")
    with open_steps_file(options.folder) as steps_file:
        Training(options).run(steps_file)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
