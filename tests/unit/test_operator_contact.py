"""Whether the API server answers, as the log and /readyz say it."""

from __future__ import annotations

import pytest

from inception_operator.runtime.contact import LOST_SECONDS, REMEDY, Contact


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def contact(clock: Clock) -> Contact:
    return Contact("https://10.0.0.1:443", clock)


def test_before_the_first_answer_there_is_a_problem(contact: Contact) -> None:
    problem = contact.problem
    assert problem is not None
    assert problem.startswith("the API server at https://10.0.0.1:443 has never answered: ")
    contact.answered()
    assert contact.problem is None


def test_a_server_that_never_answers_is_one_log_line_with_the_remedy(
    contact: Contact, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(50):
        contact.failed("get leases: connection refused")
        clock.now += 2
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [contact.problem]
    assert "connection refused" in lines[0]
    assert REMEDY in lines[0]


def test_a_short_absence_is_no_problem(
    contact: Contact, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    contact.answered()
    contact.failed("timeout")
    clock.now += LOST_SECONDS - 1
    contact.failed("timeout")
    assert contact.problem is None
    contact.answered()
    clock.now += 1000
    assert contact.problem is None, "silence of ours is not theirs"
    assert caplog.records == []


def test_a_long_absence_is_a_problem_until_the_next_answer(
    contact: Contact, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    contact.answered()
    contact.failed("first")
    clock.now += LOST_SECONDS
    contact.failed("second")
    clock.now += 60
    contact.failed("third")
    problem = contact.problem
    assert problem is not None
    assert "has not answered for 90 s: third" in problem
    assert len(caplog.records) == 1
    contact.answered()
    assert contact.problem is None
    contact.failed("again")
    assert contact.problem is None, "the time begins anew"
