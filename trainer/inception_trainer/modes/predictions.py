"""The file of predictions: a row per image, as a table or as a JSON object per line."""

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
        self.path, self._file = path, file
        self._json, self._count, self._labelled = form == "JSONL", count, labelled
        if file is not None and not self._json:
            csv.writer(file).writerow(self._header())

    def write(self, rows: Iterable[Row]) -> None:
        """Append the rows."""
        if self._file is None:
            return
        if self._json:
            self._file.writelines(
                json.dumps(self._object(row), ensure_ascii=False) + "\n" for row in rows
            )
        else:
            csv.writer(self._file).writerows(self._cells(row) for row in rows)

    def _header(self) -> list[str]:
        numbers = range(1, self._count + 1)
        columns = [
            f"{name}{number}" for number in numbers for name in ("class", "name", "probability")
        ]
        return ["image", *(["label"] if self._labelled else []), *columns]

    def _cells(self, row: Row) -> list[str]:
        classes = row.classes or ((None, "", None),) * self._count
        cells = [
            cell
            for number, name, value in classes
            for cell in (_text(number), name, _decimal(value))
        ]
        return [row.image, *([row.label or ""] if self._labelled else []), *cells]

    def _object(self, row: Row) -> dict[str, Any]:
        if row.classes is None:
            return {"image": row.image, "error": "cannot be read"}
        predictions = [
            {"class": number, "name": name, "probability": round(value, DIGITS)}
            for number, name, value in row.classes
        ]
        return {
            "image": row.image,
            **({"label": row.label} if self._labelled else {}),
            "predictions": predictions,
        }


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
            file = draft.open("w", encoding="utf-8", newline="")
        except OSError as error:
            raise InputMissing(f"output.path: {path} cannot be written: {error.strerror}") from None
        with file:
            yield Writer(path, file, form, count, labelled)
