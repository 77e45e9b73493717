"""The command ``compare``: where the configurations of two runs differ, and what came out.

A run is the folder that holds ``config.yaml`` and ``summary.json``, or the checkpoint folder above
it. Both are written by ``sinks/files.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from inception_trainer.config.training import flat
from inception_trainer.errors import DataError, InputMissing

PLACES = ("checkpoint.path", "output.path")
"""Keys that say where a run lies, not what it is."""
FIGURES = {
    "exitReason": "ended as",
    "steps": "steps",
    "epochs": "epochs",
    "samplesSeen": "samples seen",
    "accuracyTop1": "final top-1",
    "accuracyTop5": "final top-5",
    "loss": "final loss",
    "bestAccuracyTop1": "best top-1",
    "bestStep": "best at step",
    "skippedSamples": "unreadable samples",
    "skippedSteps": "skipped steps",
    "imagesPerSecond": "images/s",
    "imagesPerSecondPerDevice": "images/s per device",
    "dataWaitRatio": "share of waiting for data",
    "wallSeconds": "wall time in s",
    "attempts": "attempts",
    "parameters": "parameters",
    "precision": "precision",
    "worldSize": "ranks",
    "device": "device",
    "versions.trainer": "trainer",
    "versions.torch": "torch",
}
"""Keys of summary.json that are shown, in this order, with their names there."""
ABSENT = "-"
Row = tuple[str, str, str, str]
"""Name, value of run A, value of run B, difference."""


@dataclass(frozen=True)
class RunFiles:
    """What a run left behind, with flat keys such as ``optimizer.name``.

    ``summary`` is empty for a run that has not ended.
    """

    folder: Path
    config: Mapping[str, Any]
    summary: Mapping[str, Any]


def compare(one: Path, two: Path) -> str:
    """Both runs as tables of text, A and B side by side.

    Raises InputMissing for a folder without a run, DataError for files that cannot be read.
    """
    run_one = read(one)
    run_two = read(two)
    parts = [f"A  {run_one.folder}\nB  {run_two.folder}"]
    running = [run for run in (run_one, run_two) if not run.summary]
    parts += [f"{run.folder} has no summary.json: that run has not ended" for run in running]
    differences = list(_differences(run_one, run_two))
    if differences:
        parts.append(_table(("configuration", "A", "B", ""), differences))
    else:
        parts.append("The configurations are equal.")
    figures = list(_figures(run_one, run_two))
    if figures:
        parts.append(_table(("figure", "A", "B", "B - A"), figures))
    return "\n\n".join(parts)


def read(path: Path) -> RunFiles:
    """Read the files of the run at ``path``; raises InputMissing and DataError."""
    for folder in (path, path / "output"):
        if (folder / "config.yaml").is_file():
            config = _mapping(folder / "config.yaml")
            summary_file = folder / "summary.json"
            summary = _mapping(summary_file) if summary_file.is_file() else {}
            return RunFiles(folder, flat(config), flat(summary))
    problem = "is no folder"
    if path.is_dir():
        problem = "holds no config.yaml, neither directly nor in output/"
    raise InputMissing(f"{path} {problem}; name the output or checkpoint folder of a run")


def _mapping(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, Mapping):
        raise DataError(f"{path} holds {type(content).__name__} instead of a mapping")
    return content


def _differences(one: RunFiles, two: RunFiles) -> Iterator[Row]:
    # In the order of the first run's file, so that sections stay together.
    keys = [*one.config, *(key for key in two.config if key not in one.config)]
    for key in keys:
        value_one = one.config.get(key)
        value_two = two.config.get(key)
        if value_one != value_two and key not in PLACES:
            yield key, _shown(value_one), _shown(value_two), ""


def _figures(one: RunFiles, two: RunFiles) -> Iterator[Row]:
    for key, name in FIGURES.items():
        value_one = one.summary.get(key)
        value_two = two.summary.get(key)
        # Each mode has figures of its own.
        if value_one is not None or value_two is not None:
            difference = _difference(value_one, value_two)
            yield name, _shown(value_one), _shown(value_two), difference


def _difference(one: Any, two: Any) -> str:
    """Two minus one, with its sign; empty for values that are no numbers."""
    if not _is_number(one) or not _is_number(two):
        return ""
    return f"{two - one:+.6g}" if two != one else "0"


def _is_number(value: Any) -> bool:
    # In Python a bool is an int.
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    if value is None:
        return ABSENT
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _table(head: Row, rows: Iterable[Row]) -> str:
    """Rows below their head as text, each column as wide as its widest cell."""
    table = [head, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    lines = []
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
