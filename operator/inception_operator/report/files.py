"""A report from the files that a run leaves in its output folder, without any cluster.

They are summary.json, config.yaml and raport.json, lines of ``DLLL `` and a JSON object that cover
all attempts (docs/architecture/names.md). Each may be missing, cut short or of another's making.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

from inception_operator.contract.decoding import MalformedError, decode
from inception_operator.contract.types import Json

from .content import Chart, Curve, Point, Report, Restart, Span
from .figures import number

PREFIX: Final = "DLLL "
MOST_BYTES: Final = 64 * 1024 * 1024
"""Of one file; what lies behind is not read."""
_MOST_CONFIGURATION: Final = 256 * 1024
# Title, unit, and by the name of a curve: the figure, and what makes it a ratio.
_CHARTS: Final = (
    ("Loss", "", {"training": ("train.loss", 1.0), "validation": ("val.loss", 1.0)}),
    ("Accuracy", "%", {"top-1": ("val.top1", 0.01), "top-5": ("val.top5", 0.01)}),
    ("Throughput", "images/s", {"training": ("train.total_ips", 1.0)}),
    ("Learning rate", "", {"learning rate": ("train.lr", 1.0)}),
)
Line = tuple[float, Json, Json]
"""Time in seconds since 1970, the whole record, and its data."""


def read(folder: Path, made: datetime) -> Report:
    """What a folder says of its run: the output folder itself, or the job's directory above it."""
    inner = folder / "output"
    output = inner if inner.is_dir() and not inner.is_symlink() else folder
    notes: list[str] = []
    summary = _summary(output / "summary.json", notes)
    lines = list(_lines(output / "raport.json", notes))
    attempts = [line for line in lines if line[1].get("step") == "PARAMETER"]
    job = summary.get("job")
    return Report(
        title=job if isinstance(job, str) and job else folder.resolve().name,
        made=made,
        sources=(f"from the files in {folder}",),
        summary=summary,
        configuration=_text(output / "config.yaml", _MOST_CONFIGURATION, notes),
        charts=tuple(_charts([line for line in lines if line not in attempts])),
        spans=tuple(_spans(attempts, lines)),
        restarts=tuple(_restarts(attempts)),
        notes=tuple(notes),
    )


def _summary(path: Path, notes: list[str]) -> Json:
    text = _text(path, MOST_BYTES, notes)
    try:
        found = decode(text) if text else {}
    except MalformedError as error:
        notes.append(f"{path.name} cannot be read: {error}")
        return {}
    return found if isinstance(found, dict) else {}


def _text(path: Path, most: int, notes: list[str]) -> str:
    try:
        # Whoever wrote the folder must not make the reader wait at a pipe, nor put another file of
        # the reader's into a page that is passed on.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                notes.append(f"{path.name} is no file")
                return ""
            text = file.read(most + 1)
    except OSError as error:
        notes.append(f"{path.name} cannot be read: {error.strerror}")
        return ""
    if len(text) > most:
        notes.append(f"{path.name} is read up to its first {most} bytes")
    return text[:most].decode(errors="replace")


def _lines(path: Path, notes: list[str]) -> Iterator[Line]:
    unread = 0
    for text in _text(path, MOST_BYTES, notes).splitlines():
        try:
            record = decode(text.removeprefix(PREFIX))
            time = number(record["timestamp"])
            logged = record["type"] == "LOG"
        except (MalformedError, KeyError, TypeError):
            # The last line of a file that is cut, or a figure that is no finite number.
            unread += 1
            continue
        if logged and time is not None and isinstance(record.get("data"), dict):
            yield time, record, record["data"]
    if unread:
        notes.append(f"{unread} lines of {path.name} cannot be read")


def _charts(lines: list[Line]) -> Iterator[Chart]:
    for title, unit, wanted in _CHARTS:
        curves = (
            Curve(name, tuple(_points(lines, figure, factor)))
            for name, (figure, factor) in wanted.items()
        )
        yield Chart(title, unit, tuple(curves))


def _points(lines: list[Line], figure: str, factor: float) -> Iterator[Point]:
    # What is logged at [epoch] repeats the means of its steps, and at [] the last figures.
    long = 2 if figure.startswith("train.") else 1
    for time, record, data in lines:
        step, value = record.get("step"), number(data.get(figure))
        if isinstance(step, list) and len(step) == long and value is not None:
            yield time, value * factor


def _spans(attempts: list[Line], lines: list[Line]) -> Iterator[Span]:
    ends = [time for time, _, _ in attempts[1:]] + [max((line[0] for line in lines), default=0.0)]
    for (begin, _, data), end in zip(attempts, ends, strict=False):
        if end > begin:
            yield Span(f"attempt {data.get('attempt')}", begin, end)


def _restarts(attempts: list[Line]) -> Iterator[Restart]:
    for time, _, data in attempts[1:]:
        yield Restart(time, "", f"attempt {data.get('attempt')} begins")
