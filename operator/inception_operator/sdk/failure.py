"""The end of a job as an exception, or as its result. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from inception_operator.client import outcome
from inception_operator.client.errors import FAILED, ClientError
from inception_operator.client.figures import name_of, part, state
from inception_operator.contract import conditions
from inception_operator.contract.names import ConditionType
from inception_operator.contract.times import parse_time
from inception_operator.contract.types import Json

from .views import Result

# What says why, the first that there is.
_WHY: Final = (
    (ConditionType.FAILED, conditions.TRUE),
    (ConditionType.ACCEPTED, conditions.FALSE),
)


@dataclass(frozen=True)
class RootCause:
    """The first failure of a job's last attempt that failed; what is not known is None."""

    reason: str
    message: str
    exit_code: int | None = None
    attempt: int | None = None
    pod: str | None = None
    node: str | None = None
    rank: int | None = None
    time: datetime | None = None

    @classmethod
    def of(cls, resource: Json) -> RootCause | None:
        """That of a resource."""
        cause = part(resource, "status", "rootCause")
        if not cause:
            return None
        return cls(
            reason=str(cause.get("reason") or ""),
            message=str(cause.get("message") or ""),
            exit_code=cause.get("exitCode"),
            attempt=cause.get("attempt"),
            pod=cause.get("pod"),
            node=cause.get("node"),
            rank=cause.get("rank"),
            time=parse_time(cause.get("time")),
        )


class TrainingFailed(ClientError):  # noqa: N818 - the end of a job, which is no error of a request
    """A job has failed, or the operator rejects its spec.

    ``exit_code`` is what ``kubectl inception wait`` would end with: that of the root cause, 1 when
    it has none, 78 for a spec that is rejected.
    """

    def __init__(self, resource: Json) -> None:
        code = outcome.exit_code(resource)
        self.name = name_of(resource)
        self.namespace = str(resource["metadata"].get("namespace", ""))
        self.state = state(resource)
        self.reason = _reason(resource)
        self.exit_code = FAILED if code is None else code
        self.root_cause = RootCause.of(resource)
        super().__init__(outcome.summary(resource), code=self.exit_code)


def _reason(resource: Json) -> str:
    found = conditions.of(resource)
    for kind, wanted in _WHY:
        condition = conditions.find(found, kind)
        if condition is not None and condition.get("status") == wanted:
            return str(condition.get("reason") or "")
    return ""


def result_of(resource: Json) -> Result:
    """The result of a job that has ended; raises TrainingFailed for one without."""
    if outcome.exit_code(resource) != 0:
        raise TrainingFailed(resource)
    return Result.of(resource)
