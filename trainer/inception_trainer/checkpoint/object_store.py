"""Checkpoints in an object store, where each attempt has a folder of its own.

Stores have no rename that could keep a dead attempt out, as ``fence`` does in folders. Layout below
``checkpoint.path`` (docs/architecture/names.md)::

    attempts/<owner>/claim.json                    this attempt wants to be the writer
    attempts/<owner>/record.json                   it is: what it has, all below its own folder
    attempts/<owner>/step-000000120-5f2c9a01.pt    named once, never written again
    attempts/<owner>/final-5f2c9a01.safetensors

``<owner>`` is the attempt and its job, ``00000003.<created>.<uid>.<namespace>.<name>``, or
``00000003`` where no UID is known (:mod:`.owner`).

An attempt writes below its own folder only. It begins by copying what it continues from into it,
and then writes its record. Readers follow the newest attempt that has a record, the current one,
and look at no other, so whatever an older attempt writes later is never read; and what it deletes
later, its own and its predecessors' objects, nobody needs any more.

Needed of the store: a listing or read that begins after a write has ended sees it, as S3, GCS and
Azure promise. Locks, versions and conditional writes are not used, because not every store has
them (docs/decisions/0020-stores-are-fenced-by-lineage.md).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import torch
from typing_extensions import override

from inception_trainer.errors import ConfigError, DataError, Fenced, StoreFailed
from inception_trainer.launcher import json_text
from inception_trainer.log import logger
from inception_trainer.storage import patiently
from inception_trainer.stores import Remote

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
from .owner import Owner, check_newest, parse_owner, refused
from .safetensors_file import encode_weights

PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")
TRIES = 10
"""How often the current attempt is looked up again because a newer one has replaced it."""


@dataclass(frozen=True)
class StoredObject:
    """One object of an attempt."""

    file: str
    """Its name below the folder of the attempt."""
    sha256: str
    step: int

    @classmethod
    def decode(cls, entry: Mapping[str, Any]) -> StoredObject:
        """An entry of record.json; raises ValueError or TypeError.

        Only plain names: with "..", "/" or "::" a record could lead to other jobs' objects, which
        this one would read, copy and in the end remove.
        """
        stored = cls(**entry)
        if PLAIN_NAME.fullmatch(stored.file) is None:
            raise ValueError(f"{stored.file[:200]!r} is no name of an object of this attempt")
        return stored


@dataclass(frozen=True)
class Record:
    """What an attempt has: ``kept`` are its checkpoints, the newest last."""

    kept: tuple[StoredObject, ...] = ()
    best: StoredObject | None = None
    final: StoredObject | None = None
    weights: StoredObject | None = None
    """final.safetensors."""
    epochs: Mapping[str, StoredObject] = field(default_factory=dict)
    """Those that are never removed, by the number of epochs that they come after."""

    def objects(self) -> dict[str, StoredObject]:
        """All of them by their names; one object may be newest, best and final at once."""
        entries = (*self.kept, self.best, self.final, self.weights, *self.epochs.values())
        return {stored.file: stored for stored in entries if stored is not None}

    def encode(self) -> bytes:
        """The content of record.json."""
        return json.dumps(dataclasses.asdict(self), indent=2).encode()

    @classmethod
    def decode(cls, data: bytes) -> Record:
        """A record from the content of record.json; raises ValueError, KeyError or TypeError."""
        content = json_text.decode(data)
        single = {
            name: StoredObject.decode(content[name])
            for name in ("best", "final", "weights")
            if content[name]
        }
        kept = tuple(StoredObject.decode(entry) for entry in content["kept"])
        # Version 0.1 wrote none.
        epochs = {
            str(epoch): StoredObject.decode(entry)
            for epoch, entry in dict(content.get("epochs", {})).items()
        }
        return cls(kept, **single, epochs=epochs)


@dataclass(frozen=True)
class CurrentAttempt:
    """The newest attempt that has a record."""

    owner: Owner
    folder: Remote
    record: Record
    is_elsewhere: bool = False
    """Whether it is in the place that all namespaces had in common up to version 0.1."""


class ObjectStoreCheckpoints(CheckpointWriter):
    """The checkpoints of a job in a store as seen by the one rank that uses them."""

    def __init__(
        self,
        root: Remote,
        attempt: int | None,
        keep: int,
        saved: Callable[[SaveRecord], None] | None = None,
        owner: Owner | None = None,
    ) -> None:
        super().__init__(root, saved)
        self._attempts = root / "attempts"
        self._owner = owner or Owner.of(attempt)
        self._keep = keep
        self._record = Record()
        self._may_remove = True
        """Until the store refuses it: credentials may be for reading and writing only."""

    @override
    def acquire(self) -> int:
        self._owner = self._owner.among(_owners(self._attempts))
        self._refuse_other_jobs()
        self.check_fence()
        claim = self._folder / "claim.json"
        claim.write_bytes(json.dumps(self._owner.as_dict()).encode())
        try:
            # Again: of two that claim at once, the older one sees the newer, and of two jobs one at
            # least sees the other.
            self._refuse_other_jobs()
            self.check_fence()
        except (ConfigError, Fenced) as error:
            self._remove([claim])
            # It may be that both jobs are refused: the next attempt of either finds out.
            raise Fenced(str(error)) from None
        return self._owner.attempt

    @override
    def load(self) -> Checkpoint | None:
        """The newest checkpoint that is whole, copied into this attempt's own folder.

        Writes this attempt's record, which makes it the current one; only then may it save.
        """
        return self._begin(reads=True)

    @override
    def newest_step(self) -> int:
        current = current_attempt(self._attempts)
        if current is None or not current.record.kept:
            return -1
        return current.record.kept[-1].step

    @override
    def adopt(self) -> None:
        self._begin(reads=False)

    def _begin(self, *, reads: bool) -> Checkpoint | None:
        for tries_left in reversed(range(TRIES)):
            current = current_attempt(self._attempts) or self._attempt_elsewhere()
            try:
                checkpoint, record = self._take_over(current, reads=reads, last_try=not tries_left)
            except FileNotFoundError:
                # Its objects are removed once a newer attempt has begun: either that is us no more,
                # or look again.
                self.check_fence()
                continue
            self.check_fence()
            self._write_record(record)
            self._prune()
            return checkpoint
        raise StoreFailed(f"{self.root}: the objects that its newest record names come and go")

    @override
    def check_fence(self) -> None:
        """Raise Fenced when a newer attempt has claimed the job.

        No protection, but news: nobody reads what this attempt would write.
        """
        check_newest(self._owner, _owners(self._attempts), self.root)

    def _refuse_other_jobs(self) -> None:
        for other in _owners(self._attempts):
            folder = _attempt_folder(self._attempts, other)
            # Some stores list folders in which nothing is any more.
            if other.is_of_another_job(self._owner) and folder.names():
                raise refused(self._owner, other, self.root, f"remove {folder}")

    @override
    def commit(
        self,
        checkpoint: Checkpoint,
        step: int,
        best: bool,
        final: bool,
        kept_epoch: int | None = None,
    ) -> int:
        """Write one checkpoint, then the record that names it, then remove what is too many."""
        self.check_fence()
        # A name that was never used: a reader of the old record must not get the new bytes.
        identity = uuid.uuid4().hex[:8]
        stored, size = self._upload(
            f"step-{step:09d}-{identity}.pt", step, lambda file: torch.save(checkpoint, file)
        )
        kept = (*self._record.kept, stored)[-self._keep :]
        record = dataclasses.replace(self._record, kept=kept)
        if kept_epoch is not None:
            record = dataclasses.replace(record, epochs={**record.epochs, str(kept_epoch): stored})
        if best:
            record = dataclasses.replace(record, best=stored)
        if final:
            record = dataclasses.replace(record, final=stored)
            weights = encode_weights(checkpoint)
            if weights is not None:
                name = f"final-{identity}.safetensors"
                uploaded, _ = self._upload(name, step, lambda file: file.write(weights))
                record = dataclasses.replace(record, weights=uploaded)
        self._write_record(record)
        self._prune()
        return size

    @override
    def make_room(self) -> bool:
        self.check_fence()
        if len(self._record.kept) < 2 or not self._may_remove:
            return False
        oldest, *kept = self._record.kept
        logger.warning("no room for another checkpoint at %s: removing %s", self.root, oldest.file)
        # The record first: it must never name what is not there.
        self._write_record(dataclasses.replace(self._record, kept=tuple(kept)))
        if oldest.file not in self._record.objects():
            self._remove([self._folder / oldest.file])
        return self._may_remove

    @property
    def _folder(self) -> Remote:
        return _attempt_folder(self._attempts, self._owner)

    def _upload(
        self, name: str, step: int, write: Callable[[Any], object]
    ) -> tuple[StoredObject, int]:
        """Put what ``write`` writes into a file; returns the object and its size in bytes."""
        hashing: list[HashingFile] = []

        def fill(file: BinaryIO) -> None:
            hashing.append(HashingFile(file))
            write(hashing[0])

        try:
            (self._folder / name).write(fill)
        except StoreFailed:
            # A part of it may be there, and must not take the room of the next one.
            with suppress(StoreFailed):
                self._remove([self._folder / name])
            raise
        return StoredObject(name, hashing[0].digest.hexdigest(), step), hashing[0].size

    def _write_record(self, record: Record) -> None:
        (self._folder / "record.json").write_bytes(record.encode())
        self._record = record

    def _take_over(
        self, current: CurrentAttempt | None, *, reads: bool, last_try: bool
    ) -> tuple[Checkpoint | None, Record]:
        """The newest checkpoint of an attempt that is whole, and this attempt's first record; with
        ``reads`` false no checkpoint, and the record names all that are there.

        Copies what the record names; FileNotFoundError when some of it is gone meanwhile.
        """
        if current is None or not current.record.kept:
            return None, Record()
        checkpoint = None
        record = current.record
        if reads:
            checkpoint, stored = _first_whole(current, last_try=last_try)
            if current.is_elsewhere and job_of(checkpoint) not in ("", self._owner.job):
                return None, Record()
            record = dataclasses.replace(record, kept=(stored,))
        elif current.is_elsewhere:
            # Nobody has seen whose it is.
            return None, Record()
        if str(current.folder) != str(self._folder):
            for name in record.objects():
                (current.folder / name).copy(self._folder / name)
        return checkpoint, record

    def _attempt_elsewhere(self) -> CurrentAttempt | None:
        """The newest attempt of this job in its ``other`` place, whose objects are copied from it
        like those of any other attempt.
        """
        if not isinstance(self.other, Remote):
            return None
        current = current_attempt(self.other / "attempts")
        if current is None or current.owner.is_of_another_job(self._owner):
            return None
        logger.info("there is nothing at %s yet: looking at %s", self.root, self.other)
        return dataclasses.replace(current, is_elsewhere=True)

    def _prune(self) -> None:
        """Remove what the record does not name, and all of older attempts."""
        if not self._may_remove:
            return
        try:
            needed = {"claim.json", "record.json", *self._record.objects()}
            self._remove(self._folder / name for name in set(self._folder.names()) - needed)
            for other in _owners(self._attempts):
                # Never of newer ones: this attempt may be the dead one.
                if other < self._owner and not other.is_of_another_job(self._owner):
                    folder = _attempt_folder(self._attempts, other)
                    self._remove(folder / name for name in folder.names())
        except StoreFailed as error:
            # The next save tries again; the checkpoint itself is written.
            logger.warning("what is no longer needed could not all be removed: %s", error)

    def _remove(self, objects: Iterable[Remote]) -> None:
        """Delete objects; where the credentials may not, they stay, which is said once."""
        try:
            for path in objects:
                path.remove()
        except ConfigError as error:
            if self._may_remove:
                logger.warning("what is no longer needed stays: %s", error)
            self._may_remove = False


def current_attempt(attempts: Remote) -> CurrentAttempt | None:
    """The newest attempt that has a record, which is the only one to read."""
    for owner in sorted(_owners(attempts), reverse=True):
        folder = _attempt_folder(attempts, owner)
        try:
            record = Record.decode((folder / "record.json").read_bytes())
            return CurrentAttempt(owner, folder, record)
        except FileNotFoundError:
            # It has only claimed so far, or was pruned.
            continue
        except (ValueError, KeyError, TypeError) as error:
            # Going back to an older attempt by ourselves would lose work without a word.
            raise DataError(
                f"{folder}/record.json cannot be read: {error!r}; "
                "restore it, or remove it to go back"
            ) from None
    return None


def best_of(root: Remote) -> tuple[str, bytes] | None:
    """Name and bytes of a job's best checkpoint, or of its final or newest one.

    None where there is none; DataError for one that is damaged.
    """
    for tries_left in reversed(range(TRIES)):
        current = current_attempt(root / "attempts")
        if current is None or not current.record.kept:
            return None
        stored = current.record.best or current.record.final or current.record.kept[-1]
        path = current.folder / stored.file
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            # Replaced by a better one while it was looked up.
            if tries_left:
                continue
            raise
        if hashlib.sha256(data).hexdigest() != stored.sha256:
            raise DataError(f"{path} is damaged: its SHA-256 is not {stored.sha256[:12]}...")
        return stored.file, data
    return None


def _first_whole(current: CurrentAttempt, *, last_try: bool) -> tuple[Checkpoint, StoredObject]:
    """The newest checkpoint that is whole; DataError when all of them are damaged.

    An object that is missing was removed by a newer attempt, so the caller looks again; on the
    ``last_try`` it counts as damaged, because somebody has removed it by hand.
    """
    problems: list[str] = []
    for stored in reversed(current.record.kept):
        path = current.folder / stored.file
        try:
            return decode(patiently(path.read_bytes, path), stored.sha256), stored
        except (*DAMAGE_ERRORS, FileNotFoundError) as error:
            if isinstance(error, FileNotFoundError) and not last_try:
                raise
            problems.append(f"{stored.file}: {error}")
            logger.warning("checkpoint %s cannot be used (%s); trying the one before", path, error)
    raise all_damaged(current.folder, problems)


def _attempt_folder(attempts: Remote, owner: Owner) -> Remote:
    # Eight digits: people and listings see them in order.
    return attempts / owner.encode(digits=8)


def _owners(attempts: Remote) -> list[Owner]:
    """The attempts that have a folder."""
    owners = (parse_owner(name) for name in attempts.names())
    return [owner for owner in owners if owner is not None]
