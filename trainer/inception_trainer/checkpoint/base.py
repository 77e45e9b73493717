"""What saving checkpoints has in common for folders and stores: one write at a time, in the
background.
"""

from __future__ import annotations

import abc
import hashlib
import io
import pickle
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch

from inception_trainer.errors import DataError, Fenced, TrainerError
from inception_trainer.log import logger

FORMAT = 1
BROKEN = (ValueError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError)
"""What `decoded` raises for a checkpoint that is damaged."""
Checkpoint = dict[str, Any]


@dataclass(frozen=True)
class SaveRecord:
    """A finished write."""

    step: int
    size: int
    """Bytes."""
    seconds: float
    """From the request to the rename."""
    stalled_seconds: float
    """Of these, how long training stood still: for the write before, and for the copies in host
    memory.
    """


@dataclass(frozen=True)
class _Write:
    """What the writer is to do."""

    payload: Checkpoint
    step: int
    best: bool
    final: bool
    complete: Callable[[], None]
    started: float
    stalled: float


class CheckpointWriter(abc.ABC):
    """Where one rank keeps the checkpoints of a job; one background write at a time."""

    def __init__(self, root: object, saved: Callable[[SaveRecord], None] | None) -> None:
        self.root = root
        self._saved = saved or (lambda _saved: None)
        self._writer: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._requested: float | None = None

    @abc.abstractmethod
    def acquire(self) -> int:
        """Become the writer and return this attempt's number; raises Fenced when a newer attempt
        is.
        """

    @abc.abstractmethod
    def load(self) -> Checkpoint | None:
        """The newest checkpoint that is whole, None when there is none yet; DataError when all are
        damaged.
        """

    @abc.abstractmethod
    def check_fence(self) -> None:
        """Raise Fenced when a newer attempt is the writer."""

    @abc.abstractmethod
    def commit(self, payload: Checkpoint, step: int, best: bool, final: bool) -> int:
        """Write one checkpoint, and all that goes with it; returns its size in bytes."""

    def reserve(self) -> None:
        """Begin a save: wait for the write before, whose tensors may be overwritten from here on."""
        self._requested = time.monotonic()
        self.wait()

    def save(
        self,
        payload: Checkpoint,
        step: int,
        *,
        best: bool = False,
        final: bool = False,
        complete: Callable[[], None] = lambda: None,
    ) -> None:
        """Write in the background once the write before is done; its errors are raised by the next
        call or wait.

        The writer calls ``complete`` before it reads the payload, whose tensors must not change
        until it is done.
        """
        started = time.monotonic() if self._requested is None else self._requested
        self._requested = None
        self.wait()
        write = _Write(payload, step, best, final, complete, started, time.monotonic() - started)
        self._writer = threading.Thread(
            target=self._write, args=(write,), name="checkpoint-writer", daemon=True
        )
        self._writer.start()

    @property
    def busy(self) -> bool:
        """Whether a write is under way."""
        return self._writer is not None and self._writer.is_alive()

    def wait(self, timeout: float | None = None) -> None:
        """Until no write is under way; raises what the write raised."""
        if self._writer is not None:
            self._writer.join(timeout)
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _write(self, write: _Write) -> None:
        try:
            write.complete()
            size = self.commit(write.payload, write.step, write.best, write.final)
            self._saved(
                SaveRecord(write.step, size, time.monotonic() - write.started, write.stalled)
            )
        except BaseException as error:
            self._failure = error
            # Where a successor has taken over, that is the reason, and not what it led to.
            try:
                self.check_fence()
            except Fenced as fenced:
                self._failure = fenced
            except TrainerError:
                logger.warning("cannot tell whether a newer attempt has taken over")


class HashingFile(io.RawIOBase):
    """Counts and hashes what passes through to a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.digest, self.size = file, hashlib.sha256(), 0

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """Pass bytes on."""
        self.digest.update(data)
        written = self._file.write(data)
        self.size += written
        return written


def decoded(data: bytes, checksum: str) -> Checkpoint:
    """A checkpoint from its bytes; raises ValueError when it is damaged or of another format, and
    what torch raises.
    """
    found = hashlib.sha256(data).hexdigest()
    if found != checksum:
        raise ValueError(f"its SHA-256 is {found[:12]}..., not {checksum[:12]}...")
    payload: Checkpoint = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if payload.get("format") != FORMAT:
        raise ValueError(f"its format is {payload.get('format')!r}, this version reads {FORMAT}")
    return payload


def none_whole(folder: object, problems: list[str]) -> DataError:
    """The error for a folder whose checkpoints are all damaged."""
    return DataError(
        f"none of the checkpoints in {folder} can be read ({'; '.join(problems)}); "
        "restore one, or remove the folder to begin again"
    )
