"""One buffer for a memory copy: a file of shared memory with tensors and a header, checked by
CRC-32.

Layout::

    0       prefix: magic, attempt, step, lengths, checksums; zero while the file is being written
    4096    the tensors, one after the other
    behind  the header, JSON: what the copy is of, and where in the file each tensor lies

A process may be killed between any two writes: the prefix is cleared first and written last, so a
file with a prefix is whole. No pickle: what is read is numbers and JSON.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import struct
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inception_trainer.launcher import json_text

MAGIC = b"INCEPTION-COPY-1"
PREFIX = struct.Struct("<16sQQQQII")
DATA_START = 4096
ALIGNMENT = 64
HEADER_LIMIT = 64 * 2**20
CHUNK = 2**20
TYPES = {
    str(kind): kind
    for kind in (
        torch.float32,
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.uint8,
        torch.int8,
        torch.bool,
    )
}
Header = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in the data of a file."""

    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return int(np.prod(self.shape, dtype=np.int64)) if self.shape else 1


@dataclass(frozen=True)
class Layout:
    """Where all tensors of a copy lie; equal for equal networks."""

    places: dict[str, Place]
    size: int
    """Of all tensors in bytes."""

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Layout:
        """The layout for tensors of these types, shapes and strides."""
        places: dict[str, Place] = {}
        end = 0
        for name, tensor in tensors.items():
            stride = tensor.stride() if _is_dense(tensor) else _plain_stride(tensor.shape)
            places[name] = Place(str(tensor.dtype), tuple(tensor.shape), tuple(stride), end)
            end = _aligned(end + tensor.numel() * tensor.element_size())
        return cls(places, end)

    def encode(self) -> list[list[Any]]:
        """As JSON."""
        return [
            [name, place.dtype, place.shape, place.stride, place.offset]
            for name, place in self.places.items()
        ]


@dataclass(frozen=True)
class Prefix:
    """The first bytes of a whole file."""

    attempt: int
    step: int
    data_size: int
    header_size: int
    data_checksum: int
    header_checksum: int

    def encode(self) -> bytes:
        """The bytes."""
        return PREFIX.pack(
            MAGIC,
            self.attempt,
            self.step,
            self.data_size,
            self.header_size,
            self.data_checksum,
            self.header_checksum,
        )


class CopyFile:
    """The file as its writer sees it: mapped, so that a copy of a tensor is one memcpy."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._layout = Layout({}, 0)
        self._map: mmap.mmap | None = None
        self.views: dict[str, Tensor] = {}
        """Where to copy each tensor to."""

    @property
    def size(self) -> int:
        """Of the tensors in bytes."""
        return self._layout.size

    def prefix(self) -> Prefix | None:
        """What the file says of itself, unchecked; None when it is not whole."""
        try:
            with self.path.open("rb") as file:
                return read_prefix(file.read(PREFIX.size))
        except (OSError, ValueError):
            return None

    def invalidate(self) -> None:
        """Forget what is in the file, and keep its memory."""
        with suppress(FileNotFoundError):
            descriptor = os.open(self.path, os.O_WRONLY | os.O_NOFOLLOW)
            try:
                os.pwrite(descriptor, bytes(PREFIX.size), 0)
            finally:
                os.close(descriptor)

    def missing(self, layout: Layout) -> int:
        """How many bytes more the file would take."""
        taken = self.path.stat().st_size if self.path.exists() else 0
        return max(0, DATA_START + layout.size - taken)

    def allocate(self, layout: Layout) -> None:
        """Take and map the memory for tensors; what is in the file stays. OSError without room."""
        if self._map is not None and layout == self._layout:
            return
        self.views = {}
        self._map = None
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            size = DATA_START + layout.size
            # Never a sparse file: memory that is full is an error here instead of a bus error in
            # the middle of a copy.
            os.posix_fallocate(descriptor, 0, size)
            # Mapped page by page now, or the first copy would be several times slower.
            self._map = mmap.mmap(descriptor, size, mmap.MAP_SHARED | mmap.MAP_POPULATE)
        finally:
            os.close(descriptor)
        self._layout = layout
        self.views = views(self._map, layout)

    def memory(self) -> Tensor:
        """All that is mapped, as bytes."""
        assert self._map is not None  # noqa: S101 - allocate comes before
        return torch.frombuffer(self._map, dtype=torch.uint8)

    def begin(self, layout: Layout) -> dict[str, Tensor]:
        """Make the file invalid and return the memory for the tensors; OSError without room."""
        self.allocate(layout)
        assert self._map is not None  # noqa: S101 - just made
        self._map[: PREFIX.size] = bytes(PREFIX.size)
        return self.views

    def is_finite(self) -> bool:
        """Whether no float32 of what was copied is infinite or NaN."""
        data = self._data()
        with np.errstate(over="ignore", invalid="ignore"):
            for place in self._layout.places.values():
                if place.dtype != "torch.float32":
                    continue
                values = np.frombuffer(data, np.float32, place.count, place.offset)
                # One pass without memory of its own: a sum is not finite as soon as one value is
                # not.
                if not np.isfinite(values.sum()):
                    return False
        return True

    def commit(
        self,
        header: Header,
        attempt: int,
        step: int,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Compute the checksums and make the file valid; ``check`` is called now and then, and may
        raise to leave it.
        """
        assert self._map is not None  # noqa: S101 - begin comes before
        content = {**header, "attempt": attempt, "step": step, "tensors": self._layout.encode()}
        encoded = json.dumps(content, separators=(",", ":")).encode()
        descriptor = os.open(self.path, os.O_WRONLY)
        try:
            _write_all(descriptor, encoded, DATA_START + self._layout.size)
        finally:
            os.close(descriptor)
        checksum = 0
        data = self._data()
        for start in range(0, len(data), CHUNK):
            check()
            checksum = zlib.crc32(data[start : start + CHUNK], checksum)
        prefix = Prefix(
            attempt, step, self._layout.size, len(encoded), checksum, zlib.crc32(encoded)
        )
        # The magic last: a reader that sees it sees all of the prefix.
        bytes_ = prefix.encode()
        self._map[len(MAGIC) : PREFIX.size] = bytes_[len(MAGIC) :]
        self._map[: len(MAGIC)] = MAGIC

    def _data(self) -> memoryview:
        assert self._map is not None  # noqa: S101 - begin comes before
        return memoryview(self._map)[DATA_START : DATA_START + self._layout.size]


@dataclass(frozen=True)
class MemoryCopy:
    """A copy that is whole: its header, and its tensors on request."""

    path: Path
    prefix: Prefix
    header: Header

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.prefix.step

    def tensors(self) -> dict[str, Tensor]:
        """The tensors in memory of their own."""
        layout = decode_layout(self.header["tensors"], self.prefix.data_size)
        with self.path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        return {name: view.clone() for name, view in views(mapped, layout).items()}


def read_copy(path: Path) -> MemoryCopy:
    """Check a file and read its header; ValueError for one that is not whole, OSError for one that
    cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        prefix = read_prefix(file.read(PREFIX.size))
        end = DATA_START + prefix.data_size + prefix.header_size
        if prefix.header_size > HEADER_LIMIT or end > os.fstat(file.fileno()).st_size:
            raise ValueError("it is shorter than it says")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            data_end = DATA_START + prefix.data_size
            with memoryview(mapped) as content:
                if zlib.crc32(content[DATA_START:data_end]) != prefix.data_checksum:
                    raise ValueError("its tensors are damaged")
                encoded = bytes(content[data_end:end])
    if zlib.crc32(encoded) != prefix.header_checksum:
        raise ValueError("its header is damaged")
    header = json_text.decode(encoded)
    decode_layout(header["tensors"], prefix.data_size)
    if (header["attempt"], header["step"]) != (prefix.attempt, prefix.step):
        raise ValueError("its header is not of its prefix")
    return MemoryCopy(path, prefix, header)


def read_prefix(content: bytes) -> Prefix:
    """The prefix of a file; ValueError when it has none."""
    if len(content) < PREFIX.size or not content.startswith(MAGIC):
        raise ValueError("it was not finished")
    return Prefix(*PREFIX.unpack(content)[1:])


def decode_layout(entries: list[list[Any]], size: int) -> Layout:
    """The layout in a header; ValueError for one that leads out of the data."""
    places: dict[str, Place] = {}
    for name, dtype, shape, stride, offset in entries:
        place = Place(str(dtype), tuple(shape), tuple(stride), int(offset))
        if len(shape) != len(stride) or min((*shape, *stride, offset), default=0) < 0:
            raise ValueError(f"the place of {name!r:.100} makes no sense")
        bytes_each = TYPES[place.dtype].itemsize
        last = sum((n - 1) * step for n, step in zip(place.shape, place.stride, strict=True))
        if place.count and (offset % ALIGNMENT or offset + (last + 1) * bytes_each > size):
            raise ValueError(f"{name!r:.100} lies outside of the file")
        places[str(name)] = place
    return Layout(places, size)


def views(memory: mmap.mmap, layout: Layout) -> dict[str, Tensor]:
    """Tensors that lie in ``memory``."""
    made: dict[str, Tensor] = {}
    for name, place in layout.places.items():
        kind = TYPES[place.dtype]
        if not place.count:
            made[name] = torch.empty(place.shape, dtype=kind)
            continue
        last = sum((n - 1) * step for n, step in zip(place.shape, place.stride, strict=True))
        flat = torch.frombuffer(
            memory, dtype=kind, count=last + 1, offset=DATA_START + place.offset
        )
        made[name] = flat.as_strided(place.shape, place.stride)
    return made


def copy_to_view(view: Tensor, value: Tensor) -> None:
    """One memcpy where both lie in host memory alike; no threads, and Python goes on meanwhile."""
    value = value.detach()
    if value.device.type == "cpu" and value.stride() == view.stride() and _is_dense(value):
        ctypes.memmove(view.data_ptr(), value.data_ptr(), value.numel() * value.element_size())
    else:
        view.copy_(value)


def _is_dense(tensor: Tensor) -> bool:
    """Whether its numbers fill one piece of memory without gaps."""
    if not tensor.numel():
        return True
    last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return last + 1 == tensor.numel()


def _plain_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(torch.empty(shape, device="meta").stride())


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def _write_all(descriptor: int, content: bytes, offset: int) -> None:
    while content:
        written = os.pwrite(descriptor, content, offset)
        content = content[written:]
        offset += written
