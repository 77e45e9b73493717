"""The assignment: what the operator asks of this slot (docs/architecture/wire.md).

The operator writes it as an annotation of the pod, the kubelet projects it into a file, ``main``
reads that file; mostly the operator has delivered the same text to ``server`` before. ``state``
decides what follows from it.
"""

import hashlib
import hmac
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import json_text
from .contract import CONTRACT, SPOKEN, UNSAID

log = logging.getLogger("inception-launcher")


class InvalidAssignmentError(ValueError):
    """The assignment is torn or breaks the contract; the message names the key."""


@dataclass(frozen=True)
class Assignment:
    """Ranks of one attempt on this slot, or standby when ``nnodes`` is 0."""

    attempt: int
    node_rank: int = 0
    nnodes: int = 0
    nproc_per_node: int = 0
    master_addr: str = ""
    master_port: int = 0
    graceful: bool = False
    """Ranks of an older attempt save before they end."""
    end: bool = False
    """The job is over: the launcher ends too."""
    notify_address: str = ""
    """``host:port`` of the operator, to be notified when ranks begin or end; empty: nobody is.
    In JSON its key is ``bell``.
    """
    next_key: str = ""
    """The SHA-256 of the key with which the next one may be delivered; empty: only the file tells.
    """
    contract: int = CONTRACT
    """The version in which the operator speaks. Of an assignment that does not fit, nothing but
    ``attempt`` and ``end`` is read.
    """

    @property
    def fits(self) -> bool:
        """Tell whether this launcher understands it."""
        return self.contract in SPOKEN

    @property
    def standby(self) -> bool:
        """Tell whether the slot shall stay warm without ranks."""
        return self.nnodes == 0 and self.fits

    @property
    def world_size(self) -> int:
        """Count the ranks of the attempt on all nodes."""
        return self.nnodes * self.nproc_per_node

    def opens(self, key: str) -> bool:
        """Tell whether the next assignment may be delivered with this key."""
        digest = hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()
        return bool(self.next_key) and hmac.compare_digest(digest, self.next_key)


def parse(text: str) -> Assignment | None:
    """Read an assignment; ``None`` while the operator has written none yet."""
    if not text.strip():
        return None
    try:
        raw = json_text.decode(text)
    except ValueError as error:
        raise InvalidAssignmentError(f"not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise InvalidAssignmentError("not a JSON object")
    end = _boolean(raw, "end")
    attempt = _integer(raw, "attempt", 1)
    contract = _integer(raw, "contract", 1) if "contract" in raw else UNSAID
    if contract not in SPOKEN:
        return Assignment(attempt, end=end, contract=contract)
    graceful = _boolean(raw, "graceful")
    nnodes = _integer(raw, "nnodes", 0)
    next_key = digest(raw.get("nextKey"))
    if nnodes == 0:
        return Assignment(attempt, graceful=graceful, end=end, next_key=next_key)
    return Assignment(
        attempt,
        node_rank=_integer(raw, "nodeRank", 0, nnodes - 1),
        nnodes=nnodes,
        nproc_per_node=_integer(raw, "nprocPerNode", 1),
        master_addr=_address(raw),
        master_port=_integer(raw, "masterPort", 1, 65535),
        graceful=graceful,
        notify_address=notify_address(raw.get("bell")),
        next_key=next_key,
    )


class AssignmentFile:
    """The file into which the kubelet projects the assignment."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._text = ""

    def poll(self) -> Assignment | None:
        """Give the assignment when the content has changed; a torn or wrong one is logged and
        passed over.
        """
        # Read whole each time: the kubelet swaps a symbolic link to the folder and never writes in
        # place, so there is no file to watch.
        try:
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None
        if text == self._text:
            return None
        self._text = text
        try:
            return parse(text)
        except InvalidAssignmentError as error:
            log.warning("assignment ignored: %s", error)
            return None


def is_new(assignment: Assignment, accepted: Assignment | None) -> bool:
    """Tell whether an assignment supersedes the newest one accepted so far.

    Within one attempt ranks follow standby, and the end follows both, never the other way round:
    so a repeated file changes nothing, nor one that is behind what was delivered.
    """
    if accepted is None or assignment.attempt > accepted.attempt:
        return True
    if assignment.attempt < accepted.attempt or accepted.end:
        return False
    return assignment.end or (accepted.standby and not assignment.standby)


def _boolean(raw: dict[str, Any], key: str) -> bool:
    value = raw.get(key, False)
    if not isinstance(value, bool):
        raise InvalidAssignmentError(f"{key}: not true or false")
    return value


def _integer(raw: dict[str, Any], key: str, low: int, high: int | None = None) -> int:
    value = raw.get(key)
    # JSON's true is a Python int.
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidAssignmentError(f"{key}: not a whole number: {value!r}")
    if value < low or (high is not None and value > high):
        raise InvalidAssignmentError(f"{key}: out of range: {value}")
    return value


def _address(raw: dict[str, Any]) -> str:
    value = raw.get("masterAddr")
    if not isinstance(value, str) or not value or any(c.isspace() for c in value):
        raise InvalidAssignmentError(f"masterAddr: not an address: {value!r}")
    return value


def digest(value: object) -> str:
    """Give the SHA-256 of the key of the next assignment, empty where there is none."""
    if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value):
        # Then the next one comes by the file alone.
        return ""
    return value


def notify_address(value: object) -> str:
    """Give the operator's host and port, empty where nobody is to be notified."""
    if not isinstance(value, str) or any(c.isspace() for c in value):
        # The operator finds out without a notification, if later: no reason to refuse to run.
        return ""
    return value
