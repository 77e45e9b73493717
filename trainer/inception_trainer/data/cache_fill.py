"""Fills the cache with whole shards while the training goes on (``data.cache.fill: Shards``).

Training reads samples in a random order, one request for each: with a store that takes 50 ms to
answer, that is what the first epoch is made of. Here threads of the processes that read fetch what
lies together in pieces of megabytes, one shard after the other. Which shard is whose stands in
memory that all of these processes share; one that dies leaves its shard to another.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
from numpy.typing import NDArray

from inception_trainer.log import logger

from .base import Samples

AT_ONCE = 4
"""Stretches that the processes of one cache fetch at a time, each with a piece in memory."""
POLL_SECONDS = 1.0
"""How often a process looks whether another one has finished."""
FREE, DONE = 0, 2**64 - 1
"""What a stretch has in the place of the number of the process that fetches it."""


class Filler:
    """Fetches the stretches of ``samples`` that no other process has, in one thread of each process
    that calls :meth:`begin`.
    """

    def __init__(
        self,
        samples: Samples,
        keep: Callable[[int, bytes], bool],
        owners: NDArray[np.uint64],
        locked: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """``keep`` says whether there was room; ``owners`` has a word for each stretch, shared by
        all processes, which change it one at a time.
        """
        self._samples = samples
        self._keep = keep
        self._owners = owners
        self._locked = locked
        self._process: int | None = None
        self.thread: threading.Thread | None = None

    def begin(self) -> None:
        """Start the thread, unless this process has: a fork has none of its parent's threads."""
        if self._process == os.getpid():
            return
        self._process = os.getpid()
        self.thread = threading.Thread(target=self._run, name="cache-filler", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._fill()
        except Exception as error:
            # Reading each sample goes on, and says what is wrong where it is.
            logger.warning("data.cache.fill: no more shards are fetched ahead: %s", error)

    def _fill(self) -> None:
        pause = threading.Event()
        while True:
            claimed, is_over = self._claim()
            if is_over:
                return
            if claimed is None:
                pause.wait(POLL_SECONDS)
                continue
            for index, data in self._samples.read_stretch(claimed):
                if not self._keep(index, data):
                    return
            self._owners[claimed] = DONE

    def _claim(self) -> tuple[int | None, bool]:
        """A stretch for this process, None where enough are fetched just now; and whether all that
        are left are somebody's.
        """
        with self._locked():
            left = np.flatnonzero(self._owners != DONE).tolist()
            owners = {number: int(self._owners[number]) for number in left}
            living = {owner for owner in owners.values() if owner != FREE and _is_alive(owner)}
            unclaimed = [number for number, owner in owners.items() if owner not in living]
            if not unclaimed:
                return None, True
            if len(living - {os.getpid()}) >= AT_ONCE:
                return None, False
            self._owners[unclaimed[0]] = os.getpid()
            return unclaimed[0], False


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # Somebody else's by now.
        return False
    return True
