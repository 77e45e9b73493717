"""Brings assignments to the launchers directly; the kubelet, which projects the annotation into a
file, takes a fifth of a second to a second, and now and then a minute.

What is delivered is the text that the API server has stored a moment before, and a launcher takes
only what goes on from what it has, so a delivery that is lost, late or repeated costs nothing but
time. It must not be a way past the API server: who may read pods may not steer them. So every
assignment, and before the first the pod itself, names the SHA-256 of a key, and the next one is
taken from whoever shows that key. Keys are derived from a secret of this process; what another
operator delivers is refused, and comes by the kubelet.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable

from inception_operator.contract.assignment import from_json, to_json
from inception_operator.contract.names import ANNOTATION_ASSIGNMENT, CONTAINER, KEY_VARIABLE
from inception_operator.contract.types import Assignment, Json, PodView

from .objects import name_of

Send = Callable[[str, str, str], None]
"""Sends a text with a key to the launcher at an IP address, without waiting for an answer."""


class Courier:
    """Writes assignments so that the next one can be delivered, and delivers them."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._secret = secrets.token_bytes(32)

    def write(self, namespace: str, pod: str, assignment: Assignment) -> str:
        """The text of an assignment for the annotation of a pod."""
        return to_json(assignment, next_key=self._digest(namespace, pod, assignment))

    def invite(self, namespace: str, pod: Json) -> Json:
        """A pod that is about to be made, so that its first assignment can be delivered too, or the
        one after that with which it is born.
        """
        metadata = pod["metadata"]
        annotations = metadata.get("annotations", {})
        born_with = from_json(annotations.get(ANNOTATION_ASSIGNMENT))
        if born_with is not None:
            text = self.write(namespace, name_of(pod), born_with)
            annotations = {**annotations, ANNOTATION_ASSIGNMENT: text}
            return {**pod, "metadata": {**metadata, "annotations": annotations}}
        first = {"name": KEY_VARIABLE, "value": self._digest(namespace, name_of(pod), None)}
        containers = [
            {**each, "env": [*each.get("env", ()), first]}
            if each.get("name") == CONTAINER
            else each
            for each in pod["spec"]["containers"]
        ]
        return {**pod, "spec": {**pod["spec"], "containers": containers}}

    def deliver(self, namespace: str, pod: PodView, text: str) -> None:
        """Bring a pod the text that its annotation has by now, where it is known to answer."""
        if pod.ip and pod.reachable:
            self._send(pod.ip, self._key(namespace, pod.name, pod.assignment), text)

    def _digest(self, namespace: str, pod: str, before: Assignment | None) -> str:
        return hashlib.sha256(self._key(namespace, pod, before).encode()).hexdigest()

    def _key(self, namespace: str, pod: str, before: Assignment | None) -> str:
        """The key with which the assignment after this one may be delivered, or the first one."""
        what = f"{namespace}/{pod}"
        if before is not None:
            what += f"/{before.attempt}/{before.is_standby}"
        return hmac.digest(self._secret, what.encode(), "sha256").hex()
