"""The data set of the recovery figures: written by a script, read by the trainer; and how two final
checkpoints of the benchmark are compared.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from benchmarks.data import digits_folder
from benchmarks.recovery_compare import compare
from inception_trainer.config.training import from_mapping
from inception_trainer.data import open_splits


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "digits"
    digits_folder.write(folder, images=200, side=32, seed=0)
    return folder


def test_the_trainer_reads_what_the_script_has_written(digits: Path) -> None:
    splits = open_splits(from_mapping({"data": {"kind": "ImageFolder", "path": str(digits)}}))
    assert (len(splits.train), len(splits.val)) == (160, 40)
    assert splits.class_names == tuple("0123456789")


def test_the_same_numbers_give_the_same_files(digits: Path, tmp_path: Path) -> None:
    digits_folder.write(tmp_path / "same", images=200, side=32, seed=0)
    digits_folder.write(tmp_path / "other", images=200, side=32, seed=1)
    assert contents(tmp_path / "same") == contents(digits) != contents(tmp_path / "other")


def test_a_folder_that_is_there_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "digits"
    monkeypatch.setattr(sys, "argv", ["digits_folder.py", str(folder), "--images", "20"])
    digits_folder.main()
    before = contents(folder)
    assert (len(before), [path.name for path in tmp_path.iterdir()]) == (20, ["digits"])
    monkeypatch.setattr(sys, "argv", ["digits_folder.py", str(folder), "--images", "40"])
    digits_folder.main()
    assert "is there already" in capsys.readouterr().out
    assert contents(folder) == before


def state(parameter: float, momentum: float, mean: float) -> dict[str, object]:
    return {
        "model": {"w": torch.tensor([parameter]), "bn.running_mean": torch.tensor([mean])},
        "optimizer": {"name": "SGD", "momentum": {"w": torch.tensor([momentum])}},
        "rank_statistics": torch.tensor([[mean]]),
        "progress": {"step": 3},
    }


@pytest.mark.parametrize(
    ("other", "group", "differ", "most"),
    [
        (state(1, 2, 3), "parameters", 0, 0.0),
        (state(1.5, 2, 3), "parameters", 1, 0.5),
        (state(1, 4, 3), "optimizer", 1, 2.0),
        (state(1, 2, 4), "statistics", 2, 1.0),
        (state(1, 2, 3) | {"model": {}}, "parameters", 1, float("inf")),
    ],
    ids=["equal", "parameter", "momentum", "statistics", "missing"],
)
def test_checkpoints_are_compared_bit_by_bit(
    other: dict[str, object], group: str, differ: int, most: float
) -> None:
    found = compare(state(1, 2, 3), other)
    assert (found[group]["differ"], found[group]["most"]) == (differ, most)
    assert sum(found[name]["tensors"] for name in found) == 4
    differing = {name for name, counts in found.items() if counts["differ"]}
    assert differing <= {group, "statistics"}
