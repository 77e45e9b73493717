"""Notifies the operator that the launcher is up, or that ranks have begun or ended, so that it asks
at once and not later.
"""

import contextlib
import http.client
import threading
from urllib.parse import quote

TIMEOUT_SECONDS = 1.0


def notify(address: str, job: str, pod: str) -> None:
    """Notify in the background, once; ``job`` is ``<namespace>/<name>``.

    An operator that is not reached learns the same from the pod's readiness a moment later.
    """
    # Looking up and connecting may take a second, in which the main loop must not stand still.
    threading.Thread(
        target=notify_and_wait, args=(address, job, pod), name="notify", daemon=True
    ).start()


def notify_and_wait(address: str, job: str, pod: str) -> None:
    """Notify and wait for the answer; a failure is ignored."""
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
        connection = http.client.HTTPConnection(address, timeout=TIMEOUT_SECONDS)
        try:
            connection.request("POST", f"/ring/{quote(job)}/{quote(pod, safe='')}")
            connection.getresponse().read()
        finally:
            connection.close()
