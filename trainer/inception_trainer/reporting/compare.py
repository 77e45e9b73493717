"""Two runs side by side: where their configurations differ, and what came out.

A run is the folder that holds ``config.yaml`` and ``summary.json``, or the checkpoint folder above
it.
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


@dataclass(frozen=True)
class RunFiles:
    """What a run left behind, flattened; ``summary`` is empty while it has not ended."""

    folder: Path
    config: Mapping[str, Any]
    summary: Mapping[str, Any]


def compare(one: Path, two: Path) -> str:
    """The table as text; raises InputMissing for a folder without a run, DataError for files that
    cannot be read.
    """
    runs = (read(one), read(two))
    parts = [f"A  {runs[0].folder}\nB  {runs[1].folder}"]
    parts += [
        f"{run.folder} has no summary.json: that run has not ended"
        for run in runs
        if not run.summary
    ]
    differences = list(_differences(*runs))
    if differences:
        parts.append(_table(("configuration", "A", "B", ""), differences))
    else:
        parts.append("The configurations are equal.")
    figures = list(_figures(*runs))
    if figures:
        parts.append(_table(("figure", "A", "B", "B - A"), figures))
    return "\n\n".join(parts)


def read(path: Path) -> RunFiles:
    """Find the files of the run at ``path``."""
    for folder in (path, path / "output"):
        if (folder / "config.yaml").is_file():
            config = _mapping(folder / "config.yaml")
            summary = folder / "summary.json"
            return RunFiles(
                folder, flat(config), flat(_mapping(summary)) if summary.is_file() else {}
            )
    what = (
        "holds no config.yaml, neither directly nor in output/" if path.is_dir() else "is no folder"
    )
    raise InputMissing(f"{path} {what}; name the output or checkpoint folder of a run")


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
    keys = [*one.config, *(key for key in two.config if key not in one.config)]
    for key in keys:
        values = one.config.get(key), two.config.get(key)
        if values[0] != values[1] and key not in PLACES:
            yield key, _shown(values[0]), _shown(values[1]), ""


def _figures(one: RunFiles, two: RunFiles) -> Iterator[Row]:
    for key, name in FIGURES.items():
        values = one.summary.get(key), two.summary.get(key)
        if values != (None, None):
            yield name, _shown(values[0]), _shown(values[1]), _difference(*values)


def _difference(one: Any, two: Any) -> str:
    if not all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in (one, two)
    ):
        return ""
    return f"{two - one:+.6g}" if two != one else "0"


def _shown(value: Any) -> str:
    if value is None:
        return ABSENT
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _table(head: Row, rows: Iterable[Row]) -> str:
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
