"""`data.cache`: the same bytes, read once as long as there is room, whatever processes do."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inception_trainer.config.continuation import fingerprint
from inception_trainer.config.data import CacheConfig
from inception_trainer.config.training import from_mapping
from inception_trainer.data import cache, open_splits
from inception_trainer.data.cache import UNIT, Area, CachedSamples, Room, cached, locked
from inception_trainer.errors import ConfigError
from sample_store import Store
from shard_files import noise_folder

FORK = multiprocessing.get_context("fork")


def found_room(config: CacheConfig) -> Room:
    room = cache.room(config)
    assert room is not None
    return room


def rounded(size: int) -> int:
    return -(-size // UNIT) * UNIT


@given(
    sizes=st.lists(st.integers(0, 300), min_size=1, max_size=20),
    limits=st.lists(st.integers(0, 2000), max_size=2),
    order=st.lists(st.integers(0, 19), max_size=60),
)
@settings(deadline=None)
def test_any_order_of_reads_gives_the_bytes_and_keeps_to_the_limit(sizes, limits, order) -> None:
    store = Store(sizes)
    areas = [Area.in_memory(limit) for limit in limits]
    samples = cached(store, Room(areas) if areas else None)
    assert (samples is store) == (not areas)
    for index in (number % len(sizes) for number in order):
        assert samples.read(index) == store.content(index)
    for area, limit in zip(areas, limits, strict=True):
        assert area.used <= limit
    if areas and sum(map(rounded, sizes)) <= limits[0]:
        assert max(store.reads) <= 1


def test_what_does_not_fit_into_memory_goes_to_the_disk_and_then_nowhere() -> None:
    store = Store([64, 128, 64, 64])
    areas = [Area.in_memory(100), Area.on_disk(200)]
    samples = CachedSamples(store, Room(areas))
    for _ in range(3):
        assert [samples.read(index) for index in range(4)] == [
            store.content(index) for index in range(4)
        ]
    assert [area.used for area in areas] == [64, 192]
    assert store.reads == [1, 1, 1, 3]


def test_nothing_is_left_in_the_folder_for_temporary_files(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (area,) = found_room(CacheConfig(disk_mebibytes=1)).areas
    assert area.append(b"x" * 1000) == 0
    assert list(tmp_path.iterdir()) == []


def test_processes_share_what_each_of_them_has_read() -> None:
    store = Store([500] * 8)
    samples = CachedSamples(store, Room([Area.in_memory(10**6)]))

    def read(first: int) -> None:
        for index in range(first, 8, 2):
            assert samples.read(index) == store.content(index)

    workers = [FORK.Process(target=read, args=(first,)) for first in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert [samples.read(index) for index in range(8)] == [store.content(i) for i in range(8)]
    assert store.reads == [0] * 8, "this process found all of it"


def test_processes_that_append_at_once_take_no_place_twice() -> None:
    area = Area.in_memory(10**6)
    units = FORK.SimpleQueue()

    def append(number: int) -> None:
        for _ in range(50):
            units.put((number, area.append(bytes([number]) * 100)))

    workers = [FORK.Process(target=append, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    found = [units.get() for _ in range(200)]
    for worker in workers:
        worker.join(60)
    assert len({unit for _, unit in found}) == 200
    assert all(area.read(unit, 100) == bytes([number]) * 100 for number, unit in found)
    assert area.used == 200 * 128


def test_a_worker_that_is_killed_while_it_holds_the_lock_holds_up_nobody() -> None:
    area = Area.in_memory(1000)
    inside = FORK.Event()

    def hold() -> None:
        with locked(area._descriptor):
            inside.set()
            signal.pause()

    worker = FORK.Process(target=hold)
    worker.start()
    assert inside.wait(60)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join(60)
    assert area.append(b"x") == 0


def test_a_disk_that_is_full_ends_the_cache_and_not_the_training() -> None:
    def fill(result: Any) -> None:
        store = Store([128] * 5)
        samples = CachedSamples(store, Room([Area.on_disk(10**6)]))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (256, 256))
        right = all(samples.read(i) == store.content(i) for _ in range(2) for i in range(5))
        result.put((right, store.reads))

    result = FORK.SimpleQueue()
    worker = FORK.Process(target=fill, args=(result,))
    worker.start()
    assert result.get() == (True, [1, 1, 2, 2, 2])
    worker.join(60)


def test_a_disk_that_cannot_be_read_any_more_ends_no_training(monkeypatch) -> None:
    """The next attempt in the pod would find the same cache, and fail by it as well."""

    def broken(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    store = Store([64, 128])
    samples = CachedSamples(store, Room([Area.on_disk(1000)]))
    for _ in range(2):
        assert samples.read(1) == store.content(1)
    monkeypatch.setattr(os, "pread", broken)
    assert samples.read(1) == store.content(1)
    assert store.reads == [0, 2]


def test_samples_larger_than_the_largest_are_read_again(monkeypatch) -> None:
    monkeypatch.setattr(cache, "LARGEST", 100)
    store = Store([101])
    samples = CachedSamples(store, Room([Area.in_memory(10**6)]))
    assert samples.read(0) == samples.read(0) == store.content(0)
    assert store.reads == [2]


def test_the_cache_decides_no_result() -> None:
    plain = from_mapping({"data": {"kind": "ImageFolder", "path": "/data"}})
    with_cache = {"kind": "ImageFolder", "path": "/data", "cache": {"memoryMebibytes": 5}}
    assert fingerprint(from_mapping({"data": with_cache})) == fingerprint(plain)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_set_that_is_cached_survives_the_loss_of_its_files(tmp_path, workers) -> None:
    """The second epoch needs no file: that is what a store that fails looks like."""
    noise_folder(tmp_path)
    data = {
        "kind": "ImageFolder",
        "path": str(tmp_path),
        "imageSize": 32,
        "workers": workers,
        "cache": {"memoryMebibytes": 1},
    }
    plain = open_splits(from_mapping({"data": {**data, "cache": {}}}))
    splits = open_splits(from_mapping({"data": data}))
    batches = [np.arange(4), np.arange(4, 8)]
    wanted = {epoch: [plain.train.batch(indices, epoch) for indices in batches] for epoch in (0, 1)}
    for epoch in (0, 1):
        with splits.train.stream(batches, epoch) as stream:
            for found, expected in zip(stream, wanted[epoch], strict=True):
                assert found.images.equal(expected.images)
                assert found.labels.equal(expected.labels)
        for path in tmp_path.glob("train/*/*.png"):
            path.unlink()
    splits.close()


def shared_store(room: Room, sizes: list[int]) -> tuple[Store, CachedSamples]:
    store = Store(sizes)
    return store, CachedSamples(store, room)


def test_ranks_share_one_cache_and_the_next_attempt_finds_it_filled(monkeypatch) -> None:
    """Ranks are forked from the process that reserved it, and open the data each for itself."""
    monkeypatch.setattr(cache, "_reserved", {})
    config = CacheConfig(memory_mebibytes=1)
    cache.reserve(config)

    def attempt(first: int, reads: Any) -> None:
        store, samples = shared_store(found_room(config), [500] * 8)
        for index in range(first, 8, 2):
            assert samples.read(index) == store.content(index)
        reads.put(sum(store.reads))

    reads = FORK.SimpleQueue()
    # Two ranks; then the ranks of a second attempt, each of which gets the other's samples.
    for ranks, wanted in (((0, 1), [4, 4]), ((1, 0), [0, 0])):
        workers = [FORK.Process(target=attempt, args=(first, reads)) for first in ranks]
        for worker in workers:
            worker.start()
        assert [reads.get() for _ in workers] == wanted
        for worker in workers:
            worker.join(60)


def test_a_rank_that_was_not_forked_from_a_launcher_has_a_cache_of_its_own(monkeypatch) -> None:
    monkeypatch.setattr(cache, "_reserved", {})
    config = CacheConfig(memory_mebibytes=1)
    assert found_room(config) is not found_room(config)
    cache.reserve(CacheConfig())
    assert cache.room(CacheConfig()) is None


def test_other_samples_in_the_same_room_are_never_mixed_up() -> None:
    room = Room([Area.in_memory(10**6)])
    first, one = shared_store(room, [10] * 5)
    second, two = shared_store(room, [20] * 5)
    for _ in range(2):
        assert [one.read(i) for i in range(5)] == [first.content(i) for i in range(5)]
        assert [two.read(i) for i in range(5)] == [second.content(i) for i in range(5)]
    assert first.reads == second.reads == [1] * 5


def test_data_that_changes_more_often_than_there_are_tables_is_read_all_the_same() -> None:
    room = Room([Area.in_memory(10**6)])
    for size in range(1, 300):
        store, samples = shared_store(room, [size])
        assert samples.read(0) == samples.read(0) == store.content(0)
        assert store.reads == [1]


def test_a_process_that_is_killed_in_the_middle_of_keeping_leaves_nothing_that_is_read() -> None:
    """Half of the bytes are in the area, and no word says so."""
    room = Room([Area.in_memory(10**6)])

    def die(_descriptor: int, data: bytes, start: int) -> int:
        whole_pwrite(_descriptor, data[: len(data) // 2], start)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    def read() -> None:
        os.pwrite = die
        shared_store(room, [1000])[1].read(0)

    whole_pwrite = os.pwrite
    worker = FORK.Process(target=read)
    worker.start()
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL
    store, samples = shared_store(room, [1000])
    assert room.areas[0].used == rounded(1000)
    assert samples.read(0) == samples.read(0) == store.content(0)
    assert store.reads == [1]


@pytest.mark.parametrize(
    ("limit", "size", "fits"),
    [("max\n", 1, True), (str(300 * 2**20), 44, True), (str(300 * 2**20), 45, False)],
)
def test_a_cache_that_the_memory_limit_leaves_no_room_for_is_refused(
    tmp_path: Path, limit: str, size: int, fits: bool
) -> None:
    (tmp_path / "memory.max").write_text(limit, encoding="ascii")
    config = CacheConfig(memory_mebibytes=size)
    if fits:
        cache.check(config, tmp_path)
        return
    with pytest.raises(ConfigError, match=r"^data\.cache\.memoryMebibytes: 45 MiB do not fit"):
        cache.check(config, tmp_path)


def test_a_cache_that_is_larger_than_its_disk_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^data\.cache\.diskMebibytes: .* TMPDIR"):
        cache.room(CacheConfig(disk_mebibytes=16_777_216))
