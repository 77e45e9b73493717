"""``logs``: lines of all pods, each with its pod, and what becomes of them while a job goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from inception_operator.client import pod_logs
from inception_operator.client.cluster import Cluster
from inception_operator.client.errors import FORBIDDEN, UNAVAILABLE, AnswerError, ClientError
from inception_operator.client.questions import Query
from inception_operator.plugin import logs

Json = dict[str, Any]
LINES = (
    b"2026-01-01T00:00:00.1Z starting",
    b"2026-01-01T00:00:00.2Z \x1b[31mred\x1b[0m",
    b"2026-01-01T00:00:01.5Z 10%\r50%\r100%",
)


def pod(slot: int, incarnation: int, phase: str) -> Json:
    name = f"job-{slot}-{incarnation}"
    labels = {
        "training.inception.dev/slot": str(slot),
        "training.inception.dev/incarnation": str(incarnation),
    }
    metadata = {"name": name, "uid": f"uid-{name}", "labels": labels}
    return {"metadata": metadata, "status": {"phase": phase}}


class Story(Cluster):
    """A job whose second pod is replaced while its logs are followed, and that then succeeds."""

    def __init__(self) -> None:
        super().__init__(chosen_namespace="team")
        self.looks = 0
        self.asked: list[tuple[str, Query]] = []

    @property
    def _succeeded(self) -> bool:
        return self.looks >= 3

    def job(self, name: str) -> Json:
        self.looks += 1
        condition = {"type": "Succeeded", "status": str(self._succeeded), "reason": "Completed"}
        return {"metadata": {"name": name}, "status": {"conditions": [condition]}}

    def pods(self, name: str) -> list[Json]:
        phase = "Succeeded" if self._succeeded else "Running"
        newer = [pod(1, 2, phase)] if self.looks > 1 else []
        return [pod(0, 1, phase), pod(1, 1, "Failed"), *newer]

    def request(self, method: str, path: str, *_: Any, **__: Any) -> Json:
        name = path.rsplit("/", 1)[1]
        return next(each for each in self.pods("job") if each["metadata"]["name"] == name)

    def lines(self, path: str, query: Query = (), seconds: float | None = None) -> Iterator[bytes]:
        name = path.split("/")[-2]
        before = [each for each, _ in self.asked].count(name)
        self.asked.append((name, query))
        if name == "job-1-1":
            yield b"2026-01-01T00:00:00Z it breaks"
        elif name == "job-1-2" and not before:
            raise AnswerError(400, "the container is waiting to start")
        elif before:
            # The connection broke after the first lines; some of them come twice.
            yield from LINES
        else:
            yield from LINES[:2]


def test_every_pod_is_followed_to_its_end_and_no_line_comes_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pod_logs, "POLL_SECONDS", 0.05)
    story = Story()
    logs.follow_logs(story, "job")
    shown = capsys.readouterr().out.splitlines()
    assert [line for line in shown if line.startswith("[job-0-1]")] == [
        *("[job-0-1] starting", "[job-0-1] red", "[job-0-1] 100%"),
    ]
    assert [line for line in shown if line.startswith("[job-1-1]")] == ["[job-1-1] it breaks"]
    assert "[job-1-2] 100%" in shown
    again = [query for name, query in story.asked if name == "job-0-1"][1]
    assert ("sinceTime", "2026-01-01T00:00:00Z") in again


def test_an_api_server_that_is_away_for_a_moment_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Away(Story):
        def job(self, name: str) -> Json:
            found = super().job(name)
            if self.looks == 2:
                raise ClientError("away", code=UNAVAILABLE)
            return found

    monkeypatch.setattr(pod_logs, "POLL_SECONDS", 0.05)
    logs.follow_logs(Away(), "job")
    assert "[job-0-1] 100%" in capsys.readouterr().out


def test_logs_end_with_the_time_that_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(Story):
        def job(self, name: str) -> Json:
            return {"metadata": {"name": name}}

    monkeypatch.setattr(pod_logs, "POLL_SECONDS", 0.01)
    logs.follow_logs(Endless(), "job", timeout=0.05)


def test_a_pod_whose_log_is_forbidden_is_named_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Forbidden(Story):
        def lines(self, *_: Any, **__: Any) -> Iterator[bytes]:
            raise AnswerError(403, "you may not get pods/log", code=FORBIDDEN)

    monkeypatch.setattr(pod_logs, "POLL_SECONDS", 0.01)
    logs.follow_logs(Forbidden(), "job")
    told = capsys.readouterr().err.splitlines()
    assert sorted(told) == [
        *(f"[job-{name}] you may not get pods/log" for name in ("0-1", "1-1", "1-2")),
    ]
