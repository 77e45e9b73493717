"""Log lines on standard output: one prefix that says which job, attempt and rank."""

from __future__ import annotations

import logging
import sys

logger = logging.getLogger("inception_trainer")


def configure(job: str, attempt: int, rank: int) -> None:
    """Send the trainer's log to standard output; only errors and warnings from ranks other than 0."""
    who = " ".join(part for part in (job, f"attempt {attempt}", f"rank {rank}") if part)
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter(f"%(asctime)s [{who}] %(message)s", "%H:%M:%S"))
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    logger.propagate = False
