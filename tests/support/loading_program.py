"""A data-parallel program whose loader workers notice nothing: each waits for a sample that never
comes, and would for ten minutes after its rank has gone.

Its files are those of ``tiny_program``, and ``worker-<attempt>-<rank>-<worker>`` with the process
number of a worker.
"""

import os
import time
from datetime import timedelta
from pathlib import Path

from torch.utils.data import DataLoader, Dataset, get_worker_info

from tiny_program import beat, note

WORKERS = 2


def _note_of(name: str) -> Path:
    attempt = os.environ["INCEPTION_ATTEMPT"]
    rank = os.environ["RANK"]
    return Path(os.environ["TINY_FOLDER"], f"{name}-{attempt}-{rank}")


class NeverComes(Dataset[int]):
    """Samples that are waited for in vain."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> int:
        info = get_worker_info()
        assert info is not None
        path = _note_of("worker")
        note(path.with_name(f"{path.name}-{info.id}"), str(os.getpid()))
        time.sleep(600)
        return index


def train() -> None:
    """Step for ever, beside workers that hold all that a rank holds."""
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    samples = iter(DataLoader(NeverComes(), num_workers=WORKERS))
    step = 0
    while True:
        step += 1
        dist.all_reduce(torch.ones(1))
        if step == 1:
            note(_note_of("step"), str(os.getpid()))
        beat(step)
        time.sleep(0.01)
        assert samples is not None, "the workers go with their iterator"


if __name__ == "__main__":
    train()
