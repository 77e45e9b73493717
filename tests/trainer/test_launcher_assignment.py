"""What the launcher accepts as an assignment, and when one is news."""

import json

import pytest

from inception_trainer.launcher.assignment import Assignment, InvalidAssignmentError, is_new, parse

FULL = {
    "attempt": 3,
    "nodeRank": 1,
    "nnodes": 2,
    "nprocPerNode": 4,
    "masterAddr": "10.88.0.5",
    "masterPort": 29503,
    "graceful": True,
}


def test_full_assignment() -> None:
    assignment = parse(json.dumps(FULL))
    assert assignment == Assignment(3, 1, 2, 4, "10.88.0.5", 29503, graceful=True)
    assert assignment is not None
    assert assignment.world_size == 8
    assert not assignment.standby


def test_standby_needs_no_ranks() -> None:
    assert parse('{"attempt": 4, "nnodes": 0, "graceful": true}') == Assignment(4, graceful=True)


@pytest.mark.parametrize("text", ["", "\n", "  "], ids=["empty", "newline", "spaces"])
def test_no_annotation_yet(text: str) -> None:
    assert parse(text) is None


def test_unknown_keys_are_for_later_versions() -> None:
    assert parse(json.dumps(FULL | {"color": "red"})) == parse(json.dumps(FULL))


def test_of_an_assignment_in_another_version_only_what_every_version_has_is_read() -> None:
    of_tomorrow = {"attempt": 7, "contract": 2, "graceful": "whenever", "nnodes": {"min": 1}}
    assignment = parse(json.dumps(of_tomorrow))
    assert assignment == Assignment(7, contract=2)
    assert not assignment.fits
    assert not assignment.standby, "it is no order to stand by"
    last = parse(json.dumps(of_tomorrow | {"end": True}))
    assert last is not None
    assert last.end, "a job that is over ends whoever speaks"


@pytest.mark.parametrize("contract", [{}, {"contract": 1}])
def test_an_operator_that_does_not_say_it_speaks_version_1(contract: dict[str, int]) -> None:
    assignment = parse(json.dumps(FULL | contract))
    assert assignment is not None
    assert assignment.fits


@pytest.mark.parametrize(
    ("change", "named"),
    [
        pytest.param({"attempt": 0}, "attempt", id="attempts count from 1"),
        pytest.param({"attempt": "3"}, "attempt", id="attempt as text"),
        pytest.param({"attempt": True}, "attempt", id="attempt as truth value"),
        pytest.param({"nnodes": -1}, "nnodes", id="negative nodes"),
        pytest.param({"nnodes": None}, "nnodes", id="no nodes"),
        pytest.param({"nodeRank": 2}, "nodeRank", id="rank beyond the nodes"),
        pytest.param({"nprocPerNode": 0}, "nprocPerNode", id="no process"),
        pytest.param({"masterAddr": ""}, "masterAddr", id="no address"),
        pytest.param({"masterAddr": "a b"}, "masterAddr", id="address with a space"),
        pytest.param({"masterPort": 70000}, "masterPort", id="port out of range"),
        pytest.param({"masterPort": 29503.5}, "masterPort", id="half a port"),
        pytest.param({"graceful": "yes"}, "graceful", id="graceful as text"),
        pytest.param({"contract": "2"}, "contract", id="contract as text"),
    ],
)
def test_the_error_names_the_key(change: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidAssignmentError, match=f"^{named}: "):
        parse(json.dumps(FULL | change))


@pytest.mark.parametrize("text", ['{"attempt": 3, "nno', "[1]", "3", "nonsense"])
def test_torn_or_foreign_content(text: str) -> None:
    with pytest.raises(InvalidAssignmentError):
        parse(text)


RUN3, RUN4 = Assignment(3, 0, 1, 1, "a", 1), Assignment(4, 0, 1, 1, "a", 1)
STANDBY3, STANDBY4 = Assignment(3), Assignment(4)
END3 = Assignment(3, end=True)


@pytest.mark.parametrize(
    ("assignment", "accepted", "new"),
    [
        pytest.param(RUN3, None, True, id="the first"),
        pytest.param(RUN4, RUN3, True, id="greater attempt"),
        pytest.param(STANDBY4, RUN3, True, id="standby of a greater attempt"),
        pytest.param(RUN4, STANDBY4, True, id="same attempt after standby"),
        pytest.param(STANDBY3, RUN3, False, id="standby of the running attempt"),
        pytest.param(END3, RUN3, True, id="end of the running attempt"),
        pytest.param(END3, STANDBY3, True, id="end after standby"),
        pytest.param(RUN3, END3, False, id="older than the end"),
        pytest.param(RUN3, RUN3, False, id="repeated"),
        pytest.param(STANDBY3, STANDBY3, False, id="repeated standby"),
        pytest.param(RUN3, RUN4, False, id="older"),
        pytest.param(RUN3, STANDBY4, False, id="older after standby"),
        pytest.param(STANDBY3, RUN4, False, id="older standby"),
    ],
)
def test_newness(assignment: Assignment, accepted: Assignment | None, new: bool) -> None:
    assert is_new(assignment, accepted) is new
