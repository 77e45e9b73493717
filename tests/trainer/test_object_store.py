"""Checkpoints in an object store: whatever an older attempt does, at whatever moment, what the
newest one has stays.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inception_trainer.checkpoint import base, object_store
from inception_trainer.checkpoint.base import SaveRecord
from inception_trainer.checkpoint.object_store import ObjectStoreCheckpoints, Record
from inception_trainer.checkpoint.owner import Owner
from inception_trainer.errors import ConfigError, DataError, Fenced, StorageFailed, StoreFailed
from inception_trainer.stores import Remote, translated_errors
from interruption import ANEW, FIRST, LINES, NEIGHBOUR, Interruption, small_checkpoint
from object_store import STORES, new_place

pytestmark = pytest.mark.timeout(300)
OPERATIONS = ("iterdir", "read_bytes", "write_bytes", "write", "copy", "remove")


@pytest.fixture(params=STORES)
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Remote]:
    """Makes roots below which nothing is yet."""
    return lambda: Remote(new_place(request.param, tmp_path, monkeypatch))


def checkpoints_in(
    root: Remote,
    owner: Owner | int | None,
    keep: int = 1,
    saved: Callable[[SaveRecord], None] | None = None,
) -> ObjectStoreCheckpoints:
    """``owner`` may be the number of an attempt of a run that knows no UID."""
    known = owner if isinstance(owner, Owner) else Owner.of(owner)
    return ObjectStoreCheckpoints(root, None, keep, saved, known)


def begun(root: Remote, owner: Owner | int | None, keep: int = 1) -> ObjectStoreCheckpoints:
    writer = checkpoints_in(root, owner, keep)
    writer.acquire()
    writer.load()
    return writer


def step_and_writer(root: Remote, owner: Owner | int) -> tuple[int, int] | None:
    reader = checkpoints_in(root, owner)
    reader.acquire()
    found = reader.load()
    return None if found is None else (found["progress"]["step"], int(found["model"]["w"][0]))


def objects(root: Remote, owner: Owner | int) -> dict[str, bytes]:
    """All that readers of this attempt look at."""
    known = owner if isinstance(owner, Owner) else Owner.of(owner)
    folder = root / "attempts" / known.encode(8)
    return {name: (folder / name).read_bytes() for name in folder.names()}


def test_what_is_there_is_taken_over_unread_when_the_state_comes_from_elsewhere(place) -> None:
    root = place()
    first = begun(root, 1)
    assert first.newest_step() == -1
    first.save(small_checkpoint(5, 1), 5, best=True)
    first.wait()
    second = checkpoints_in(root, 2)
    second.acquire()
    assert second.newest_step() == 5
    second.adopt_in_background()
    second.wait()
    assert step_and_writer(root, 3) == (5, 1)
    third = begun(root, 4)
    third.save(small_checkpoint(9, 4), 9)
    third.wait()
    assert step_and_writer(root, 5) == (9, 4)


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], Any]], Interruption]:
    hooks: list[Interruption] = []

    def watched(name: str) -> Callable[..., Any]:
        original = getattr(Remote, name)

        def call(self: Remote, *arguments: Any) -> Any:
            for hook in hooks:
                hook()
            return original(self, *arguments)

        return call

    for name in OPERATIONS:
        monkeypatch.setattr(Remote, name, watched(name))

    def install(number: int, takeover: Callable[[], Any]) -> Interruption:
        hooks[:] = [Interruption(number, takeover)]
        return hooks[0]

    return install


def everywhere(place: Callable[[], Remote]) -> Iterator[tuple[int, Remote]]:
    for number in range(200):
        yield number, place()


@pytest.fixture(params=LINES)
def line(request: pytest.FixtureRequest) -> list[Owner]:
    """An owner, its successor, and the successor of that."""
    return LINES[request.param]


def test_a_save_that_was_interrupted_anywhere_changes_nothing(place, interrupt, line) -> None:
    """The successor takes over and saves while an attempt is in the middle of a save, which then
    goes on.
    """
    interrupted = 0
    for number, root in everywhere(place):
        zombie = begun(root, line[0])
        zombie.commit(small_checkpoint(10, 1), 10, True, False)
        left: dict[str, bytes] = {}

        def takeover(root: Remote = root, left: dict[str, bytes] = left) -> None:
            successor = begun(root, line[1])
            successor.commit(small_checkpoint(15, 2), 15, True, True)
            left.update(objects(root, line[1]))

        happened = interrupt(number, takeover)
        zombie.save(small_checkpoint(20, 1), 20, best=True, final=True)
        with contextlib.suppress(Fenced):
            zombie.wait()
        if not happened.happened:
            break
        interrupted += 1
        assert objects(root, line[1]) == left, (
            f"operation {number} of an older attempt went through"
        )
        with pytest.raises(Fenced):
            zombie.commit(small_checkpoint(30, 1), 30, True, True)
        # What knows no UID goes on in the name of the newest: its own number is all it has.
        if line[0].uid or line[0].attempt < line[1].attempt:
            with pytest.raises(Fenced):
                checkpoints_in(root, line[0]).acquire()
        assert object_store.best_of(root) is not None
        assert step_and_writer(root, line[2]) == (15, 2)
        assert [name for owner in line[:2] for name in objects(root, owner)] == []
    assert interrupted > 5


@pytest.mark.parametrize(
    ("mine", "other"), [(FIRST, NEIGHBOUR), (NEIGHBOUR, FIRST)], ids=["older", "newer"]
)
def test_two_jobs_that_begin_at_once_never_both_have_the_place(
    place, interrupt, mine, other
) -> None:
    """The other job begins and saves at any moment while this one does."""
    outcomes = set()
    for number, root in everywhere(place):
        has_it = dict.fromkeys(("mine", "other"), False)

        def begin(who: str, job: tuple[str, ...], has_it: Any = has_it, root: Any = root) -> None:
            with contextlib.suppress(ConfigError, Fenced):
                begun(root, Owner.of(1, *job)).commit(small_checkpoint(5, 1), 5, True, True)
                has_it[who] = True

        happened = interrupt(number, lambda begin=begin: begin("other", other))
        begin("mine", mine)
        if not happened.happened:
            break
        assert not all(has_it.values())
        outcomes.add((has_it["mine"], has_it["other"]))
        if any(has_it.values()):
            owner, loser = (mine, other) if has_it["mine"] else (other, mine)
            with pytest.raises(ConfigError, match=f"belongs to job {owner[0]} "):
                checkpoints_in(root, Owner.of(2, *loser)).acquire()
        else:
            # Both have seen the other: whoever comes next is not kept out by what they left.
            begun(root, Owner.of(2, *mine))
    assert {(True, False), (False, True)} <= outcomes


def test_a_job_made_anew_goes_on_at_once_and_the_one_before_never_again(place) -> None:
    root = place()
    begun(root, Owner.of(12, *FIRST)).commit(small_checkpoint(10, 1), 10, True, False)
    assert step_and_writer(root, Owner.of(1, *ANEW)) == (10, 1)
    for attempt in (12, 13, 99):
        with pytest.raises(Fenced, match=r"attempt 1 of job default/test \(UID 0a1b-anew\) owns "):
            checkpoints_in(root, Owner.of(attempt, *FIRST)).acquire()


def test_a_place_of_another_job_is_refused_until_somebody_gives_it_away(place) -> None:
    root = place()
    owner = Owner.of(3, *FIRST)
    begun(root, owner).commit(small_checkpoint(10, 1), 10, True, False)
    left = objects(root, owner)
    with pytest.raises(ConfigError, match="belongs to job default/test ") as refusal:
        begun(root, Owner.of(1, *NEIGHBOUR))
    folder = root / "attempts" / owner.encode(8)
    assert f"if job default/test is gone, remove {folder}" in str(refusal.value)
    assert objects(root, owner) == left
    for name in folder.names():
        (folder / name).remove()
    assert step_and_writer(root, Owner.of(1, *NEIGHBOUR)) is None


@pytest.mark.parametrize("saves", [0, 1], ids=["nothing before", "a checkpoint before"])
def test_taking_over_late_changes_nothing(place, interrupt, saves) -> None:
    """Attempt 2 is stopped while it takes over from 1; attempt 3 takes over and saves, then 2 goes
    on.
    """
    interrupted = 0
    for number, root in everywhere(place):
        first = begun(root, 1)
        for _ in range(saves):
            first.commit(small_checkpoint(10, 1), 10, True, False)
        left: dict[str, bytes] = {}

        def takeover(root: Remote = root, left: dict[str, bytes] = left) -> None:
            begun(root, 3).commit(small_checkpoint(15, 3), 15, True, False)
            left.update(objects(root, 3))

        happened = interrupt(number, takeover)
        zombie = checkpoints_in(root, 2)
        try:
            zombie.acquire()
            zombie.load()
            zombie.commit(small_checkpoint(20, 2), 20, True, True)
        except Fenced:
            pass
        if not happened.happened:
            break
        interrupted += 1
        assert objects(root, 3) == left
        assert step_and_writer(root, 4) == (15, 3)
    assert interrupted > 8


def test_a_predecessor_that_goes_on_saving_takes_nothing_from_its_successor(
    place, interrupt
) -> None:
    """While 2 takes over, at whatever moment, 1 saves and prunes what 2 was about to read."""
    interrupted = 0
    for number, root in everywhere(place):
        predecessor = begun(root, 1)
        predecessor.commit(small_checkpoint(10, 1), 10, True, False)

        def goes_on(predecessor: ObjectStoreCheckpoints = predecessor) -> None:
            try:
                for step in (20, 30):
                    predecessor.commit(small_checkpoint(step, 1), step, True, False)
            except Fenced:
                pass

        # A check of the fence is no protection: let it go through as if it had come a moment
        # earlier.
        predecessor.check_fence = lambda: None  # type: ignore[method-assign]
        happened = interrupt(number, goes_on)
        successor = checkpoints_in(root, 2)
        successor.acquire()
        found = successor.load()
        if not happened.happened:
            break
        interrupted += 1
        assert found is not None
        step = found["progress"]["step"]
        assert step in (10, 30)
        predecessor.commit(small_checkpoint(40, 1), 40, True, False)
        # What 2 began from is now its own, whatever 1 writes and prunes.
        assert step_and_writer(root, 3) == (step, 1)
        assert object_store.best_of(root) is not None
    assert interrupted > 5


def test_keep_best_final_and_weights(place) -> None:
    root = place()
    writer = begun(root, 1, keep=2)
    for step in (1, 2, 3, 4, 5):
        writer.commit(small_checkpoint(step, 1), step, step == 2, step == 5)
    names = sorted(name.split("-")[1] for name in objects(root, 1) if name.endswith(".pt"))
    assert names == ["000000002", "000000004", "000000005"]
    found = object_store.best_of(root)
    assert found is not None
    assert found[0].startswith("step-000000002-")
    successor = begun(root, None, keep=2)
    assert successor._owner.attempt == 2
    record = json.loads(objects(root, 2)["record.json"])
    assert [entry["step"] for entry in record["kept"]] == [5]
    assert (record["best"]["step"], record["final"]["step"]) == (2, 5)
    assert objects(root, 1) == {}


def test_a_damaged_checkpoint_is_passed_over(place, caplog) -> None:
    root = place()
    writer = begun(root, 1, keep=2)
    for step in (1, 2):
        writer.commit(small_checkpoint(step, 1), step, False, False)
    folder = root / "attempts" / "00000001"
    (folder / writer._record.kept[1].file).write_bytes(b"damaged")
    assert step_and_writer(root, 1) == (1, 1)
    assert "trying the one before" in caplog.text
    (folder / writer._record.kept[0].file).write_bytes(b"damaged")
    with pytest.raises(
        DataError, match=r"none of the checkpoints in .*attempts/00000001 can be read"
    ):
        begun(root, 2)


def test_objects_that_someone_removed_are_passed_over(place) -> None:
    root = place()
    writer = begun(root, 1, keep=2)
    for step in (1, 2):
        writer.commit(small_checkpoint(step, 1), step, False, False)
    (root / "attempts" / "00000001" / writer._record.kept[1].file).remove()
    assert step_and_writer(root, 2) == (1, 1)


def test_an_unreadable_record_is_named(place) -> None:
    root = place()
    begun(root, 1)
    (root / "attempts" / "00000001" / "record.json").write_bytes(b"{")
    with pytest.raises(DataError, match=r"00000001/record\.json cannot be read"):
        begun(root, 2)


@pytest.mark.parametrize(
    "name", ["../00000001/x.pt", "/etc/passwd", "a/b.pt", "", "..", "x::s3://other/x.pt", "x" * 300]
)
def test_a_record_never_leads_out_of_its_folder(place, name) -> None:
    root = place()
    writer = begun(root, 1)
    writer.commit(small_checkpoint(1, 1), 1, True, True)
    path = root / "attempts" / "00000001" / "record.json"
    for key in ("kept", "best", "final", "weights"):
        record = json.loads(writer._record.encode())
        changed = record[key][0] if key == "kept" else record[key]
        changed["file"] = name
        path.write_bytes(json.dumps(record).encode())
        with pytest.raises(DataError, match="is no name of an object of this attempt"):
            begun(root, 2)
    with pytest.raises(DataError, match="is no name of an object of this attempt"):
        object_store.best_of(root)


def test_a_full_store_gives_up_its_oldest_checkpoints_first(place, monkeypatch) -> None:
    """The store takes no third checkpoint beside two; the only one is never given up."""
    root = place()
    writer = begun(root, Owner.of(1, *FIRST), keep=3)
    original = Remote.write
    most = {"checkpoints": 2}

    def bounded(path: Remote, fill: Any) -> None:
        names = [name for name in path.parent.names() if name.endswith(".pt")]
        if len(names) >= most["checkpoints"]:
            raise StoreFailed(f"{path}: OSError: 507 Insufficient Storage")
        original(path, fill)

    monkeypatch.setattr(Remote, "write", bounded)
    kept = []
    for step in (1, 2, 3, 4):
        writer.save(small_checkpoint(step, 1), step)
        writer.wait()
        kept.append([entry.step for entry in writer._record.kept])
    assert kept == [[1], [1, 2], [2, 3], [3, 4]]
    most["checkpoints"] = 1
    monkeypatch.setattr(base, "RETRY_PAUSES", ())
    writer.save(small_checkpoint(5, 1), 5)
    with pytest.raises(StorageFailed, match="make room, or raise the quota"):
        writer.wait()
    assert step_and_writer(root, Owner.of(2, *FIRST)) == (4, 1)


def test_credentials_that_may_not_delete_save_all_the_same(place, monkeypatch, caplog) -> None:
    """What is too much stays, each attempt says so once, and the newest is found."""

    def refused(path: Remote) -> None:
        with translated_errors(str(path)):
            raise PermissionError("AccessDenied")

    monkeypatch.setattr(Remote, "remove", refused)
    root = place()
    for attempt in (1, 2):
        writer = begun(root, attempt)
        for step in (1, 2, 3):
            writer.save(small_checkpoint(10 * attempt + step, attempt), 10 * attempt + step)
            writer.wait()
        assert not writer.make_room()
        assert caplog.text.count("what is no longer needed stays: ") == attempt
    assert step_and_writer(root, 3) == (23, 2)
    assert len([name for name in objects(root, 2) if name.endswith(".pt")]) == 4


def test_a_job_made_anew_goes_on_from_where_version_0_1_kept_its_checkpoints(place) -> None:
    old, root = place(), place()
    begun(old, 3).commit(small_checkpoint(10, 1), 10, True, False)
    anew = checkpoints_in(root, Owner.of(1, *FIRST))
    anew.other = old
    anew.acquire()
    found = anew.load()
    assert found is not None
    assert found["progress"]["step"] == 10
    anew.commit(small_checkpoint(20, 1), 20, True, False)
    # What lies at the old place stays, and nobody looks at it again.
    assert step_and_writer(old, 4) == (10, 1)
    later = checkpoints_in(root, Owner.of(2, *FIRST))
    later.other = old
    later.acquire()
    found = later.load()
    assert found is not None
    assert found["progress"]["step"] == 20


@pytest.mark.parametrize("known", ["its owner", "who has finished there"])
def test_what_another_job_has_left_at_the_old_place_is_not_taken(place, known) -> None:
    old, root = place(), place()
    neighbours = small_checkpoint(10, 1)
    owner = Owner.of(3)
    if known == "its owner":
        owner = Owner.of(3, *NEIGHBOUR)
    else:
        neighbours["progress"]["summary"] = {"job": NEIGHBOUR[0]}
    begun(old, owner).commit(neighbours, 10, True, True)
    left = objects(old, owner)
    anew = checkpoints_in(root, Owner.of(1, *FIRST))
    anew.other = old
    anew.acquire()
    assert anew.load() is None
    assert objects(old, owner) == left


def test_nothing_there(place) -> None:
    root = place()
    assert object_store.best_of(root) is None
    writer = checkpoints_in(root, None)
    assert writer.acquire() == 1
    assert writer.load() is None


def test_a_save_reports_and_raises(place, monkeypatch) -> None:
    root, saved, failed = place(), [], []
    writer = checkpoints_in(root, 1, saved=saved.append)
    writer.acquire()
    writer.load()
    writer.save(small_checkpoint(1, 1), 1)
    writer.wait()
    assert saved[0].step == 1
    assert saved[0].size > 500

    def full(*_arguments: Any) -> None:
        raise StoreFailed("no room")

    monkeypatch.setattr(Remote, "write", full)
    monkeypatch.setattr(base, "RETRY_PAUSES", (0.01,))
    writer.failed = failed.append
    writer.save(small_checkpoint(2, 1), 2)
    with pytest.raises(StorageFailed, match=r"step 2 cannot be written .*no room"):
        writer.wait()
    assert [record.step for record in failed] == [2, 2]
    assert step_and_writer(root, 2) == (1, 1)


def test_a_checkpoint_that_is_kept_for_good_goes_with_every_attempt(place) -> None:
    root = place()
    first = begun(root, 1, keep=1)
    for step in (1, 2, 3):
        kept_epoch = 7 if step == 2 else None
        first.commit(small_checkpoint(step, 1), step, False, False, kept_epoch)
    second = begun(root, 2, keep=1)
    second.commit(small_checkpoint(4, 2), 4, False, False)
    record = json.loads((root / "attempts" / "00000002" / "record.json").read_bytes())
    assert {epoch: stored["step"] for epoch, stored in record["epochs"].items()} == {"7": 2}
    steps = sorted(name[5:14] for name in objects(root, 2) if name.startswith("step-"))
    assert steps == ["000000002", "000000004"]


def test_a_record_of_version_0_1_names_no_epochs() -> None:
    old = {"kept": [], "best": None, "final": None, "weights": None}
    assert Record.decode(json.dumps(old).encode()) == Record()
