"""A pod of a local run: the launcher as a process of this machine, told and asked as in a pod.

What the operator made as a Pod is read like a kubelet would read it: command, environment, the
annotation that becomes the file of the assignment. `raw` is what an API server would serve of it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Final

from inception_operator.contract import assignment, names, report
from inception_operator.contract.names import Phase, ReportState
from inception_operator.contract.times import format_time
from inception_operator.contract.types import Assignment, Json, PodView, Report
from inception_operator.pod.view import trim_pod, view

from .local_job import environment

LAUNCHER: Final = ("-m", "inception_trainer", "launch")
_ADDRESS: Final = assignment.LOOPBACK
_NODE: Final = "this-machine"
_ASK_SECONDS: Final = 2.0
_READY: Final = (ReportState.IDLE, ReportState.RUNNING)
_LARGEST_PAGE: Final = 1024 * 1024
Sink = Callable[[str, str], None]
"""Is given the name of a pod and a line that it has written."""


class LocalPod:
    """One launcher."""

    def __init__(self, body: Json, folder: Path, sink: Sink | None) -> None:
        now = format_time(datetime.now(UTC))
        self.raw: Json = {
            **body,
            "metadata": {**body["metadata"], "uid": str(uuid.uuid4()), "creationTimestamp": now},
            "spec": {**body["spec"], "nodeName": _NODE},
            "status": {"phase": Phase.RUNNING, "podIP": _ADDRESS, "startTime": now},
        }
        self.name = str(body["metadata"]["name"])
        self.folder = folder / self.name
        self.folder.mkdir(parents=True)
        self.answer: Report | None = None
        self.reachable: bool | None = None
        self._port, self.metrics_port = free_port(), free_port()
        self._ready = False
        self._kill_at: datetime | None = None
        self._assignment = self.folder / "assignment"
        self._termination = self.folder / "termination"
        self._write_assignment()
        self._reader: threading.Thread | None = None
        self._process = self._start(sink)

    @property
    def alive(self) -> bool:
        """Whether the launcher has not ended yet."""
        return self._process.poll() is None

    @property
    def view(self) -> PodView:
        """The pod as decisions see it."""
        found = view(trim_pod(self.raw), self.answer, self.reachable)
        if found is None:
            raise ValueError(f"{self.name} is no pod of a job")
        return found

    def _start(self, sink: Sink | None) -> subprocess.Popen[str]:
        # A session of its own: Ctrl-C in the terminal is for us, who let the ranks save first.
        process = subprocess.Popen(
            self._command(),
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=None if sink is None else subprocess.PIPE,
            stderr=None if sink is None else subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        if sink is not None and process.stdout is not None:
            arguments = (self.name, process.stdout, sink)
            self._reader = threading.Thread(target=_pass_on, args=arguments, daemon=True)
            self._reader.start()
        return process

    def _container(self) -> Json:
        containers: list[Json] = self.raw["spec"]["containers"]
        return next(each for each in containers if each.get("name") == names.CONTAINER)

    def _command(self) -> list[str]:
        command: list[str] = self._container()["command"]
        options = ["--assignment", str(self._assignment), "--port", str(self._port)]
        options += ["--termination-log", str(self._termination)]
        program = command[command.index("--") :] if "--" in command else []
        return [sys.executable, *LAUNCHER, *options, *program]

    def _environment(self) -> dict[str, str]:
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith("INCEPTION_")
        }
        fields = {
            "metadata.name": self.name,
            "metadata.uid": self.raw["metadata"]["uid"],
            "status.podIP": _ADDRESS,
            "spec.nodeName": _NODE,
        }
        wanted = environment(self._container(), fields, os.environ)
        return {
            # Whatever this machine's name resolves to, all ranks are on it.
            "GLOO_SOCKET_IFNAME": "lo",
            "PYTHONUNBUFFERED": "1",
            **inherited,
            **wanted,
            "INCEPTION_METRICS_PORT": str(self.metrics_port),
            "TMPDIR": str(self.folder),
        }

    def assign(self, wanted: Assignment) -> None:
        """Tell the launcher its part."""
        annotations = self.raw["metadata"].setdefault("annotations", {})
        annotations[names.ANNOTATION_ASSIGNMENT] = assignment.to_json(wanted)
        self._write_assignment()

    def _write_assignment(self) -> None:
        annotations = self.raw["metadata"].get("annotations") or {}
        # Swapped, as the kubelet does it: the launcher never reads half of one.
        new = self.folder / "assignment.new"
        new.write_text(annotations.get(names.ANNOTATION_ASSIGNMENT, ""), encoding="utf-8")
        new.replace(self._assignment)

    def delete(self, grace: int | None, now: datetime) -> None:
        """Ask it to save and end; it is killed when the grace period is over."""
        metadata = self.raw["metadata"]
        if "deletionTimestamp" in metadata and grace is None:
            return
        seconds = self.raw["spec"]["terminationGracePeriodSeconds"] if grace is None else grace
        self._kill_at = now + timedelta(seconds=seconds)
        metadata["deletionTimestamp"] = format_time(self._kill_at)
        metadata["deletionGracePeriodSeconds"] = seconds
        self._signal(signal.SIGTERM)

    def look(self, now: datetime) -> None:
        """See whether it has ended, and otherwise ask it how it is."""
        code = self._process.poll()
        if code is not None:
            self._end(code, now)
            return
        if self._kill_at is not None and now >= self._kill_at:
            self.kill()
        text = self._fetch(self._port, "/status")
        found = report.from_json(text) if text is not None else None
        self.reachable = found is not None or (False if self.answer is not None else None)
        self.answer = found or self.answer
        ready = found is not None and found.state in _READY and not found.leaving
        self._set_status(Phase.RUNNING, ready, {"running": {}}, now)

    def metrics(self) -> str | None:
        """The page of the trainer's figures; None when there is none."""
        return self._fetch(self.metrics_port, "/metrics")

    def _fetch(self, port: int, path: str) -> str | None:
        # By the UID it knows the operator, to whom it tells everything.
        shown = {"Authorization": f"Bearer {self.raw['metadata']['uid']}"}
        request = urllib.request.Request(f"http://{_ADDRESS}:{port}{path}", headers=shown)
        try:
            with _DIRECT.open(request, timeout=_ASK_SECONDS) as answer:
                return str(answer.read(_LARGEST_PAGE).decode("utf-8", "replace"))
        except (OSError, urllib.error.HTTPError):
            return None

    def _end(self, code: int, now: datetime) -> None:
        # The shell's way of writing a signal, and the kubelet's.
        code = 128 - code if code < 0 else code
        message = ""
        with contextlib.suppress(OSError):
            message = self._termination.read_text(encoding="utf-8", errors="replace")
        terminated = {
            "exitCode": code,
            "reason": "Completed" if code == 0 else "Error",
            "finishedAt": format_time(now),
            "message": message,
        }
        phase = Phase.SUCCEEDED if code == 0 else Phase.FAILED
        if self.raw["status"]["phase"] == Phase.RUNNING:
            if self._reader is not None:
                # Its last words come before what is said of its end.
                self._reader.join(_ASK_SECONDS)
            self._set_status(phase, False, {"terminated": terminated}, now)

    def _set_status(self, phase: str, ready: bool, state: Json, now: datetime) -> None:
        status = self.raw["status"]
        if ready != self._ready or "conditions" not in status:
            self._ready = ready
            condition = {"type": "Ready", "status": str(ready)}
            status["conditions"] = [{**condition, "lastTransitionTime": format_time(now)}]
        status["phase"] = phase
        status["containerStatuses"] = [{"name": names.CONTAINER, "state": state}]

    def kill(self) -> None:
        """End it and all that it has started."""
        self._signal(signal.SIGKILL)

    def close(self) -> None:
        """Leave nothing behind."""
        if self.alive:
            self.kill()
        self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)


# A proxy of the user's environment has no business on this machine.
_DIRECT: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _pass_on(name: str, stream: IO[str], sink: Sink) -> None:
    with stream:
        for line in stream:
            sink(name, line)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((_ADDRESS, 0))
        return int(probe.getsockname()[1])
