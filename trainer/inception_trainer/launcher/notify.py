"""The bell: the operator asks at once when ranks have ended or made their first step, instead of
some time later.
"""

import contextlib
import http.client
import threading
from urllib.parse import quote

SECONDS = 1.0


def ring(address: str, job: str, pod: str) -> None:
    """Ring in the background, once; an operator that does not hear it learns from readiness."""
    threading.Thread(
        target=ring_and_wait, args=(address, job, pod), name="bell", daemon=True
    ).start()


def ring_and_wait(address: str, job: str, pod: str) -> None:
    """Ring; whatever goes wrong is nobody's concern."""
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
        connection = http.client.HTTPConnection(address, timeout=SECONDS)
        try:
            connection.request("POST", f"/ring/{quote(job)}/{quote(pod, safe='')}")
            connection.getresponse().read()
        finally:
            connection.close()
