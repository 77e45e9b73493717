"""One Lease from the view of one process: taken, renewed, given back; `leader` decides by them.

Clocks of different machines are never compared: a Lease counts as expired when this process has
seen it unchanged for its duration.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from inception_operator.contract.errors import (
    ApiError,
    ConflictError,
    LeadershipLostError,
    NotFoundError,
    RejectedError,
)
from inception_operator.contract.types import Json

from .client import LEASES, Client

_log = logging.getLogger(__name__)

_TRIES: Final = 3
"""How often a Lease is given back that somebody has written meanwhile."""


@dataclass(frozen=True)
class Terms:
    """Which Lease, in whose name, and for how many seconds.

    With ``shared`` other processes hold it in the same name and renew it, too. With ``wary`` a
    Lease without a holder is free only if its last one has given it back: one that was deleted and
    made again does not say who still counts on it.
    """

    namespace: str
    name: str
    holder: str
    duration: float
    shared: bool = False
    wary: bool = False


class Lease:
    """``renewed`` is when its latest renewal began."""

    def __init__(self, client: Client, terms: Terms, clock: Callable[[], float]) -> None:
        self._client = client
        self._terms = terms
        self._clock = clock
        self._seen: tuple[str, float] = ("", 0.0)
        self._said: str | None = None
        self._latest: Json | None = None
        self.held = False
        self.renewed = 0.0
        self.problem: str | None = None
        """Why this process could not have it even if nobody else did, for people."""

    def __str__(self) -> str:
        return f"{self._terms.namespace}/{self._terms.name}"

    @property
    def taken_by(self) -> str | None:
        """Who holds it in our place, empty for nobody; None when we do or nothing is known."""
        if self._latest is None or self._is_ours(self._latest):
            return None
        return _holder(self._latest)

    async def attempt(self) -> bool:
        """Take or renew it once.

        False if it is somebody else's or the API server did not answer.
        """
        # The time before the request: when the answer is late, others count from the write.
        started = self._clock()
        try:
            self._latest = await self._write()
        except ConflictError:
            # Somebody wrote it: read it again before the next try.
            self._latest = None
        except NotFoundError as error:
            # Somebody deleted it, or its namespace does not exist.
            self._latest = None
            self._note(error)
        except ApiError as error:
            self._note(error)
        else:
            self._note(None)
            if self._is_ours(self._latest):
                self.renewed = started
                self.held = True
                return True
        return False

    async def give_back(self) -> None:
        """Say that nobody holds it any more, so that the next one need not wait for its end.

        A shared one is left to expire: others may go on in the same name.
        """
        if self._terms.shared or not self.held:
            return
        self.held = False
        lease = self._latest
        try:
            for _ in range(_TRIES):
                lease = lease or await self._read()
                if lease is None or not self._is_ours(lease):
                    return
                spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
                with suppress(ConflictError):
                    await self._replace({**lease, "spec": spec})
                    return
                # A renewal whose answer nobody waited for any more has been carried out.
                lease = None
            _log.info("the Lease %s was not released: it is written again and again", self)
        except (ApiError, LeadershipLostError) as error:
            _log.info("the Lease %s was not released: %s", self, error)

    def _note(self, error: ApiError | None) -> None:
        """Remember and log what stands in the way; the same thing only once."""
        if error is None:
            self.problem = self._said = None
            return
        text = f"leader election with the Lease {self}: {error}"
        # An API server that does not answer is `Contact`'s matter.
        if isinstance(error, NotFoundError):
            self.problem = text = f"{text}; is --lease-namespace right?"
        elif isinstance(error, RejectedError):
            self.problem = text = f"{text}; give the operator its Role there"
        if text != self._said:
            self._said = text
            _log.warning("%s", text)

    async def _write(self) -> Json:
        """Write ourselves into it where that is allowed; returns it as it is then."""
        # A single holder knows it from the last write: one request for a renewal instead of two.
        known = self._latest if self.held and not self._terms.shared else None
        lease = known or await self._read()
        if lease is None:
            return await self._make()
        if not (self._is_ours(lease) or self._is_free(lease) or self._expired(lease)):
            return lease
        try:
            return await self._replace(self._body(lease))
        except ConflictError:
            if not self._terms.shared:
                raise
            # Written since we have read it, so if it is in our name, this is a renewal as well.
            return await self._client.get(LEASES, self._terms.namespace, self._terms.name)

    async def _make(self) -> Json:
        # Chart and manifests bring the Lease, so that the operator needs no right to create one.
        body = self._body(None)
        if not self._may_be_ours:
            del body["spec"]
        try:
            return await self._client.create(LEASES, self._terms.namespace, body)
        except RejectedError as error:
            message = (
                f"there is no Lease {self}, and the operator may not make it: "
                f"helm upgrade or kubectl apply of the manifests brings it back ({error})"
            )
            raise RejectedError(error.status, message) from error

    async def _read(self) -> Json | None:
        try:
            return await self._client.get(LEASES, self._terms.namespace, self._terms.name)
        except NotFoundError:
            return None

    async def _replace(self, body: Json) -> Json:
        return await self._client.replace(LEASES, self._terms.namespace, self._terms.name, body)

    def _is_ours(self, lease: Json) -> bool:
        return _holder(lease) == self._terms.holder

    def _is_free(self, lease: Json) -> bool:
        # Who gives it back leaves the number of its holders there.
        was_given_back = "leaseTransitions" in (lease.get("spec") or {})
        return not _holder(lease) and (was_given_back or self._may_be_ours)

    @property
    def _may_be_ours(self) -> bool:
        """Whether to take a Lease that does not say who held it.

        Who is wary takes it only as the holder of its predecessor, on whom all others wait.
        """
        is_fresh = self.held and self._clock() - self.renewed < self._terms.duration
        return is_fresh or not self._terms.wary

    def _expired(self, lease: Json) -> bool:
        # The version and not renewTime: the holder's clock may be wrong.
        version = str(lease["metadata"]["resourceVersion"])
        if self._seen[0] != version:
            self._seen = (version, self._clock())
        seconds = (lease.get("spec") or {}).get("leaseDurationSeconds")
        return self._clock() - self._seen[1] >= float(seconds or self._terms.duration)

    def _body(self, lease: Json | None) -> Json:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        old = (lease or {}).get("spec") or {}
        is_new = old.get("holderIdentity") != self._terms.holder
        transitions = int(old.get("leaseTransitions") or 0)
        metadata = {"namespace": self._terms.namespace, "name": self._terms.name}
        return {
            "apiVersion": LEASES.api_version,
            "kind": "Lease",
            "metadata": lease["metadata"] if lease else metadata,
            "spec": {
                "holderIdentity": self._terms.holder,
                "leaseDurationSeconds": int(self._terms.duration),
                "acquireTime": now if is_new else old.get("acquireTime", now),
                "renewTime": now,
                "leaseTransitions": transitions + int(is_new and lease is not None),
            },
        }


def _holder(lease: Json) -> str:
    return str((lease.get("spec") or {}).get("holderIdentity") or "")
