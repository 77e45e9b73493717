"""An error at one object is counted, logged once a minute, and goes no further."""

from __future__ import annotations

import logging

import pytest

from inception_operator.runtime.containment import Containment, Where
from inception_operator.runtime.metrics import Metrics
from operator_objects import job

KEY = ("ns", "job")


def test_an_error_stays_and_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    counted: list[str] = []
    time = [100.0]
    containment = Containment(counted.append, lambda: time[0])

    def fail(key: tuple[str, str] = KEY) -> None:
        with containment.contain(key, Where.SCRAPE):
            raise ZeroDivisionError("no")

    with caplog.at_level(logging.ERROR):
        fail()
        fail()
        time[0] += 59
        fail()
        assert len(caplog.records) == 1
        fail(("ns", "other"))
        time[0] += 2
        fail()
    assert [record.getMessage() for record in caplog.records] == [
        "scrape: ZeroDivisionError: no"
    ] * 3
    assert counted == ["scrape"] * 5
    assert caplog.records[0].exc_info


def test_an_endless_traceback_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    containment = Containment(lambda _: None)

    def deeper() -> None:
        deeper()

    with caplog.at_level(logging.ERROR), containment.contain(KEY, Where.DECISION):
        deeper()
    assert not caplog.records[0].exc_info


def test_a_job_that_cannot_be_shown_takes_the_page_from_nobody() -> None:
    broken, whole = job("broken", state="Running"), job("whole", state="Running")
    broken["status"]["restarts"] = "many"
    metrics = Metrics(lambda: [broken, whole])
    page = metrics.page().decode()
    assert 'job_state{name="whole",namespace="ns",state="Running"} 1.0' in page
    again = metrics.page().decode()
    # Of the first page; the second one's comes after its own counters.
    assert 'inception_operator_internal_errors_total{where="metrics"} 1.0' in again
