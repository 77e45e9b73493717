"""What the launcher and the fork server say to each other: one JSON object per packet of a Unix
socket.
"""

import dataclasses
import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .assignment import Assignment

_PACKET_BYTES = 1 << 17


@dataclass(frozen=True)
class Request:
    """What the launcher asks the fork server to start."""

    assignment: Assignment
    folder: str
    program: tuple[str, ...] = ()
    job: str = ""

    @property
    def stop_file(self) -> Path:
        """Name the file that asks the ranks to stop."""
        return Path(self.folder) / "stop"

    @property
    def progress_file(self) -> Path:
        """Name the file in which local rank 0 tells its progress."""
        return Path(self.folder) / "progress.json"

    def local(self, number: int) -> int:
        """Give the local rank of a global one."""
        return number - self.assignment.node_rank * self.assignment.nproc_per_node

    def to_dict(self) -> dict[str, Any]:
        """Make plain data for the way to the fork server."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> "Request":
        """Read what ``to_dict`` made."""
        return cls(
            Assignment(**raw["assignment"]), raw["folder"], tuple(raw["program"]), raw["job"]
        )


def pair() -> tuple[socket.socket, socket.socket]:
    """Make the two ends; packets keep the messages of several writers apart."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(channel: socket.socket, kind: str, **content: Any) -> None:
    """Send one message."""
    channel.send(json.dumps({"kind": kind, **content}).encode())


def receive(channel: socket.socket) -> dict[str, Any] | None:
    """Receive one message; ``None`` when the other end is gone."""
    packet = channel.recv(_PACKET_BYTES)
    if not packet:
        return None
    message: dict[str, Any] = json.loads(packet)
    return message
