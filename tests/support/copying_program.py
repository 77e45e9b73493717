"""Ranks that keep what they know when they are asked to, as those of the bundled trainer do.

``copy-<attempt>-<rank>`` says that one has; the other files are those of ``tiny_program``. What a
rank does with the request stands in TINY_COPY: ``take`` a copy, be ``deaf`` to it, or ``unaware``.
"""

import os
import signal
import time
from pathlib import Path

from tiny_program import act, note


def train() -> None:
    """Wait for what the test says."""
    folder = Path(os.environ["TINY_FOLDER"])
    name = f"{os.environ['INCEPTION_ATTEMPT']}-{os.environ['RANK']}"

    def keep(*_: object) -> None:
        # Long enough for whoever does not wait for it to be noticed.
        time.sleep(0.5)
        note(folder / f"copy-{name}", "")
        raise RuntimeError("Connection closed by peer")

    match os.environ.get("TINY_COPY", "take"):
        case "take":
            signal.signal(signal.SIGUSR2, keep)
        case "deaf":
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    note(folder / f"step-{name}", str(os.getpid()))
    order = folder / f"do-{name}"
    while not order.exists():
        time.sleep(0.01)
    act(order.read_text(encoding="utf-8"))
