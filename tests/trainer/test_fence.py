"""A rank of an older attempt that comes back to life changes nothing, at whatever operation it had
stopped.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inception_trainer.checkpoint.folder import FolderCheckpoints
from inception_trainer.checkpoint.owner import Owner, parse_owner
from inception_trainer.errors import ConfigError, Fenced
from interruption import ANEW, FIRST, LINES, NEIGHBOUR, Interruption, small_checkpoint

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


def store(root: Path, owner: Owner) -> FolderCheckpoints:
    return FolderCheckpoints(root, None, keep=1, owner=owner)


@pytest.fixture(params=LINES)
def line(request: pytest.FixtureRequest) -> list[Owner]:
    """An owner, its successor, and the successor of that."""
    return LINES[request.param]


def save(writer: FolderCheckpoints, step: int, number: int) -> None:
    writer.commit(small_checkpoint(step, number), step, best=True, final=True)


def files(root: Path) -> dict[str, bytes]:
    """All that any reader looks at."""
    found = (path for path in root.rglob("*") if path.is_file() and ".writers" not in path.parts)
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


class Successor:
    """Takes the folder and saves at the given step; remembers what there was then."""

    def __init__(self, root: Path, owner: Owner, step: int) -> None:
        self.root, self.owner, self.step, self.left = root, owner, step, {}

    def __call__(self) -> None:
        writer = store(self.root, self.owner)
        assert writer.acquire() == self.owner.attempt
        writer.load()
        save(writer, self.step, 2)
        self.left = files(self.root)


@pytest.mark.parametrize(
    ("line", "step"), [*((key, 20) for key in LINES), ("one job", 15)], indirect=["line"]
)
def test_a_save_that_was_interrupted_anywhere_changes_nothing(
    tmp_path, interrupt, line, step
) -> None:
    """The successor's checkpoint, pointer, best, final and lease stay, byte for byte."""
    interrupted = 0
    for number in range(200):
        root = tmp_path / str(number)
        zombie, successor = store(root, line[0]), Successor(root, line[1], step)
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
        # What knows no UID goes on in the name of the newest: its own number is all it has.
        if line[0].uid or line[0].attempt < line[1].attempt:
            with pytest.raises(Fenced):
                store(root, line[0]).acquire()
        assert store(root, line[2]).acquire() == line[2].attempt
        newest = store(root, line[2]).load()
        assert newest is not None
        assert newest["model"]["w"][0] == 2
        # Only what was already over could end well.
        assert fenced or number > 10
    assert interrupted > 10


@pytest.mark.parametrize("line", [key for key in LINES if "0.1" not in key], indirect=True)
def test_taking_the_folder_late_changes_nothing(tmp_path, interrupt, line) -> None:
    """An attempt is stopped while it takes the folder; its successor keeps the lease."""
    interrupted = 0
    for number in range(100):
        root = tmp_path / str(number)
        store(root, line[0]).acquire()
        successor = Successor(root, line[2], 5)
        happened = interrupt(number, successor)
        zombie = store(root, line[1])
        try:
            zombie.acquire()
            with_right = True
        except Fenced:
            with_right = False
        if not happened.happened:
            break
        interrupted += 1
        assert Owner.from_dict(json.loads((root / "lease.json").read_text())) == line[2]
        if with_right:
            zombie.save(small_checkpoint(20, 1), 20)
            with pytest.raises(Fenced):
                zombie.wait()
        assert files(root) == successor.left
    assert interrupted > 5


@pytest.mark.parametrize(
    ("mine", "other"), [(FIRST, NEIGHBOUR), (NEIGHBOUR, FIRST)], ids=["older", "newer"]
)
def test_two_jobs_that_begin_at_once_never_both_have_the_folder(
    tmp_path, interrupt, mine, other
) -> None:
    """The other job begins and saves at any moment while this one takes the folder."""
    outcomes = set()
    for number in range(100):
        root = tmp_path / str(number)
        left: dict[str, bytes] = {}
        others = store(root, Owner.of(1, *other))

        def begin(others=others, left=left, root=root) -> None:
            try:
                others.acquire()
                save(others, 5, 2)
                left.update(files(root))
            except (ConfigError, Fenced):
                pass

        happened = interrupt(number, begin)
        try:
            ours = store(root, Owner.of(1, *mine))
            ours.acquire()
            save(ours, 10, 1)
            has_it = True
        except (ConfigError, Fenced):
            has_it = False
        if not happened.happened:
            break
        others.save(small_checkpoint(20, 2), 20)
        try:
            others.wait()
            other_has_it = True
        except Fenced:
            other_has_it = False
        assert not (has_it and other_has_it)
        if has_it:
            assert json.loads((root / "latest.json").read_text())["step"] == 10
        # Whoever comes again is told of the one who has it.
        owner = Owner.from_dict(json.loads((root / "lease.json").read_text()))
        loser = other if owner is not None and owner.job == mine[0] else mine
        with pytest.raises(ConfigError, match=f"belongs to job {owner and owner.job} "):
            store(root, Owner.of(2, *loser)).acquire()
        outcomes.add((has_it, other_has_it))
    assert outcomes == {(True, False), (False, True)}


def test_a_job_made_anew_goes_on_at_once_and_the_one_before_never_again(tmp_path) -> None:
    """Attempts of a deleted job are fenced, however high their numbers are."""
    save(began(tmp_path, Owner.of(12, *FIRST)), 10, 1)
    again = began(tmp_path, Owner.of(1, *ANEW))
    found = again.load()
    assert found is not None
    assert found["progress"]["step"] == 10
    for attempt in (12, 13, 99):
        with pytest.raises(
            Fenced, match=r"attempt 1 of job default/test \(UID 0a1b-anew\) owns "
        ) as refusal:
            store(tmp_path, Owner.of(attempt, *FIRST)).acquire()
        assert f"attempt {attempt} of job default/test (UID 0a1b-first) must" in str(refusal.value)
    save(again, 20, 2)


def test_a_folder_of_another_job_is_refused_until_somebody_gives_it_away(tmp_path) -> None:
    """A finished or suspended job keeps its folder: nobody can tell from files that it is gone."""
    save(began(tmp_path, Owner.of(3, *FIRST)), 10, 1)
    left = files(tmp_path)
    with pytest.raises(ConfigError, match="belongs to job default/test ") as refusal:
        store(tmp_path, Owner.of(1, *NEIGHBOUR)).acquire()
    assert "give job team-b/test another place" in str(refusal.value)
    assert "if job default/test is gone, remove lease.json and .writers there" in str(refusal.value)
    assert refusal.value.exit_code == 78
    assert files(tmp_path) == left
    (tmp_path / "lease.json").unlink()
    shutil.rmtree(tmp_path / ".writers")
    found = began(tmp_path, Owner.of(1, *NEIGHBOUR)).load()
    assert found is not None
    assert found["progress"]["step"] == 10


def test_a_folder_of_version_0_1_goes_to_the_first_job_that_asks(tmp_path) -> None:
    (tmp_path / ".writers" / "4").mkdir(parents=True)
    (tmp_path / "lease.json").write_text('{"attempt": 4}')
    assert began(tmp_path, Owner.of(1, *FIRST))._owner == Owner.of(1, *FIRST)
    assert [path.name for path in (tmp_path / ".writers").iterdir()] == [
        "1.20261130T033311Z.0a1b-first.default.test"
    ]
    with pytest.raises(ConfigError, match="belongs to job default/test "):
        store(tmp_path, Owner.of(9, *NEIGHBOUR)).acquire()


def test_a_run_without_a_uid_goes_on_in_the_name_of_the_newest(tmp_path) -> None:
    """A run by hand on the folder of a job is its successor, as it was before there were UIDs."""
    began(tmp_path, Owner.of(3, *FIRST))
    by_hand = began(tmp_path, Owner.of(None))
    assert by_hand._owner == Owner.of(4, *FIRST)
    with pytest.raises(Fenced, match="attempt 4 owns"):
        store(tmp_path, Owner.of(3)).acquire()
    assert began(tmp_path, Owner.of(5))._owner == Owner.of(5, *FIRST)


@given(
    st.builds(
        lambda attempt, job: Owner.of(attempt, *job),
        st.integers(1, 10**9),
        st.sampled_from([("",), FIRST, ANEW, NEIGHBOUR, ("", "uid")]),
    )
)
def test_the_name_of_a_folder_says_all_of_its_owner(owner: Owner) -> None:
    for digits in (1, 8):
        read = parse_owner(owner.encode(digits))
        assert read == owner
        assert read.job == owner.job


@pytest.mark.parametrize(
    "name",
    ["", "x", "-1", "1.x.uid.a.b", "1..a/b.c.d", "1...a.b", "1..uid.a.b.c", "9" * 30, "\u0663"],
)
def test_other_names_are_no_owners(name: str) -> None:
    assert parse_owner(name) is None


@pytest.mark.parametrize(
    ("job", "uid", "created"),
    [("a/b", "../x", ""), ("a/../b", "uid", ""), ("a/b", "uid", "yesterday"), ("a", "uid", "")],
)
def test_an_environment_that_is_not_the_operators_is_refused(job, uid, created) -> None:
    with pytest.raises(ConfigError, match="not what the operator writes"):
        Owner.of(1, job, uid, created)


def began(root: Path, owner: Owner) -> FolderCheckpoints:
    writer = store(root, owner)
    writer.acquire()
    return writer


def test_leftovers_of_older_attempts_go(tmp_path) -> None:
    for attempt in (1, 2, 3):
        began(tmp_path, Owner.of(attempt))
        (tmp_path / ".writers" / str(attempt) / "half.tmp").write_bytes(b"half")
    assert [path.name for path in (tmp_path / ".writers").iterdir()] == ["3"]
    began(tmp_path, Owner.of(3))
    assert list((tmp_path / ".writers" / "3").iterdir()) == []


def test_a_file_that_is_still_open_elsewhere_on_nfs_keeps_nobody_out(tmp_path, monkeypatch) -> None:
    """NFS renames it to .nfs..., refuses to remove that, and so the folder around it."""
    for attempt in (1, 2):
        began(tmp_path, Owner.of(attempt))
        (tmp_path / ".writers" / str(attempt) / ".nfs0000000000a1b2c3").write_bytes(b"open")
    unlink = os.unlink

    def busy(path: Any, *arguments: Any, **keys: Any) -> None:
        if Path(path).name.startswith(".nfs"):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))
        unlink(path, *arguments, **keys)

    monkeypatch.setattr(os, "unlink", busy)
    monkeypatch.setattr(os, "remove", busy)
    save(began(tmp_path, Owner.of(2)), 10, 1)
    writer = began(tmp_path, Owner.of(3))
    found = writer.load()
    assert found is not None
    assert found["progress"]["step"] == 10
    save(writer, 20, 1)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EIO])
@pytest.mark.parametrize("kind", [stat.S_ISDIR, stat.S_ISREG], ids=["folder", "file"])
def test_a_file_system_that_cannot_sync_takes_checkpoints_all_the_same(
    tmp_path, monkeypatch, number, kind
) -> None:
    """A disk that has an error is another matter."""
    writer = began(tmp_path, Owner.of(1))
    fsync = os.fsync

    def refusing(descriptor: int) -> None:
        if kind(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refusing)
    if number == errno.EIO:
        with pytest.raises(OSError, match="Input/output error"):
            save(writer, 10, 1)
    else:
        save(writer, 10, 1)
        assert json.loads((tmp_path / "latest.json").read_text())["step"] == 10
