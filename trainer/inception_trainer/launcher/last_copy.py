"""The last word to ranks of the bundled trainer that are about to be killed: keep what you know.

A rank that lives when its attempt ends holds the state after the last finished step, and the next
attempt goes on from there if it leaves a copy in the pod's memory. Agent and launcher ask for it by
a signal before they kill; programs of others know nothing of it and are not asked.
"""

import contextlib
import os
import signal
from collections.abc import Iterable

SIGNAL = signal.SIGUSR2
"""Asks a rank to copy its state to memory and leave as one that has lost its peers. One that has
not begun has nothing to keep: there the signal's default action ends it.
"""
SECONDS = 2.0
"""How long ranks may take. A copy takes tenths of a second; a rank that is slower stands in a
collective or a device call that does not return, and the next attempt would wait for it in vain.
"""


def ask_for(pids: Iterable[int]) -> None:
    """Ask ranks for their last copy; each leaves in its own time."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, SIGNAL)
