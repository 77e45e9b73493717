"""What can go wrong.

LocalClusterError
├── BuildError          a component does not build, or something needed to build it is missing
├── ClusterStateError   the named cluster is not in the state that was asked for, such as running
├── CommandError        a command against the cluster (kubectl) failed
└── ComponentError      a component of the cluster ended or never became ready
"""

from __future__ import annotations

from collections.abc import Sequence


class LocalClusterError(Exception):
    """Base of everything this package raises on purpose."""


class BuildError(LocalClusterError):
    """A component cannot be built here."""


class ClusterStateError(LocalClusterError):
    """The named cluster is not in the state that was asked for."""


class CommandError(LocalClusterError):
    """A command against the cluster failed; carries its exit code and standard error."""

    def __init__(self, argv: Sequence[str], returncode: int, stderr: str) -> None:
        self.returncode = returncode
        self.stderr = stderr
        super().__init__(f"{' '.join(argv)}: exit code {returncode}: {stderr.strip()}")


class ComponentError(LocalClusterError):
    """A component failed; the message ends with the last lines of its log."""

    def __init__(self, component: str, reason: str, tail: str) -> None:
        self.component = component
        self.reason = reason
        self.tail = tail
        super().__init__(
            f"{component}: {reason}" + (f"; its log ends with:\n{tail}" if tail else "")
        )
