"""Checkpoints survive what happens to disks and processes, and only the newest attempt writes."""

import json
from pathlib import Path

import pytest
import torch

from inception_trainer import checkpoint
from inception_trainer.checkpoint import FORMAT, CheckpointStore, check_fingerprint
from inception_trainer.errors import ConfigError, DataError, Fenced


def payload(step: int) -> dict:
    return {"format": FORMAT, "model": {"w": torch.full((1000,), float(step))}, "progress": {"step": step}}


@pytest.fixture
def store(tmp_path) -> CheckpointStore:
    store = CheckpointStore(tmp_path, 1, keep=2)
    store.acquire()
    return store


def save(store: CheckpointStore, *steps: int, **flags: bool) -> None:
    for step in steps:
        store.save(payload(step), step, **flags)
    store.wait()


def names(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "checkpoints").iterdir() if path.suffix == ".pt")


def test_nothing_there_yet(store) -> None:
    assert store.load() is None


def test_round_trip_and_retention(store, tmp_path) -> None:
    save(store, 1, 2, 3)
    assert names(tmp_path) == ["step-000000002.pt", "step-000000003.pt"]
    loaded = store.load()
    assert loaded["progress"] == {"step": 3}
    assert torch.equal(loaded["model"]["w"], torch.full((1000,), 3.0))
    latest = json.loads((tmp_path / "latest.json").read_text())
    assert (latest["file"], latest["step"]) == ("checkpoints/step-000000003.pt", 3)


def test_best_and_final_outlive_their_step(store, tmp_path) -> None:
    save(store, 1, best=True)
    save(store, 2, 3, 4)
    save(store, 5, final=True)
    assert names(tmp_path) == ["best.pt", "final.pt", "step-000000004.pt", "step-000000005.pt"]
    best = torch.load(tmp_path / "checkpoints" / "best.pt", weights_only=True)
    assert best["progress"] == {"step": 1}
    for name in names(tmp_path):
        assert (tmp_path / "checkpoints" / f"{name}.sha256").read_text().split()[1] == name


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, flip_bit, Path.unlink, lambda path: path.write_bytes(b"")])
def test_damaged_newest_falls_back_to_the_one_before(store, tmp_path, damage) -> None:
    save(store, 1, 2)
    damage(tmp_path / "checkpoints" / "step-000000002.pt")
    assert store.load()["progress"] == {"step": 1}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"file": "checkpoints/none.pt", "sha256": "0"}'])
def test_damaged_pointer_does_not_matter(store, tmp_path, content) -> None:
    save(store, 1, 2)
    (tmp_path / "latest.json").write_bytes(content)
    assert store.load()["progress"] == {"step": 2}


def test_all_damaged_is_no_silent_beginning(store, tmp_path) -> None:
    save(store, 1, 2)
    for path in (tmp_path / "checkpoints").glob("step-*.pt"):
        flip_bit(path)
    with pytest.raises(DataError, match=r"step-000000002\.pt: its SHA-256"):
        store.load()


def test_half_written_files_are_invisible_and_removed(store, tmp_path) -> None:
    save(store, 1)
    leftover = tmp_path / "checkpoints" / ".step-000000002.pt.1.tmp"
    leftover.write_bytes(b"half")
    successor = CheckpointStore(tmp_path, 2, keep=2)
    successor.acquire()
    assert not leftover.exists()
    assert successor.load()["progress"] == {"step": 1}


def test_foreign_objects_are_not_unpickled(store, tmp_path) -> None:
    save(store, 1)
    store.save(payload(2) | {"bad": Path("code")}, 2)
    store.wait()
    assert store.load()["progress"] == {"step": 1}


def test_older_attempt_is_fenced(store, tmp_path) -> None:
    save(store, 1)
    CheckpointStore(tmp_path, 2, keep=2).acquire()
    store.save(payload(5), 5)
    with pytest.raises(Fenced, match=r"attempt 2 owns .*; attempt 1 must not write") as caught:
        store.wait()
    assert caught.value.exit_code == 1
    assert json.loads((tmp_path / "latest.json").read_text())["step"] == 1
    with pytest.raises(Fenced):
        CheckpointStore(tmp_path, 1, keep=2).acquire()


def test_fence_holds_between_writing_and_publishing(store, tmp_path, monkeypatch) -> None:
    save(store, 1)
    original = checkpoint._serialise

    def overtaken(*arguments):
        CheckpointStore(tmp_path, 2, keep=2).acquire()
        return original(*arguments)

    monkeypatch.setattr(checkpoint, "_serialise", overtaken)
    store.save(payload(5), 5)
    with pytest.raises(Fenced):
        store.wait()
    assert names(tmp_path) == ["step-000000001.pt"]


def test_same_attempt_may_come_again_and_no_number_means_the_next(store, tmp_path) -> None:
    assert CheckpointStore(tmp_path, 1, keep=2).acquire() == 1
    assert CheckpointStore(tmp_path, None, keep=2).acquire() == 2
    assert CheckpointStore(tmp_path, None, keep=2).acquire() == 3


def test_write_error_is_raised_by_the_next_call(store, monkeypatch) -> None:
    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_serialise", full)
    store.save(payload(1), 1)
    with pytest.raises(OSError, match="No space left"):
        store.wait()


def test_another_configuration_is_refused_with_the_difference(tmp_path) -> None:
    saved = {"seed": 0, "batch.global": 64, "epochs": 3}
    check_fingerprint(saved, dict(saved), tmp_path)
    with pytest.raises(ConfigError, match=r"batch\.global: 64 in the checkpoint, 32 now; momentum: None") as caught:
        check_fingerprint(saved, saved | {"batch.global": 32, "momentum": 0.9}, tmp_path)
    assert "seed" not in str(caught.value)
