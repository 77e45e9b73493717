"""The file of predictions: a row per image, as CSV or as a JSON object per line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from inception_trainer.errors import InputMissing
from inception_trainer.reporting.outputs import replacing

if TYPE_CHECKING:
    from .common import Run

DIGITS = 6
"""Decimals of a probability."""
SUFFIXES = {"CSV": "csv", "JSONL": "jsonl"}


@dataclass(frozen=True)
class Row:
    """One image; ``classes`` is None when it could not be read, else (number, name, probability),
    best first.
    """

    image: str
    label: str | None = None
    classes: tuple[tuple[int, str, float], ...] | None = None


class Writer:
    """Writes rows; without a file (all ranks but the first) it does nothing."""

    def __init__(
        self, path: Path | None, file: TextIO | None, form: str, count: int, labelled: bool
    ) -> None:
        self.path = path
        self.count = count
        """Classes of a row."""
        self._file = file
        self._json = form == "JSONL"
        self._labelled = labelled
        if file is not None and not self._json:
            csv.writer(file).writerow(self._header())

    def write(self, rows: Iterable[Row]) -> None:
        """Append the rows, in the order of the images."""
        if self._file is None:
            return
        if self._json:
            lines = (json.dumps(self._object(row), ensure_ascii=False) for row in rows)
            self._file.writelines(line + "\n" for line in lines)
        else:
            csv.writer(self._file).writerows(self._cells(row) for row in rows)

    def _header(self) -> list[str]:
        numbers = range(1, self.count + 1)
        kinds = ("class", "name", "probability")
        label = ["label"] if self._labelled else []
        return ["image", *label, *(f"{kind}{number}" for number in numbers for kind in kinds)]

    def _cells(self, row: Row) -> list[str]:
        cells = [row.image]
        if self._labelled:
            cells.append(row.label or "")
        # A row without classes is as long as the others: readers of CSV expect a rectangle.
        for number, name, value in row.classes or ((None, "", None),) * self.count:
            cells += [_text(number), name, _decimal(value)]
        return cells

    def _object(self, row: Row) -> dict[str, Any]:
        if row.classes is None:
            return {"image": row.image, "error": "cannot be read"}
        predictions = [
            {"class": number, "name": name, "probability": round(value, DIGITS)}
            for number, name, value in row.classes
        ]
        label = {"label": row.label} if self._labelled else {}
        return {"image": row.image, **label, "predictions": predictions}


def _text(value: int | None) -> str:
    return "" if value is None else str(value)


def _decimal(value: float | None) -> str:
    return "" if value is None else f"{value:.{DIGITS}f}"


@contextmanager
def open_writer(run: Run, count: int, labelled: bool) -> Iterator[Writer]:
    """A writer whose file appears under its name when everything is in it."""
    form = run.config.inference.format
    if not run.comm.is_first or run.output is None:
        yield Writer(None, None, form, count, labelled)
        return
    path = run.output / f"predictions.{SUFFIXES[form]}"
    with replacing(path, run.settings.attempt or 0) as draft:
        try:
            run.output.mkdir(parents=True, exist_ok=True)
            # Names of files may hold bytes that are no text: \udcff is such a byte in JSON, too.
            file = draft.open("w", encoding="utf-8", errors="backslashreplace", newline="")
        except OSError as error:
            raise InputMissing(f"output.path: {path} cannot be written: {error.strerror}") from None
        with file:
            yield Writer(path, file, form, count, labelled)
