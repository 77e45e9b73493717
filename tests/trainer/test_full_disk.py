"""A disk or a quota that is full at a save: training goes on, nothing that was whole is lost.

The disks are real ones of a few megabytes, and so is the limit on the size of files.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from inception_trainer.checkpoint import base
from inception_trainer.checkpoint.base import FORMAT, cannot_use
from inception_trainer.checkpoint.folder import FolderCheckpoints
from inception_trainer.checkpoint.owner import Owner
from inception_trainer.errors import InputMissing, StorageFailed, StoreFailed
from inception_trainer.storage import cannot_read_now, cannot_write_now, describe, lacks_room
from interruption import FIRST
from small_tmpfs import in_small_tmpfs

MEGABYTE = 1 << 20
NO_ROOM = "ENOSPC (No space left on device)"


def checkpoint(step: int) -> dict[str, Any]:
    """A megabyte that tells its step."""
    weights = {"w": torch.full((MEGABYTE // 4,), float(step))}
    return {"format": FORMAT, "model": weights, "progress": {"step": step}}


class Writer(FolderCheckpoints):
    """Remembers what it could not write, as text."""

    def __init__(self, root: Path, keep: int, attempt: int = 1) -> None:
        super().__init__(root, None, keep, owner=Owner.of(attempt, *FIRST))
        self.told: list[list[Any]] = []
        self.failed = lambda record: self.told.append([record.step, record.reason])
        self.acquire()
        self.load()

    def save_and_look(self, step: int) -> dict[str, Any]:
        """Save as training does, which does not wait; what a successor would find then."""
        self.save(checkpoint(step), step)
        self._join()
        return state(self.root)


def state(root: Path) -> dict[str, Any]:
    """The step that a successor would go on from, and the files."""
    found = FolderCheckpoints(root, None, 1).load()
    return {
        "step": None if found is None else found["progress"]["step"],
        "files": sorted(path.name for path in root.glob("checkpoints/step-*.pt")),
        "drafts": sorted(path.name for path in root.glob(".writers/*/*")),
    }


def fill(path: Path) -> None:
    """Take all the room that is left."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass


def names(*steps: int) -> list[str]:
    return [f"step-{step:09d}.pt" for step in steps]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last checkpoint is insisted on, but not for half a minute."""
    monkeypatch.setattr(base, "RETRY_PAUSES", (0.01, 0.01))


def test_room_for_as_many_as_are_kept_is_enough(tmp_path: Path) -> None:
    """The oldest goes before the new one is written, where there is no room for both."""

    def save_six(root: Path) -> Any:
        writer = Writer(root, keep=3)
        return [writer.save_and_look(step) for step in range(1, 7)], writer.told

    found, told = in_small_tmpfs(tmp_path, 3 * MEGABYTE + MEGABYTE // 2, save_six)
    assert [each["step"] for each in found] == [1, 2, 3, 4, 5, 6]
    assert [each["files"] for each in found] == [
        names(1),
        names(1, 2),
        names(1, 2, 3),
        names(2, 3, 4),
        names(3, 4, 5),
        names(4, 5, 6),
    ]
    assert told == []


@pytest.mark.usefixtures("quick")
def test_the_only_checkpoint_is_never_given_up(tmp_path: Path) -> None:
    """Without room for a second one training goes on; the last save fails after it was tried again,
    with an error that the operator tries again after.
    """

    def save_four(root: Path) -> Any:
        writer = Writer(root, keep=3)
        found = [writer.save_and_look(step) for step in (1, 2, 3)]
        writer.save(checkpoint(4), 4, final=True)
        try:
            writer.wait()
        except StorageFailed as error:
            return found, writer.told, [error.exit_code, str(error)], state(root)
        return found, writer.told, "no error", state(root)

    found, told, error, left = in_small_tmpfs(tmp_path, MEGABYTE + MEGABYTE // 2, save_four)
    whole = {"step": 1, "files": names(1), "drafts": []}
    assert found == [whole] * 3
    assert left == whole
    assert error == [
        1,
        f"checkpoint.path: the checkpoint of step 4 cannot be written to {tmp_path}: {NO_ROOM}; "
        "make room, or raise the quota",
    ]
    # The last one was tried three times.
    assert told == [[step, NO_ROOM] for step in (2, 3, 4, 4, 4)]


@pytest.mark.usefixtures("quick")
def test_a_last_save_succeeds_once_there_is_room(tmp_path: Path) -> None:
    """Somebody removes what is in the way while the job insists on its last checkpoint."""

    def save_three(root: Path) -> Any:
        others = root / "others"
        others.write_bytes(bytes(MEGABYTE))
        writer = Writer(root, keep=3)
        found = [writer.save_and_look(step) for step in (1, 2)]
        writer.save(checkpoint(3), 3)
        assert writer._thread is not None
        writer._thread.join()
        others.unlink()
        writer.wait()
        return [*found, state(root)], writer.told

    found, told = in_small_tmpfs(tmp_path, 3 * MEGABYTE, save_three)
    assert [each["step"] for each in found] == [1, 1, 3]
    assert told == [[2, NO_ROOM], [3, NO_ROOM]]


def test_a_disk_that_is_full_at_the_start_keeps_nobody_from_reading(tmp_path: Path) -> None:
    def begin_again(root: Path) -> Any:
        Writer(root, keep=1).save_and_look(1)
        fill(root / "others")
        successor = Writer(root, keep=1, attempt=2)
        return successor._owner.attempt, state(root)["step"]

    assert in_small_tmpfs(tmp_path, 3 * MEGABYTE, begin_again) == [2, 1]


@pytest.fixture
def limited() -> Iterator[None]:
    """The test may limit the size of this process's files."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("limited")
def test_a_limit_on_the_size_of_files_is_no_end_either(tmp_path: Path) -> None:
    writer = Writer(tmp_path, keep=1)
    writer.save_and_look(1)
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (MEGABYTE // 2, most))
    writer.save(checkpoint(2), 2)
    # The next save does not raise the error of the one before.
    writer.save(checkpoint(3), 3)
    writer.wait(60)
    assert writer.told == [[2, "EFBIG (File too large)"], [3, "EFBIG (File too large)"]]
    assert state(tmp_path) == {"step": 1, "files": names(1), "drafts": []}


@pytest.mark.parametrize(
    ("error", "room", "write", "read"),
    [
        (OSError(28, "No space left on device"), True, True, False),
        (OSError(122, "Disk quota exceeded"), True, True, False),
        (OSError(30, "Read-only file system"), False, True, False),
        (OSError(5, "Input/output error"), False, True, True),
        (OSError(116, "Stale file handle"), False, True, True),
        (OSError(13, "Permission denied"), False, False, False),
        (FileNotFoundError(2, "No such file or directory"), False, False, False),
        (StoreFailed("s3://b: ClientError: 507 Insufficient Storage"), True, True, True),
        (StoreFailed("s3://b: OSError: XMinioStorageFull"), True, True, True),
        (StoreFailed("s3://b: ConnectionError"), False, True, True),
        (RuntimeError("damaged"), False, False, False),
    ],
    ids=str,
)
def test_which_errors_may_pass(error: Exception, room: bool, write: bool, read: bool) -> None:
    wrapped = RuntimeError("as torch says it")
    wrapped.__context__ = error
    for each in (error, wrapped) if isinstance(error, OSError) else (error,):
        assert (lacks_room(each), cannot_write_now(each)) == (room, write)
        assert cannot_read_now(each) == read


def test_a_full_disk_at_the_start_is_tried_again_and_a_missing_folder_is_not() -> None:
    full = cannot_use("/c", OSError(28, "No space left on device"))
    assert (type(full), full.exit_code) == (StorageFailed, 1)
    assert str(full) == "checkpoint.path: /c cannot be used: ENOSPC (No space left on device)"
    assert type(cannot_use("/c", OSError(13, "Permission denied"))) is InputMissing
    assert describe(ValueError("x")) == "ValueError: x"
