"""Brings assignments to the launchers directly; the kubelet, which projects the annotation into a
file, takes a fifth of a second to a second, and now and then a minute.

What is delivered is the text that the API server has stored a moment before, and a launcher takes
only what goes on from what it has, so a delivery that is lost, late or repeated costs nothing but
time. It must not be a way past the API server: who may read pods may not steer them. So every
assignment names the SHA-256 of a key, and the next one is taken from whoever shows that key. Keys
are derived from a secret of this process; what another operator delivers is refused, and comes by
the kubelet.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable

from inception_operator.contract.assignment import to_json
from inception_operator.contract.types import Assignment, PodView

Send = Callable[[str, str, str], None]
"""Sends a text with a key to the launcher at an IP address, without waiting for an answer."""


class Courier:
    """Writes assignments so that the next one can be delivered, and delivers them."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._secret = secrets.token_bytes(32)

    def write(self, namespace: str, pod: str, assignment: Assignment) -> str:
        """The text of an assignment for the annotation of a pod."""
        key = self._key(namespace, pod, assignment)
        return to_json(assignment, next_key=hashlib.sha256(key.encode()).hexdigest())

    def deliver(self, namespace: str, pod: PodView, text: str) -> None:
        """Bring a pod the text that its annotation has by now, where it is known to answer."""
        if pod.ip and pod.reachable and pod.assignment is not None:
            self._send(pod.ip, self._key(namespace, pod.name, pod.assignment), text)

    def _key(self, namespace: str, pod: str, before: Assignment) -> str:
        """The key with which the assignment after this one may be delivered."""
        what = f"{namespace}/{pod}/{before.attempt}/{before.is_standby}"
        return hmac.digest(self._secret, what.encode(), "sha256").hex()
