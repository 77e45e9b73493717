"""A rank of an older attempt that comes back to life changes nothing, at whatever operation it had
stopped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inception_trainer.checkpoint.folder import FolderCheckpoints
from inception_trainer.errors import Fenced
from interruption import Interruption, small_checkpoint

OPERATIONS = (
    "open",
    "os.rename",
    "os.remove",
    "os.link",
    "os.mkdir",
    "os.rmdir",
    "os.listdir",
    "os.scandir",
)
_hooks: list[Interruption] = []
sys.addaudithook(
    lambda event, _arguments: [hook() for hook in _hooks if event in OPERATIONS] and None
)


@pytest.fixture
def interrupt() -> Iterator[Callable[[int, Callable[[], Any]], Interruption]]:
    def install(number: int, takeover: Callable[[], Any]) -> Interruption:
        _hooks[:] = [Interruption(number, takeover)]
        return _hooks[0]

    yield install
    _hooks.clear()


def store(root: Path, attempt: int) -> FolderCheckpoints:
    return FolderCheckpoints(root, attempt, keep=1)


def save(writer: FolderCheckpoints, step: int, number: int) -> None:
    writer.commit(small_checkpoint(step, number), step, best=True, final=True)


def files(root: Path) -> dict[str, bytes]:
    """All that any reader looks at."""
    found = (path for path in root.rglob("*") if path.is_file() and ".writers" not in path.parts)
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


class Successor:
    """Attempt 2: takes the folder and saves at the given step; remembers what there was then."""

    def __init__(self, root: Path, step: int) -> None:
        self.root, self.step, self.left = root, step, {}

    def __call__(self) -> None:
        writer = store(self.root, 2)
        writer.acquire()
        writer.load()
        save(writer, self.step, 2)
        self.left = files(self.root)


@pytest.mark.parametrize("step", [20, 15], ids=["same step", "a step before"])
def test_a_save_that_was_interrupted_anywhere_changes_nothing(tmp_path, interrupt, step) -> None:
    """The successor's checkpoint, pointer, best, final and lease stay, byte for byte."""
    interrupted = 0
    for number in range(200):
        root = tmp_path / str(number)
        zombie, successor = store(root, 1), Successor(root, step)
        zombie.acquire()
        save(zombie, 10, 1)
        happened = interrupt(number, successor)
        zombie.save(small_checkpoint(20, 1), 20, best=True, final=True)
        try:
            zombie.wait()
            fenced = False
        except Fenced:
            fenced = True
        if not happened.happened:
            break
        interrupted += 1
        assert files(root) == successor.left, f"operation {number} of an older attempt went through"
        assert json.loads((root / "latest.json").read_text())["step"] == step
        with pytest.raises(Fenced):
            store(root, 1).acquire()
        assert store(root, 3).acquire() == 3
        newest = store(root, 3).load()
        assert newest is not None
        assert newest["model"]["w"][0] == 2
        # Only what was already over could end well.
        assert fenced or number > 10
    assert interrupted > 10


def test_taking_the_folder_late_changes_nothing(tmp_path, interrupt) -> None:
    """Attempt 1 is stopped while it takes the folder; attempt 2 keeps the lease."""
    interrupted = 0
    for number in range(100):
        root = tmp_path / str(number)
        store(root, 0).acquire()
        successor = Successor(root, 5)
        happened = interrupt(number, successor)
        zombie = store(root, 1)
        try:
            zombie.acquire()
            with_right = True
        except Fenced:
            with_right = False
        if not happened.happened:
            break
        interrupted += 1
        assert json.loads((root / "lease.json").read_text()) == {"attempt": 2}
        if with_right:
            zombie.save(small_checkpoint(20, 1), 20)
            with pytest.raises(Fenced):
                zombie.wait()
        assert files(root) == successor.left
    assert interrupted > 5


def test_leftovers_of_older_attempts_go(tmp_path) -> None:
    for attempt in (1, 2, 3):
        store(tmp_path, attempt).acquire()
        (tmp_path / ".writers" / str(attempt) / "half.tmp").write_bytes(b"half")
    assert [path.name for path in (tmp_path / ".writers").iterdir()] == ["3"]
    store(tmp_path, 3).acquire()
    assert list((tmp_path / ".writers" / "3").iterdir()) == []
