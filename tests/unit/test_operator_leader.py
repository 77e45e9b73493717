"""Leader election: one at a time, loss is noticed in time, a clean exit hands over at once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from fake_time import now, run
from inception_operator.contract.errors import (
    AlreadyExistsError,
    ApiError,
    ConflictError,
    LeadershipLostError,
    NotFoundError,
    RejectedError,
    UnavailableError,
)
from inception_operator.contract.shard import Shard
from inception_operator.contract.types import Json
from inception_operator.runtime.client import Client, Kind
from inception_operator.runtime.fence import Fence
from inception_operator.runtime.leader import Leader
from inception_operator.runtime.settings import Settings


class FakeLeases(Client):
    """One Lease with resource versions; can be told to be down."""

    def __init__(self) -> None:
        self.lease: Json | None = None
        self.version = 0
        self.down = False
        self.hanging = False
        self.may_create = True
        self.refusal: ApiError | None = None

    async def _arrive(self) -> None:
        if self.hanging:
            await asyncio.sleep(1000)
        if self.down:
            raise UnavailableError(503, "down")

    def _store(self, body: Json) -> Json:
        if self.refusal is not None:
            raise self.refusal
        self.version += 1
        self.lease = {
            **body,
            "metadata": {**body["metadata"], "resourceVersion": str(self.version)},
        }
        return self.lease

    async def get(self, kind: Kind, namespace: str, name: str) -> Json:
        await self._arrive()
        if self.lease is None:
            raise NotFoundError(404, "no lease")
        return self.lease

    async def create(self, kind: Kind, namespace: str, body: Json) -> Json:
        await self._arrive()
        if self.lease is not None:
            raise AlreadyExistsError(409, "there is one")
        if not self.may_create:
            raise RejectedError(403, "forbidden")
        return self._store(body)

    async def replace(self, kind: Kind, namespace: str, name: str, body: Json) -> Json:
        await self._arrive()
        if self.lease is None:
            raise NotFoundError(404, "no lease")
        if body["metadata"]["resourceVersion"] != str(self.version):
            raise ConflictError(409, "changed")
        return self._store(body)

    @property
    def spec(self) -> dict[str, Any]:
        assert self.lease is not None
        return dict(self.lease["spec"])


def leader(leases: FakeLeases, identity: str) -> Leader:
    settings = Settings(trainer_image="i", identity=identity)
    return Leader(leases, settings, Fence(now), clock=now)


def test_the_first_takes_a_lease_that_does_not_exist() -> None:
    async def main() -> None:
        leases = FakeLeases()
        one = leader(leases, "one")
        await one.acquire()
        assert one.leading
        assert leases.spec["holderIdentity"] == "one"
        assert leases.spec["leaseTransitions"] == 0

    run(main())


def test_the_lease_that_is_named_is_the_one_that_nobody_shares() -> None:
    settings = Settings(trainer_image="i", lease_name="operator")
    assert Leader(FakeLeases(), settings, Fence(now), clock=now).lease_name == "operator"
    part = replace(settings, shard=Shard(1, 2))
    assert Leader(FakeLeases(), part, Fence(now), clock=now).lease_name == "operator-shard-1"


def test_a_renewal_keeps_the_acquire_time() -> None:
    async def main() -> None:
        leases = FakeLeases()
        one = leader(leases, "one")
        await one.acquire()
        before = leases.spec
        holding = asyncio.create_task(one.renew())
        await asyncio.sleep(60)
        assert leases.version in (30, 31)
        assert leases.spec["acquireTime"] == before["acquireTime"]
        assert leases.spec["leaseTransitions"] == 0
        holding.cancel()

    run(main())


def test_a_second_waits_while_the_first_renews_and_follows_a_crash_after_the_duration() -> None:
    async def main() -> None:
        leases = FakeLeases()
        one, two = leader(leases, "one"), leader(leases, "two")
        await one.acquire()
        holding = asyncio.create_task(one.renew())
        waiting = asyncio.create_task(two.acquire())
        await asyncio.sleep(60)
        assert not waiting.done()
        holding.cancel()
        crashed = now()
        await waiting
        assert 13 <= now() - crashed <= 20
        assert leases.spec["holderIdentity"] == "two"
        assert leases.spec["leaseTransitions"] == 1

    run(main())


def test_a_released_lease_is_taken_at_the_next_look() -> None:
    async def main() -> None:
        leases = FakeLeases()
        one, two = leader(leases, "one"), leader(leases, "two")
        await one.acquire()
        waiting = asyncio.create_task(two.acquire())
        await asyncio.sleep(5)
        await one.release()
        assert not one.leading
        released = now()
        await waiting
        assert now() - released < 3

    run(main())


def test_a_lease_is_released_although_a_renewal_was_cut_off() -> None:
    class SlowAnswers(FakeLeases):
        async def replace(self, kind: Kind, namespace: str, name: str, body: Json) -> Json:
            stored = await super().replace(kind, namespace, name, body)
            await asyncio.sleep(1)
            return stored

    async def main() -> None:
        leases = SlowAnswers()
        one = leader(leases, "one")
        await one.acquire()
        holding = asyncio.create_task(one.renew())
        await asyncio.sleep(2.5)
        assert leases.version == 2
        holding.cancel()
        await one.release()
        assert leases.spec["holderIdentity"] == ""

    run(main())


def test_a_lease_that_somebody_else_has_taken_is_left_alone() -> None:
    async def main() -> None:
        leases = FakeLeases()
        one = leader(leases, "one")
        await one.acquire()
        leases._store({**(leases.lease or {}), "spec": {**leases.spec, "holderIdentity": "two"}})
        await one.release()
        assert leases.spec["holderIdentity"] == "two"

    run(main())


def test_only_one_of_many_wins() -> None:
    async def main() -> None:
        leases = FakeLeases()
        many = [leader(leases, str(number)) for number in range(5)]
        tasks = [asyncio.create_task(one.acquire()) for one in many]
        await asyncio.sleep(10)
        assert sum(one.leading for one in many) == 1
        for task in tasks:
            task.cancel()

    run(main())


@pytest.mark.parametrize("fault", ["down", "hanging"])
def test_a_leader_gives_up_before_others_may_take_over(fault: str) -> None:
    async def main() -> None:
        leases = FakeLeases()
        one = leader(leases, "one")
        await one.acquire()
        setattr(leases, fault, True)
        with pytest.raises(LeadershipLostError, match="could not be renewed"):
            await one.renew()
        assert now() < 15
        assert not one.leading

    run(main())


def test_a_short_outage_does_not_end_leadership() -> None:
    async def main() -> None:
        leases = FakeLeases()
        one = leader(leases, "one")
        await one.acquire()
        holding = asyncio.create_task(one.renew())
        leases.down = True
        await asyncio.sleep(7)
        leases.down = False
        await asyncio.sleep(60)
        assert not holding.done()
        assert one.leading
        holding.cancel()

    run(main())


def test_a_leader_that_was_replaced_ends() -> None:
    async def main() -> None:
        leases = FakeLeases()
        one = leader(leases, "one")
        await one.acquire()
        assert leases.lease is not None
        leases._store({**leases.lease, "spec": {**leases.spec, "holderIdentity": "thief"}})
        with pytest.raises(LeadershipLostError, match="thief holds"):
            await one.renew()

    run(main())


def test_a_deleted_lease_is_made_again() -> None:
    async def main() -> None:
        leases = FakeLeases()
        one = leader(leases, "one")
        await one.acquire()
        holding = asyncio.create_task(one.renew())
        leases.lease = None
        await asyncio.sleep(5)
        assert not holding.done()
        assert leases.spec["holderIdentity"] == "one"
        holding.cancel()

    run(main())


def test_a_lease_without_a_holder_is_taken_as_the_chart_makes_it() -> None:
    async def main() -> None:
        leases = FakeLeases()
        labels = {"app.kubernetes.io/managed-by": "Helm"}
        leases._store({"metadata": {"name": "inception-operator", "labels": labels}})
        leases.may_create = False
        await leader(leases, "one").acquire()
        assert leases.lease is not None
        assert leases.spec["holderIdentity"] == "one"
        assert leases.lease["metadata"]["labels"] == labels

    run(main())


def test_a_missing_lease_that_may_not_be_made_is_named_and_waited_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        leases = FakeLeases()
        leases.may_create = False
        one = leader(leases, "one")
        waiting = asyncio.create_task(one.acquire())
        await asyncio.sleep(5)
        assert not waiting.done()
        assert "there is no Lease default/inception-operator" in caplog.text
        assert "helm upgrade or kubectl apply" in caplog.text
        leases._store({"metadata": {"name": "inception-operator"}})
        await asyncio.sleep(5)
        assert one.leading

    run(main())


def test_release_without_the_api_server_is_no_error() -> None:
    async def main() -> None:
        leases = FakeLeases()
        one = leader(leases, "one")
        await one.acquire()
        leases.down = True
        await one.release()

    run(main())


def test_a_lease_that_may_not_be_written_is_told_once_with_the_remedy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        leases = FakeLeases()
        leases.refusal = RejectedError(403, "leases is forbidden")
        one = leader(leases, "one")
        waiting = asyncio.create_task(one.acquire())
        await asyncio.sleep(60)
        assert one.problem is not None
        assert "default/inception-operator" in one.problem
        assert "give the operator its Role" in one.problem
        assert [record.getMessage() for record in caplog.records] == [one.problem]
        leases.refusal = None
        await waiting
        assert one.problem is None

    run(main())


def test_a_lease_in_a_namespace_that_does_not_exist_is_a_problem() -> None:
    async def main() -> None:
        leases = FakeLeases()
        leases.refusal = NotFoundError(404, 'namespaces "nowhere" not found')
        one = leader(leases, "one")
        waiting = asyncio.create_task(one.acquire())
        await asyncio.sleep(10)
        assert one.problem is not None
        assert "--lease-namespace" in one.problem
        waiting.cancel()

    run(main())


def test_an_api_server_that_is_away_is_no_problem_of_the_election(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        leases = FakeLeases()
        leases.down = True
        one = leader(leases, "one")
        waiting = asyncio.create_task(one.acquire())
        await asyncio.sleep(60)
        assert one.problem is None
        assert len(caplog.records) == 1
        waiting.cancel()

    run(main())


def test_a_leader_that_was_frozen_ends_without_another_word() -> None:
    async def main() -> None:
        leases = FakeLeases()
        clock = [0.0]
        settings = Settings(trainer_image="i", identity="one")
        fence = Fence(lambda: clock[0])
        one = Leader(leases, settings, fence, clock=lambda: clock[0])
        await one.acquire()
        assert fence.remaining == settings.lease_renew_deadline
        version = leases.version
        clock[0] = settings.lease_renew_deadline
        assert not fence.remaining
        with pytest.raises(LeadershipLostError, match="could not be renewed for 10 s"):
            await one.renew()
        await one.release()
        assert leases.version == version, "neither renewed nor released"

    run(main())


def test_a_lease_whose_answer_came_late_gives_no_time_to_write() -> None:
    class Late(FakeLeases):
        async def _arrive(self) -> None:
            await asyncio.sleep(12)

    async def main() -> None:
        fence = Fence(now)
        one = Leader(Late(), Settings(trainer_image="i", identity="one"), fence, clock=now)
        await one.acquire()
        assert one.leading
        assert not fence.remaining, "others count from the write, not from its answer"

    run(main())


def test_the_fence_moves_with_every_renewal_and_closes_with_the_release() -> None:
    async def main() -> None:
        leases = FakeLeases()
        fence = Fence(now)
        one = Leader(leases, Settings(trainer_image="i", identity="one"), fence, clock=now)
        await one.acquire()
        holding = asyncio.create_task(one.renew())
        await asyncio.sleep(60)
        assert fence.remaining > 7
        holding.cancel()
        await one.release()
        assert not fence.remaining

    run(main())
