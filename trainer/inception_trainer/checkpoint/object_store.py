"""Checkpoints in an object store, fenced by lineage: stores have no rename that could keep a dead
attempt out.

Layout below ``checkpoint.path`` (docs/architecture/names.md)::

    attempts/00000003/claim.json                      this attempt wants to be the writer
    attempts/00000003/record.json                     it is: what it has, all of it below its own folder
    attempts/00000003/step-000000120-5f2c9a01.pt      named once, never written again
    attempts/00000003/final-5f2c9a01.safetensors

An attempt writes below its own folder only. It begins by copying what it continues from into it,
and then writes its record. Readers follow the newest attempt that has a record and look at no
other, so whatever an older attempt writes later is never read; and what it deletes later, its own
and its predecessors' objects, nobody needs any more.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch

from inception_trainer.errors import DataError, Fenced, StoreFailed
from inception_trainer.log import logger
from inception_trainer.stores import Remote

from .base import BROKEN, Checkpoint, CheckpointWriter, HashingFile, SaveRecord, decoded, none_whole
from .export_weights import exported

TRIES = 10
"""How often a line is looked up again because a newer attempt has replaced it meanwhile."""


@dataclass(frozen=True)
class StoredObject:
    """One object of a line."""

    file: str
    """Below the folder of its attempt."""
    sha256: str
    step: int


@dataclass(frozen=True)
class Record:
    """What an attempt has: ``kept`` are its checkpoints, the newest last."""

    kept: tuple[StoredObject, ...] = ()
    best: StoredObject | None = None
    final: StoredObject | None = None
    weights: StoredObject | None = None

    def objects(self) -> dict[str, StoredObject]:
        """All of them by their names."""
        named = (*self.kept, self.best, self.final, self.weights)
        return {stored.file: stored for stored in named if stored is not None}

    def encoded(self) -> bytes:
        """As JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2).encode()

    @classmethod
    def decoded(cls, data: bytes) -> Record:
        """The reverse; raises what JSON and wrong contents raise."""
        content = json.loads(data)
        single = {
            name: StoredObject(**content[name])
            for name in ("best", "final", "weights")
            if content[name]
        }
        return cls(tuple(StoredObject(**entry) for entry in content["kept"]), **single)


@dataclass(frozen=True)
class CurrentAttempt:
    """The newest attempt that has begun."""

    folder: Remote
    record: Record


class ObjectStoreCheckpoints(CheckpointWriter):
    """The checkpoints of a job as seen by the one rank that uses them."""

    def __init__(
        self,
        root: Remote,
        attempt: int | None,
        keep: int,
        saved: Callable[[SaveRecord], None] | None = None,
    ) -> None:
        super().__init__(root, saved)
        self._attempts, self._attempt, self._keep = root / "attempts", attempt, keep
        self._record = Record()

    def acquire(self) -> int:
        """Claim the line and return this attempt's number; raises Fenced when a newer attempt has
        claimed it.
        """
        if self._attempt is None:
            self._attempt = max(_numbers(self._attempts), default=0) + 1
        self.check_fence()
        (self._own / "claim.json").write_bytes(json.dumps({"attempt": self._attempt}).encode())
        # Again: of two that claim at once, the older one sees the newer.
        self.check_fence()
        return self._attempt

    def load(self) -> Checkpoint | None:
        """Take the line over from the newest attempt that has begun; only then may this one save."""
        for left in reversed(range(TRIES)):
            line = newest(self._attempts)
            try:
                payload, record = (
                    (None, Record()) if line is None else self._take_over(line, forgiving=not left)
                )
            except FileNotFoundError:
                # Its objects are removed once a newer attempt has begun: either that is us no more,
                # or look again.
                self.check_fence()
                continue
            self.check_fence()
            self._write_record(record)
            self._prune()
            return payload
        raise StoreFailed(f"{self.root}: the objects that its newest record names come and go")

    def check_fence(self) -> None:
        """Raise Fenced when a newer attempt has claimed the line; nobody reads what this one would
        write.
        """
        holder = max(_numbers(self._attempts), default=0)
        if self._attempt is not None and holder > self._attempt:
            raise Fenced(
                f"attempt {holder} owns {self.root}; attempt {self._attempt} must not write there any more"
            )

    def commit(self, payload: Checkpoint, step: int, best: bool, final: bool) -> int:
        """Write one checkpoint, then the record that names it, then remove what is too many."""
        self.check_fence()
        identity = uuid.uuid4().hex[:8]
        stored, size = self._upload(
            f"step-{step:09d}-{identity}.pt", step, lambda file: torch.save(payload, file)
        )
        kept = (*self._record.kept, stored)[-self._keep :]
        record = dataclasses.replace(self._record, kept=kept)
        record = dataclasses.replace(record, best=stored) if best else record
        weights = exported(payload) if final else None
        if weights is not None:
            name = f"final-{identity}.safetensors"
            record = dataclasses.replace(
                record, weights=self._upload(name, step, lambda file: file.write(weights))[0]
            )
        self._write_record(dataclasses.replace(record, final=stored) if final else record)
        self._prune()
        return size

    @property
    def _own(self) -> Remote:
        return _folder(self._attempts, self._attempt or 0)

    def _upload(
        self, name: str, step: int, write: Callable[[Any], object]
    ) -> tuple[StoredObject, int]:
        passing: list[HashingFile] = []

        def fill(file: BinaryIO) -> None:
            passing.append(HashingFile(file))
            write(passing[0])

        (self._own / name).write(fill)
        return StoredObject(name, passing[0].digest.hexdigest(), step), passing[0].size

    def _write_record(self, record: Record) -> None:
        (self._own / "record.json").write_bytes(record.encoded())
        self._record = record

    def _take_over(
        self, line: CurrentAttempt, *, forgiving: bool
    ) -> tuple[Checkpoint | None, Record]:
        """The newest checkpoint of the line that is whole, and a record of it and of what else is
        worth keeping.
        """
        if not line.record.kept:
            return None, Record()
        payload, stored = _first_whole(line, forgiving=forgiving)
        record = dataclasses.replace(line.record, kept=(stored,))
        if str(line.folder) != str(self._own):
            for name in record.objects():
                (line.folder / name).copy(self._own / name)
        return payload, record

    def _prune(self) -> None:
        """Remove what the record does not name, and all of older attempts."""
        try:
            needed = {"claim.json", "record.json", *self._record.objects()}
            for name in set(self._own.names()) - needed:
                (self._own / name).remove()
            for number in _numbers(self._attempts):
                if number < (self._attempt or 0):
                    folder = _folder(self._attempts, number)
                    for name in folder.names():
                        (folder / name).remove()
        except StoreFailed as error:
            logger.warning("what is no longer needed could not all be removed: %s", error)


def newest(attempts: Remote) -> CurrentAttempt | None:
    """The newest attempt that has a record, which is the only one to read."""
    for number in sorted(_numbers(attempts), reverse=True):
        folder = _folder(attempts, number)
        try:
            return CurrentAttempt(folder, Record.decoded((folder / "record.json").read_bytes()))
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{folder}/record.json cannot be read: {error!r}; restore it, or remove it to go back"
            ) from None
    return None


def best_of(root: Remote) -> tuple[str, bytes] | None:
    """Name and bytes of a job's best checkpoint, or of its final or newest one; None where there is
    none.
    """
    for left in reversed(range(TRIES)):
        line = newest(root / "attempts")
        if line is None or not line.record.kept:
            return None
        stored = line.record.best or line.record.final or line.record.kept[-1]
        try:
            data = (line.folder / stored.file).read_bytes()
        except FileNotFoundError:
            # Replaced by a better one while it was looked up.
            if left:
                continue
            raise
        if hashlib.sha256(data).hexdigest() != stored.sha256:
            raise DataError(
                f"{line.folder / stored.file} is damaged: its SHA-256 is not {stored.sha256[:12]}..."
            )
        return stored.file, data
    return None


def _first_whole(line: CurrentAttempt, *, forgiving: bool) -> tuple[Checkpoint, StoredObject]:
    problems: list[str] = []
    for stored in reversed(line.record.kept):
        path = line.folder / stored.file
        try:
            return decoded(path.read_bytes(), stored.sha256), stored
        except (*BROKEN, FileNotFoundError) as error:
            if isinstance(error, FileNotFoundError) and not forgiving:
                raise
            problems.append(f"{stored.file}: {error}")
            logger.warning("checkpoint %s cannot be used (%s); trying the one before", path, error)
    raise none_whole(line.folder, problems)


def _folder(attempts: Remote, number: int) -> Remote:
    return attempts / f"{number:08d}"


def _numbers(attempts: Remote) -> list[int]:
    return [int(name) for name in attempts.names() if name.isdigit()]
