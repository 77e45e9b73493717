"""The campaign's books: what fits the kills passes, everything else is an error."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.campaign_ledger import COUNTED, INFRASTRUCTURE, SHOWS_AS, Kill, Ledger, LedgerError
from inception_operator.decide import restart_policy

PROCESS, POD = Kill("process", 1), Kill("pod", 2)


def told(*causes: str) -> Ledger:
    """The ledger of a job whose attempts ended like this, one after the other."""
    ledger = Ledger()
    ledger.see({"object": {}}, 0.0)
    for attempt, cause in enumerate(causes, start=1):
        status: dict[str, Any] = {
            "attempt": attempt + 1,
            "rootCause": {"attempt": attempt, "reason": cause},
        }
        ledger.see({"object": {"status": status}}, float(attempt))
        ledger.see({"object": {"status": status}}, 99.0)
    return ledger


def status(attempt: int, counted: int, restarts: int | None = None) -> dict[str, int]:
    restarts = attempt - 1 if restarts is None else restarts
    return {"attempt": attempt, "restarts": restarts, "restartsCountTowardsMax": counted}


def test_the_first_sight_of_an_attempt_counts() -> None:
    ledger = told("Signal", "PodDeleted")
    assert ledger.decided == {1: 1.0, 2: 1.0, 3: 2.0}
    assert ledger.causes == {1: "Signal", 2: "PodDeleted"}
    assert ledger.wait_decided(3) == 2.0


def test_kills_that_explain_everything_pass() -> None:
    assert told("Signal", "PodDeleted").audit([PROCESS, POD], status(3, 1)) == 0
    assert (
        told("Signal", "NotResponding", "PodDeleted").audit([PROCESS, Kill("pod", 3)], status(4, 1))
        == 1
    )
    assert Ledger().audit([], status(1, 0)) == 0


@pytest.mark.parametrize(
    ("causes", "kills", "found", "words"),
    [
        (("Signal",), [PROCESS, POD], status(3, 1), "3 attempts, but causes of"),
        (("Signal", "Error"), [PROCESS, POD], status(3, 1), "shows as"),
        (("Signal", "PodDeleted"), [PROCESS, POD], status(3, 2), "counted"),
        (("Signal", "PodDeleted"), [PROCESS, POD], status(3, 1, 1), "counted"),
        (("Signal", "Signal"), [PROCESS], status(3, 1), "counted"),
    ],
    ids=[
        "an end without a cause",
        "another cause",
        "counted too much",
        "restart lost",
        "a fault nobody made",
    ],
)
def test_what_no_kill_explains_is_an_error(
    causes: tuple[str, ...], kills: list[Kill], found: dict[str, int], words: str
) -> None:
    with pytest.raises(LedgerError, match=words):
        told(*causes).audit(kills, found)


def test_faults_of_the_infrastructure_are_those_of_the_operator() -> None:
    assert set(restart_policy.INFRASTRUCTURE) == INFRASTRUCTURE
    assert {cause for kind in COUNTED for cause in SHOWS_AS[kind]} & INFRASTRUCTURE == set()
