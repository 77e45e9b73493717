"""Read-ahead and loader processes: the same batches in the same order, errors in their place,
nothing left behind.
"""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest
import torch
from PIL import Image

from inception_trainer.config.training import from_mapping
from inception_trainer.data import Batch, open_splits
from inception_trainer.train.prefetch import read_ahead, stream_batches

CPU = torch.device("cpu")


def batch(number: int) -> Batch:
    return Batch(torch.full((1, 3, 2, 2), number, dtype=torch.uint8), torch.tensor([number]))


def numbers(batches: Iterator[Batch]) -> list[int]:
    return [int(item.labels) for item in batches]


def nothing() -> None:
    pass


def test_order_is_kept_and_another_thread_prepares() -> None:
    threads: list[str] = []

    def note() -> None:
        threads.append(threading.current_thread().name)

    def prepared(item: Batch) -> Batch:
        note()
        return Batch(item.images, item.labels + 100)

    with read_ahead(map(batch, range(20)), note, prepared) as ahead:
        assert numbers(ahead) == list(range(100, 120))
    assert set(threads) == {"read-ahead"}
    assert len(threads) == 21


@pytest.mark.parametrize("place", ["stream", "begin", "prepare"])
def test_errors_come_where_the_batch_is_awaited(place) -> None:
    def fails(*_arguments: object) -> Batch:
        raise OSError("the disk is gone")

    def broken() -> Iterator[Batch]:
        yield batch(0)
        fails()

    stream = broken() if place == "stream" else iter([batch(0)])
    begin = fails if place == "begin" else nothing
    prepare = fails if place == "prepare" else lambda item: item
    with (
        read_ahead(stream, begin, prepare) as ahead,
        pytest.raises(OSError, match="the disk is gone"),
    ):
        numbers(ahead)


def test_leaving_early_ends_the_thread_before_the_stream_is_closed() -> None:
    given: list[int] = []

    def endless() -> Iterator[Batch]:
        for number in range(10**9):
            given.append(number)
            yield batch(number)

    stream = endless()
    with read_ahead(stream, nothing, lambda item: item) as ahead:
        assert int(next(ahead).labels) == 0
    assert "read-ahead" not in {thread.name for thread in threading.enumerate()}
    stream.close()  # raises ValueError while anyone is inside
    assert len(given) < 10


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 5)):
        for number in range(count):
            path = tmp_path / split / f"class-{number % 2}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(path)
    return tmp_path


def splits(folder, workers: int):
    data = {"kind": "ImageFolder", "path": str(folder), "imageSize": 32, "workers": workers}
    return open_splits(from_mapping({"data": data}))


def children() -> set[int]:
    return {process.pid for process in multiprocessing.active_children()}


def test_loader_processes_stay_for_the_next_epoch_and_go_with_the_run(folder) -> None:
    alone, many = splits(folder, 0), splits(folder, 2)
    before, seen = children(), []
    for epoch, size in ((0, 4), (1, 3)):
        order = [np.arange(start, start + size) for start in range(0, 12, size)]
        with (
            stream_batches(many.train, order, epoch, CPU) as stream,
            stream_batches(alone.train, order, epoch, CPU) as expected,
        ):
            for one, other in zip(stream, expected, strict=True):
                assert torch.equal(one.images, other.images)
                assert torch.equal(one.labels, other.labels)
        seen.append(children() - before)
    assert seen[0] == seen[1]
    assert len(seen[0]) == 2
    many.close()
    assert children() == before


def test_loader_processes_of_an_evaluation_go_with_it(folder) -> None:
    many, before = splits(folder, 2), children()
    with stream_batches(many.val, [np.arange(5)], None, CPU) as stream:
        assert len(next(stream).labels) == 5
    assert children() == before


def test_loader_processes_of_an_epoch_that_is_left_go_at_once(folder) -> None:
    many, before = splits(folder, 2), children()
    order = [np.arange(start, start + 2) for start in range(0, 12, 2)]
    with suppress(KeyError), stream_batches(many.train, order, 0, CPU) as stream:
        next(stream)
        raise KeyError
    assert children() == before
    # The next stream begins anew.
    with stream_batches(many.train, order, 0, CPU) as stream:
        assert len(list(stream)) == 6
    many.close()
