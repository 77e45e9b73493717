"""Many short texts in one piece of memory, for names of files.

A list of a million strings is a million objects, and Python writes to the reference count of each
that it looks at. Loader workers share the memory of their rank only until somebody writes to it: so
every worker would end up with a copy of the list. Here there is nothing to count.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator
from itertools import accumulate, islice

import numpy as np
from numpy.typing import NDArray

SEPARATOR = "\0"
"""The one letter that no name of a file holds."""


class TextTable:
    """Texts by their number from 0; each is made anew when it is asked for."""

    def __init__(self, data: bytes, ends: NDArray[np.int64]) -> None:
        self._data = data
        self._ends = ends
        """With which byte each text ends; the next one begins there."""

    def __len__(self) -> int:
        return len(self._ends)

    def encoded(self, index: int) -> bytes:
        """The text as bytes, as the file system has it."""
        begin = int(self._ends[index - 1]) if index else 0
        return self._data[begin : int(self._ends[index])]

    def content(self) -> Iterator[bytes]:
        """All of it, for a digest: equal for equal texts in an equal order."""
        yield self._data
        yield self._ends.astype("<i8").tobytes()

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return len(self._data) + self._ends.nbytes


class TextTableBuilder:
    """Collects texts, one after the other."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._ends = array("q")

    def __len__(self) -> int:
        return len(self._ends)

    def extend(self, texts: Iterable[str]) -> int:
        """Add texts, which hold no zero bytes; returns how many they were."""
        collected = list(texts)
        if not collected:
            return 0
        # As names of files come from the system and go back to it, whatever their encoding. All at
        # once, because a call for each of a million names takes a second.
        encoded = os.fsencode(SEPARATOR.join(collected)).split(SEPARATOR.encode())
        ends = accumulate(map(len, encoded), initial=len(self._data))
        self._ends.extend(islice(ends, 1, None))
        self._data += b"".join(encoded)
        return len(encoded)

    def build(self) -> TextTable:
        """All texts; the builder is empty afterwards."""
        table = TextTable(bytes(self._data), np.array(self._ends, np.int64))
        self._data = bytearray()
        self._ends = array("q")
        return table
