"""Everything the operator raises on purpose.

OperatorError
├── SettingsError              a setting is missing or malformed
├── SpecError                  a job can never run as it is written; becomes Accepted=False
├── ProfileError               a row of the accelerator table cannot be used; the operator stops
├── LeadershipLostError        another operator holds the Lease, or ours was not renewed in time
├── StalledWatchError          a watch is open but delivers nothing
├── StaleViewError             a decision rested on a version of the job that is not the latest
├── JobGoneError               the job of a decision does not exist any more
├── StatusRefusedError         the API server refuses a status for what it says; a bug
└── ApiError                   the API server answered with an error
    ├── NotFoundError          404
    ├── ConflictError          409, the object has changed meanwhile
    │   └── AlreadyExistsError 409, the name is taken
    ├── GoneError              410, the resource version is too old to watch from
    ├── RejectedError          400, 403, 413, 422: admission, quota, rights or validation refuse it
    ├── ThrottledError         429, with the pause the server asks for
    ├── TooLargeError          the answer is longer than anybody should read at once
    └── UnavailableError       5xx, no connection, no answer in time
"""

from __future__ import annotations

from collections.abc import Mapping

from .decoding import MalformedError, decode


class OperatorError(Exception):
    """Base of all errors of the operator."""


class SettingsError(OperatorError):
    """A setting is missing or malformed; the message names it."""


class SpecError(OperatorError):
    """A job that can never run as it is written.

    ``path`` is the field, such as ``spec.checkpoint.uri``. The text is the path, a colon, and a
    sentence with the remedy; users read it in the message of Accepted=False.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path


class ProfileError(OperatorError):
    """A row of the accelerator table that cannot be used; the text names its file and the key."""


class LeadershipLostError(OperatorError):
    """This process may no longer write."""


class StalledWatchError(OperatorError):
    """A watch is open but misses changes that a list shows."""


class StaleViewError(OperatorError):
    """The job has changed since the decision was made; nothing was written."""


class JobGoneError(OperatorError):
    """The job that a decision was made for does not exist any more; a successor may."""


class StatusRefusedError(OperatorError):
    """The API server does not take the status that was decided on; the text names the field."""


class ApiError(OperatorError):
    """The API server refused a request."""

    def __init__(
        self, status: int, message: str, *, reason: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


class NotFoundError(ApiError):
    """The object does not exist."""


class ConflictError(ApiError):
    """The object is not what the request assumed it to be."""


class AlreadyExistsError(ConflictError):
    """The name is taken."""


class GoneError(ApiError):
    """The resource version is no longer known to the server."""


class RejectedError(ApiError):
    """The request is refused for what it says: admission, quota, rights or validation."""


class ThrottledError(ApiError):
    """The server asks for a pause."""


class TooLargeError(ApiError):
    """The answer is longer than what is read at once; a page of fewer objects will do."""


class UnavailableError(ApiError):
    """The server failed, or could not be reached in time."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: RejectedError,
    403: RejectedError,
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
    413: RejectedError,
    422: RejectedError,
    429: ThrottledError,
}


def api_error(status: int, body: bytes, headers: Mapping[str, str], request: str) -> ApiError:
    """Turn an error response into the matching exception; ``request`` goes into the message."""
    # A proxy in between answers in HTML or not at all, so nothing about the body is certain.
    try:
        answer = decode(body)
    except MalformedError:
        answer = {}
    if not isinstance(answer, dict):
        answer = {}
    reason = str(answer.get("reason") or "")
    text = str(answer.get("message") or body[:200].decode("utf-8", "replace") or "no message")
    kind = _BY_STATUS.get(status, UnavailableError if status >= 500 else ApiError)
    # 409 stands for two things; only the reason tells a taken name from a stale version.
    if kind is ConflictError and reason == "AlreadyExists":
        kind = AlreadyExistsError
    return kind(
        status,
        f"{request}: {status} {text}",
        reason=reason,
        retry_after=_seconds(headers.get("Retry-After")),
    )


def _seconds(value: str | None) -> float | None:
    # HTTP also allows a date; the API server never sends one.
    try:
        return None if value is None else max(0.0, float(value))
    except ValueError:
        return None
