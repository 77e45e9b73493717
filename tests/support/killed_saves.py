"""A process that saves checkpoints and kills itself with SIGKILL in the middle of one."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

OPERATIONS = ("open", "os.rename", "os.remove", "os.link", "os.listdir", "os.scandir")


def small_checkpoint(step: int) -> dict[str, Any]:
    """A checkpoint whose every number is its step."""
    import torch

    from inception_trainer.checkpoint.base import FORMAT

    weights = {f"layer-{number}": torch.full((50, 50), float(step)) for number in range(4)}
    return {"format": FORMAT, "model": weights, "progress": {"step": step}}


def save_and_die(root: str, operation: int, write: int) -> None:
    """Save step 1; die in the save of step 2 before an operation on files, or a write into one, by
    its number.
    """
    from inception_trainer.checkpoint import folder

    writer = folder.FolderCheckpoints(Path(root), 1, keep=1)
    writer.acquire()
    writer.save(small_checkpoint(1), 1, best=True, final=True)
    writer.wait()
    left = {"operation": operation, "write": write}

    def count(kind: str) -> None:
        if left[kind] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[kind] -= 1

    original = folder.HashingFile.write

    def counted(self: Any, data: Any) -> int:
        count("write")
        return original(self, data)

    folder.HashingFile.write = counted  # type: ignore[method-assign]
    sys.addaudithook(lambda event, _arguments: count("operation") if event in OPERATIONS else None)
    writer.save(small_checkpoint(2), 2, best=True, final=True)
    writer.wait()
    os._exit(0)
