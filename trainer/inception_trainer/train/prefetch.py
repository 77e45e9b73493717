"""Reads batches ahead into pinned memory and from there into the device's, in a thread, for devices
that copy on their own; and does work on results beside the computation.

The copies run beside the computations, on a stream of their own. On the CPU nothing is copied, so
no thread is started. A thread of ours, not the DataLoader's ``pin_memory``: data sets in
memory, which make their batches in this process, need it most.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar

import torch

from inception_trainer.data import Batch, Dataset
from inception_trainer.data.counter_rng import Indices
from inception_trainer.device import transfers

DEPTH = 2
"""Batches that wait in the memory of the device."""
T = TypeVar("T")


@contextmanager
def stream_batches(
    dataset: Dataset, batches: list[Indices], epoch: int | None, device: torch.device
) -> Iterator[Iterator[Batch]]:
    """The dataset's stream, read ahead onto ``device`` where that copies on its own."""
    with dataset.stream(batches, epoch) as stream:
        if not transfers.has_async_copy(device):
            yield stream
            return
        uploads = transfers.Uploads(device)

        def send(batch: Batch) -> tuple[Batch, Any]:
            return send_batch(batch, uploads)

        with read_ahead(stream, lambda: transfers.use(device), send) as ahead:
            yield receive_batches(ahead, uploads)


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The batch in the device's memory, where it is already if it was read ahead."""
    return Batch.of(*(tensor.to(device, non_blocking=True) for tensor in batch.tensors()))


def send_batch(batch: Batch, uploads: transfers.Uploads) -> tuple[Batch, Any]:
    """The batch in the device's memory, by way of memory that the device reads on its own, and the
    event behind its copies.
    """
    copies, arrived = uploads.send(tuple(tensor.pin_memory() for tensor in batch.tensors()))
    return Batch.of(*copies), arrived


def receive_batches(
    sent: Iterator[tuple[Batch, Any]], uploads: transfers.Uploads
) -> Iterator[Batch]:
    """The batches, for whoever computes with them on the device's current stream."""
    for batch, arrived in sent:
        uploads.receive(batch.tensors(), arrived)
        yield batch


@contextmanager
def read_ahead(
    stream: Iterator[Batch], begin: Callable[[], None], prepare: Callable[[Batch], T]
) -> Iterator[Iterator[T]]:
    """The batches of ``stream``, fetched and prepared by a thread; its errors are raised where they
    are awaited.

    The thread calls ``begin`` once, before the first batch.
    """
    reader = _ReadAhead(stream, begin, prepare)
    try:
        yield iter(reader)
    finally:
        reader.close()


class _ReadAhead(Generic[T]):
    """The thread and the queue between it and the training."""

    def __init__(
        self, stream: Iterator[Batch], begin: Callable[[], None], prepare: Callable[[Batch], T]
    ) -> None:
        self._stream = stream
        self._begin = begin
        self._prepare = prepare
        self._items: queue.Queue[T | BaseException | None] = queue.Queue(DEPTH)
        """None is the end."""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        while (item := self._items.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """Return once the thread has let go of the stream."""
        self._closing.set()
        # The thread may wait for room in the queue, so room is made until it is gone.
        while self._thread.is_alive():
            with suppress(queue.Empty):
                self._items.get_nowait()
            self._thread.join(0.01)

    def _run(self) -> None:
        try:
            self._begin()
            for batch in self._stream:
                if self._closing.is_set():
                    return
                self._items.put(self._prepare(batch))
            self._items.put(None)
        except BaseException as error:
            self._items.put(error)


@contextmanager
def beside(work: Callable[[T], None], name: str) -> Iterator[Callable[[T], None]]:
    """A function that hands items to a thread, which does ``work`` on each in their order.

    At most ``DEPTH`` items wait. An error of the thread is raised at the next item or at the end,
    at which all work is done; after an error inside the block what still waits is dropped.
    """
    items: queue.Queue[tuple[T] | None] = queue.Queue(DEPTH)
    failed: list[BaseException] = []
    dropping = threading.Event()

    def run() -> None:
        while (item := items.get()) is not None:
            if failed or dropping.is_set():
                continue
            try:
                work(*item)
            except BaseException as error:
                failed.append(error)

    def put(item: T) -> None:
        if failed:
            raise failed[0]
        items.put((item,))

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield put
    except BaseException:
        dropping.set()
        raise
    finally:
        items.put(None)
        thread.join()
    if failed:
        raise failed[0]
