"""Plans are put together from small ones."""

from __future__ import annotations

from inception_operator.contract.types import Assignment, Event, Plan
from inception_operator.decide.plans import SHORTEST_PAUSE, requeue_in

EVENT = Event("Normal", "Created", "text")


def test_a_merged_plan_has_all_of_both() -> None:
    first = Plan(
        status={"attempt": 1},
        delete={"a": None, "b": 10},
        create=({"name": "c"},),
        assign={"d": Assignment(1)},
        repair={"e": {}},
        requeue_after=5.0,
    )
    second = Plan(
        delete={"a": 0},
        create=({"name": "f"},),
        claim_templates=({"name": "g"},),
        assign={"d": Assignment(2)},
        events=(EVENT,),
        requeue_after=2.0,
        delete_job=True,
    )
    assert first | second == Plan(
        status={"attempt": 1},
        delete={"a": 0, "b": 10},
        create=({"name": "c"}, {"name": "f"}),
        claim_templates=({"name": "g"},),
        assign={"d": Assignment(2)},
        repair={"e": {}},
        events=(EVENT,),
        requeue_after=2.0,
        delete_job=True,
    )


def test_nothing_changes_a_plan() -> None:
    plan = Plan(status={"attempt": 1}, delete={"a": None}, events=(EVENT,), requeue_after=0.0)
    assert plan | Plan() == plan
    assert Plan() | plan == plan


def test_the_shortest_pause_counts_but_is_no_busy_loop() -> None:
    assert requeue_in(3.0, 2.0).requeue_after == 2.0
    assert requeue_in(3.0, -1.0).requeue_after == SHORTEST_PAUSE
    assert requeue_in() == Plan()
