"""``compare``: figures side by side, and the fields of the specs that differ."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from inception_operator.plugin import compare

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
Json = dict[str, Any]


def container(image: str, *variables: Json) -> Json:
    return {"spec": {"containers": [{"name": "trainer", "image": image, "env": list(variables)}]}}


FIRST: Json = {
    "numNodes": 2,
    "training": {"recipe": "r", "optimizer": {"learningRate": "0.1"}},
    "template": container("a:1", {"name": "X", "value": "1"}, {"name": "Y", "value": "2"}),
}
SECOND: Json = {
    "numNodes": 2,
    "training": {"recipe": "r", "optimizer": {"learningRate": "0.2"}, "epochs": 3},
    # In another order, which means nothing.
    "template": container("a:1", {"name": "Y", "value": "2"}, {"name": "X", "value": "7"}),
}


def test_only_fields_that_differ_are_named_by_their_path() -> None:
    one, other = compare.differences([FIRST, SECOND])
    variable = "template.spec.containers[trainer].env[X].value"
    assert one == {
        variable: "1",
        "training.epochs": None,
        "training.optimizer.learningRate": "0.1",
    }
    assert other == {
        variable: "7",
        "training.epochs": 3,
        "training.optimizer.learningRate": "0.2",
    }
    assert compare.differences([FIRST, FIRST]) == [{}, {}]
    # What is empty in one is a difference too, and so is a list without names as a whole.
    assert compare.differences([{"a": {}, "b": [1]}, {"b": [1, 2]}]) == [
        *({"a": {}, "b": [1]}, {"a": None, "b": [1, 2]}),
    ]


def job(name: str, spec: Json, **status: Any) -> Json:
    return {"metadata": {"name": name}, "spec": spec, "status": status}


def test_figures_are_of_jobs_that_run_and_of_jobs_that_are_over() -> None:
    over = job(
        *("first", FIRST),
        state="Succeeded",
        startTime="2026-01-01T09:00:00Z",
        completionTime="2026-01-01T10:30:00Z",
        restarts=2,
        trainerStatus={"accuracyTop1": "0.975", "samplesSeen": 90_000},
        goodput={"ratio": "0.50", "seconds": {"productive": 2700}},
    )
    runs = job(
        *("second", SECOND),
        state="Running",
        startTime="2026-01-01T11:00:00Z",
        trainerStatus={"samplesPerSecond": "41.5"},
    )
    new = {"metadata": {"name": "third"}, "spec": FIRST}
    found = [over, runs, new]
    measured = [dict(compare.figures_of(each, NOW)) for each in found]
    lines = compare.page(found, measured, compare.differences([FIRST, SECOND, FIRST])).splitlines()
    rows = {line[:16].strip(): line[16:].split() for line in lines if line}
    assert rows[""] == ["first", "second", "third"]
    assert rows["state"] == ["Succeeded", "Running", "Pending"]
    assert rows["accuracy top-1"] == ["97.5", "%", "-", "-"]
    assert rows["images/s now"] == ["-", "41.5", "-"]
    assert rows["images/s mean"] == ["33.3", "-", "-"]
    assert rows["duration"] == ["1h30m", "1h", "-"]
    assert rows["restarts"] == ["2", "0", "0"]
    assert "root cause" not in rows, "what none of them has is left out"
    assert "training.optimizer.learningRate" in "\n".join(lines)


def test_jobs_of_one_spec_are_said_to_be_so() -> None:
    found = [job("a", FIRST), job("b", FIRST)]
    measured = [dict(compare.figures_of(each, NOW)) for each in found]
    assert compare.page(found, measured, [{}, {}]).endswith("The specs are the same.")
