"""Requests to stop gracefully: SIGTERM, Ctrl-C, or the launcher's stop file."""

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
        self._is_signalled = False
        self._is_armed = False

    def install(self) -> None:
        """Take SIGTERM and SIGINT from whoever has them; main thread only."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def arm(self) -> None:
        """From now on a signal is only remembered: the loop saves and stops at a step boundary."""
        self._is_armed = True
        if self._is_signalled:
            raise Stopped("stopped on request before the first step")

    def requested(self) -> bool:
        """Whether this process should stop; looks at the file, so ask once per step."""
        if self._is_signalled:
            return True
        # A file besides the signal: a rank that hangs in a collective still gets the latter.
        return self._file is not None and self._file.exists()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._is_signalled = True
        if number == signal.SIGINT:
            # The second Ctrl-C means it.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        # Raised here, inside whatever the main thread does: it may wait for peers for minutes.
        if not self._is_armed:
            raise Stopped("stopped on request before the first step")
