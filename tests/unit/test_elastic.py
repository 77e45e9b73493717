"""Who trains next: ranks, slots to keep filled, and when another size is worth a new attempt."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inception_operator.contract.types import PodView
from inception_operator.decide import elastic
from inception_operator.decide.elastic import Availability, Members, Membership
from inception_operator.spec.job import ElasticPolicy, Job

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def pod(slot: int, **fields: Any) -> PodView:
    base: dict[str, Any] = {
        "name": f"job-{slot}-1",
        "uid": f"uid-{slot}",
        "slot": slot,
        "incarnation": 1,
    }
    return PodView(
        **(base | {"phase": "Running", "ready": True, "ip": "10.0.0.1", "node": "node-a"} | fields)
    )


def job(nodes: int, *, least: int = 1, spares: int = 0) -> Job:
    return Job(
        name="job",
        namespace="ns",
        uid="u",
        num_nodes=nodes,
        elastic=ElasticPolicy(min_nodes=least, spare_nodes=spares),
    )


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ((), ""),
        ((0,), "0"),
        ((0, 1, 2), "0-2"),
        ((0, 3, 2), "0,3,2"),
        ((4, 5, 0, 1, 9), "4-5,0-1,9"),
    ],
    ids=str,
)
def test_members_as_text(members: Members, text: str) -> None:
    assert elastic.to_text(members) == text
    assert elastic.from_text(text) == members


@given(st.lists(st.integers(0, 1100), unique=True))
def test_members_survive_being_written(members: list[int]) -> None:
    assert list(elastic.from_text(elastic.to_text(tuple(members)))) == members


@pytest.mark.parametrize("text", [None, "", "x", "1,,2", "1-x", "-3", "0,0", 7.5], ids=repr)
def test_text_that_names_no_members(text: object) -> None:
    assert elastic.from_text(text) == ()


@pytest.mark.parametrize(
    ("before", "ready", "size", "after"),
    [
        pytest.param((), (0, 1, 2), 3, (0, 1, 2), id="first"),
        pytest.param((), (0, 1, 2), 2, (0, 1), id="first with a spare"),
        pytest.param((0, 1, 2), (0, 2, 3), 3, (0, 3, 2), id="spare takes over the rank"),
        pytest.param((0, 1), (1, 2), 2, (2, 1), id="spare becomes the master"),
        pytest.param((0, 3, 2), (0, 1, 2, 3), 3, (0, 3, 2), id="nothing moves back"),
        pytest.param((0, 1, 2), (0, 2), 2, (0, 2), id="the last rank moves up"),
        pytest.param((0, 1, 2), (2,), 1, (2,), id="one is left"),
        pytest.param((0, 2), (0, 1, 2, 3), 4, (0, 2, 1, 3), id="growing adds ranks at the end"),
        pytest.param((0, 1, 2, 3), (0, 1, 2, 3), 2, (0, 1), id="shrinking drops the last ranks"),
        pytest.param((0, 1), (0,), 2, (), id="too few"),
    ],
)
def test_who_survives_keeps_the_rank(
    before: Members, ready: Members, size: int, after: Members
) -> None:
    assert elastic.choose_members(before, ready, size) == after


@pytest.mark.parametrize(
    ("written", "issued", "present", "pool"),
    [
        pytest.param((), False, [], (0, 1, 2), id="first"),
        pytest.param((0, 1), True, [0, 1, 2], (0, 1, 2), id="running"),
        pytest.param((0, 1), True, [0, 1], (0, 1, 2), id="spare to be made"),
        pytest.param((0, 2), True, [0, 1, 2], (0, 2, 1), id="spare in a lower slot"),
        pytest.param((0, 1, 2, 3), True, [0, 1, 2, 3], (0, 1, 2, 3), id="too many, but they train"),
        pytest.param((0, 1, 2, 3), False, [0, 1, 2, 3], (0, 1, 2), id="too many, between attempts"),
        pytest.param((0, 1), False, [0, 2], (0, 2, 1), id="a lost slot is filled again"),
        pytest.param((0, 5), False, [0, 5], (0, 5, 1), id="far slots stay"),
    ],
)
def test_slots_to_keep_filled(
    written: Members, issued: bool, present: list[int], pool: Members
) -> None:
    assert (
        elastic.find_membership(job(2, spares=1), written, map(pod, present), 1, issued=issued).pool
        == pool
    )


def test_pods_that_run_are_kept_rather_than_those_that_wait() -> None:
    pods = [pod(0), pod(1, phase="Pending", ready=False), pod(2)]
    assert elastic.find_membership(job(1, spares=1), (0,), pods, 1, issued=True).pool == (0, 2)


def test_a_slot_whose_name_is_still_taken_is_left_out() -> None:
    pods = [pod(0), pod(1, deleting=True)]
    assert elastic.find_membership(job(1, spares=1), (0,), pods, 1, issued=True).pool == (0, 2)
    assert elastic.find_membership(job(1, spares=1), (0,), pods, 2, issued=True).pool == (0, 1), (
        "the next name is free"
    )


def test_slots_of_a_fixed_job_are_its_members() -> None:
    fixed = Job(name="job", namespace="ns", uid="u", num_nodes=2)
    assert elastic.find_membership(fixed, (1,), [pod(0)], 1, issued=True) == Membership(
        (0, 1), (0, 1)
    )


PENDING: dict[str, Any] = {"phase": "Pending", "ready": False, "ip": None}


def availability(
    members: Members, ready: Members, desired: int, least: int = 1, **others: PodView | None
) -> Availability:
    """Others are slots that are not ready: s2=None is an empty slot 2."""
    pods: dict[int, PodView | None] = {slot: pod(slot) for slot in ready}
    pods |= {int(name[1:]): view for name, view in others.items()}
    return Availability(Membership(members, tuple(pods)), pods, ready, desired, least, NOW)


def coming(slot: int, age: float, **fields: Any) -> PodView:
    return pod(slot, **(PENDING | {"created": ago(age)} | fields))


START = [
    pytest.param(availability((), (0, 1), 2), 0, (0, 1), None, id="all there"),
    pytest.param(
        availability((), (0,), 2, s1=coming(1, 29, node=None)),
        29,
        (),
        1,
        id="a start waits half a minute",
    ),
    pytest.param(
        availability((), (0,), 2, s1=coming(1, 30)), 30, (0,), None, id="and goes on smaller"
    ),
    pytest.param(availability((), (0,), 3, 2, s1=None), 99, (), None, id="below the minimum"),
    pytest.param(
        availability((0, 1), (0,), 2, s1=None), 1, (), 3, id="the replacement is to be made"
    ),
    pytest.param(
        availability((0, 1), (0,), 2, s1=coming(1, 1, node=None)),
        1,
        (),
        2,
        id="losses are seen together",
    ),
    pytest.param(
        availability((0, 1), (0,), 2, s1=coming(1, 3, node=None)), 3, (0,), None, id="no place"
    ),
    pytest.param(
        availability((0, 1), (0,), 2, s1=coming(1, 9)), 9, (), 1, id="the replacement is coming"
    ),
    pytest.param(
        availability((0, 1), (0,), 2, s1=coming(1, 10)), 10, (0,), None, id="but takes too long"
    ),
    pytest.param(
        availability((0, 1), (0,), 2, s1=coming(1, 1)), 60, (), 9, id="it was made after a pause"
    ),
    pytest.param(
        availability((0, 1), (0,), 2, s1=coming(1, 3, waiting_reason="ErrImagePull")),
        3,
        (0,),
        None,
        id="no image",
    ),
    pytest.param(
        availability((0, 1), (0,), 2, s1=pod(1, deleting=True)),
        3,
        (0,),
        None,
        id="the name is still taken",
    ),
    pytest.param(availability((0, 1), (0, 2), 2), 0, (0, 2), None, id="a spare at once"),
    pytest.param(
        availability((0, 1), (2,), 2, s0=None), 2, (), 28, id="of the old members none is left"
    ),
]


@pytest.mark.parametrize(("seen", "waited", "members", "left"), START)
def test_beginning_an_attempt(
    seen: Availability, waited: float, members: Members, left: float | None
) -> None:
    assert elastic.starting_members(seen, ago(waited), rejected=False) == (members, left)


def test_beginning_an_attempt_without_what_the_api_server_refuses() -> None:
    seen = availability((0, 1), (0,), 2, s1=None)
    assert elastic.starting_members(seen, ago(2), rejected=True) == ((), 1)
    assert elastic.starting_members(seen, ago(3), rejected=True) == ((0,), None)


YOUNG = pod(2, **PENDING, created=ago(10))
RESIZE = [
    pytest.param(availability((0, 1), (0, 1), 2), 5, 2, (), None, id="as wanted"),
    pytest.param(availability((0, 1), (0, 1, 2), 2), 99, 2, (), None, id="spares are no reason"),
    pytest.param(availability((0, 1, 2), (0, 1, 2), 2), 1, 3, (0, 1), None, id="fewer wanted"),
    pytest.param(
        availability((0, 1, 2), (1, 2), 2), 1, 3, (2, 1), None, id="fewer wanted and there"
    ),
    pytest.param(availability((0, 1, 2), (0,), 2), 1, 3, (), None, id="fewer than that there"),
    pytest.param(
        availability((0, 1), (0, 1, 2), 3), 1, 2, (0, 1, 2), None, id="more wanted, and there"
    ),
    pytest.param(availability((0, 1), (0, 1, 2), 3), 20, 3, (), 10, id="capacity is back"),
    pytest.param(availability((0, 1), (0, 1, 2), 3), 30, 3, (0, 1, 2), None, id="capacity stays"),
    pytest.param(availability((0, 1), (0, 2), 3), 99, 3, (), None, id="a member is not well"),
    pytest.param(
        availability((0,), (0, 1), 3, s2=YOUNG), 99, 1, (), 20, id="the last one is coming"
    ),
    pytest.param(
        availability((0,), (0, 1), 3, s2=None), 99, 1, (), 3, id="the last one is to be made"
    ),
    pytest.param(
        availability((0,), (0, 1), 3, s2=pod(2, **PENDING, created=ago(31))),
        1,
        1,
        (0, 1),
        None,
        id="it is late",
    ),
    pytest.param(
        availability((0,), (0, 1), 3, s2=pod(2, **PENDING, created=ago(3), node=None)),
        1,
        1,
        (0, 1),
        None,
        id="no place",
    ),
    pytest.param(
        availability((0,), (0,), 3, s1=None, s2=None), 99, 1, (), None, id="nothing to grow by"
    ),
]


@pytest.mark.parametrize(("seen", "ran", "at_start", "members", "left"), RESIZE)
def test_another_size(
    seen: Availability, ran: float, at_start: int, members: Members, left: float | None
) -> None:
    assert elastic.resized_members(
        seen, ago(ran), {"desiredAtStart": at_start}, rejected=False
    ) == (
        members,
        left,
    )


def test_what_the_api_server_refuses_is_not_waited_for() -> None:
    seen = availability((0,), (0, 1), 3, s2=None)
    assert elastic.resized_members(seen, ago(1), {"desiredAtStart": 1}, rejected=True) == (
        (0, 1),
        None,
    )


@pytest.mark.parametrize(
    ("seen", "rejection", "words"),
    [
        (availability((0, 1), (0, 1), 2), None, ("AllPodsReady", "2 of 2 pods ready")),
        (
            availability((0,), (0,), 3, s1=None, s2=None),
            None,
            ("EnoughPodsReady", "1 of 3 nodes, growing when 2 more pods are ready"),
        ),
        (
            availability((0, 1), (0, 1), 3, s2=pod(2, **PENDING, unschedulable_message="no room")),
            None,
            ("EnoughPodsReady", "2 of 3 nodes, growing when 1 more pod is ready: no room"),
        ),
        (
            availability((0, 1), (0, 1), 3, s2=coming(2, 10, trouble="FailedMount: no Secret")),
            None,
            (
                "EnoughPodsReady",
                "2 of 3 nodes, growing when 1 more pod is ready: FailedMount: no Secret",
            ),
        ),
        (
            availability((0, 1), (0, 1), 3, s2=None),
            "over quota",
            ("EnoughPodsReady", "2 of 3 nodes, growing when 1 more pod is ready: over quota"),
        ),
        (
            availability((0, 1), (0, 1, 2), 3),
            None,
            ("EnoughPodsReady", "2 of 3 nodes, growing to 3 shortly"),
        ),
    ],
    ids=["full", "small", "no room", "no Secret", "quota", "growing"],
)
def test_what_people_read(
    seen: Availability, rejection: str | None, words: tuple[str, str]
) -> None:
    assert elastic.outlook(seen, rejection) == words
