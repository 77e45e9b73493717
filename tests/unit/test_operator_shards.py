"""Shards share the Lease of the whole: one number of them at a time, and one process for each."""

from __future__ import annotations

import asyncio
import random
from itertools import combinations

import pytest

from fake_leases import Candidate, LeaseServer
from fake_time import now, run
from inception_operator.contract.shard import ALL_JOBS, Shard
from nightly import but_nightly

WHOLE = "inception-operator"
PARTS = [Shard(0, 2), Shard(1, 2), Shard(0, 3), Shard(1, 3), Shard(2, 3), ALL_JOBS]


def shards(server: LeaseServer, count: int) -> list[Candidate]:
    parts = [Shard(index, count) for index in range(count)]
    return [Candidate(server, part, f"{part}".replace("/", "-of-")) for part in parts]


def given_back(server: LeaseServer, *names: str) -> None:
    """Leases whose last holder has ended in good order."""
    for name in names:
        server.store(name, {"spec": {"holderIdentity": "", "leaseTransitions": 1}})


async def leads(candidates: list[Candidate], seconds: float = 60.0) -> float:
    """Wait until all of them may write; the seconds that took."""
    began = now()
    while not all(candidate.may_write for candidate in candidates):
        assert now() - began < seconds, [c.name for c in candidates if not c.may_write]
        await asyncio.sleep(0.1)
    return now() - began


def overlap(candidates: list[Candidate]) -> list[str]:
    """Processes that may write about the same job at this moment."""
    able = [candidate for candidate in candidates if candidate.may_write]
    return [
        f"{one.name} and {other.name}"
        for one, other in combinations(able, 2)
        if one.shard.count != other.shard.count or one.shard.index == other.shard.index
    ]


def test_shards_of_one_number_work_side_by_side() -> None:
    async def main() -> None:
        server = LeaseServer()
        given_back(server, WHOLE, *(f"{WHOLE}-shard-{index}" for index in range(3)))
        three = shards(server, 3)
        for each in three:
            each.start()
        await leads(three, 5)
        await asyncio.sleep(300)
        assert all(each.may_write and not each.losses for each in three)
        assert server.holder(WHOLE) == "3 shards"
        held = [server.holder(f"{WHOLE}-shard-{index}") for index in range(3)]
        assert held == ["0-of-3_1", "1-of-3_1", "2-of-3_1"]

    run(main())


def test_a_slow_api_server_on_which_renewals_collide_costs_no_leader() -> None:
    async def main() -> None:
        server = LeaseServer()
        given_back(server, WHOLE, *(f"{WHOLE}-shard-{index}" for index in range(8)))
        eight = shards(server, 8)
        for each in eight:
            each.connection.pause = 0.8
            each.start()
        await leads(eight)
        await asyncio.sleep(300)
        assert all(each.may_write and not each.losses for each in eight)

    run(main())


def test_the_older_of_both_renewals_counts() -> None:
    async def main() -> None:
        server = LeaseServer()
        given_back(server, WHOLE, f"{WHOLE}-shard-0")
        slow = Candidate(server, Shard(0, 2))
        # Reading and writing one Lease takes eight seconds, so the second one is there after 16.
        slow.connection.pause = 4
        slow.start()
        await asyncio.sleep(16.5)
        assert slow.leader.leading
        assert not slow.may_write, "the time of the first one is over"

    run(main())


@pytest.mark.parametrize(("old", "new"), [(2, 3), (3, 2), (1, 3), (3, 1)])
def test_another_number_stands_by_until_the_old_one_has_ended(old: int, new: int) -> None:
    async def main() -> None:
        server = LeaseServer()
        given_back(server, WHOLE, *(f"{WHOLE}-shard-{index}" for index in range(3)))
        before, after = shards(server, old), shards(server, new)
        for each in before:
            each.start()
        await leads(before)
        for each in after:
            each.start()
        server.check = lambda: _assert_apart(before + after)
        await asyncio.sleep(60)
        assert not any(each.may_write for each in after)
        # All but one: while that one works, the others' jobs wait.
        for each in before[1:]:
            await each.drain()
        await asyncio.sleep(60)
        assert before[0].may_write
        assert not any(each.may_write for each in after)
        await before[0].drain()
        seconds = await leads(after)
        # One that is alone knows that nobody shares its Lease, and gives it back.
        assert seconds < 5 if old == 1 else 10 < seconds < 20

    run(main())


def test_the_lease_of_a_killed_shard_goes_to_its_stand_by_and_the_others_work_on() -> None:
    async def main() -> None:
        server = LeaseServer()
        given_back(server, WHOLE, *(f"{WHOLE}-shard-{index}" for index in range(2)))
        both = shards(server, 2)
        stand_by = Candidate(server, Shard(0, 2), "stand-by")
        for each in both:
            each.start()
        await leads(both)
        stand_by.start()
        await asyncio.sleep(30)
        assert not stand_by.may_write
        both[0].kill()
        assert 10 < await leads([stand_by]) < 20
        assert both[1].may_write
        assert not both[1].losses

    run(main())


@pytest.mark.parametrize("name", [WHOLE, f"{WHOLE}-shard-0"])
def test_a_lease_that_was_made_anew_is_nobodys_but_its_holders(name: str) -> None:
    async def main() -> None:
        server = LeaseServer()
        given_back(server, WHOLE, *(f"{WHOLE}-shard-{index}" for index in range(2)))
        two = shards(server, 2)
        others = [Candidate(server, Shard(0, 2), "stand-by"), Candidate(server, Shard(0, 3), "new")]
        for each in [*two, *others]:
            each.start()
            await leads(two[:1])
        server.check = lambda: _assert_apart(two + others)
        await leads(two)
        # Its holder hears nothing of it for a while, as the chart's upgrade removes and makes it.
        two[0].connection.freeze()
        del server.leases[name]
        server.store(name, {})
        await asyncio.sleep(5)
        two[0].connection.thaw()
        await asyncio.sleep(30)
        assert not two[0].losses
        assert two[0].may_write

    run(main())


def test_the_first_shards_of_all_wait_as_long_as_a_lease_lasts() -> None:
    async def main() -> None:
        server = LeaseServer()
        # As the chart makes them; an API server where there are none is served in the same way.
        server.store(WHOLE, {})
        server.store(f"{WHOLE}-shard-0", {})
        two = shards(server, 2)
        for each in two:
            each.start()
        assert 15 <= await leads(two) < 40

    run(main())


@pytest.mark.parametrize("seed", but_nightly(range(40), range(6)))
def test_no_two_processes_may_ever_write_about_the_same_job(seed: int) -> None:
    """Processes of several numbers start, freeze, are cut off, die and end, at random times."""

    async def main() -> None:
        chance = random.Random(seed)  # noqa: S311
        server = LeaseServer()
        # In half of the worlds nothing is there at first.
        if seed % 2:
            given_back(server, WHOLE, *(f"{WHOLE}-shard-{index}" for index in range(3)))
        world: list[Candidate] = []
        server.check = lambda: _assert_apart(world)
        worked = 0
        for number in range(14):
            candidate = Candidate(server, chance.choice(PARTS), f"process-{number}")
            candidate.connection.pause = chance.choice([0.01, 0.1, 1.0, 3.0])
            candidate.start()
            world.append(candidate)
            await asyncio.sleep(chance.choice([0.5, 5.0, 25.0]))
            worked += sum(each.may_write for each in world)
            await _trouble(chance, chance.choice(world), server)
        assert worked, "nobody has ever led: the world has shown nothing"
        for each in world:
            each.kill()
        last = shards(server, 3)
        world += last
        for each in last:
            each.start()
        # They work in the end, whatever has happened.
        await leads(last)

    run(main())


async def _trouble(chance: random.Random, candidate: Candidate, server: LeaseServer) -> None:
    connection = candidate.connection
    kind = chance.choice(["freeze", "thaw", "down", "up", "kill", "drain", "remake"])
    if kind == "remake":
        server.store(f"{WHOLE}-shard-{candidate.shard.index}", {})
    elif kind == "freeze":
        connection.freeze()
    elif kind == "thaw":
        connection.thaw()
    elif kind in ("down", "up"):
        connection.down = kind == "down"
    elif kind == "kill":
        candidate.kill()
    else:
        connection.thaw()
        await candidate.drain()


def _assert_apart(candidates: list[Candidate]) -> None:
    assert overlap(candidates) == []
