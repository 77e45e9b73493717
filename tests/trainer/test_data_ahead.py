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

from inception_trainer.comm import Comm
from inception_trainer.config.training import from_mapping
from inception_trainer.data import Batch, open_splits
from inception_trainer.data.encoded import EncodedImages
from inception_trainer.data.sampler import BatchPlan, LengthPlan, permutation
from inception_trainer.heartbeat import Heartbeat
from inception_trainer.train.batches import TrainingBatches
from inception_trainer.train.prefetch import read_ahead, stream_batches
from launchers import wait_for

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


def test_loader_processes_of_an_evaluation_stay_for_the_next_one(folder) -> None:
    many, before, seen = splits(folder, 2), children(), []
    for _ in range(2):
        with stream_batches(many.val, [np.arange(5)], None, CPU) as stream:
            assert [len(batch.labels) for batch in stream] == [5]
        seen.append(children() - before)
    assert seen[0] == seen[1]
    assert len(seen[0]) == 2
    many.close()
    assert children() == before


class Reads(EncodedImages):
    """Notes in a file which samples of which epoch were read, by whatever process."""

    def read_batch(self, indices, epoch):
        with self.notes.open("a", encoding="ascii") as file:
            file.write(f"{epoch} {indices.tolist()}\n")
        return super().read_batch(indices, epoch)


def test_a_run_that_goes_on_within_an_epoch_reads_before_it_is_asked(folder, tmp_path) -> None:
    many = splits(folder, 2)
    many.train.__class__ = Reads
    many.train.notes = tmp_path / "notes"
    many.train.notes.touch()
    length = LengthPlan(steps_per_epoch=3, total_steps=6, horizon=6)
    comm, heartbeat = Comm(0, 1, "gloo"), Heartbeat(None)
    with TrainingBatches(many.train, BatchPlan(4, 1), length, 0, comm, CPU, heartbeat) as batches:
        batches.prepare(4)
        wait_for("a batch of epoch 1", lambda: "1 [" in many.train.notes.read_text())
        labels = next(batches.from_step(4)).labels.tolist()
    order = permutation(12, 0, 1)[4:8]
    assert labels == splits(folder, 0).train.batch(order, 1).labels.tolist()


def test_the_first_batches_of_the_next_epoch_are_read_before_they_are_asked_for(
    folder, tmp_path
) -> None:
    many = splits(folder, 2)
    many.train.__class__ = Reads
    many.train.notes = tmp_path / "notes"
    length = LengthPlan(steps_per_epoch=3, total_steps=6, horizon=6)
    comm, heartbeat = Comm(0, 1, "gloo"), Heartbeat(None)
    plan = BatchPlan(4, 1)
    batches = TrainingBatches(many.train, plan, length, 0, comm, CPU, heartbeat)
    with batches:
        seen = [next(batches.from_step(step)).labels.tolist() for step in range(3)]
        batches.prepare(2)  # this epoch's are being read already
        batches.prepare(3)
        wait_for("a batch of epoch 1", lambda: "\n1 [" in many.train.notes.read_text())
        batches.prepare(3)
        seen += [next(batches.from_step(step)).labels.tolist() for step in range(3, 6)]
        batches.prepare(6)  # there is no further epoch
    alone = splits(folder, 0)
    for step, labels in enumerate(seen):
        epoch, within = divmod(step, 3)
        order = permutation(12, 0, epoch)[4 * within : 4 * within + 4]
        assert alone.train.batch(order, epoch).labels.tolist() == labels
    read = many.train.notes.read_text().splitlines()
    assert len(read) == len(set(read)) == 6, "nothing is read twice"
    many.close()


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
