"""``logs --rank`` and ``--attempt``: whose the lines of a pod's log are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from inception_operator.client.cluster import Cluster
from inception_operator.client.log_filter import Choice, LineFilter
from inception_operator.client.pod_logs import PodLog, Reading, read
from inception_operator.client.questions import Query
from inception_operator.contract.assignment import end, to_json, work
from inception_operator.contract.names import ANNOTATION_ASSIGNMENT

Json = dict[str, Any]
HEAD = "2026-01-01 10:00:00,123 inception-launcher: attempt"
# Node 1 of two, with two ranks; in attempt 2 it is node 0. Two ranks die, one with a traceback.
LOG = f"""{HEAD} 0: Idle\x20
inception-launcher: not preloaded: apex: no module
{HEAD} 1: Running ranks 2 to 3 of 4\x20
10:00:01 [digits attempt 1 rank 2] cannot write
Traceback of nobody knows whom
10:00:02 [digits attempt 1 rank 3] slow
inception-launcher: stacks of attempt 1, rank 3, process 7 in state S: no sign of life for 8 s
Current thread 0x00007f (most recent call first):
  File "train.py", line 3 in step

inception-launcher: stacks of attempt 1, rank 2, process 8 in state S: no sign of life for 8 s
(it cannot show its stacks)
{HEAD} 1: Failed Hang exit code 76 rank 3 no step for 8 s
its second line
{HEAD} 2: Running ranks 0 to 1 of 4\x20
10:00:03 [attempt 2 rank 0] epoch 1
loss: 3
10:00:02 [digits attempt 1 rank 2] came late
done
""".splitlines()


def pod(assignment: str | None = None) -> Json:
    annotations = {} if assignment is None else {ANNOTATION_ASSIGNMENT: assignment}
    return {"metadata": {"name": "digits-1-1", "annotations": annotations}}


def shown(choice: Choice, lines: list[str], of: Json | None = None) -> tuple[list[str], int]:
    chosen = LineFilter(choice, of or pod())
    return [line.strip() for line in lines if chosen.wants(line)], chosen.unknown


def test_an_attempt_is_what_was_written_while_it_ran() -> None:
    first, unknown = shown(Choice(attempt=1), LOG)
    assert first == [line.strip() for line in (*LOG[2:14], LOG[17])]
    assert unknown == 0
    assert shown(Choice(attempt=2), LOG)[0] == [
        *(line.strip() for line in (*LOG[14:17], LOG[18])),
    ]
    assert shown(Choice(attempt=9), LOG)[0] == []
    assert shown(Choice(), LOG)[0] == [line.strip() for line in LOG]


def test_lines_of_a_log_whose_beginning_is_gone_are_counted_and_left_out() -> None:
    rest = ["loss: 4", "10:00:03 [attempt 2 rank 0] epoch 1", "loss: 3"]
    assert shown(Choice(attempt=2), rest) == (rest[1:], 1)
    assert shown(Choice(rank=0), rest) == (rest[1:2], 2)


def test_a_rank_is_its_own_lines_and_those_of_its_pod_that_name_none() -> None:
    lines, unknown = shown(Choice(rank=3), LOG)
    assert lines == [
        f"{HEAD} 1: Running ranks 2 to 3 of 4",
        "Traceback of nobody knows whom",
        "10:00:02 [digits attempt 1 rank 3] slow",
        *(line.strip() for line in LOG[6:10]),
        f"{HEAD} 1: Failed Hang exit code 76 rank 3 no step for 8 s",
        "its second line",
    ]
    assert unknown == 0, "before the first attempt there are no ranks"
    assert shown(Choice(rank=0), LOG)[0] == [
        *(line.strip() for line in (*LOG[14:17], LOG[18])),
    ]
    assert shown(Choice(rank=2, attempt=1), LOG)[0][-1].endswith("came late")
    assert shown(Choice(rank=2, attempt=2), LOG)[0] == []


@pytest.mark.parametrize(
    ("assignment", "wanted"),
    [
        (work(1, 1, 2, 2, "10.0.0.1", graceful=False), ["hello"]),
        (work(2, 1, 2, 2, "10.0.0.1", graceful=False), []),
        (work(1, 0, 2, 2, "10.0.0.1", graceful=False), []),
        (end(1), []),
    ],
    ids=["its rank", "another attempt", "another node", "over"],
)
def test_a_launcher_that_does_not_say_its_ranks_is_known_by_its_assignment(
    assignment: Any, wanted: list[str]
) -> None:
    lines = [f"{HEAD} 1: Running ", "hello"]
    found, unknown = shown(Choice(rank=3), lines, pod(to_json(assignment)))
    assert [line for line in found if line == "hello"] == wanted
    assert (unknown > 0) == (assignment.attempt != 1 or assignment.is_standby)


@pytest.mark.parametrize("text", ["", "[]", "{", json.dumps({"attempt": -1})])
def test_an_annotation_that_somebody_made_up_says_nothing(text: str) -> None:
    assert shown(Choice(rank=0), ["hello"], pod(text)) == ([], 1)


class Log(Cluster):
    """The pod's log above, a line a second, read to its end by every request."""

    def __init__(self) -> None:
        super().__init__(chosen_namespace="team")
        self.asked: list[tuple[str, Query]] = []

    def lines(self, path: str, query: Query = (), seconds: float | None = None) -> Iterator[bytes]:
        self.asked.append((path, query))
        begin = datetime.now(UTC) - timedelta(seconds=len(LOG))
        for number, line in enumerate(LOG):
            yield f"{begin + timedelta(seconds=number):%Y-%m-%dT%H:%M:%S.%f}Z {line}".encode()


def test_the_last_lines_are_counted_among_those_that_are_wanted() -> None:
    cluster = Log()
    reading = Reading(Choice(rank=3), tail=2, since=3600)
    log = PodLog(pod(), reading)
    assert [line.text for line in read(cluster, log, follow=True)] == [
        f"{HEAD} 1: Failed Hang exit code 76 rank 3 no step for 8 s",
        "its second line",
    ]
    ((_, query),) = cluster.asked
    assert list(query) == [("container", "trainer"), ("timestamps", "true")]
    recent = Reading(Choice(attempt=1), since=4.5)
    found = read(Log(), PodLog(pod(), recent), follow=True)
    assert [line.text for line in found] == [LOG[17]]
    assert ("tailLines", "2") in Reading(tail=2).query
