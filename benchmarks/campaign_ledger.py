"""What became of each attempt of a job, as the API server told it, and whether that fits what was
done to the job.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

# What a kill may show as. A lost peer is all that remains where the victim cannot be asked in time.
SHOWS_AS = {
    "process": ("Signal", "PeerLost"),
    "oom": ("OOMKilled", "PeerLost"),
    "stop": ("Hang", "PeerLost"),
    "pod": ("PodDeleted",),
    "node": ("NodeLost",),
}
COUNTED = frozenset(("process", "oom", "stop"))
INFRASTRUCTURE = frozenset(
    (
        "PodDeleted",
        "Evicted",
        "Disrupted",
        "NodeLost",
        "UnexpectedAdmissionError",
        "NotResponding",
        "DeviceUnhealthy",
    )
)


class LedgerError(Exception):
    """Something was lost, or counted wrongly."""


@dataclass(frozen=True)
class Kill:
    """What was done to a job during one of its attempts."""

    kind: str
    attempt: int


@dataclass
class Ledger:
    """Root causes by attempt, and when the job's status first showed each attempt; filled by a
    watch.
    """

    causes: dict[int, str] = field(default_factory=dict)
    decided: dict[int, float] = field(default_factory=dict)

    def see(self, event: dict[str, Any], moment: float) -> None:
        """Note one event of the watch."""
        status = event["object"].get("status") or {}
        for attempt in range(1, status.get("attempt", 0) + 1):
            self.decided.setdefault(attempt, moment)
        cause = status.get("rootCause")
        if cause:
            self.causes.setdefault(cause["attempt"], cause["reason"])

    def wait_decided(self, attempt: int, seconds: float = 180) -> float:
        """When the status first showed this attempt."""
        deadline = time.monotonic() + seconds
        while attempt not in self.decided:
            if time.monotonic() > deadline:
                raise LedgerError(
                    f"attempt {attempt} was not decided on within {seconds:.0f} s; {self.causes}"
                )
            time.sleep(0.02)
        return self.decided[attempt]

    def audit(self, kills: Sequence[Kill], status: dict[str, Any]) -> int:
        """Raise LedgerError unless everything is accounted for; answers how many attempts ended
        without a kill.
        """
        attempts = range(1, status["attempt"])
        if sorted(self.causes) != list(attempts):
            raise LedgerError(f"{status['attempt']} attempts, but causes of {sorted(self.causes)}")
        ends = [kill.attempt for kill in kills[1:]] + [status["attempt"]]
        for kill, end in zip(kills, ends, strict=False):
            found = [self.causes[attempt] for attempt in range(kill.attempt, end)]
            if not set(found) & set(SHOWS_AS[kill.kind]):
                raise LedgerError(f"{kill} shows as {found}")
        wanted = {
            "restarts": len(attempts),
            "restartsCountTowardsMax": sum(kill.kind in COUNTED for kill in kills),
        }
        counted = {key: status[key] for key in wanted}
        faults = sum(cause not in INFRASTRUCTURE for cause in self.causes.values())
        if counted != wanted or faults != wanted["restartsCountTowardsMax"]:
            raise LedgerError(
                f"counted {counted}, expected {wanted}; kills {kills}, causes {self.causes}"
            )
        return len(attempts) - len(kills)
