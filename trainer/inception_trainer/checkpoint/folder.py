"""Checkpoints in a folder: they survive a crash at any moment, and only the newest attempt writes.

Layout below ``checkpoint.path`` (docs/architecture/names.md)::

    lease.json                      {"attempt": 3, "uid": ..., "job": ...}: who may write
    .writers/3.<created>.<uid>.<namespace>.<name>/   what makes it so: see `fence`
    latest.json                     {"file": ..., "sha256": ..., "step": ...}, written last
    checkpoints/step-000000120.pt   with step-000000120.pt.sha256 beside it;
                                    best.pt, final.pt, epoch-000010.pt (one that is never
                                    removed) and final.safetensors likewise

A file appears under its name only once its bytes and its checksum are on the disk. Nothing is
unpickled beyond tensors and plain values (``weights_only=True``), and nothing is read that lies
outside the folder, whatever ``latest.json`` or a link says.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from typing_extensions import override

from inception_trainer.errors import StorageFailed
from inception_trainer.launcher import json_text
from inception_trainer.log import logger
from inception_trainer.storage import describe, lacks_room, patiently

from . import checksums
from .base import (
    DAMAGE_ERRORS,
    Checkpoint,
    CheckpointWriter,
    SaveRecord,
    all_damaged,
    decode,
    job_of,
)
from .checksums import HashingFile
from .fence import Fence, link_or_copy, sync_file, sync_folder, writers
from .owner import Owner
from .safetensors_file import encode_weights

CHECKPOINT_NAME = re.compile(r"checkpoints/step-[0-9]{1,20}\.pt")
"""What ``latest.json`` may name: nothing above the folder, no absolute path, no URL."""
STEP_NAME = re.compile(r"step-([0-9]{1,20})\.pt")
LITTLE_PATIENCE = 2.0
"""Seconds for which a checkpoint is tried where the one before it could not be read."""


@dataclass(frozen=True)
class _Candidate:
    """A checkpoint that may be whole."""

    path: Path
    checksum: str
    """Empty where there is none."""
    is_latest: bool = False
    """Whether ``latest.json`` names it: all that goes with it is there, too."""


class FolderCheckpoints(CheckpointWriter):
    """The checkpoint folder of a job as seen by the one rank that uses it."""

    def __init__(
        self,
        root: Path,
        attempt: int | None,
        keep: int,
        saved: Callable[[SaveRecord], None] | None = None,
        owner: Owner | None = None,
    ) -> None:
        super().__init__(root, saved)
        self.root: Path = root
        self._folder = root / "checkpoints"
        self._keep = keep
        self._owner = owner or Owner.of(attempt)
        self._fence = Fence(root, self._owner)
        self._whole: str | None = None
        """Name of the checkpoint that was read or written last: the one to go on from."""
        self._unusable: set[str] = set()
        """Names of those that could not be read."""

    @override
    def acquire(self) -> int:
        """Take the lease and return this attempt's number.

        Raises Fenced when a newer attempt holds it, ConfigError when another job does. Without a
        number of its own (a run outside the cluster) it is the successor of the last run.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        lease = self._lease_holder()
        before = () if lease is None else (lease,)
        self._owner = self._owner.among((*before, *writers(self.root)))
        self._fence = Fence(self.root, self._owner, lease)
        try:
            self._fence.take()
            if lease != self._owner:
                self._write_lease()
        except OSError:
            # A successor took the folder from which this attempt writes.
            self._fence.check()
            raise
        self._remove_leftovers()
        return self._owner.attempt

    @override
    def load(self) -> Checkpoint | None:
        problems: list[str] = []
        failure: StorageFailed | None = None
        for candidate in self._candidates():
            name = candidate.path.name
            # A disk that is there may have a file that it cannot read any more.
            patience = None if failure is None else LITTLE_PATIENCE
            try:
                data = patiently(functools.partial(self._read, candidate), candidate.path, patience)
                checkpoint = decode(data, candidate.checksum)
                self._whole = name
                self._unusable.discard(name)
                self.is_settled = candidate.is_latest
                return checkpoint
            except (OSError, StorageFailed, *DAMAGE_ERRORS) as error:
                if isinstance(error, StorageFailed):
                    failure = failure or error
                self._unusable.add(name)
                problems.append(f"{name}: {error}")
                logger.warning(
                    "checkpoint %s cannot be used (%s); trying the one before", name, error
                )
        if failure is not None:
            raise failure
        if problems:
            raise all_damaged(self._folder, problems)
        return self._load_from_elsewhere()

    def _load_from_elsewhere(self) -> Checkpoint | None:
        """The newest checkpoint of this job in its ``other`` place, which stays as it is."""
        if not isinstance(self.other, Path):
            return None
        elsewhere = FolderCheckpoints(self.other, None, self._keep)
        holder = elsewhere._lease_holder()
        if holder is not None and holder.is_of_another_job(self._owner):
            return None
        checkpoint = elsewhere.load()
        if checkpoint is None or job_of(checkpoint) not in ("", self._owner.job):
            return None
        logger.info("there is nothing at %s yet: going on from %s", self.root, self.other)
        self.is_settled = False
        return checkpoint

    @override
    def newest_step(self) -> int:
        for candidate in self._candidates():
            match = STEP_NAME.fullmatch(candidate.path.name)
            if match:
                return int(match[1])
        return -1

    @override
    def adopt(self) -> None:
        """Nothing: a save needs none of what is there."""

    @override
    def check_fence(self) -> None:
        self._fence.check()

    @override
    def commit(
        self,
        checkpoint: Checkpoint,
        step: int,
        best: bool,
        final: bool,
        kept_epoch: int | None = None,
    ) -> int:
        # Saves work that is in vain; what keeps an older attempt from writing is the fence itself.
        self._fence.check()
        try:
            return self._write_files(checkpoint, step, best, final, kept_epoch)
        except BaseException:
            # Half a checkpoint must not take the room of the next one.
            self._fence.discard_drafts()
            raise

    @override
    def make_room(self) -> bool:
        self._fence.check()
        # Without one to go on from, nobody knows which of them is whole.
        others = [] if self._whole is None else self._least_needed_first(self._whole)
        for name in others[:1]:
            logger.warning("no room for another checkpoint at %s: removing %s", self.root, name)
            self._remove(name)
            return not (self._folder / name).exists()
        return False

    def _write_files(
        self, checkpoint: Checkpoint, step: int, best: bool, final: bool, kept_epoch: int | None
    ) -> int:
        name = f"step-{step:09d}.pt"
        draft = self._fence.draft(name)
        size, checksum = _write_tensors(checkpoint, draft)
        # There may be one of this step already, which is whole until this one is there.
        self._replace(draft, self._folder / name, checksum)
        if kept_epoch is not None:
            self._alias(name, f"epoch-{kept_epoch:06d}.pt", checksum)
        if best:
            self._alias(name, "best.pt", checksum)
        if final:
            self._alias(name, "final.pt", checksum)
            self._write_final_weights(checkpoint)
        sync_folder(self._folder)
        # Last, so that it never names a checkpoint that a power failure could take back.
        latest = {"file": f"checkpoints/{name}", "sha256": checksum, "step": step}
        self._fence.write(self.root / "latest.json", json.dumps(latest).encode())
        self._whole = name
        self._unusable.discard(name)
        self._prune(name)
        return size

    def _write_lease(self) -> None:
        """Say in lease.json who owns the folder."""
        content = json.dumps(self._owner.as_dict()).encode()
        try:
            self._fence.write(self.root / "lease.json", content)
        except OSError as error:
            if not lacks_room(error):
                raise
            # The writer's own folder says the same, and a full disk must not end the job before
            # it has done anything.
            logger.warning("no room for lease.json at %s: %s", self.root, describe(error))
            self._fence.discard_drafts()

    def _alias(self, name: str, alias: str, checksum: str) -> None:
        """Give a checkpoint a second name, which readers may be using for another one."""
        draft = self._fence.draft(alias)
        draft.unlink(missing_ok=True)
        link_or_copy(self._folder / name, draft)
        self._replace(draft, self._folder / alias, checksum)

    def _write_final_weights(self, checkpoint: Checkpoint) -> None:
        """final.safetensors: the weights alone, the averaged ones where there are any."""
        content = encode_weights(checkpoint)
        if content is None:
            return
        path = self._folder / "final.safetensors"
        draft = self._fence.draft(path.name)
        with draft.open("wb") as file:
            file.write(content)
            sync_file(file)
        self._replace(draft, path, hashlib.sha256(content).hexdigest())

    def _replace(self, draft: Path, path: Path, checksum: str) -> None:
        """Put a draft in the place of a file that others may read meanwhile.

        A file and its checksum cannot be renamed in one step. The checksum comes first: a file that
        has its name has its checksum, too; in between those of both the old and the new file are
        there.
        """
        beside = checksums.beside(path)
        new = checksums.entry(checksum, path.name)
        others = [other for other in checksums.recorded(path) if other != checksum]
        old = b"".join(checksums.entry(other, path.name) for other in others)
        self._fence.write(beside, new + old)
        self._fence.publish(draft, path)
        if old:
            self._fence.write(beside, new)

    def _prune(self, newest: str) -> None:
        """Remove the checkpoints that are needed least, so that ``keep`` remain."""
        others = self._least_needed_first(newest)
        for name in others[: max(0, len(others) + 1 - self._keep)]:
            self._remove(name)

    def _least_needed_first(self, newest: str) -> list[str]:
        """All but ``newest``: those that could not be read, which must not outlive one that can;
        those ahead of it, which were left when the training went back; then from the oldest on.
        """
        names = [path.name for path in self._steps() if path.name != newest]
        return sorted(names, key=lambda name: (name not in self._unusable, name < newest, name))

    def _remove(self, name: str) -> None:
        self._fence.remove(self._folder / name)
        self._fence.remove(self._folder / f"{name}.sha256")

    def _read(self, candidate: _Candidate) -> bytes:
        """A checkpoint's bytes; ValueError for what is no file, a link that leads elsewhere, or one
        of which nobody knows whether it is whole.
        """
        path = candidate.path
        if leads_out(path, self.root):
            raise ValueError(f"it is a link that leads out of {self.root}")
        # A pipe of that name would never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError("it is no file")
        if not candidate.checksum:
            beside = checksums.beside(path).name
            raise ValueError(
                f"{beside} is missing or holds no checksum; if the file is whole, write it with "
                f"sha256sum {path.name} > {beside}"
            )
        return path.read_bytes()

    def _candidates(self) -> Iterator[_Candidate]:
        """Checkpoints in the order in which they are to be tried, once with each checksum that they
        may have.
        """
        latest = _read_json(self.root / "latest.json")
        first: tuple[Path, str] | None = None
        # Somebody may have edited the file, or removed the checkpoint.
        if latest and {"file", "sha256"} <= latest.keys():
            name = str(latest["file"])
            if CHECKPOINT_NAME.fullmatch(name) is None:
                logger.warning(
                    "latest.json names %.200r, which is no checkpoint of %s", name, self.root
                )
            elif (self.root / name).is_file():
                first = (self.root / name, str(latest["sha256"]))
                yield _Candidate(*first, is_latest=True)
        paths = self._steps()[::-1]
        if first is not None:
            # A save that wrote the checkpoint of this step once more may have been cut off before
            # it came to latest.json.
            paths.sort(key=lambda path: path != first[0])
        for path in paths:
            for checksum in checksums.recorded(path) or ("",):
                if (path, checksum) != first:
                    yield _Candidate(path, checksum)

    def _steps(self) -> list[Path]:
        """The checkpoints that are not best, final or kept, the lowest step first.

        Raises OSError for a folder that cannot be listed: to glob it would be one that holds none.
        """
        with suppress(FileNotFoundError):
            return sorted(path for path in self._folder.iterdir() if STEP_NAME.fullmatch(path.name))
        return []

    def _lease_holder(self) -> Owner | None:
        """The attempt that lease.json names; None where it names none."""
        return Owner.from_dict(_read_json(self.root / "lease.json") or {})

    def _remove_leftovers(self) -> None:
        # Drafts lie in the folder of their attempt now; those of early versions lay here.
        for path in self._folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)


def leads_out(path: Path, folder: Path) -> bool:
    """Whether a path ends outside a folder when every link on its way is followed."""
    return not path.resolve().is_relative_to(folder.resolve())


def _write_tensors(checkpoint: Checkpoint, path: Path) -> tuple[int, str]:
    """Write a checkpoint to the disk; returns its size in bytes and its SHA-256."""
    with path.open("wb") as file:
        hashing = HashingFile(file)
        torch.save(checkpoint, hashing)  # type: ignore[arg-type]
        sync_file(file)
    return hashing.size, hashing.digest.hexdigest()


def _read_json(path: Path) -> dict[str, Any] | None:
    """An object in a small file; None for a file that is missing or holds no object."""
    try:
        data = json_text.decode(patiently(path.read_bytes, path))
    except (OSError, ValueError):
        return None
    if not isinstance(data, dict):
        return None
    return data
