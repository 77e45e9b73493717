"""Messages between the launcher and the fork server: one JSON object per packet of a Unix socket.

To the fork server goes ``start``; back come ``ready`` or ``broken``, and for each attempt
``agent`` (its process number), ``outcome`` and ``exit``.
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
    """Files of this attempt: pipes, heartbeats, notes of the ranks."""
    program: tuple[str, ...] = ()
    """What every rank runs; empty: the bundled trainer."""
    job: str = ""
    """``<namespace>/<name>``"""

    @property
    def stop_file(self) -> Path:
        """Name the file that asks the ranks to stop."""
        return Path(self.folder) / "stop"

    @property
    def progress_file(self) -> Path:
        """Name the file in which local rank 0 tells its progress."""
        return Path(self.folder) / "progress.json"

    @property
    def first_rank(self) -> int:
        """Give the global rank of this node's local rank 0."""
        return self.assignment.node_rank * self.assignment.nproc_per_node

    def local_rank(self, global_rank: int) -> int:
        """Give the local rank of a rank of this node."""
        return global_rank - self.first_rank

    def global_rank(self, local_rank: int) -> int:
        """Give the rank among those of all nodes."""
        return self.first_rank + local_rank

    def to_dict(self) -> dict[str, Any]:
        """Make plain data for the way to the fork server."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> "Request":
        """Read what ``to_dict`` made."""
        return cls(
            assignment=Assignment(**raw["assignment"]),
            folder=raw["folder"],
            program=tuple(raw["program"]),
            job=raw["job"],
        )


def pair() -> tuple[socket.socket, socket.socket]:
    """Make the two ends of the socket."""
    # The fork server and its agents write to one end; a stream would mix their messages.
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(channel: socket.socket, kind: str, **content: Any) -> None:
    """Send one message; raises OSError when the other end is gone."""
    channel.send(json.dumps({"kind": kind, **content}).encode())


def receive(channel: socket.socket) -> dict[str, Any] | None:
    """Receive one message; ``None`` when the other end is gone."""
    packet = channel.recv(_PACKET_BYTES)
    if not packet:
        return None
    message: dict[str, Any] = json.loads(packet)
    return message
