"""The trainer's logger: lines on standard output, prefixed with job, attempt and rank.

Standard output is what the container runtime keeps for ``kubectl logs``; the pods of one job are
usually read together, so every line says whose it is.
"""

from __future__ import annotations

import logging
import sys

logger = logging.getLogger("inception_trainer")


def printable(text: str) -> str:
    """The text as any terminal and file take it: names of files may hold bytes that are no text."""
    return text.encode("utf-8", "backslashreplace").decode()


class _Printable(logging.Formatter):
    """Lines that can be written whatever names of files are in them."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def configure(job: str, attempt: int, rank: int) -> None:
    """Send the trainer's log to standard output; ranks other than 0 log warnings and errors.

    ``job`` is its name, or empty outside the cluster.
    """
    prefix = f"{job} attempt {attempt} rank {rank}".lstrip()
    line_format = f"%(asctime)s [{prefix}] %(message)s"
    formatter = _Printable(line_format, "%H:%M:%S")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatter)
    # Replaced, not added to: a second call in one process must not print every line twice.
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    # Nor must a library that configures the root logger.
    logger.propagate = False
