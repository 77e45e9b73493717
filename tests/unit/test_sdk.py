"""The Python SDK against an API server over HTTP, in both halves."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from inception_operator.client import following, pod_logs
from inception_operator.client.errors import CutError
from inception_operator.client.text import program
from inception_operator.sdk import (
    AnswerError,
    ClientError,
    TimedOutError,
    Training,
    TrainingFailed,
    job_logs,
)
from job_api import NAMESPACE, ROOT_CAUSE, JobApi
from sdk_halves import Looping, Waiting

ROOT = Path(__file__).resolve().parents[2]
Half = Waiting | Looping
T0 = "2026-01-01T00:00:0"
LOG = (
    f"{T0}1.000000001Z 00:00:01 [digits attempt 1 rank 0] epoch 1/2 step 10/20 50 % loss 1.5000 "
    "top-1 25.0 % lr 0.01000 800 img/s 10 ms/step data 1 % left 0:00:09",
    f"{T0}2.5Z 00:00:02 [digits attempt 1 rank 0] step 10: validation top-1 50.00 %, "
    "top-5 75.00 %, loss 1.2500 over 100 images in 0.1 s, best so far",
    f"{T0}3Z 10%\r\x1b[31m100%\x1b[0m",
)


@pytest.fixture
def api() -> Iterator[JobApi]:
    with JobApi() as found:
        yield found


@pytest.fixture
def place(api: JobApi, tmp_path: Path) -> dict[str, str]:
    return {"kubeconfig": str(api.kubeconfig(tmp_path))}


@pytest.fixture(params=[Waiting, Looping], ids=["waiting", "looping"])
def half(request: pytest.FixtureRequest) -> Iterator[Half]:
    made: Half = request.param()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_logs, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(following, "_PAUSE", 0.01)


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


SUCCEEDED = {
    "state": "Succeeded",
    "attempt": 2,
    "restarts": 1,
    "startTime": "2026-01-01T00:00:00Z",
    "completionTime": "2026-01-01T00:10:00Z",
    "checkpointPath": "/checkpoints/digits",
    "conditions": [condition("Succeeded", "True", "Completed", "all ranks are done")],
    "goodput": {"ratio": "0.9", "seconds": {"productive": 500}},
    "trainerStatus": {
        "progressPercentage": 100,
        "epoch": 3,
        "step": 120,
        "loss": "0.1250",
        "accuracyTop1": "0.9100",
        "accuracyTop5": "0.9900",
        "samplesSeen": 60000,
        "lastUpdatedTime": "2026-01-01T00:10:00Z",
    },
}
FAILED = {
    "state": "Failed",
    "conditions": [condition("Failed", "True", "FailedByRule", "exit code 65 ends the job")],
    "rootCause": ROOT_CAUSE | {"time": "2026-01-01T00:09:00Z"},
}
REJECTED = {
    "state": "Rejected",
    "observedGeneration": 1,
    "conditions": [condition("Accepted", "False", "InvalidSpec", "spec.checkpoint: no place")],
}


def test_three_lines_start_a_job_watch_it_and_take_its_result(
    api: JobApi, place: dict[str, str], half: Half
) -> None:
    job = half.submit(Training(recipe="bninception-digits"), **place)
    body = next(body for method, _, body in api.asked if method == "POST")
    assert body is not None
    assert body["spec"] == {"training": {"recipe": "bninception-digits"}}
    assert job.name.startswith("bninception-digits-")
    assert job.namespace == NAMESPACE
    assert api.queries[0][1]["fieldValidation"] == "Strict"

    seen = []
    for progress in job.watch():
        seen.append(progress)
        if len(seen) == 1:
            running = {"progressPercentage": 50, "step": 10, "loss": "1.5"}
            api.put(job.name, state="Running", attempt=1, trainerStatus=running)
        elif len(seen) == 2:
            # A change of nothing that is told.
            api.put(job.name, selector="x")
            api.put(job.name, **SUCCEEDED)
    assert [progress.state for progress in seen] == ["Pending", "Running", "Succeeded"]
    assert (seen[1].percentage, seen[1].step, seen[1].loss) == (50, 10, 1.5)
    assert str(seen[1]).startswith("Running  [####")

    result = job.result()
    assert (result.accuracy_top1, result.accuracy_top5, result.loss) == (0.91, 0.99, 0.125)
    assert result.duration == timedelta(minutes=10)
    assert result.samples_per_second == 120
    assert (result.epoch, result.step, result.attempts, result.restarts) == (3, 120, 2, 1)
    assert result.checkpoints == "/checkpoints/digits"
    assert result.goodput == 0.9
    assert (result.name, result.namespace) == (job.name, NAMESPACE)
    assert result.status["trainerStatus"]["accuracyTop1"] == "0.9100"
    assert [progress.state for progress in job.watch()] == ["Succeeded"]
    assert (job.state(), job.progress().step) == ("Succeeded", 120)
    assert job.status()["restarts"] == 1


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (FAILED, ("Failed", "FailedByRule", 65)),
        (REJECTED, ("Rejected", "InvalidSpec", 78)),
        (
            {**FAILED, "conditions": [condition("Failed", "True", "DeadlineExceeded")]},
            ("Failed", "DeadlineExceeded", 1),
        ),
    ],
    ids=["root cause", "rejected", "deadline"],
)
def test_a_job_without_a_result_says_why(
    api: JobApi,
    place: dict[str, str],
    half: Half,
    status: dict[str, Any],
    expected: tuple[str, str, int],
) -> None:
    api.put("digits", **status)
    job = half.job("digits", **place)
    assert [progress.state for progress in job.watch()] == [expected[0]]
    with pytest.raises(TrainingFailed) as caught:
        job.result()
    failure = caught.value
    assert (failure.state, failure.reason, failure.exit_code) == expected
    assert (failure.name, failure.namespace) == ("digits", NAMESPACE)
    assert f"digits: {expected[0]}: {expected[1]}" in str(failure)
    assert "\x1b" not in str(failure)
    if "rootCause" in status:
        cause = failure.root_cause
        assert cause is not None
        assert (cause.rank, cause.node, cause.exit_code) == (3, "n1", 65)
        assert cause.time == datetime(2026, 1, 1, 0, 9, tzinfo=UTC)
    else:
        assert failure.root_cause is None


def test_who_waits_learns_of_the_end_of_the_time_and_of_the_job(
    api: JobApi, place: dict[str, str], half: Half
) -> None:
    api.put("digits", state="Running")
    job = half.job("digits", **place)
    with pytest.raises(TimedOutError, match="digits: the time is over") as caught:
        job.result(timeout=0.01)
    assert isinstance(caught.value, TimeoutError)

    api.watched.clear()
    threading.Thread(
        target=lambda: (api.watched.wait(30), api.remove("digits")), daemon=True
    ).start()
    with pytest.raises(ClientError, match="digits has been deleted meanwhile"):
        list(job.watch())
    with pytest.raises(AnswerError, match="there is no InceptionTraining digits"):
        job.result()


def test_a_name_that_is_taken_and_one_that_is_not_there_are_said(
    api: JobApi, place: dict[str, str], half: Half
) -> None:
    api.put("digits", state="Running")
    with pytest.raises(AnswerError, match="there is a job digits in the namespace team already"):
        half.submit(Training("digits", recipe="bninception-digits"), **place)
    with pytest.raises(AnswerError, match="did you mean digits"):
        half.job("digit", **place).state()
    with pytest.raises(AnswerError, match="did you mean digits"):
        list(half.job("digit", **place).metrics())


def test_logs_are_lines_without_what_a_terminal_obeys(
    api: JobApi, place: dict[str, str], half: Half
) -> None:
    api.put("digits", state="Running")
    job = half.job("digits", **place)
    with pytest.raises(ClientError, match="digits has no pods"):
        list(job.logs())
    api.add_pods("digits", ["Running", "Pending"])
    api.logs["digits-0-1"] = list(LOG)
    lines = list(job.logs(tail=5))
    assert [line.pod for line in lines] == ["digits-0-1"] * 3
    assert lines[2].text == "100%"
    assert str(lines[2]) == "[digits-0-1] 100%"
    assert lines[1].time == datetime(2026, 1, 1, 0, 0, 2, 500000, tzinfo=UTC)
    asked = next(query for path, query in api.queries if path.endswith("/log"))
    assert (asked["tailLines"], asked["container"]) == ("5", "trainer")
    ours = [line.text for line in job.logs(rank=0, attempt=1)]
    assert len(ours) == 2


def test_what_can_be_read_comes_before_the_reason_why_the_rest_cannot(
    api: JobApi, place: dict[str, str], half: Half
) -> None:
    api.put("digits", state="Running")
    api.add_pods("digits", ["Running", "Running"])
    api.logs["digits-1-1"] = list(LOG)
    api.refusals["digits-0-1/log"] = (500, "the node does not answer")
    found = []
    with pytest.raises(AnswerError, match="the node does not answer"):
        found.extend(half.job("digits", **place).logs())
    assert [line.pod for line in found] == ["digits-1-1"] * 3


def test_a_busy_api_server_is_asked_again(api: JobApi, place: dict[str, str], half: Half) -> None:
    api.put("digits", state="Running")
    api.busy = {"/digits": 3}
    job = half.job("digits", **place)
    assert job.state() == "Running"
    # As kubectl does it: whatever was asked, for the API server has not begun with it.
    api.busy = {"/digits": 1, "/inceptiontrainings": 1}
    job.suspend()
    assert api.jobs["digits"]["spec"]["runPolicy"]["suspend"] is True
    watched = job.watch()
    assert next(watched).state == "Running"
    api.put("digits", **SUCCEEDED)
    assert [progress.state for progress in watched] == ["Succeeded"]
    api.busy = {"/digits": 1000}
    with pytest.raises(AnswerError, match="the API server is too busy: too many") as caught:
        job.state()
    assert caught.value.code == 69


def test_an_answer_that_breaks_off_is_said_and_a_log_goes_on(
    api: JobApi, place: dict[str, str], half: Half
) -> None:
    api.put("digits", state="Running")
    api.cuts = {"/digits": 1}
    job = half.job("digits", **place)
    with pytest.raises(CutError, match="broke off") as caught:
        job.state()
    assert caught.value.code == 69
    api.add_pods("digits", ["Running"])
    api.logs["digits-0-1"] = list(LOG)
    api.cuts = {"/log": 2}
    assert len(list(job.logs())) == len(LOG)
    api.cuts = {"/log": 1000}
    with pytest.raises(CutError, match="broke off"):
        list(job.logs())


def test_logs_are_followed_until_the_job_ends_and_no_line_comes_twice(
    api: JobApi, place: dict[str, str], half: Half
) -> None:
    api.put("digits", state="Running")
    api.add_pods("digits", ["Running", "Running", "Running"])
    api.logs["digits-0-1"] = list(LOG[:1])
    api.logs["digits-1-1"] = [f"{T0}1Z other"]
    # A node that is away holds nobody up, and is asked again.
    api.refusals["digits-2-1/log"] = (503, "the node does not answer")
    job = half.job("digits", **place)
    seen = []
    for line in job.logs(follow=True):
        seen.append(line)
        if len(seen) == 2:
            api.logs["digits-0-1"] = list(LOG)
            api.logs["digits-2-1"] = [f"{T0}1Z late"]
            api.refusals.clear()
        if len(seen) == 5:
            for pod in api.pods:
                pod["status"]["phase"] = "Succeeded"
            api.put("digits", **SUCCEEDED)
    assert [line.text for line in seen if line.pod == "digits-0-1"] == [
        *(LOG[0].partition(" ")[2], LOG[1].partition(" ")[2], "100%"),
    ]
    assert [line.text for line in seen if line.pod == "digits-1-1"] == ["other"]
    assert [line.text for line in seen if line.pod == "digits-2-1"] == ["late"]


def test_a_log_that_is_forbidden_is_said(api: JobApi, place: dict[str, str], half: Half) -> None:
    api.put("digits", state="Running")
    api.add_pods("digits", ["Running"])
    api.refusals["/log"] = (403, "you may not get pods/log")
    with pytest.raises(AnswerError, match="you may not get pods/log") as caught:
        list(half.job("digits", **place).logs(follow=True))
    assert "the role edit" in str(caught.value)


def test_who_stops_reading_ends_the_following(
    api: JobApi, place: dict[str, str], half: Half, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_logs, "SILENCE_SECONDS", 0.05)
    api.put("digits", state="Running")
    api.add_pods("digits", ["Running"])
    api.logs["digits-0-1"] = list(LOG)
    lines = half.job("digits", **place).logs(follow=True)
    assert next(lines).pod == "digits-0-1"
    lines.close()
    for thread in threading.enumerate():
        if thread.name == "logs of digits":
            thread.join(30)
            assert not thread.is_alive()


def test_metrics_are_the_figures_of_the_log(api: JobApi, place: dict[str, str], half: Half) -> None:
    api.put("digits", **SUCCEEDED)
    api.add_pods("digits", ["Succeeded"])
    api.logs["digits-0-1"] = list(LOG)
    job = half.job("digits", **place)
    trained, validated = job.metrics()
    assert (trained.attempt, trained.epoch, trained.step) == (1, 1, 10)
    assert (trained.loss, trained.accuracy_top1, trained.learning_rate) == (1.5, 0.25, 0.01)
    assert trained.images_per_second == 800
    assert (validated.step, validated.validation_loss) == (10, 1.25)
    assert (validated.validation_top1, validated.validation_top5) == (0.5, 0.75)
    assert list(job.metrics(follow=True)) == [trained, validated]


def test_the_verbs_change_what_the_commands_change(
    api: JobApi, place: dict[str, str], half: Half
) -> None:
    api.put("digits", state="Running", startTime="2026-01-01T00:00:00Z")
    job = half.job("digits", **place)
    job.suspend()
    job.resume()
    job.scale(4)
    job.cancel()
    changes = [body for method, _, body in api.asked if method == "PATCH"]
    assert changes == [
        {"spec": {"runPolicy": {"suspend": True}}},
        {"spec": {"runPolicy": {"suspend": False}}},
        {"spec": {"replicas": 4}},
        {"spec": {"runPolicy": {"activeDeadlineSeconds": 1}}},
    ]
    api.put("digits", **SUCCEEDED)
    job.progress()
    with pytest.raises(ClientError, match="never comes back"):
        job.resume()
    job.delete(wait=True)
    assert "digits" not in api.jobs
    assert api.asked[-1][0] == "GET"


def test_jobs_are_listed_by_their_labels(api: JobApi, place: dict[str, str], half: Half) -> None:
    half.submit(Training("a", recipe="bninception-digits", labels={"team": "vision"}), **place)
    half.submit(Training("b", recipe="bninception-digits"), **place)
    assert half.all(**place) == ["a", "b"]
    assert half.all(labels="team=vision", **place) == ["a"]
    # Where it is started: the request says it, and one that is given here comes first.
    one = Training("c", recipe="bninception-digits", namespace="elsewhere")
    half.submit(one, namespace=NAMESPACE, **place)
    with pytest.raises(AnswerError):
        half.submit(one, **place)
    assert api.asked[-1][1].split("/")[-2] == "elsewhere"
    assert "namespace" not in api.asked[-1][2]["metadata"]
    assert half.all(labels="team=none", **place) == []


def test_the_api_server_is_asked_whether_it_would_take_a_job(
    api: JobApi, place: dict[str, str]
) -> None:
    assert Training("a", recipe="bninception-digits").check(**place)["metadata"]["uid"]
    assert api.jobs == {}
    assert ("dryRun", "All") in api.queries[0][1].items()


def test_a_cluster_that_is_not_there_is_named(tmp_path: Path, half: Half) -> None:
    with JobApi() as gone:
        file = str(gone.kubeconfig(tmp_path))
    with pytest.raises(ClientError, match="cannot be reached") as caught:
        half.job("digits", kubeconfig=file).state()
    assert caught.value.code == 69
    for broken in (tmp_path / "missing", tmp_path / "torn"):
        if broken.name == "torn":
            broken.write_text("clusters: [", encoding="utf-8")
        with pytest.raises(ClientError, match="no usable kubeconfig"):
            half.job("digits", kubeconfig=str(broken), namespace="team").state()


def test_an_api_server_that_does_not_know_the_user_says_so(
    api: JobApi, place: dict[str, str], half: Half
) -> None:
    file = Path(place["kubeconfig"])
    file.write_text(file.read_text("utf-8").replace("let-me-in", "old"), encoding="utf-8")
    with pytest.raises(AnswerError, match="does not know you") as caught:
        half.job("digits", **place).state()
    assert (caught.value.status, caught.value.code) == (401, 77)


def test_the_sdk_needs_no_package_of_the_commands_nor_of_the_operator(tmp_path: Path) -> None:
    for package in ("click", "rich", "kopf", "prometheus_client", "pandas"):
        text = f"raise ModuleNotFoundError('no', name={package!r})"
        (tmp_path / f"{package}.py").write_text(text, encoding="utf-8")
    code = (
        "from inception_operator.sdk import AsyncJob, Job, Training; "
        "print(Training('a', recipe='bninception-digits'))"
    )
    paths = (tmp_path, ROOT / "operator", ROOT / "trainer")
    answer = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": ":".join(map(str, paths))},
    )
    assert "kind: InceptionTraining" in answer.stdout


def test_messages_name_the_commands_that_people_have() -> None:
    assert program() == "kubectl inception"
