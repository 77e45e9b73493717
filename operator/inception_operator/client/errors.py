"""What cannot be done, why and what to do about it; for a command also what it ends with.

ClientError
├── AnswerError      the API server refused a request
├── CutError         an answer of the API server broke off
├── TimedOutError    the time that was given is over
└── TrainingFailed   a job has failed or is rejected (`sdk.failure`)

docs/cli.md has the table of the codes. None of them is one of the launcher's contract, so that a
script that waits for a job can tell the job's end from a command that failed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

FAILED: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
UNAVAILABLE: Final = 69
"""No kubeconfig, no answer, or no InceptionTraining known to the API server (EX_UNAVAILABLE)."""
FORBIDDEN: Final = 77
"""Not logged in, or not allowed to (EX_NOPERM)."""
TIMED_OUT: Final = 124
"""As ``timeout`` of coreutils ends."""
INTERRUPTED: Final = 130


class ClientError(Exception):
    """What was asked for cannot be done; the text says why and what to do.

    ``code`` is the exit code of a command.
    """

    def __init__(self, message: str, remedy: str = "", code: int = FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.code = code

    def __str__(self) -> str:
        return f"{self.message}\n{self.remedy}" if self.remedy else self.message


class AnswerError(ClientError):
    """The API server refused the request; ``status`` is that of HTTP."""

    def __init__(self, status: int, message: str, remedy: str = "", code: int = FAILED) -> None:
        super().__init__(message, remedy, code)
        self.status = status


class CutError(ClientError):
    """The connection broke in the middle of an answer; asked again, the rest may come."""

    def __init__(self, address: str, error: BaseException) -> None:
        super().__init__(f"the answer of {address} broke off: {error}", code=UNAVAILABLE)


class TimedOutError(ClientError, TimeoutError):
    """The time that was given is over."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code=TIMED_OUT)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest of the known names as a question; empty when none is near."""
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean {nearest[0]}?" if nearest else ""
