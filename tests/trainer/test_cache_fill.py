"""``data.cache.fill: Shards``: whole shards are fetched ahead, in pieces, by whoever is there."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from inception_trainer.config.training import from_mapping
from inception_trainer.data import cache_fill, open_splits, shards
from inception_trainer.data.cache import Area, CachedSamples, Room
from inception_trainer.data.cache_fill import DONE
from sample_store import Store
from shard_files import same_data

FORK = multiprocessing.get_context("fork")


class Stretches(Store):
    """Two samples in each stretch, and how often each stretch was read."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__(sizes)
        self.fetched = [0] * self.stretches()

    def stretches(self) -> int:
        return len(self.sizes) // 2

    def read_stretch(self, number: int) -> Iterator[tuple[int, bytes]]:
        self.fetched[number] += 1
        for index in (2 * number, 2 * number + 1):
            yield index, self.content(index)


def filled(samples: CachedSamples) -> CachedSamples:
    """The cache when the thread of this process is done."""
    assert samples.filler is not None
    samples.filler.begin()
    assert samples.filler.thread is not None
    samples.filler.thread.join(60)
    assert not samples.filler.thread.is_alive()
    return samples


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[str, list[Any]]]:
    """Shards in a store, and every request for a part of them."""
    _, folder = same_data(tmp_path)
    store = fsspec.filesystem("memory")
    url = f"memory://bucket/{tmp_path.name}"
    store.put(str(folder), url, recursive=True)
    asked: list[Any] = []
    original = type(store).cat_file

    def counted(self: Any, path: str, start: Any = None, end: Any = None, **more: Any) -> bytes:
        asked.append((path, start, end))
        answer: bytes = original(self, path, start=start, end=end, **more)
        return answer

    monkeypatch.setattr(type(store), "cat_file", counted)
    yield url, asked
    store.rm(url, recursive=True)


@pytest.mark.parametrize("held_out", [None, "0.25"])
def test_shards_of_a_store_are_fetched_by_few_requests_with_the_same_pixels(
    requests: tuple[str, list[Any]], monkeypatch: pytest.MonkeyPatch, held_out: str | None
) -> None:
    url, asked = requests
    monkeypatch.setattr(shards, "PIECE", 40_000)
    data: dict[str, Any] = {"kind": "WebDataset", "path": url, "imageSize": 32, "workers": 0}
    if held_out is not None:
        data["heldOutShare"] = held_out
    plain = open_splits(from_mapping({"data": data}))
    data["cache"] = {"memoryMebibytes": 5, "fill": "Shards"}
    splits = open_splits(from_mapping({"data": data}))
    # What was asked until here was for the index.
    asked.clear()
    for split in (splits.train, splits.val):
        filled(split.source)
    assert max(end - start for _, start, end in asked) <= 40_000
    # Either part of a split that is divided is fetched for itself.
    assert len(asked) < 0.6 * (len(splits.train) + len(splits.val))
    asked.clear()
    found = [splits.train.batch(np.arange(len(splits.train)), epoch) for epoch in (0, 1)]
    val = splits.val.batch(np.arange(len(splits.val)), None)
    assert asked == []
    for epoch, batch in enumerate(found):
        wanted = plain.train.batch(np.arange(len(plain.train)), epoch)
        assert batch.images.equal(wanted.images)
        assert batch.labels.equal(wanted.labels)
    assert val.images.equal(plain.val.batch(np.arange(len(plain.val)), None).images)


@pytest.mark.parametrize(("piece", "count"), [(1, 8), (5000, 8), (20_000, 4), (1 << 24, 1)])
def test_a_shard_is_read_in_pieces_of_whole_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int, count: int
) -> None:
    """Eight images of some 6 kB lie in the first one."""
    monkeypatch.setattr(shards, "PIECE", piece)
    _, folder = same_data(tmp_path)
    splits = open_splits(from_mapping({"data": {"kind": "WebDataset", "path": str(folder)}}))
    source = splits.train.source
    pieces: list[int] = []
    original = shards.Shards._bytes

    def counted(self: Any, shard: int, offset: int, size: int) -> bytes:
        pieces.append(size)
        return original(self, shard, offset, size)

    monkeypatch.setattr(shards.Shards, "_bytes", counted)
    found = dict(source.read_stretch(0))
    assert len(pieces) == count
    assert found == {index: source.read(index) for index in range(8)}
    assert sorted(index for n in range(3) for index, _ in source.read_stretch(n)) == list(range(40))


def test_processes_divide_the_shards_and_a_dead_one_leaves_its_to_others() -> None:
    store = Stretches([100] * 20)
    samples = CachedSamples(store, Room([Area.in_memory(10**6)]), "Shards")
    assert samples.filler is not None
    owners = samples.filler._owners
    fetched = FORK.SimpleQueue()

    def die(_number: int) -> Iterator[tuple[int, bytes]]:
        os.kill(os.getpid(), signal.SIGKILL)
        yield from ()

    def fill(ends: bool) -> None:
        if ends:
            store.read_stretch = die
        filled(samples)
        fetched.put(store.fetched)

    victim = FORK.Process(target=fill, args=(True,))
    victim.start()
    victim.join(60)
    assert owners[0] == victim.pid
    workers = [FORK.Process(target=fill, args=(False,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    counts = np.sum([fetched.get() for _ in workers], axis=0)
    for worker in workers:
        worker.join(60)
    assert counts.tolist() == [1] * 10
    assert (owners == DONE).all()
    assert [samples.read(index) for index in range(20)] == [store.content(i) for i in range(20)]
    assert store.reads == [0] * 20


def test_no_more_processes_fetch_than_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others wait, and go on when one of them is gone."""
    monkeypatch.setattr(cache_fill, "AT_ONCE", 1)
    samples = CachedSamples(Stretches([100] * 4), Room([Area.in_memory(10**6)]), "Shards")
    assert samples.filler is not None
    other = FORK.Process(target=signal.pause)
    other.start()
    assert other.pid is not None
    samples.filler._owners[0] = other.pid
    assert samples.filler._claim() == (None, False)
    other.kill()
    other.join(60)
    assert samples.filler._claim() == (0, False)
    assert samples.filler._claim() == (1, False)
    assert samples.filler._claim() == (None, True)


def test_a_cache_that_is_full_ends_the_fetching() -> None:
    store = Stretches([64] * 10)
    area = Area.in_memory(5 * 64)
    samples = filled(CachedSamples(store, Room([area]), "Shards"))
    assert area.used == 5 * 64
    assert store.fetched == [1, 1, 1, 0, 0]
    assert [samples.read(index) for index in range(10)] == [store.content(i) for i in range(10)]
    assert store.reads == [0] * 5 + [1] * 5


def test_a_store_that_fails_ends_the_fetching_and_not_the_training(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Stretches([64] * 4)

    def fail(_number: int) -> Iterator[tuple[int, bytes]]:
        raise OSError("no route")

    monkeypatch.setattr(store, "read_stretch", fail)
    samples = filled(CachedSamples(store, Room([Area.in_memory(10**6)]), "Shards"))
    assert samples.read(0) == store.content(0)
    assert "data.cache.fill: no more shards are fetched ahead: no route" in caplog.text
