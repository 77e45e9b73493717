"""What the plug-in's commands print: text of tenants is harmless, figures and pages read well."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click
import pytest

from inception_operator.client import figures
from inception_operator.client import text as plain
from inception_operator.client.outcome import exit_code
from inception_operator.client.pod_logs import select, split
from inception_operator.client.progress_line import progress_line
from inception_operator.contract.names import LABEL_QUEUE
from inception_operator.plugin import doctor, output
from inception_operator.plugin.describe import describe

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
Json = dict[str, Any]


def condition(kind: str, status: str = "True", reason: str = "R", message: str = "") -> Json:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def job(*conditions: Json, labels: dict[str, str] | None = None, **status: Any) -> Json:
    return {
        "metadata": {
            "name": "digits",
            "namespace": "team",
            "generation": 2,
            "creationTimestamp": "2026-01-01T10:00:00Z",
            "labels": labels or {},
        },
        "spec": {"training": {"recipe": "bninception-digits"}},
        "status": {"observedGeneration": 2, "conditions": list(conditions), **status},
    }


def pod(name: str, slot: int, incarnation: int) -> Json:
    labels = {
        "training.inception.dev/slot": str(slot),
        "training.inception.dev/incarnation": str(incarnation),
    }
    return {"metadata": {"name": name, "labels": labels}, "status": {"phase": "Running"}}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ünïcode 文字\n\tline", "plain, ünïcode 文字\n\tline"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]52;c;Y2xpcA==\x07", ""),
        ("\x1b]0;never ended\nnext", "\nnext"),
        ("\x1bP1$r\x1b\\x", "x"),
        ("\x9b2Jx", "x"),
        ("\x1bcreset", "reset"),
        ("a\x1b", "a"),
        ("a\x08\x08b\x00\x7f", "ab"),
        ("10%\r20%", "10%\n20%"),
        ("abc\u202edcba\u2066", "abcdcba"),
    ],
)
def test_a_terminal_obeys_nothing_of_what_tenants_write(text: str, shown: str) -> None:
    assert plain.clean(text) == shown


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_nor_of_what_is_printed_whole(form: str) -> None:
    hostile = {"message": "\x1b[2J\x9b2J\u202e", "metadata": {"managedFields": [1]}}
    text = output.document(hostile, form)
    assert text.isascii()
    assert "\x1b" not in text
    assert "managedFields" not in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0, "0s"),
        (59.9, "59s"),
        (60, "1m"),
        (61, "1m1s"),
        (11_520, "3h12m"),
        (3_600, "1h"),
        (3_605, "1h"),
        (90_000, "1d1h"),
        (-5, "0s"),
    ],
)
def test_spans_of_time_have_two_units(seconds: float | None, text: str) -> None:
    assert figures.span(seconds) == text


@pytest.mark.parametrize(
    ("resource", "code"),
    [
        (job(), None),
        ({"metadata": {"name": "new"}, "spec": {}}, None),
        (job(condition("Succeeded")), 0),
        (job(condition("Succeeded"), rootCause={"exitCode": 65}), 0),
        (job(condition("Failed"), rootCause={"exitCode": 65}), 65),
        (job(condition("Failed"), rootCause={"exitCode": 137}), 137),
        (job(condition("Failed"), rootCause={"exitCode": 0}), 1),
        (job(condition("Failed"), rootCause={"exitCode": -9}), 1),
        (job(condition("Failed"), rootCause={"exitCode": 256}), 1),
        (job(condition("Failed"), rootCause={"reason": "PodDeleted"}), 1),
        (job(condition("Failed")), 1),
        (job(condition("Failed", reason="DeadlineExceeded"), rootCause={"exitCode": 65}), 1),
        (job(condition("Failed", "False"), rootCause={"exitCode": 65}), None),
        (job(condition("Accepted", "False")), 78),
        (job(condition("Accepted", "False"), condition("Failed")), 1),
        (job(condition("Accepted", "False"), observedGeneration=1), None),
    ],
)
def test_the_exit_code_is_that_of_the_job(resource: Json, code: int | None) -> None:
    assert exit_code(resource) == code


def test_a_row_has_the_columns_of_the_header() -> None:
    bare = figures.row({"metadata": {"name": "new"}, "spec": {}}, NOW, wide=True)
    assert bare == ("new", "Pending", "-", "-", "-", "-", "-", "0", *("-",) * 5)
    full = job(
        state="Running",
        nodes={"summary": "2/2"},
        accelerator="nvidia.com/gpu x8",
        restarts=1,
        model="bninception",
        goodput={"ratio": "0.9127"},
        rootCause={"reason": "OOMKilled"},
        trainerStatus={
            "progressPercentage": 42,
            "accuracyTop1": "0.71",
            "samplesPerSecond": "812.5",
            "estimatedRemainingSeconds": 11_520,
        },
    )
    assert figures.row(full, NOW, wide=True) == (
        *("digits", "Running", "2/2", "nvidia.com/gpu x8", "42 %", "0.71", "812.5", "1", "2h"),
        *("bninception", "3h12m", "91.3 %", "OOMKilled"),
    )
    assert len(full["metadata"]) > 0
    assert len(bare) == len(figures.HEADER) + len(figures.WIDE)


FAILED = job(
    condition("Failed", reason="MaxRestartsExceeded", message="2 of 2 restarts"),
    state="Failed",
    attempt=3,
    restarts=2,
    completionTime="2026-01-01T11:30:00Z",
    rootCause={
        "attempt": 3,
        "pod": "digits-1-3",
        "node": "n1",
        "rank": 9,
        "exitCode": 137,
        "reason": "OOMKilled",
        "message": "the container ran out of memory\n\x1b[2J last line",
        "time": "2026-01-01T11:29:00Z",
    },
    goodput={"ratio": "0.5", "seconds": {"productive": 1800, "recovery": 1800}},
)


def test_the_page_says_why_a_job_failed_and_what_to_do() -> None:
    event = {"lastTimestamp": "2026-01-01T11:30:00Z", "type": "Warning", "reason": "Restarting"}
    page = click.unstyle(describe(FAILED, [pod("digits-1-3", 1, 3)], [event], NOW))
    assert page.splitlines()[0] == "digits in team: Failed, 2h old"
    for line in (
        "  MaxRestartsExceeded: 2 of 2 restarts",
        "  OOMKilled in attempt 3, rank 9, pod digits-1-3, node n1, exit code 137 31m ago",
        "    the container ran out of memory",
        "     last line",
        "  goodput     50.0 % of 1h since it was admitted",
        "  productive         30m    50%",
        "  kubectl inception logs digits",
    ):
        assert line in page.splitlines()
    assert "Raise the memory limit" in page
    assert "2h" not in page.splitlines()[-1]
    assert "Restarting" in page
    assert "\x1b" not in page


@pytest.mark.parametrize(
    ("resource", "said"),
    [
        ({"metadata": {"name": "new"}, "spec": {}}, "kubectl inception doctor"),
        (job(state="Suspended"), "kubectl inception resume digits"),
        (job(state="Suspended", labels={LABEL_QUEUE: "q"}), "Its queue has not admitted the job"),
        (job(state="Running"), "kubectl inception watch digits"),
        (
            {"metadata": {"name": "far"}, "spec": {"runPolicy": {"managedBy": "example.org/far"}}},
            "example.org/far manages it",
        ),
        (job(condition("Accepted", "False"), state="Rejected"), "kubectl edit itrain digits"),
        (
            job(condition("PodsReady", "False", "Unschedulable", "no GPU"), state="Pending"),
            "It waits for its pods: Unschedulable: no GPU",
        ),
        (
            job(condition("Failed", reason="DeadlineExceeded"), state="Failed"),
            "Raise runPolicy.activeDeadlineSeconds",
        ),
    ],
)
def test_the_page_says_what_to_do_next(resource: Json, said: str) -> None:
    assert said in describe(resource, [], [], NOW).partition("\nNext\n")[2]


def test_the_page_says_that_the_pods_may_not_be_seen() -> None:
    assert "you may not see the pods" in describe(job(), None, [], NOW)


def test_progress_is_one_line() -> None:
    assert progress_line(job(state="Pending", nodes={"summary": "0/2"})) == (
        "Pending  0/2 nodes ready"
    )
    running = job(
        state="Running",
        attempt=2,
        trainerStatus={
            "progressPercentage": 50,
            "epoch": 3,
            "step": 120,
            "samplesPerSecond": "812.5",
            "estimatedRemainingSeconds": 65,
        },
    )
    assert progress_line(running) == (
        "Running  attempt 2  [###############...............] 50 %  epoch 3  step 120  "
        "812.5 img/s  1m5s left"
    )


def test_the_newest_pod_of_each_slot_is_read_or_the_one_before() -> None:
    pods = [pod("a-0-1", 0, 1), pod("a-0-2", 0, 2), pod("a-0-4", 0, 4), pod("a-1-1", 1, 1)]
    names = [each["metadata"]["name"] for each in select(pods, previous=False)]
    assert names == ["a-0-4", "a-1-1"]
    assert [each["metadata"]["name"] for each in select(pods, previous=True)] == ["a-0-2"]


def test_the_time_in_front_of_a_line_is_taken_off() -> None:
    assert split(b"2026-01-01T00:00:00.5Z two words\xff") == (
        "2026-01-01T00:00:00.5Z",
        "two words\ufffd",
    )


@pytest.mark.parametrize(
    ("spec", "verdict", "said"),
    [
        ({}, "broken", "nobody holds"),
        ({"holderIdentity": "", "renewTime": "2026-01-01T12:00:00Z"}, "broken", "nobody holds"),
        ({"holderIdentity": "pod-1", "renewTime": "2026-01-01T11:59:58Z"}, "ok", "pod-1 leads"),
        ({"holderIdentity": "pod-1", "renewTime": "2026-01-01T11:00:00Z"}, "broken", "for 1h"),
    ],
)
def test_a_lease_says_whether_the_operator_lives(spec: Json, verdict: str, said: str) -> None:
    lease = {"metadata": {"name": "l", "namespace": "system"}, "spec": spec}
    finding = doctor.lease_finding(lease, NOW)
    assert finding.verdict == verdict
    assert said in finding.text


@pytest.mark.parametrize(
    ("holders", "verdict", "said"),
    [
        ({"l": "one", "other": ""}, "ok", "one leads"),
        ({"l": "2 shards", "l-shard-0": "one", "l-shard-1": "two"}, "ok", "2 shards leads"),
        ({"l": "2 shards", "l-shard-0": "one", "l-shard-1": ""}, "broken", "system/l-shard-1"),
        ({"l": "", "l-shard-0": ""}, "broken", "nobody holds the Lease system/l:"),
    ],
)
def test_an_operator_is_well_when_each_of_its_shards_is(
    holders: dict[str, str], verdict: str, said: str
) -> None:
    leases: list[Json] = [
        {
            "metadata": {"name": name, "namespace": "system"},
            "spec": {"holderIdentity": holder, "renewTime": "2026-01-01T11:59:58Z"},
        }
        for name, holder in holders.items()
    ]
    finding = doctor.operator_finding(leases, NOW)
    assert finding.verdict == verdict
    assert said in finding.text


@pytest.mark.parametrize(
    ("own", "operator", "verdict"),
    [
        ("1.2.3", "1.2.3", "ok"),
        ("1.2.3", "1.2.9", "ok"),
        ("1.2.3", "1.3.0", "warning"),
        ("1.2.3", "2.2.3", "warning"),
    ],
)
def test_releases_of_one_minor_version_fit(own: str, operator: str, verdict: str) -> None:
    assert doctor.skew(own, operator)[0] == verdict
