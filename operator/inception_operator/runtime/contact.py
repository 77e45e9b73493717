"""Whether the API server answers this process: said once in the log, and as long as it does not by
/readyz.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

LOST_SECONDS = 30.0
"""An API server that is replaced by another one is away for so long without harm."""
REMEDY = (
    "check the address (--kubeconfig, in a pod the variables KUBERNETES_SERVICE_HOST and _PORT), "
    "the operator's credentials, and that network policies let the operator to the API server"
)

_log = logging.getLogger(__name__)


class Contact:
    """The latest requests to the API server; every request of the client tells how it ended."""

    def __init__(self, server: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._server = server
        self._clock = clock
        self._reached = False
        self._failing_since: float | None = None
        self._error = "no request has ended yet"
        self._logged = False

    @property
    def problem(self) -> str | None:
        """What is wrong, for people; None while the API server answers or is away for a moment."""
        if not self._reached:
            return f"the API server at {self._server} has never answered: {self._error}; {REMEDY}"
        if self._failing_since is None:
            return None
        away = self._clock() - self._failing_since
        if away < LOST_SECONDS:
            return None
        return (
            f"the API server at {self._server} has not answered for {away:.0f} s: {self._error}; "
            f"{REMEDY}"
        )

    def answered(self) -> None:
        """A request was answered, if perhaps with a refusal."""
        if self._logged:
            _log.info("the API server answers")
        self._reached = True
        self._failing_since = None
        self._logged = False

    def failed(self, error: str) -> None:
        """A request was not answered, or not to us: the credentials are not accepted."""
        self._error = error
        if self._failing_since is None:
            self._failing_since = self._clock()
        if self._logged:
            return
        # Once for each time that it is away: what goes wrong meanwhile says so itself.
        problem = self.problem
        if problem is not None:
            self._logged = True
            _log.error("%s", problem)
