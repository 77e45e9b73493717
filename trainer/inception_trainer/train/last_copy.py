"""The launcher's last word to a rank before it is killed: SIGUSR2, keep what you know.

The main thread may be in a collective that never ends, where no handler of Python's would run. So a
thread waits for the signal, which all others keep blocked.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

SIGNAL = signal.SIGUSR2


class LastCopySignal:
    """Answers SIGUSR2; made in the main thread before any other thread is."""

    def __init__(self) -> None:
        self._leave: Callable[[], None] = lambda: None
        # Inherited by every later thread, so that the signal stays for the one that asks for it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {SIGNAL})
        threading.Thread(target=self._wait, name="last-copy", daemon=True).start()

    def call(self, leave: Callable[[], None]) -> None:
        """From now on call ``leave`` before the process ends."""
        self._leave = leave

    def _wait(self) -> None:
        signal.sigwait({SIGNAL})
        try:
            self._leave()
        finally:
            # The end of a process that has no answer: the launcher knows it as what it asked for.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {SIGNAL})
            os.kill(os.getpid(), SIGNAL)
