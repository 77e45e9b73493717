"""Checkpoints survive what happens to disks and processes, and only the newest attempt writes."""

import contextlib
import errno
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec.config
import pytest
import torch
from torch import nn

from inception_trainer import models, storage
from inception_trainer.checkpoint import checksums, folder
from inception_trainer.checkpoint.base import FORMAT, FailedSave
from inception_trainer.checkpoint.folder import FolderCheckpoints
from inception_trainer.checkpoint.owner import Owner
from inception_trainer.comm import Comm
from inception_trainer.config.normalization import INCEPTION
from inception_trainer.config.settings import from_environment
from inception_trainer.config.training import from_mapping
from inception_trainer.device import Accelerator
from inception_trainer.errors import DataError, Fenced, NonFiniteLoss, StorageFailed
from inception_trainer.reporting.records import Bus
from inception_trainer.train.build import open_store
from inception_trainer.train.state import Snapshot, TrainingState
from inception_trainer.train.step import OptimizerStep
from inception_trainer.weights.load import load_weights, open_weights


def small_checkpoint(step: int) -> dict:
    return {
        "format": FORMAT,
        "model": {"w": torch.full((1000,), float(step))},
        "progress": {"step": step},
    }


@pytest.fixture
def writer(tmp_path) -> FolderCheckpoints:
    writer = FolderCheckpoints(tmp_path, 1, keep=2)
    writer.acquire()
    return writer


def save(writer: FolderCheckpoints, *steps: int, **flags: bool) -> None:
    for step in steps:
        writer.save(small_checkpoint(step), step, **flags)
    writer.wait()


def names(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "checkpoints").iterdir() if path.suffix == ".pt")


def test_nothing_there_yet(writer) -> None:
    assert writer.load() is None


def test_round_trip_and_retention(writer, tmp_path) -> None:
    save(writer, 1, 2, 3)
    assert names(tmp_path) == ["step-000000002.pt", "step-000000003.pt"]
    loaded = writer.load()
    assert loaded["progress"] == {"step": 3}
    assert torch.equal(loaded["model"]["w"], torch.full((1000,), 3.0))
    latest = json.loads((tmp_path / "latest.json").read_text())
    assert (latest["file"], latest["step"]) == ("checkpoints/step-000000003.pt", 3)


def test_the_newest_step_is_known_without_reading_a_checkpoint(writer, tmp_path) -> None:
    assert writer.newest_step() == -1
    save(writer, 12, 3)
    for path in (tmp_path / "checkpoints").glob("*.pt"):
        path.write_bytes(b"")
    # The last one written, whatever its number.
    assert writer.newest_step() == 3
    (tmp_path / "latest.json").unlink()
    assert writer.newest_step() == 12


def test_a_checkpoint_of_an_earlier_version_loads_with_keys_that_nobody_reads_now(writer) -> None:
    writer.save(small_checkpoint(1) | {"rng": {"torch": torch.get_rng_state()}}, 1)
    writer.wait()
    assert writer.load()["progress"] == {"step": 1}


def test_best_and_final_outlive_their_step(writer, tmp_path) -> None:
    save(writer, 1, best=True)
    save(writer, 2, 3, 4)
    save(writer, 5, final=True)
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


@pytest.mark.parametrize(
    "damage", [truncate, flip_bit, Path.unlink, lambda path: path.write_bytes(b"")]
)
def test_damaged_newest_falls_back_to_the_one_before(writer, tmp_path, damage) -> None:
    save(writer, 1, 2)
    damage(tmp_path / "checkpoints" / "step-000000002.pt")
    assert writer.load()["progress"] == {"step": 1}


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"file": "checkpoints/none.pt", "sha256": "0"}']
)
def test_damaged_pointer_does_not_matter(writer, tmp_path, content) -> None:
    save(writer, 1, 2)
    (tmp_path / "latest.json").write_bytes(content)
    assert writer.load()["progress"] == {"step": 2}


@pytest.mark.parametrize(
    "name",
    [
        "../other/checkpoints/step-000000009.pt",
        "checkpoints/../../other/checkpoints/step-000000009.pt",
        "{other}/checkpoints/step-000000009.pt",
        "s3://bucket/other/checkpoints/step-000000009.pt",
        "file://{other}/checkpoints/step-000000009.pt",
        "checkpoints/best.pt",
        "checkpoints/step-000000009.pt\0",
        "checkpoints/step-000000009.pt\n",
        "checkpoints/" + "x" * 5000,
        "",
    ],
)
def test_the_pointer_never_leads_out_of_the_folder(tmp_path, caplog, name) -> None:
    other = FolderCheckpoints(tmp_path / "other", 1, keep=2)
    other.acquire()
    save(other, 9)
    writer = FolderCheckpoints(tmp_path / "job", 1, keep=2)
    writer.acquire()
    save(writer, 1)
    pointer = json.loads((tmp_path / "other" / "latest.json").read_text())
    pointer["file"] = name.format(other=tmp_path / "other")
    (tmp_path / "job" / "latest.json").write_text(json.dumps(pointer))
    assert writer.load()["progress"] == {"step": 1}
    assert "which is no checkpoint of" in caplog.text


def test_a_pointer_that_is_nested_without_end_does_not_matter(writer, tmp_path) -> None:
    save(writer, 1)
    (tmp_path / "latest.json").write_text("[" * 100_000)
    assert writer.load()["progress"] == {"step": 1}


def test_a_checkpoint_is_no_link_out_of_the_folder_and_no_pipe(tmp_path) -> None:
    other = FolderCheckpoints(tmp_path / "other", 1, keep=2)
    other.acquire()
    save(other, 9)
    writer = FolderCheckpoints(tmp_path / "job", 1, keep=2)
    writer.acquire()
    foreign = tmp_path / "other" / "checkpoints" / "step-000000009.pt"
    for suffix in ("", ".sha256"):
        link = tmp_path / "job" / "checkpoints" / f"{foreign.name}{suffix}"
        link.symlink_to(f"{foreign}{suffix}")
    (tmp_path / "job" / "latest.json").write_bytes((tmp_path / "other/latest.json").read_bytes())
    with pytest.raises(DataError, match=r"step-000000009\.pt: it is a link that leads out of"):
        writer.load()
    pipe = tmp_path / "job" / "checkpoints" / "step-000000010.pt"
    os.mkfifo(pipe)
    pipe.with_name(f"{pipe.name}.sha256").write_bytes(checksums.entry("0" * 64, pipe.name))
    with pytest.raises(DataError, match=r"step-000000010\.pt: it is no file"):
        writer.load()


def test_a_folder_that_is_itself_a_link_is_no_other_folder(tmp_path) -> None:
    (tmp_path / "large-disk").mkdir()
    (tmp_path / "job").symlink_to(tmp_path / "large-disk")
    writer = FolderCheckpoints(tmp_path / "job", 1, keep=2)
    writer.acquire()
    save(writer, 1)
    assert writer.load()["progress"] == {"step": 1}


def test_all_damaged_is_no_silent_beginning(writer, tmp_path) -> None:
    save(writer, 1, 2)
    for path in (tmp_path / "checkpoints").glob("step-*.pt"):
        flip_bit(path)
    with pytest.raises(DataError, match=r"step-000000002\.pt: its SHA-256"):
        writer.load()


def test_without_its_checksum_nobody_knows_whether_a_checkpoint_is_whole(
    writer, tmp_path, caplog
) -> None:
    """It is passed over with a word, and where there is no other one it is no silent beginning."""
    save(writer, 1, 2)
    (tmp_path / "latest.json").unlink()
    newest = tmp_path / "checkpoints" / "step-000000002.pt"
    checksums.beside(newest).write_bytes(b"")
    assert writer.load()["progress"] == {"step": 1}
    assert "step-000000002.pt.sha256 is missing or holds no checksum" in caplog.text
    for path in (tmp_path / "checkpoints").glob("*.sha256"):
        path.unlink()
    with pytest.raises(DataError, match=r"sha256sum step-000000002\.pt > step-000000002\.pt\.sha"):
        writer.load()
    # The remedy that the message tells.
    checksum = hashlib.sha256(newest.read_bytes()).hexdigest()
    checksums.beside(newest).write_bytes(checksums.entry(checksum, newest.name))
    assert writer.load()["progress"] == {"step": 2}


@pytest.mark.parametrize(
    ("damaged", "kept"),
    [
        ((), ["step-000000002.pt", "step-000000003.pt"]),
        ((3,), ["step-000000002.pt", "step-000000003.pt"]),
        ((2, 3), ["step-000000001.pt", "step-000000002.pt"]),
    ],
    ids=str,
)
def test_damaged_checkpoints_do_not_count_among_those_that_are_kept(
    tmp_path, damaged, kept
) -> None:
    before = FolderCheckpoints(tmp_path, 1, keep=3)
    before.acquire()
    save(before, 1, 2, 3)
    for step in damaged:
        flip_bit(tmp_path / "checkpoints" / f"step-{step:09d}.pt")
    writer = FolderCheckpoints(tmp_path, 2, keep=2)
    writer.acquire()
    step = writer.load()["progress"]["step"]
    save(writer, step + 1 if damaged else step)
    assert names(tmp_path) == kept


def test_steps_of_a_training_that_went_back_go_before_those_that_it_does_again(tmp_path) -> None:
    writer = FolderCheckpoints(tmp_path, 1, keep=3)
    writer.acquire()
    save(writer, 10, 20, 30, 14, 18)
    assert names(tmp_path) == [f"step-0000000{step}.pt" for step in (10, 14, 18)]


@pytest.mark.parametrize("pointer", ["as it was", "damaged"])
def test_the_same_step_saved_again_and_cut_off_anywhere_leaves_one_of_both(
    tmp_path, monkeypatch, pointer
) -> None:
    """As the final save of a job does that was stopped at its last step; what was cut off is not
    taken for all that a finished job leaves.
    """
    found = []
    for number in range(40):
        root = tmp_path / str(number)
        writer = FolderCheckpoints(root, 1, keep=1)
        writer.acquire()
        save(writer, 5)
        left = iter(range(number))

        def replace(
            path: Path, target: Path, left: Iterator[int] = left, original: Any = Path.rename
        ) -> Path:
            if next(left, None) is None:
                raise SystemExit
            return original(path, target)

        monkeypatch.setattr(Path, "replace", replace)
        was_cut = True
        with contextlib.suppress(SystemExit):
            again = small_checkpoint(5) | {"progress": {"step": 5, "summary": {}}}
            writer.commit(again, 5, True, True)
            was_cut = False
        monkeypatch.undo()
        if pointer == "damaged":
            (root / "latest.json").write_bytes(b"")
        successor = FolderCheckpoints(root, 2, keep=1)
        successor.acquire()
        is_final = "summary" in successor.load()["progress"]
        found.append(is_final)
        assert successor.is_settled == (pointer == "as it was" and not (is_final and was_cut))
        if not was_cut:
            break
    assert found == sorted(found)
    assert found.count(True) > 5


@pytest.mark.parametrize("bad", [(2,), (1, 2)], ids=str)
def test_a_file_that_the_disk_cannot_read_any_more_is_passed_over(
    writer, tmp_path, monkeypatch, bad
) -> None:
    """Unless none can be read: then it is the disk, which may come back."""
    save(writer, 1, 2)
    read = Path.read_bytes

    def broken(path: Path) -> bytes:
        if path.name in [f"step-{step:09d}.pt" for step in bad]:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", broken)
    monkeypatch.setattr(storage, "PATIENCE", 0.1)
    monkeypatch.setattr(folder, "LITTLE_PATIENCE", 0.1)
    if bad == (2,):
        assert writer.load()["progress"] == {"step": 1}
    else:
        with pytest.raises(StorageFailed, match=r"step-000000002\.pt: EIO"):
            writer.load()


def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(
    writer, tmp_path, monkeypatch
) -> None:
    save(writer, 1)
    (tmp_path / "latest.json").unlink()
    (tmp_path / "checkpoints" / "step-mine.pt").write_bytes(b"of somebody else")
    assert writer.load()["progress"] == {"step": 1}

    def refused(path: Any = ".") -> Any:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "listdir", refused)
    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(PermissionError):
        writer.load()


def test_half_written_files_are_invisible_and_removed(writer, tmp_path) -> None:
    save(writer, 1)
    leftover = tmp_path / "checkpoints" / ".step-000000002.pt.1.tmp"
    leftover.write_bytes(b"half")
    successor = FolderCheckpoints(tmp_path, 2, keep=2)
    successor.acquire()
    assert not leftover.exists()
    assert successor.load()["progress"] == {"step": 1}


def test_foreign_objects_are_not_unpickled(writer, tmp_path) -> None:
    save(writer, 1)
    writer.save(small_checkpoint(2) | {"bad": Path("code")}, 2)
    writer.wait()
    assert writer.load()["progress"] == {"step": 1}


def test_older_attempt_is_fenced(writer, tmp_path) -> None:
    save(writer, 1)
    FolderCheckpoints(tmp_path, 2, keep=2).acquire()
    writer.save(small_checkpoint(5), 5)
    with pytest.raises(Fenced, match=r"attempt 2 owns .*; attempt 1 must not write") as caught:
        writer.wait()
    assert caught.value.exit_code == 1
    assert json.loads((tmp_path / "latest.json").read_text())["step"] == 1
    with pytest.raises(Fenced):
        FolderCheckpoints(tmp_path, 1, keep=2).acquire()


def test_fence_holds_between_writing_and_publishing(writer, tmp_path, monkeypatch) -> None:
    save(writer, 1)
    original = folder._write_tensors

    def overtaken(*arguments):
        FolderCheckpoints(tmp_path, 2, keep=2).acquire()
        return original(*arguments)

    monkeypatch.setattr(folder, "_write_tensors", overtaken)
    writer.save(small_checkpoint(5), 5)
    with pytest.raises(Fenced):
        writer.wait()
    assert names(tmp_path) == ["step-000000001.pt"]


def test_same_attempt_may_come_again_and_no_number_means_the_next(writer, tmp_path) -> None:
    assert FolderCheckpoints(tmp_path, 1, keep=2).acquire() == 1
    assert FolderCheckpoints(tmp_path, None, keep=2).acquire() == 2
    assert FolderCheckpoints(tmp_path, None, keep=2).acquire() == 3


def test_write_error_is_raised_by_the_next_call(writer, monkeypatch) -> None:
    def forbidden(*_arguments):
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(folder, "_write_tensors", forbidden)
    writer.save(small_checkpoint(1), 1)
    with pytest.raises(OSError, match="Permission denied"):
        writer.wait()


# Saving while training goes on.


class Tiny:
    """A network that changes, and its state."""

    def __init__(self, **changes) -> None:
        config = from_mapping({"data": {"kind": "Synthetic"}, **changes})
        accelerator = Accelerator("cpu", torch.device("cpu"), "gloo", "FP32", "test")
        self.network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.network.to(memory_format=torch.channels_last)
        self.state = TrainingState(
            self.network, OptimizerStep(config, self.network, accelerator), Comm(0, 1, "gloo")
        )

    def fill(self, value: float) -> None:
        for tensor in (*self.network.parameters(), *self.network.buffers()):
            tensor.data.fill_(value if tensor.is_floating_point() else 1)

    def snapshot(self) -> Snapshot:
        snapshot = self.state.snapshot()
        assert snapshot is not None
        return snapshot


def checkpoint_of(snapshot: Snapshot, step: int) -> dict:
    return {"format": FORMAT, **snapshot.tensors, "progress": {"step": step}}


def test_training_goes_on_while_a_checkpoint_is_written(writer, monkeypatch) -> None:
    """The writer is held until the next steps are done: what it writes is the state of the moment
    of the save.
    """
    go_on, original = threading.Event(), folder._write_tensors
    monkeypatch.setattr(
        folder, "_write_tensors", lambda *arguments: go_on.wait(30) and original(*arguments)
    )
    tiny = Tiny(weightAverage={"decay": 0.9})
    tiny.fill(1)
    snapshot = tiny.snapshot()
    writer.save(checkpoint_of(snapshot, 1), 1, complete=snapshot.complete)
    assert writer.busy
    tiny.fill(2)
    go_on.set()
    writer.wait()
    saved = writer.load()
    assert {float(value.float().mean()) for value in saved["model"].values()} == {1}
    assert saved["model"]["0.weight"].is_contiguous(memory_format=torch.channels_last)
    assert saved["rank_statistics"].tolist() == [[1.0] * 8]


def test_memory_is_used_again_only_when_the_write_before_is_done(writer, monkeypatch) -> None:
    go_on, original, records = threading.Event(), folder._write_tensors, []
    monkeypatch.setattr(
        folder, "_write_tensors", lambda *arguments: go_on.wait(30) and original(*arguments)
    )
    monkeypatch.setattr(writer, "_saved", records.append)
    tiny = Tiny()
    addresses = []
    for step in (1, 2):
        threading.Timer(0.05, go_on.set).start()
        writer.reserve()
        assert not writer.busy
        tiny.fill(step)
        snapshot = tiny.snapshot()
        addresses.append(snapshot.tensors["model"]["0.weight"].data_ptr())
        writer.save(checkpoint_of(snapshot, step), step, complete=snapshot.complete)
    writer.wait()
    assert addresses[0] == addresses[1]
    files = sorted(writer._folder.glob("step*.pt"))
    assert [float(torch.load(path, weights_only=True)["model"]["0.bias"][0]) for path in files] == [
        1,
        2,
    ]
    first, second = records
    assert first.stalled_seconds < second.stalled_seconds <= second.seconds


def test_weights_that_cannot_be_used_are_not_saved(writer) -> None:
    tiny = Tiny()
    save(writer, 1)
    tiny.fill(float("nan"))
    snapshot = tiny.snapshot()
    writer.save(checkpoint_of(snapshot, 2), 2, complete=snapshot.complete)
    with pytest.raises(NonFiniteLoss, match="the last checkpoint is kept"):
        writer.reserve()
    assert writer.load()["progress"] == {"step": 1}


# The weights alone.


def trained(value: float, **extra) -> dict:
    network = models.create("bninception", 4)
    state = {name: torch.full_like(tensor, value) for name, tensor in network.state_dict().items()}
    preprocessing = {**INCEPTION.as_dict(), "imageSize": 64}
    known = {
        "preprocessing": preprocessing,
        "class_names": list("abcd"),
        "config": {"model": {"name": "bninception"}},
    }
    return small_checkpoint(7) | {"model": state} | known | extra


@pytest.mark.parametrize(("averaged", "expected"), [(False, 1.0), (True, 2.0)])
def test_the_final_weights_are_there_as_safetensors(writer, tmp_path, averaged, expected) -> None:
    content = trained(1.0, **({"average": {"model": trained(2.0)["model"]}} if averaged else {}))
    writer.save(content, 7, final=True)
    writer.wait()
    path = tmp_path / "checkpoints" / "final.safetensors"
    assert hashlib.sha256(path.read_bytes()).hexdigest() in checksums.beside(path).read_text()
    network = models.create("bninception", 4)
    assert load_weights(network, "bninception", path, may_unpickle=True).normalization == INCEPTION
    assert {float(value.float().mean()) for value in network.state_dict().values()} == {expected}
    file = open_weights("bninception", path, may_unpickle=True)
    assert (file.content["class_names"], file.content["progress"]["step"]) == (list("abcd"), 7)
    assert file.content["preprocessing"]["imageSize"] == 64


@pytest.mark.parametrize(
    ("text", "is_checksum"),
    [
        ("{sum}  w.pt\n", True),
        ("{sum} *w.pt\r\n", True),
        ("{SUM}  w.pt", True),
        ("SHA256 (w.pt) = {sum}\n", True),
        ("SHA2-256(w.pt)= {sum}\n", True),
        ("\nAlgorithm : SHA256\nHash      : {SUM}\nPath      : C:\\w.pt\n", True),
        ("", False),
        ("<html>not here</html>", False),
        ("{sum}0  w.pt", False),
    ],
)
def test_checksums_are_read_as_the_programs_write_them_that_make_them(
    tmp_path, text, is_checksum
) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(b"weights")
    checksum = checksums.file_sha256(path)
    written = text.format(sum=checksum, SUM=checksum.upper())
    checksums.beside(path).write_text(written, newline="")
    assert checksums.recorded(path) == ((checksum,) if is_checksum else ())
    checksums.check(path)


@pytest.mark.parametrize("name", ["final.safetensors", "best.pt"])
def test_damaged_weights_are_refused(writer, tmp_path, name) -> None:
    writer.save(trained(1.0), 7, best=True, final=True)
    writer.wait()
    flip_bit(tmp_path / "checkpoints" / name)
    with pytest.raises(
        DataError, match=rf"{name} is damaged: its SHA-256 is .*{name}\.sha256 says"
    ):
        open_weights("bninception", tmp_path / "checkpoints" / name, may_unpickle=True)


def test_a_reader_finds_the_checksum_of_the_best_at_every_moment_of_its_replacement(
    writer, tmp_path
) -> None:
    best = tmp_path / "checkpoints" / "best.pt"
    save(writer, 1, best=True)
    publish, checked = writer._fence.publish, []

    def watched(draft: Path, path: Path) -> None:
        for act in (lambda: None, lambda: publish(draft, path)):
            act()
            checksums.check(best)
            checked.append(path.name)

    writer._fence.publish = watched
    save(writer, 2, best=True)
    assert checked.count("best.pt") == 2
    assert len(checksums.recorded(best)) == 1


def test_a_reader_whose_checkpoint_is_replaced_between_two_reads_finds_no_damage(
    writer, tmp_path, monkeypatch
) -> None:
    best = tmp_path / "checkpoints" / "best.pt"
    save(writer, 1, best=True)
    read, replaced = checksums.file_sha256, []

    def replacing(path: Path) -> str:
        if not replaced:
            replaced.append(path)
            save(writer, 2, best=True)
        return read(path)

    monkeypatch.setattr(checksums, "file_sha256", replacing)
    checksums.check(best)
    assert replaced == [best]


# The environment of a pod.

POD = {
    "INCEPTION_ATTEMPT": "2",
    "INCEPTION_JOB": "team-a/digits",
    "INCEPTION_JOB_UID": "0a1b",
    "INCEPTION_JOB_CREATED": "2026-11-30T03:33:11Z",
}


@pytest.mark.parametrize("path", ["{}/place", "memory://runs/place", "file://{}/place"])
def test_the_pod_of_a_job_writes_in_the_name_of_its_uid(tmp_path, path) -> None:
    config = from_mapping(
        {"data": {"kind": "Synthetic"}, "checkpoint": {"path": path.format(tmp_path)}}
    )
    bus, told = Bus(), []
    bus.checkpoint_failed = told.append  # type: ignore[method-assign]
    store = open_store(config, from_environment(POD), bus)
    assert store is not None
    assert store.acquire() == 2
    assert store._owner == Owner.of(2, "team-a/digits", "0a1b", "2026-11-30T03:33:11Z")
    assert store._owner.job == "team-a/digits"
    assert store.other is None
    store.failed(FailedSave(1, "full"))
    assert told == [FailedSave(1, "full")]
    assert open_store(config, from_environment(POD | {"RANK": "1"}), bus) is None


@pytest.mark.parametrize("store", ["file://{}/{}", "local://{}/{}"])
def test_a_job_made_anew_finds_what_its_predecessor_left_without_a_namespace(
    tmp_path, store, monkeypatch
) -> None:
    """Through the variables of the pod, in a folder and in a store."""
    monkeypatch.setitem(fsspec.config.conf, "local", {"auto_mkdir": True})
    flat, own = (store.format(tmp_path, name) for name in ("digits", "team-a/digits"))

    def opened(path: str, **environ: str):
        config = from_mapping({"data": {"kind": "Synthetic"}, "checkpoint": {"path": path}})
        found = open_store(config, from_environment(environ), Bus())
        assert found is not None
        found.acquire()
        return found, found.load()

    old, _ = opened(flat, INCEPTION_ATTEMPT="3")
    save(old, 7)
    anew, checkpoint = opened(own, **POD, INCEPTION_OTHER_CHECKPOINT_PATH=flat)
    assert checkpoint["progress"]["step"] == 7
    save(anew, 8)
    _, checkpoint = opened(own, **POD, INCEPTION_OTHER_CHECKPOINT_PATH=flat)
    assert checkpoint["progress"]["step"] == 8
    _, checkpoint = opened(flat, INCEPTION_ATTEMPT="4")
    assert checkpoint["progress"]["step"] == 7
