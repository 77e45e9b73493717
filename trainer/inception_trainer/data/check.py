"""Reads all of a data set without training: which images are there, which cannot be read, which are
there twice, and what their pixels are like.

Images are read and decoded as evaluation does it, by one process per CPU. What is kept for each
image is its size and a hash, 16 bytes, so memory does not depend on how large the images are.
"""

from __future__ import annotations

import dataclasses
import hashlib
import multiprocessing
import re
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inception_trainer.config.training import TrainingConfig
from inception_trainer.errors import ConfigError, DataError, TrainerError

from .base import Dataset, Splits, UnreadableImage
from .build import open_splits
from .encoded import EncodedImages
from .found import ClassCounts
from .sampler import LengthPlan

CHUNK = 32
"""Images that a process is given at once."""
AHEAD = 4
"""Chunks waiting for each process, so that none is idle and few results wait."""
MOST_NAMED = 20
"""Images that cannot be read, or are there twice, that are named."""
PROGRESS_SECONDS = 10.0
LONGEST_REASON = 200
"""Characters of the reason why an image cannot be read."""


@dataclass(frozen=True)
class Image:
    """One image: its pixels as evaluation sees them, uint8 ``[channels, side, side]``, and what is
    known of the file.
    """

    pixels: Tensor
    digest: int
    """64 bits of a hash of all bytes: equal for equal files, and for no others but by chance."""
    width: int
    height: int
    bytes: int
    format: str


@dataclass
class PixelSums:
    """Sums over all pixels, per channel, in whole numbers: in which order they are added up changes
    nothing.
    """

    pixels: int = 0
    sums: list[int] = field(default_factory=list)
    squares: list[int] = field(default_factory=list)

    def add(self, image: Tensor) -> None:
        """One image, uint8 ``[channels, side, side]``."""
        values = image.flatten(1).to(torch.int64)
        own = PixelSums(values.shape[1], values.sum(1).tolist(), values.square().sum(1).tolist())
        self.merge(own)

    def merge(self, other: PixelSums) -> None:
        """Other images of as many channels."""
        self.pixels += other.pixels
        self.sums = _added(self.sums, other.sums)
        self.squares = _added(self.squares, other.squares)

    def mean(self) -> list[float]:
        """Of pixels from 0 to 1."""
        return [total / self.pixels / 255 for total in self.sums]

    def deviation(self) -> list[float]:
        """Of pixels from 0 to 1."""
        pairs = zip(self.sums, self.squares, strict=True)
        # Exact until the root: the difference of two large numbers would lose digits.
        variances = (squares * self.pixels - total * total for total, squares in pairs)
        return [variance**0.5 / self.pixels / 255 for variance in variances]


def _added(one: list[int], two: list[int]) -> list[int]:
    return [a + b for a, b in zip(one, two, strict=True)] if one and two else one or two


@dataclass
class Part:
    """What was found in some of the images of a split."""

    first: int
    digests: list[int] = field(default_factory=list)
    """0 for an image that cannot be read."""
    widths: list[int] = field(default_factory=list)
    heights: list[int] = field(default_factory=list)
    bytes: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    unreadable: list[tuple[int, str]] = field(default_factory=list)
    """Number and reason."""
    fatal: TrainerError | None = None
    """What would end a training at the first image of its kind, such as a file that is gone."""
    sums: PixelSums = field(default_factory=PixelSums)

    def add(self, image: Image) -> None:
        """The next image."""
        self.digests.append(image.digest)
        self.widths.append(image.width)
        self.heights.append(image.height)
        self.bytes += image.bytes
        self.formats[image.format] += 1
        self.sums.add(image.pixels)

    def skip(self, index: int, reason: str) -> None:
        """The next image, which cannot be read."""
        self.digests.append(0)
        self.widths.append(0)
        self.heights.append(0)
        self.unreadable.append((index, reason))


class SplitFacts:
    """What was found in all images of a split."""

    def __init__(self, dataset: Dataset, counts: ClassCounts | None) -> None:
        self.dataset = dataset
        self.counts = counts
        length = len(dataset)
        self.digests = np.zeros(length, np.uint64)
        self.widths = np.zeros(length, np.int32)
        self.heights = np.zeros(length, np.int32)
        self.bytes = 0
        self.formats: Counter[str] = Counter()
        self.unreadable_count = 0
        self.unreadable: list[tuple[int, str]] = []
        self.fatal: TrainerError | None = None
        self.sums = PixelSums()

    def add(self, part: Part) -> None:
        """Parts come in the order of the images."""
        here = slice(part.first, part.first + len(part.digests))
        self.digests[here] = part.digests
        self.widths[here] = part.widths
        self.heights[here] = part.heights
        self.bytes += part.bytes
        self.formats.update(part.formats)
        self.unreadable_count += len(part.unreadable)
        self.unreadable += part.unreadable[: MOST_NAMED - len(self.unreadable)]
        self.fatal = self.fatal or part.fatal
        self.sums.merge(part.sums)

    def name(self, index: int) -> str:
        """What messages call an image."""
        return image_name(self.dataset, index)


def image_name(dataset: Dataset, index: int) -> str:
    """The path of an image, or its number in data that has no files."""
    return dataset.name(index) if isinstance(dataset, EncodedImages) else f"number {index}"


@dataclass(frozen=True)
class Check:
    """What was found in a data set."""

    splits: Splits
    train: SplitFacts
    val: SplitFacts
    problem: TrainerError | None
    """Why a training on it would fail."""


def check_data(config: TrainingConfig, processes: int) -> Check:
    """Open the data as a training would and read every image.

    Raises what a training would raise that cannot even begin.
    """
    # All validation images: what a quick look leaves out may be broken, too.
    evaluation = dataclasses.replace(config.evaluation, max_samples=None)
    splits = open_splits(dataclasses.replace(config, evaluation=evaluation))
    try:
        facts = [
            _read_split(what, dataset, ClassCounts.of(dataset, splits.class_names), processes)
            for what, dataset in (("training", splits.train), ("validation", splits.val))
        ]
    finally:
        splits.close()
    train, val = facts
    return Check(splits, train, val, _problem(config, train, val))


def _problem(config: TrainingConfig, train: SplitFacts, val: SplitFacts) -> TrainerError | None:
    for what, facts in (("training", train), ("validation", val)):
        dataset = facts.dataset
        if not isinstance(dataset, EncodedImages):
            continue
        if facts.fatal is not None:
            return facts.fatal
        if facts.unreadable_count > dataset.most_unreadable:
            return DataError(
                f"{facts.unreadable_count} {what} images cannot be read, more than "
                f"{dataset.most_unreadable} (data.maxCorrupt)"
            )
    try:
        LengthPlan.of(config, len(train.dataset))
    except ConfigError as error:
        return error
    return None


def _read_split(
    what: str, dataset: Dataset, counts: ClassCounts | None, processes: int
) -> SplitFacts:
    facts = SplitFacts(dataset, counts)
    progress = _Progress(what, len(dataset))
    parts = _parts(dataset, processes)
    for part in parts:
        facts.add(part)
        progress(part.first + len(part.digests))
    return facts


def _parts(dataset: Dataset, processes: int) -> Iterator[Part]:
    starts = range(0, len(dataset), CHUNK)
    if processes <= 1 or not isinstance(dataset, EncodedImages):
        # What lies in memory is read faster than it could be sent to another process.
        yield from (_read_part(dataset, first) for first in starts)
        return
    waiting: deque[Future[Part]] = deque()
    # Forked, as loader workers are: they have the list of files and torch at once.
    context = multiprocessing.get_context("fork")
    with (
        _explaining_dead_processes(),
        ProcessPoolExecutor(processes, context, _begin_process, (dataset,)) as pool,
    ):
        for first in starts:
            waiting.append(pool.submit(_read_part_of_process, first))
            if len(waiting) > AHEAD * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def _explaining_dead_processes() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool:
        raise TrainerError(
            "a process that read images was killed, perhaps because memory ran out; "
            "try again with fewer --processes"
        ) from None


_dataset: EncodedImages | None = None
"""What this process reads."""


def _begin_process(dataset: EncodedImages) -> None:
    global _dataset  # noqa: PLW0603 - a process of a pool has no other place
    _dataset = dataset
    torch.set_num_threads(1)


def _read_part_of_process(first: int) -> Part:
    assert _dataset is not None  # noqa: S101 - set when the process began
    return _read_part(_dataset, first)


def _read_part(dataset: Dataset, first: int) -> Part:
    part = Part(first)
    read = _reader(dataset)
    for index in range(first, min(first + CHUNK, len(dataset))):
        try:
            part.add(read(index))
        except UnreadableImage as error:
            part.skip(index, _reason(error))
        except TrainerError as error:
            part.skip(index, str(error))
            part.fatal = part.fatal or error
    return part


def _reason(error: UnreadableImage) -> str:
    # Decoders put the object that they read from into their messages, with its address.
    text = re.sub(r" at 0x[0-9a-f]+", "", " ".join(str(error).split()))
    return text[:LONGEST_REASON]


def _reader(dataset: Dataset) -> Callable[[int], Image]:
    if isinstance(dataset, EncodedImages):
        return lambda index: _read_file(dataset, index)
    return lambda index: _read_in_memory(dataset, index)


def _read_file(dataset: EncodedImages, index: int) -> Image:
    data = dataset.encoded(index)
    pixels = dataset.decode(data)
    width, height, form = dataset.header(data)
    return Image(pixels, _digest(data), width, height, len(data), form)


def _read_in_memory(dataset: Dataset, index: int) -> Image:
    pixels = dataset.batch(np.array([index]), None).images[0]
    data = pixels.numpy().tobytes()
    height, width = pixels.shape[-2:]
    return Image(pixels, _digest(data), width, height, len(data), "array")


def _digest(data: bytes) -> int:
    digest = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
    return digest or 1


class _Progress:
    """A line on standard error now and then, because ImageNet takes an hour."""

    def __init__(self, what: str, length: int) -> None:
        self._what = what
        self._length = length
        self._next = time.monotonic() + PROGRESS_SECONDS

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + PROGRESS_SECONDS
        text = f"read {done:,} of {self._length:,} {self._what} images"
        print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Duplicates:
    """Images with the same bytes, over both splits; an image is (split, number)."""

    copies: tuple[int, int]
    """Images of training and of validation that are there before in their split."""
    in_both: int
    """Validation images that are training images, too."""
    of_two_classes: int
    """Images that are there in more than one class."""
    groups: list[list[tuple[int, int]]]
    """The first few."""


def find_duplicates(train: SplitFacts, val: SplitFacts) -> Duplicates:
    """Compare the hashes of all images that can be read."""
    digests = np.concatenate((train.digests, val.digests))
    classes = _classes(train, val)
    order = np.argsort(digests, kind="stable")
    order = order[digests[order] != 0]
    ordered = digests[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    ends = np.append(starts[1:], len(order)) if len(order) else starts
    border = len(train.digests)
    copies = [0, 0]
    in_both = of_two_classes = 0
    groups: list[list[tuple[int, int]]] = []
    for first, end in zip(*_longer_than_one(starts, ends), strict=True):
        members: NDArray[Any] = np.sort(order[first:end])
        in_train = int((members < border).sum())
        in_val = len(members) - in_train
        copies[0] += max(0, in_train - 1)
        copies[1] += max(0, in_val - 1)
        in_both += in_val if in_train else 0
        of_two_classes += len(np.unique(classes[members])) > 1
        if len(groups) < MOST_NAMED:
            groups.append([(0, int(m)) if m < border else (1, int(m - border)) for m in members])
    return Duplicates((copies[0], copies[1]), in_both, of_two_classes, groups)


def _longer_than_one(starts: NDArray[Any], ends: NDArray[Any]) -> tuple[list[int], list[int]]:
    longer = ends - starts > 1
    return starts[longer].tolist(), ends[longer].tolist()


def _classes(train: SplitFacts, val: SplitFacts) -> NDArray[np.int64]:
    """The class of every image of both splits; all 0 where nobody has noted them."""
    parts = [facts.dataset.classes for facts in (train, val)]
    lengths = [len(facts.dataset) for facts in (train, val)]
    filled = [
        np.zeros(length, np.int64) if part is None else np.asarray(part, np.int64)
        for part, length in zip(parts, lengths, strict=True)
    ]
    return np.concatenate(filled)
