"""The operator as a process of this machine, for tests and benchmarks."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parents[2]
TRAINER_IMAGE = "localhost/inception-trainer:test"
START_SECONDS = 120.0
_LISTENING = re.compile(r"listening on port (\d+)")
_WRITES = ("create", "patch", "update", "delete")
_PAGE_SECONDS = 1.1
"""How long the operator may go on showing a page of metrics that it has made."""


class OperatorProcess:
    """One run of ``python -m inception_operator``; a context manager that ends it.

    Without ``lease`` it works at once and alone; with the name of a Lease (in ``default``) it
    stands for election. ``source`` is the folder of its package: another release's, for instance.
    """

    def __init__(
        self,
        kubeconfig: Path,
        log: Path,
        *arguments: str,
        lease: str | None = None,
        program: Sequence[str] = ("-m", "inception_operator"),
        source: Path = ROOT / "operator",
    ) -> None:
        election = ("--no-leader-election",) if lease is None else ("--lease-name", lease)
        self._argv = [
            *(sys.executable, *program, "run", "--trainer-image", TRAINER_IMAGE),
            *(
                "--http-port",
                "0",
                "--kubeconfig",
                str(kubeconfig),
                "--log-format",
                "text",
                "--log-level",
                "debug",
            ),
            *election,
            *arguments,
        ]
        self._source = source
        self._log = log
        self._temporary = log.with_name(f"{log.name}-tmp")
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._next_page = 0.0

    def __enter__(self) -> OperatorProcess:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self.kill()

    @contextmanager
    def standing_by(self) -> Iterator[OperatorProcess]:
        """Like the context manager, for a process that will not lead at first."""
        self.start(wait_for_work=False)
        with ExitStack() as stack:
            stack.callback(self.__exit__, None, None, None)
            yield self

    @property
    def pid(self) -> int:
        """Process number."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def log(self) -> str:
        """Everything logged so far, of earlier runs too."""
        return self._log.read_text(encoding="utf-8")

    def start(self, wait_for_work: bool = True) -> None:
        """Start, and wait until it works, or at least listens where it may have to stand by."""
        assert self._process is None, "already started"
        begin = self._log.stat().st_size if self._log.exists() else 0
        # Certificates of the kubeconfig go to temporary files, which a killed process leaves
        # behind.
        self._temporary.mkdir(exist_ok=True)
        environment = {
            **os.environ,
            "PYTHONPATH": str(self._source),
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(self._temporary),
        }
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._argv, env=environment, stdout=output, stderr=output
            )
        wanted = "INFO    working" if wait_for_work else "listening on port"
        try:
            self._wait_for(wanted, begin)
        except AssertionError:
            self.kill()
            raise
        found = _LISTENING.search(self._since(begin))
        assert found is not None
        self._port = int(found.group(1))

    def check(self) -> None:
        """Raise AssertionError, with its last words, when the process has ended by itself."""
        if self._process is not None and (code := self._process.poll()) is not None:
            raise AssertionError(f"the operator has ended with {code}:\n{self.log[-1000:]}")

    def stop(self) -> int:
        """SIGTERM; answers the exit code."""
        process = self._take()
        process.send_signal(signal.SIGTERM)
        return process.wait(30)

    def kill(self) -> None:
        """SIGKILL."""
        process = self._take()
        process.kill()
        process.wait(30)

    def wait(self, seconds: float = 30.0) -> int:
        """The exit code of a process that ends by itself."""
        return self._take().wait(seconds)

    def fetch(self, path: str) -> tuple[int, str]:
        """GET from its HTTP server."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self._port}{path}", timeout=10
            ) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def post(self, path: str) -> int:
        """POST to its HTTP server, without a body; the status."""
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}{path}", method="POST")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def metric(self, series: str, /, **labels: str) -> float:
        """Sum of all samples of a series (without its prefix) that have these labels, as of now."""
        return _total(self._page(), series, labels)

    def writes(self) -> float:
        """Requests so far that change something, its own Lease left out."""
        page = self._page()
        return sum(
            _total(page, "api_requests_total", {"verb": verb})
            - _total(page, "api_requests_total", {"verb": verb, "resource": "leases"})
            for verb in _WRITES
        )

    def _page(self) -> str:
        # A page that was made for the last question would not know of what has happened since.
        time.sleep(max(0.0, self._next_page - time.monotonic()))
        _, text = self.fetch("/metrics")
        self._next_page = time.monotonic() + _PAGE_SECONDS
        return text

    def rss_mib(self) -> float:
        """Resident memory now."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found.group(1)) / 1024

    def _take(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        process, self._process = self._process, None
        return process

    def _since(self, begin: int) -> str:
        return self._log.read_bytes()[begin:].decode("utf-8", "replace")

    def _wait_for(self, text: str, begin: int) -> None:
        end = time.monotonic() + START_SECONDS
        while text not in self._since(begin):
            assert self._process is not None
            code = self._process.poll()
            if code is not None or time.monotonic() > end:
                raise AssertionError(
                    f"the operator did not start (exit code {code}):\n{self._since(begin)}"
                )
            time.sleep(0.02)


def _total(page: str, series: str, labels: dict[str, str]) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == f"inception_operator_{series}" and labels.items() <= sample.labels.items()
    )
