"""``compare RUN RUN``: what differs between two runs, and errors that say what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from inception_trainer import cli
from inception_trainer.config.training import from_mapping
from inception_trainer.errors import DataError, InputMissing

SUMMARY = {
    "exitReason": "Completed",
    "steps": 20,
    "accuracyTop1": 0.75,
    "bestAccuracyTop1": 0.8,
    "bestStep": 10,
}


def run(folder: Path, summary: dict[str, Any] | None = None, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    config = from_mapping(
        {"recipe": "bninception-digits", "output": {"path": str(folder)}, **changes}
    )
    (folder / "config.yaml").write_text(yaml.safe_dump(config.as_dict()))
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def compared(capsys, *runs: Path) -> list[str]:
    assert cli.main(["compare", *map(str, runs)]) == 0
    lines: list[str] = capsys.readouterr().out.splitlines()
    return lines


def cells(lines: list[str], name: str) -> list[str]:
    [line] = [line for line in lines if line.startswith(f"{name}  ")]
    return line.removeprefix(name).split()


def test_differences_and_figures(tmp_path, capsys) -> None:
    one = run(tmp_path / "one", SUMMARY)
    two = run(
        tmp_path / "two",
        SUMMARY | {"accuracyTop1": 0.7, "imagesPerSecond": 10.5},
        seed=7,
        precision="BF16",
    )
    lines = compared(capsys, one, two)
    assert cells(lines, "seed") == ["0", "7"]
    assert cells(lines, "precision") == ["FP32", "BF16"]
    assert not [line for line in lines if line.startswith(("output.path", "epochs "))]
    assert cells(lines, "final top-1") == ["0.75", "0.7", "-0.05"]
    assert cells(lines, "best top-1") == ["0.8", "0.8", "0"]
    assert cells(lines, "images/s") == ["-", "10.5"]
    assert cells(lines, "ended as") == ["Completed", "Completed"]


def test_equal_configurations_and_a_run_that_goes_on(tmp_path, capsys) -> None:
    one = run(tmp_path / "job" / "output").parent
    lines = compared(capsys, one, run(tmp_path / "other", SUMMARY))
    assert "The configurations are equal." in lines
    assert f"{one / 'output'} has no summary.json: that run has not ended" in lines
    assert cells(lines, "steps") == ["-", "20"]


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        (
            lambda folder: (folder / "config.yaml").unlink(),
            InputMissing,
            "holds no config.yaml, neither directly",
        ),
        (
            lambda folder: folder.rename(folder.with_name("gone")),
            InputMissing,
            "is no folder; name the output or",
        ),
        (
            lambda folder: (folder / "config.yaml").write_text("{"),
            DataError,
            "config.yaml cannot be read",
        ),
        (
            lambda folder: (folder / "summary.json").write_text("[1]"),
            DataError,
            "summary.json holds list",
        ),
    ],
    ids=["no run", "no folder", "no YAML", "no mapping"],
)
def test_errors(tmp_path, capsys, damage, error, words) -> None:
    one, two = run(tmp_path / "one", SUMMARY), run(tmp_path / "two", SUMMARY)
    damage(two)
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", str(one), str(two)])
    assert ended.value.code == error.exit_code
    assert words in capsys.readouterr().err


def test_it_needs_two_runs(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", "one"])
    assert ended.value.code == 64
