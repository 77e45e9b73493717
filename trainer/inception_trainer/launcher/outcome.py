"""How an attempt ended on this node, and which of its failures is the root cause.

The agent makes an ``Outcome``, ``state`` has it judged and puts the ``Verdict`` into the report.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .compat import StrEnum
from .exitcodes import ExitCode, Reason, contract_code, reason_of, signal_name, signal_of

MESSAGE_CHARACTERS = 2900
"""What a report has room for: the kubelet cuts termination messages at 4 KiB."""


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
    """Seconds since the epoch, on this node's clock."""
    rank: int | None = None
    """Global; None: it was not a rank that failed."""
    error: str = ""
    """Type of the exception."""
    message: str = ""
    """Type and text of the exception."""
    peer_lost: bool = False
    """It failed because another rank did."""
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
        reason = Reason.OOM_KILLED
        code: int = ExitCode.KILLED
        head = "the memory limit was reached and the kernel killed a process"
    else:
        reason = Reason.PEER_LOST if cause.peer_lost else reason_of(cause.exit_code)
        code = contract_code(cause.exit_code)
        number = signal_of(cause.exit_code)
        head = f"exit code {cause.exit_code}" if number is None else signal_name(number)
    message = with_tail(cause.message or head, cause.tail)
    return Verdict(reason, code, cause.rank, message, cause.time)


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
    """Tell whether the OOM killer may be behind a failure."""
    # It may have struck a data loader of the rank, which then raises, or another rank, which this
    # one then lost. A rank that ends with a code of its own, 65 say, knows why.
    return cause.peer_lost or reason_of(cause.exit_code) in (Reason.SIGNAL, Reason.ERROR)
