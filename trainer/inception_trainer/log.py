"""The trainer's logger: lines on standard output, prefixed with job, attempt and rank.

Standard output is what the container runtime keeps for ``kubectl logs``; the pods of one job are
usually read together, so every line says whose it is.
"""

from __future__ import annotations

import logging
import sys

logger = logging.getLogger("inception_trainer")


def configure(job: str, attempt: int, rank: int) -> None:
    """Send the trainer's log to standard output; ranks other than 0 log warnings and errors.

    ``job`` is its name, or empty outside the cluster.
    """
    prefix = f"{job} attempt {attempt} rank {rank}".lstrip()
    line_format = f"%(asctime)s [{prefix}] %(message)s"
    formatter = logging.Formatter(line_format, "%H:%M:%S")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatter)
    # Replaced, not added to: a second call in one process must not print every line twice.
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    # Nor must a library that configures the root logger.
    logger.propagate = False
