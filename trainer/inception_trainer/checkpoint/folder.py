"""Checkpoints that survive any moment of death, and a lease that keeps a dead attempt from writing.

Layout below ``checkpoint.path`` (docs/architecture/names.md)::

    lease.json                        {"attempt": 3}: who may write, for people
    .writers/3/                       what makes it so: see `fence`
    latest.json                       {"file": ..., "sha256": ..., "step": ...}, written last
    checkpoints/step-000000120.pt     with step-000000120.pt.sha256 beside it; best.pt, final.pt, final.safetensors

A file appears under its name only once its bytes and its checksum are on the disk. Nothing is
unpickled beyond tensors and plain values (``weights_only=True``).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from inception_trainer.errors import ConfigError
from inception_trainer.log import logger

from . import checksums
from .base import BROKEN, Checkpoint, CheckpointWriter, HashingFile, SaveRecord, decoded, none_whole
from .export_weights import exported
from .fence import Fence, attempts, sync_folder


class CheckpointStore(CheckpointWriter):
    """The checkpoint folder as seen by the one rank that uses it; one background write at a time."""

    def __init__(
        self,
        root: Path,
        attempt: int | None,
        keep: int,
        saved: Callable[[SaveRecord], None] | None = None,
    ) -> None:
        super().__init__(root, saved)
        self.root: Path = root
        self._folder, self._keep = root / "checkpoints", keep
        self._attempt = attempt
        self._fence = Fence(root, attempt or 0)

    def acquire(self) -> int:
        """Take the lease and return this attempt's number; raises Fenced when a newer attempt holds
        it.

        Without a number of its own a run is the successor of the last one.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        known = self._holder()
        holder = max([known, *attempts(self.root)])
        attempt = holder + 1 if self._attempt is None else self._attempt
        self._attempt, self._fence = attempt, Fence(self.root, attempt, known)
        try:
            self._fence.take()
            if known != attempt:
                self._fence.write(
                    self.root / "lease.json", json.dumps({"attempt": attempt}).encode()
                )
        except OSError:
            # A successor took the folder from which this attempt writes.
            self._fence.check()
            raise
        self._remove_leftovers()
        return attempt

    def load(self) -> Checkpoint | None:
        """The newest checkpoint that is whole, None when there is none yet; DataError when all are
        damaged.
        """
        problems: list[str] = []
        for path, checksum in self._candidates():
            try:
                return decoded(path.read_bytes(), checksum)
            except (OSError, *BROKEN) as error:
                problems.append(f"{path.name}: {error}")
                logger.warning(
                    "checkpoint %s cannot be used (%s); trying the one before", path.name, error
                )
        if problems:
            raise none_whole(self._folder, problems)
        return None

    def check_fence(self) -> None:
        """Raise Fenced when a newer attempt is the writer."""
        self._fence.check()

    def commit(self, payload: Checkpoint, step: int, best: bool, final: bool) -> int:
        """Write one checkpoint and what points to it, then remove what is too many."""
        # Saves work that is in vain; what keeps an older attempt from writing is the fence itself.
        self._fence.check()
        name = f"step-{step:09d}.pt"
        draft = self._fence.draft(name)
        size, checksum = _serialise(payload, draft)
        self._fence.write(self._folder / f"{name}.sha256", checksums.line(checksum, name))
        self._fence.publish(draft, self._folder / name)
        for wanted, alias in ((best, "best.pt"), (final, "final.pt")):
            if wanted:
                self._alias(name, alias, checksum)
        if final:
            self._export(payload)
        sync_folder(self._folder)
        latest = {"file": f"checkpoints/{name}", "sha256": checksum, "step": step}
        self._fence.write(self.root / "latest.json", json.dumps(latest).encode())
        self._prune(name)
        return size

    def _alias(self, name: str, alias: str, checksum: str) -> None:
        draft = self._fence.draft(alias)
        draft.unlink(missing_ok=True)
        try:
            os.link(self._folder / name, draft)
        except OSError:  # a file system without hard links
            shutil.copyfile(self._folder / name, draft)
        self._replace(draft, self._folder / alias, checksum)

    def _export(self, payload: Checkpoint) -> None:
        """The weights alone, the averaged ones where there are, in the format that other programs
        read.
        """
        content = exported(payload)
        if content is None:
            return
        path = self._folder / "final.safetensors"
        draft = self._fence.draft(path.name)
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self._replace(draft, path, hashlib.sha256(content).hexdigest())

    def _replace(self, draft: Path, path: Path, checksum: str) -> None:
        """Put a draft in the place of a file that others may read meanwhile: at no moment do its
        checksums not fit.
        """
        beside, new = checksums.beside(path), checksums.line(checksum, path.name)
        old = b"".join(
            checksums.line(known, path.name)
            for known in checksums.recorded(path)
            if known != checksum
        )
        self._fence.write(beside, new + old)
        self._fence.publish(draft, path)
        if old:
            self._fence.write(beside, new)

    def _prune(self, newest: str) -> None:
        steps = sorted(path.name for path in self._folder.glob("step-*.pt"))
        older = [name for name in steps if name != newest]
        for name in older[: max(0, len(steps) - self._keep)]:
            self._fence.remove(self._folder / name)
            self._fence.remove(self._folder / f"{name}.sha256")

    def _candidates(self) -> Iterator[tuple[Path, str]]:
        latest = _json(self.root / "latest.json")
        first = (
            self.root / str(latest["file"])
            if latest and {"file", "sha256"} <= latest.keys()
            else None
        )
        if first is not None and latest is not None and first.is_file():
            yield first, str(latest["sha256"])
        for path in sorted(self._folder.glob("step-*.pt"), reverse=True):
            if path != first:
                for known in checksums.recorded(path):
                    yield path, known

    def _holder(self) -> int:
        lease = _json(self.root / "lease.json")
        attempt = lease.get("attempt") if lease else None
        return attempt if isinstance(attempt, int) else 0

    def _remove_leftovers(self) -> None:
        for path in self._folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)


def check_fingerprint(saved: Mapping[str, Any], wanted: Mapping[str, Any], root: object) -> None:
    """Raise ConfigError listing the keys in which a checkpoint's configuration differs from this
    one.
    """
    keys = sorted(saved.keys() | wanted.keys())
    differences = [
        f"{key}: {saved.get(key)!r} in the checkpoint, {wanted.get(key)!r} now"
        for key in keys
        if saved.get(key) != wanted.get(key)
    ]
    if differences:
        raise ConfigError(
            f"checkpoint.path: {root} holds a checkpoint of another configuration ({'; '.join(differences)}); "
            "use another folder, or undo the change"
        )


def _serialise(payload: Checkpoint, path: Path) -> tuple[int, str]:
    with path.open("wb") as file:
        hashing = HashingFile(file)
        torch.save(payload, hashing)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())
    return hashing.size, hashing.digest.hexdigest()


def _json(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None
