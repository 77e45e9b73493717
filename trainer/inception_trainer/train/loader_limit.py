"""Tells when the training waits for its images, and how many loader processes would do."""

from __future__ import annotations

import math

from inception_trainer.config.data import IN_MEMORY, DataConfig
from inception_trainer.log import logger

from .step import StepStats

WAITING_SHARE = 0.1
"""From this share of the time on the loader is the limit."""
LEAST_SECONDS = 10.0
"""Of training that are looked at together."""
MOST_WORKERS = 64
"""The largest ``data.workers``."""


class LoaderLimit:
    """Looks at each log interval; warns once."""

    def __init__(self, data: DataConfig, cpus: float) -> None:
        """``cpus`` are those that this rank may use."""
        self._workers = data.workers or 0
        self._cpus = cpus
        # Images that lie in memory are not read by loader processes: there is nothing to advise.
        self._done = data.kind in IN_MEMORY
        self._is_first = True
        self._waited = self._computed = 0.0

    def check(self, stats: StepStats) -> None:
        """Take the seconds of one interval into account."""
        # In the first interval loader processes are started.
        if self._done or self._is_first:
            self._is_first = False
            return
        self._waited += stats.data_seconds
        self._computed += stats.compute_seconds
        whole = self._waited + self._computed
        if whole < LEAST_SECONDS:
            return
        share = self._waited / whole
        if share >= WAITING_SHARE:
            self._done = True
            logger.warning("%s", self._advice(share))
        self._waited = self._computed = 0.0

    def _advice(self, share: float) -> str:
        wanted = workers_that_would_do(self._workers, self._waited, self._computed)
        text = (
            f"the loader is the limit: {100 * share:.0f} % of the time is spent waiting for images "
            f"with data.workers {self._workers}; {wanted} would do"
        )
        if wanted > self._cpus:
            return f"{text}, but this rank may use {self._cpus:g} CPUs: give the pod more of them"
        return text


def workers_that_would_do(workers: int, waited: float, computed: float) -> int:
    """How many processes read as fast as the network computes, where ``workers`` let it wait
    ``waited`` seconds for each ``computed``.
    """
    # While the network waits, all of them work all the time; without any, the rank reads itself.
    reading = workers * (waited + computed) if workers else waited
    wanted = math.ceil(reading / max(computed, 1e-9) - 1e-6)
    return min(MOST_WORKERS, max(workers + 1, wanted))
