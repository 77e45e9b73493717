"""Notifications from the launcher to the operator."""

import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

import pytest

from inception_operator.runtime.settings import Settings
from inception_trainer.launcher import notify
from launchers import Gang, free_port


class Operator(HTTPServer):
    """Notes what is asked of it."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.heard: Queue[str] = Queue()
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, 0), _Handler)

    @property
    def address(self) -> str:
        host = self.server_address[0]
        # As the operator writes its own address.
        return Settings(
            trainer_image="-", advertise_address=str(host), http_port=self.server_port
        ).notify_address


class _Handler(BaseHTTPRequestHandler):
    server: Operator

    def do_POST(self) -> None:
        self.send_response(202)
        self.end_headers()
        self.server.heard.put(self.path)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def operator(request: pytest.FixtureRequest) -> Iterator[Operator]:
    server = Operator(getattr(request, "param", "127.0.0.1"))
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("operator", ["127.0.0.1", "::1"], indirect=True)
def test_a_notification_names_the_pod(operator: Operator) -> None:
    notify.notify(operator.address, "team-a/job", "job-0-1")
    assert operator.heard.get(timeout=10) == "/ring/team-a/job/job-0-1"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense:port", "["])
def test_nobody_at_the_other_end_is_no_failure(address: str) -> None:
    notify.notify_and_wait(address, "team-a/job", "job-0-1")


@pytest.mark.timeout(120)
def test_the_operator_that_made_the_pod_is_notified_once_the_launcher_is_up(
    operator: Operator, tmp_path: Path
) -> None:
    settings = {"INCEPTION_JOB": "team-a/job", "INCEPTION_NOTIFY_ADDRESS": operator.address}
    with Gang(tmp_path, **settings) as gang:
        assert operator.heard.get(timeout=45) == "/ring/team-a/job/job-0-1"
        (launcher,) = gang.launchers
        report = launcher.status()
        assert (report["attempt"], report["state"]) == (0, "Idle")
        with pytest.raises(Empty):
            operator.heard.get_nowait()


@pytest.mark.timeout(180)
def test_the_operator_is_notified_of_the_first_step_and_the_end_of_an_attempt(
    operator: Operator, tmp_path: Path
) -> None:
    settings = {"INCEPTION_JOB": "team-a/job", "INCEPTION_PROGRESS_DEADLINE_SECONDS": "100"}
    with Gang(tmp_path, **settings) as gang:
        (launcher,) = gang.launchers
        for attempt in (1, 2):
            launcher.assign(
                attempt,
                nodeRank=0,
                nnodes=1,
                nprocPerNode=1,
                masterAddr="127.0.0.1",
                masterPort=free_port(),
                bell=operator.address,
            )
            assert operator.heard.get(timeout=45) == "/ring/team-a/job/job-0-1"
            report = launcher.status()
            assert (report["attempt"], report["state"]) == (attempt, "Running"), report.get(
                "message"
            )
            assert report["step"] >= 1
            gang.do(attempt, 0, "exit-7")
            assert operator.heard.get(timeout=45) == "/ring/team-a/job/job-0-1"
            report = launcher.status()
            assert (report["attempt"], report["state"], report["exitCode"]) == (
                attempt,
                "Failed",
                7,
            )
            assert report["step"] >= 1, "how far it came is known after its end"
        launcher.assign(3, nnodes=0)
        assert launcher.wait_state("Idle", 3)["step"] is None
    with pytest.raises(Empty):
        operator.heard.get_nowait()
