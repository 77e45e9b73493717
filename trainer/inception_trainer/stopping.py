"""Requests to stop: SIGTERM, Ctrl-C, or the launcher's stop file."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType

from .errors import Stopped


class StopRequest:
    """Remembers that this process was asked to stop; before training begins there is nothing to
    save, so it ends.
    """

    def __init__(self, stop_file: Path | None) -> None:
        self._file = stop_file
        self._signalled = False
        self._armed = False

    def install(self) -> None:
        """Take SIGTERM and SIGINT from whoever has them; main thread only."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def arm(self) -> None:
        """From now on a signal is only remembered: the loop saves and stops at a step boundary."""
        self._armed = True
        if self._signalled:
            raise Stopped("stopped on request before the first step")

    def requested(self) -> bool:
        """Whether this process should stop; looks at the file, so ask once per step."""
        return self._signalled or (self._file is not None and self._file.exists())

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signalled = True
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # the second Ctrl-C means it
        if not self._armed:
            raise Stopped("stopped on request before the first step")
