"""The data set of the recovery figures: written by a script, read by the trainer; and how two final
checkpoints of the benchmark are compared.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.recovery_compare import compare
from inception_trainer.config.training import from_mapping
from inception_trainer.data import open_splits

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "data" / "digits_folder.py"


def write(folder: Path, *more: str) -> str:
    argv = [sys.executable, str(SCRIPT), str(folder), "--images", "200", *more]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_trainer_reads_what_the_script_has_written(tmp_path: Path) -> None:
    write(tmp_path / "digits")
    splits = open_splits(
        from_mapping({"data": {"kind": "ImageFolder", "path": str(tmp_path / "digits")}})
    )
    assert (len(splits.train), len(splits.val)) == (160, 40)
    assert splits.class_names == tuple("0123456789")
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_the_same_numbers_give_the_same_files(tmp_path: Path) -> None:
    write(tmp_path / "one")
    write(tmp_path / "same")
    write(tmp_path / "other", "--seed", "1")
    one = contents(tmp_path / "one")
    assert one == contents(tmp_path / "same")
    assert one != contents(tmp_path / "other")
    said = write(tmp_path / "one", "--seed", "1")
    assert "is there already" in said
    assert one == contents(tmp_path / "one")


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
