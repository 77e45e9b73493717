"""Reads lists: lines ``<file> <class index>``, and names of classes, one a line.

They come from editors, spreadsheets and shells of any system: with a byte order mark, with any
ends of lines, with blanks behind them, in UTF-16.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from typing import NamedTuple

from inception_trainer.errors import DataError, InputMissing
from inception_trainer.stores import AnyPath, is_url, place

from .ignored import Ignored, is_litter

MOST_CLASSES = 1_000_000
"""As ``data.numClasses`` has it: a larger number is a mistake, and its network fits nowhere."""
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Entry(NamedTuple):
    """One line of a list of files."""

    line: int
    name: str
    """As it is written."""
    label: int


def decode_text(data: bytes, source: object, errors: str = "strict") -> str:
    """The text of a file in UTF-8 or UTF-16; DataError when it is none."""
    try:
        if data.startswith(_UTF16):
            text = data.decode("utf-16")
        else:
            text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8", errors)
    except UnicodeDecodeError as error:
        raise DataError(f"{source} is no text in UTF-8: {error}") from None
    if "\0" in text:
        raise DataError(f"{source} is no text in UTF-8: it holds zero bytes")
    return text


def text_lines(path: AnyPath, errors: str = "strict") -> Iterator[tuple[int, str]]:
    """The lines of a text file that are not empty, by number, without the blanks around them."""
    text = decode_text(path.read_bytes(), f"data.path: {path}", errors)
    # newline=None: \n, \r\n and \r are ends of lines, and nothing else is. splitlines() would cut
    # names that hold some rarer characters.
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        stripped = line.strip()
        if stripped:
            yield number, stripped


def read_names(path: AnyPath) -> tuple[str, ...]:
    """One name of a class per line."""
    return tuple(name for _, name in text_lines(path))


def read_list(path: AnyPath, ignored: Ignored, classes: int = MOST_CLASSES) -> Iterator[Entry]:
    """The files of a list and their classes, less what is hidden.

    Raises DataError for the first line that is wrong, or whose class is not below ``classes``.
    """
    # Names of files need not be UTF-8: as they are, they lead back to the files.
    for number, line in text_lines(path, "surrogateescape"):
        # From the right: names of files may hold spaces.
        name, label = [*line.rsplit(maxsplit=1), ""][:2]
        # Python's isdigit is true of characters such as ², which are no numbers.
        if not (label.isascii() and label.isdigit()):
            raise DataError(
                f"data.path: {path} line {number}: {line!r} is not `<file> <class index>`"
            )
        if int(label) >= classes:
            raise DataError(
                f"data.path: {path} line {number}: {line!r} is not `<file> <class index>` with an "
                f"index from 0 to {classes - 1}"
            )
        name = name.removeprefix("./")
        if is_litter(name):
            ignored.hide(name)
        else:
            yield Entry(number, name, int(label))


class ListedPaths:
    """Turns names of a list into paths: below the first of ``folders`` that has the first file, or
    as they are where they are absolute.
    """

    def __init__(self, listing: AnyPath, folders: tuple[AnyPath, ...]) -> None:
        self._listing = listing
        self._folders = folders
        self._folder: AnyPath | None = None
        self._checks_absolute = True

    def __call__(self, name: str) -> str:
        """The path; raises InputMissing when the first of its kind is not there."""
        if name.startswith("/") or is_url(name):
            self._check_absolute(name)
            return name
        if self._folder is None:
            self._folder = self._find(name)
        return f"{self._folder}/{name}"

    # Only the first file is looked for: one look-up per image would be a million on NFS.

    def _find(self, first: str) -> AnyPath:
        for folder in self._folders:
            if (folder / first).is_file():
                return folder
        *others, last = self._folders
        places = f"neither in {others[0]} nor in {last}" if others else f"not in {last}"
        hint = ""
        if "\\" in first:
            hint = "; its backslashes are part of the name here: write folders with /"
        raise InputMissing(
            f"data.path: {self._listing.name} names {first}, which is {places}{hint}"
        )

    def _check_absolute(self, name: str) -> None:
        if self._checks_absolute and not place(name).is_file():
            raise InputMissing(
                f"data.path: {self._listing.name} names {name}, which is not there; an absolute "
                "path must lead to the same file in the container, so better write the names "
                f"relative to {self._listing.parent}"
            )
        self._checks_absolute = False
