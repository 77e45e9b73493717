"""``history(prometheus=…)`` against a Prometheus of a few lines on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import aiohttp
import pytest

from inception_operator.client.errors import NOT_FOUND, UNAVAILABLE, ClientError
from inception_operator.report import history as recorded
from inception_operator.sdk import history
from job_api import NAMESPACE, JobApi
from sdk_halves import Looping, Waiting

BEGAN = 1767225600
JOB = {
    "metadata": {"name": "digits", "namespace": "team"},
    "status": {"startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:10:00Z"},
}
# What a series has, by a word of the query that only its own has.
SERIES = {
    "trainer_loss": [[BEGAN, "2.5"], [BEGAN + 15, "0.5"], [BEGAN + 30, "NaN"]],
    'split="val"': [[BEGAN + 15, "0.75"]],
    "trainer_samples_per_second": [[BEGAN, "800"]],
}


class Prometheus(ThreadingHTTPServer):
    """Answers each query with its series; or everything with the same text."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[dict[str, str]] = []
        self.answer: tuple[int, bytes] | None = None
        self.series: dict[str, list[list[Any]]] = SERIES
        self.silence = threading.Event()
        self.silence.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Prometheus

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = {key: value for key, (value,) in parse_qs(body).items()}
        self.server.asked.append({"path": self.path, **form})
        self.server.silence.wait(30)
        found = [
            {"metric": {}, "values": values}
            for word, values in self.server.series.items()
            if word in form["query"]
        ]
        good = {"status": "success", "data": {"resultType": "matrix", "result": found}}
        status, text = self.server.answer or (200, json.dumps(good).encode())
        # Who has waited long enough has gone.
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Nothing: pytest would show it."""


@pytest.fixture
def prometheus() -> Iterator[Prometheus]:
    with Prometheus() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="prometheus")
        thread.start()
        yield server
        server.silence.set()
        server.shutdown()
        thread.join()


def test_a_row_has_all_that_was_recorded_at_one_time(prometheus: Prometheus) -> None:
    # An address is often copied with its slash.
    rows = history.of_prometheus(JOB, f"{prometheus.url}/")
    known = [{key: value for key, value in row.items() if key != "time"} for row in rows]
    assert known == [
        {"loss": 2.5, "images_per_second": 800.0},
        {"loss": 0.5, "validation_top1": 0.75},
    ]
    assert [row["time"].timestamp() for row in rows] == [BEGAN, BEGAN + 15]
    frame = history.frame(rows)
    assert frame["loss"].tolist() == [2.5, 0.5]
    assert frame["validation_top1"].count() == 1


def test_it_is_asked_for_the_life_of_the_one_job(prometheus: Prometheus) -> None:
    history.of_prometheus(JOB, prometheus.url)
    assert {each["path"] for each in prometheus.asked} == {"/api/v1/query_range"}
    assert {float(each["start"]) for each in prometheus.asked} == {BEGAN}
    assert {float(each["end"]) for each in prometheus.asked} == {BEGAN + 600 + 15}
    assert {float(each["step"]) for each in prometheus.asked} == {15.0}
    for each in prometheus.asked:
        assert 'namespace="team"' in each["query"]
        assert '"digits"' in each["query"]


def test_a_job_that_still_runs_is_asked_for_until_now(prometheus: Prometheus) -> None:
    running = {**JOB, "status": {"startTime": JOB["status"]["startTime"]}}
    history.of_prometheus(running, prometheus.url)
    (step,) = {float(each["step"]) for each in prometheus.asked}
    (end,) = {float(each["end"]) for each in prometheus.asked}
    assert end > BEGAN + 600
    # Longer than Prometheus gives points for at a time.
    assert (end - BEGAN) / step == pytest.approx(recorded.POINTS)


@pytest.mark.parametrize(
    ("status", "text", "said"),
    [
        (
            422,
            b'{"status": "error", "errorType": "execution", "error": "too many samples"}',
            "refuses a query: too many samples",
        ),
        (200, b'{"status": "succ', "answers 200 and no JSON"),
        (404, b"<html>no such page</html>", "answers 404 and no JSON"),
        (200, b"[]", "refuses a query: []"),
        (200, b'{"status": "success"}', "answers as no Prometheus does"),
        (200, b'{"status": "success", "data": null}', "answers as no Prometheus does"),
        (
            200,
            b'{"status": "success", "data": {"result": [{"metric": {}, "value": [1, "2"]}]}}',
            "answers as no Prometheus does",
        ),
        (
            200,
            b'{"status": "success", "data": {"result": [{"metric": {}, "values": [["x", "2"]]}]}}',
            "answers as no Prometheus does",
        ),
    ],
)
def test_an_answer_that_is_none_is_said_with_the_address_and_the_remedy(
    status: int, text: bytes, said: str, prometheus: Prometheus
) -> None:
    prometheus.answer = (status, text)
    with pytest.raises(ClientError) as caught:
        history.of_prometheus(JOB, prometheus.url)
    assert caught.value.code == UNAVAILABLE
    assert f"no history: {prometheus.url} {said}" in caught.value.message
    assert "kubectl port-forward" in caught.value.remedy


def test_a_reason_of_any_length_is_cut(prometheus: Prometheus) -> None:
    prometheus.answer = (400, json.dumps({"status": "error", "error": "x" * 10_000}).encode())
    with pytest.raises(ClientError, match="refuses a query: xxx") as caught:
        history.of_prometheus(JOB, prometheus.url)
    assert len(caught.value.message) < 500


def test_a_prometheus_that_says_nothing_is_named(
    prometheus: Prometheus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "_TIMEOUT", aiohttp.ClientTimeout(total=0.05))
    prometheus.silence.clear()
    with pytest.raises(ClientError) as caught:
        history.of_prometheus(JOB, prometheus.url)
    assert caught.value.message == f"no history: {prometheus.url}: TimeoutError"
    assert "kubectl port-forward" in caught.value.remedy


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "127.0.0.1:9090", "http://[", "nowhere"])
def test_an_address_where_none_is_is_named(url: str) -> None:
    with pytest.raises(ClientError) as caught:
        history.of_prometheus(JOB, url)
    assert url in caught.value.message
    assert "http://127.0.0.1:9090" in caught.value.remedy


def test_a_prometheus_that_knows_nothing_of_the_job_is_said(prometheus: Prometheus) -> None:
    prometheus.series = {}
    with pytest.raises(ClientError, match="has no figures of team/digits") as caught:
        history.of_prometheus(JOB, prometheus.url)
    assert caught.value.code == NOT_FOUND
    assert "docs/install.md" in caught.value.remedy


def test_a_job_that_has_not_begun_has_none(prometheus: Prometheus) -> None:
    with pytest.raises(ClientError, match="digits has not begun yet"):
        history.of_prometheus({**JOB, "status": {}}, prometheus.url)
    assert prometheus.asked == []


@pytest.mark.parametrize("kind", [Waiting, Looping], ids=["waiting", "looping"])
def test_both_halves_of_the_sdk_have_it(
    kind: type[Waiting | Looping], prometheus: Prometheus, tmp_path: Path
) -> None:
    half = kind()
    with JobApi() as api:
        api.put("digits", **JOB["status"])
        job = half.job("digits", kubeconfig=str(api.kubeconfig(tmp_path)))
        frame = job.history(prometheus=prometheus.url)
        half.close()
    assert frame["loss"].tolist() == [2.5, 0.5]
    assert f'namespace="{NAMESPACE}"' in prometheus.asked[0]["query"]


async def test_a_loop_that_runs_is_no_hindrance(prometheus: Prometheus) -> None:
    # As in a notebook, which calls the half that waits from a running loop.
    assert asyncio.get_running_loop().is_running()
    assert len(history.of_prometheus(JOB, prometheus.url)) == 2
