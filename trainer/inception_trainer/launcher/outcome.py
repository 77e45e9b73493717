"""How an attempt ended on this node, and which of its failures is the root cause."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .compat import StrEnum
from .exitcodes import ExitCode, Reason, contract_code, reason_of, signal_name, signal_of

MESSAGE_CHARACTERS = 2900
"""What a report of 4 KiB has room for."""


class Result(StrEnum):
    """The three ways in which an attempt ends."""

    SUCCEEDED = "succeeded"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class Failure:
    """One rank that ended by itself with a code other than 0 (negative: a signal)."""

    exit_code: int
    time: float
    rank: int | None = None
    error: str = ""
    message: str = ""
    peer_lost: bool = False
    tail: str = ""
    """The last lines of its stderr."""


@dataclass(frozen=True)
class Outcome:
    """The end of an attempt, as the agent saw it; ``oom_killed`` is the launcher's to add."""

    attempt: int
    result: Result
    failures: tuple[Failure, ...] = ()
    oom_killed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Make plain data for the way from the agent to the launcher."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> "Outcome":
        """Read what ``to_dict`` made."""
        failures = tuple(Failure(**failure) for failure in raw["failures"])
        return cls(raw["attempt"], Result(raw["result"]), failures, raw["oom_killed"])


@dataclass(frozen=True)
class Verdict:
    """The root cause in the words of the report."""

    reason: Reason
    exit_code: int
    rank: int | None
    message: str
    time: float


def root_cause(failures: Sequence[Failure]) -> Failure:
    """Pick the earliest failure that is not the consequence of a lost peer."""
    return min(failures, key=lambda failure: (failure.peer_lost, failure.time))


def judge(outcome: Outcome, now: float) -> Verdict:
    """Say in the contract's words why a failed attempt failed."""
    if not outcome.failures:
        return Verdict(Reason.ERROR, ExitCode.ERROR, None, "the ranks ended without a word", now)
    cause = root_cause(outcome.failures)
    if outcome.oom_killed and _may_be_memory(cause):
        head = cause.message or "the memory limit was reached and the kernel killed a process"
        return Verdict(
            Reason.OOM_KILLED, ExitCode.KILLED, cause.rank, with_tail(head, cause.tail), cause.time
        )
    number = signal_of(cause.exit_code)
    head = cause.message or (
        signal_name(number) if number is not None else f"exit code {cause.exit_code}"
    )
    message = with_tail(head, cause.tail)
    reason = Reason.PEER_LOST if cause.peer_lost else reason_of(cause.exit_code)
    return Verdict(reason, contract_code(cause.exit_code), cause.rank, message, cause.time)


def with_tail(head: str, tail: str) -> str:
    """Put the last lines of stderr below the head of the exception, which they need not repeat."""
    at = tail.rfind(head)
    if at >= 0 and not tail[at + len(head) :].strip():
        # The line may begin with the name of the exception.
        tail = tail[: tail.rfind("\n", 0, at) + 1].rstrip()
    if not tail:
        return head
    room = MESSAGE_CHARACTERS - len(head) - 1
    return f"{head}\n{tail[-room:]}" if room > 0 else head


def _may_be_memory(cause: Failure) -> bool:
    """A kill by the kernel shows as a signal, a lost child or a lost peer, never as a code of its
    own.
    """
    return cause.peer_lost or reason_of(cause.exit_code) in (Reason.SIGNAL, Reason.ERROR)
