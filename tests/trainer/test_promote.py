"""Promoting a checkpoint: what is there afterwards, what is refused, what nothing takes away."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import object_store
from inception_trainer import cli
from inception_trainer.checkpoint import checksums, promote
from inception_trainer.checkpoint.base import FORMAT, Checkpoint
from inception_trainer.checkpoint.folder import FolderCheckpoints
from inception_trainer.checkpoint.object_store import ObjectStoreCheckpoints
from inception_trainer.checkpoint.promote import Request
from inception_trainer.checkpoint.safetensors_file import read
from inception_trainer.errors import ConfigError, DataError, InputMissing, TrainerError
from inception_trainer.launcher import linux
from inception_trainer.stores import Remote, is_url, place

pytestmark = pytest.mark.timeout(120)


def checkpoint(step: int) -> Checkpoint:
    return {
        "format": FORMAT,
        "version": "0.1.0",
        "model": {"weight": torch.full((2, 3), float(step))},
        "config": {"model": {"name": "bninception"}},
        "progress": {"step": step},
        "preprocessing": {"imageSize": 32},
        "class_names": ["cat", "dog"],
    }


def train(root: str, *steps: int, best: int = 0, keep: int = 2, attempt: int = 1) -> None:
    """Leave the checkpoints that a training with these steps leaves."""
    where = place(root)
    kinds = {True: ObjectStoreCheckpoints, False: FolderCheckpoints}
    writer: Any = kinds[is_url(root)](where, attempt, keep)
    writer.acquire()
    writer.load()
    for step in steps:
        writer.save(checkpoint(step), step, best=step == best)
        writer.wait()


@pytest.fixture(params=["folder", *object_store.STORES])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "folder":
        return str(tmp_path / "job")
    return object_store.new_place(request.param, tmp_path, monkeypatch)


def content(folder: Path | Remote) -> dict[str, bytes]:
    if isinstance(folder, Remote):
        return {str(file)[len(str(folder)) + 1 :]: file.read_bytes() for file in folder.files()}
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_the_best_is_promoted_whole_and_outlives_the_training(root: str, tmp_path: Path) -> None:
    train(root, 1, 2, 3, best=2)
    about = promote.promote(Request(root))
    assert (about["name"], about["step"], about["isNew"]) == ("step-000000002", 2, True)
    promoted = place(root) / "promoted"
    before = content(promoted)
    assert before.keys() == {
        "current.json",
        *(
            f"step-000000002/{name}"
            for name in (promote.ABOUT, promote.CHECKPOINT, promote.WEIGHTS)
        ),
        *(f"step-000000002/{name}.sha256" for name in (promote.CHECKPOINT, promote.WEIGHTS)),
    }
    for name in (promote.CHECKPOINT, promote.WEIGHTS):
        sha256 = hashlib.sha256(before[f"step-000000002/{name}"]).hexdigest()
        assert about["files"][name] == sha256
        assert before[f"step-000000002/{name}.sha256"] == checksums.entry(sha256, name)
    current = json.loads(before["current.json"])
    assert before[f"{current['weights']}"] == before["step-000000002/model.safetensors"]
    assert current["sha256"] == about["files"][promote.WEIGHTS]
    file = tmp_path / "weights.safetensors"
    file.write_bytes(before["step-000000002/model.safetensors"])
    weights = read(file)
    assert torch.equal(weights["model"]["weight"], torch.full((2, 3), 2.0))
    assert weights["class_names"] == ["cat", "dog"]
    # A later attempt prunes all that was there, and has another best one.
    train(root, 4, 5, 6, 7, best=6, keep=1, attempt=2)
    assert content(promoted) == before
    # The copy is one that a training can go on from.
    copy = tmp_path / "copy.pt"
    copy.write_bytes(before["step-000000002/checkpoint.pt"])
    assert torch.load(copy, weights_only=True)["progress"]["step"] == 2


def test_a_step_a_file_and_the_newest_can_be_asked_for(root: str) -> None:
    train(root, 1, 2, 3)
    assert promote.promote(Request(root))["step"] == 3
    assert promote.promote(Request(root, "2", name="good"))["name"] == "good"
    current = json.loads(content(place(root) / "promoted")["current.json"])
    assert (current["name"], current["step"]) == ("good", 2)
    with pytest.raises(InputMissing, match=r"no checkpoint (of step )?1"):
        promote.promote(Request(root, "1"))
    with pytest.raises(InputMissing, match=r"no checkpoint .*best\.pt"):
        promote.promote(Request(root, "best.pt"))


def test_the_newest_is_found_without_a_pointer_to_it(tmp_path: Path) -> None:
    train(str(tmp_path), 1, 2, 3)
    (tmp_path / "latest.json").unlink()
    assert promote.promote(Request(str(tmp_path)))["step"] == 3


def test_again_makes_it_the_current_one_and_a_name_is_never_given_twice(root: str) -> None:
    train(root, 1, 2)
    promote.promote(Request(root, "1"))
    promote.promote(Request(root, "2"))
    first = content(place(root) / "promoted")
    again = promote.promote(Request(root, "1"))
    assert again["isNew"] is False
    after = content(place(root) / "promoted")
    assert json.loads(after.pop("current.json"))["step"] == 1
    first.pop("current.json")
    assert after == first
    with pytest.raises(ConfigError, match="another checkpoint already; choose another --name"):
        promote.promote(Request(root, "2", name="step-000000001"))


def test_another_place_may_be_a_folder_or_a_store(root: str, tmp_path: Path) -> None:
    train(root, 1)
    for target in (str(tmp_path / "serve" / "digits"), f"memory://serve/{tmp_path.name}"):
        about = promote.promote(Request(root, target=target))
        assert about["place"] == f"{target}/step-000000001"
        assert len(content(place(target))) == 6
    assert "promoted" not in {each.split("/")[0] for each in content(place(root))}


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "x\n"])
def test_what_is_no_name_is_refused(name: str, tmp_path: Path) -> None:
    train(str(tmp_path), 1)
    for request in (Request(str(tmp_path), name), Request(str(tmp_path), name=name)):
        with pytest.raises(ConfigError, match="is no name"):
            promote.promote(request)


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_damaged_checkpoint_is_not_promoted_and_nothing_is_left(tmp_path: Path) -> None:
    train(str(tmp_path), 1, 2)
    damage(tmp_path / "checkpoints" / "step-000000002.pt")
    with pytest.raises(DataError, match="is damaged"):
        promote.promote(Request(str(tmp_path)))
    (tmp_path / "checkpoints" / "step-000000001.pt.sha256").unlink()
    with pytest.raises(DataError, match="no checksum beside it"):
        promote.promote(Request(str(tmp_path), "1"))
    assert content(tmp_path / "promoted") == {}


def test_a_checkpoint_that_is_replaced_meanwhile_is_taken_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(str(tmp_path), 1, best=1)
    real, calls = promote.link_or_copy, []

    def replaced(path: Path, copy: Path) -> None:
        real(path, copy)
        if not calls:
            calls.append(path)
            train(str(tmp_path), 2, best=2, attempt=2)

    monkeypatch.setattr(promote, "link_or_copy", replaced)
    assert promote.promote(Request(str(tmp_path), "best.pt"))["step"] == 2


def test_a_link_that_leads_out_and_a_file_of_others_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "job"
    train(str(root), 1)
    (tmp_path / "secret.pt").write_bytes(b"x")
    (root / "checkpoints" / "link.pt").symlink_to(tmp_path / "secret.pt")
    with pytest.raises(DataError, match="leads out"):
        promote.promote(Request(str(root), "link.pt"))
    foreign = root / "checkpoints" / "foreign.pt"
    torch.save({"format": 99}, foreign)
    sha256 = checksums.file_sha256(foreign)
    checksums.beside(foreign).write_bytes(checksums.entry(sha256, foreign.name))
    with pytest.raises(DataError, match="no checkpoint of this trainer"):
        promote.promote(Request(str(root), "foreign.pt"))


def test_a_training_beside_it_is_not_killed_for_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(str(tmp_path), 1)
    monkeypatch.setattr(promote, "left_in_cgroup", lambda: 100)
    with pytest.raises(ConfigError, match="so that the training is not killed"):
        promote.promote(Request(str(tmp_path)))
    # Nor by the import of PyTorch, which comes before.
    monkeypatch.setattr(linux, "left_in_cgroup", lambda: cli.PYTORCH_BYTES - 1)
    with pytest.raises(SystemExit) as caught:
        cli.main(["promote", str(tmp_path)])
    assert caught.value.code == ConfigError.exit_code


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    train(str(tmp_path), 1)
    (tmp_path / "promoted").write_text("a file")
    with pytest.raises(TrainerError, match="promoted cannot be used"):
        promote.promote(Request(str(tmp_path)))


def test_the_command_says_what_it_did_and_ends_with_the_code_of_its_error(tmp_path: Path) -> None:
    train(str(tmp_path), 1)
    command = [sys.executable, "-m", "inception_trainer", "promote", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["name"] == "step-000000001"
    failed = subprocess.run([*command, "7"], capture_output=True, text=True, check=False)
    assert failed.returncode == InputMissing.exit_code
    assert failed.stderr.startswith("InputMissing: there is no checkpoint of step 7")
