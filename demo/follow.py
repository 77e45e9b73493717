"""Follow one job in the terminal until it has ended."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, TextIO

from demo.kube import DemoError, Kube

POLL_SECONDS = 1.0
WIDTH = 28


def progress_line(job: dict[str, Any]) -> str:
    """One line on a job: state, nodes, bar, epoch, top-1, speed."""
    status = job.get("status", {})
    trainer = status.get("trainerStatus", {})
    percent = trainer.get("progressPercentage", 0)
    filled = WIDTH * percent // 100
    parts = [
        f"{status.get('state', 'Pending'):<10}",
        f"nodes {status.get('nodes', {}).get('summary', '0/?')}",
        f"[{'#' * filled}{'.' * (WIDTH - filled)}] {percent:3d} %",
    ]
    labels = (
        ("epoch", "epoch"),
        ("accuracyTop1", "top-1"),
        ("loss", "loss"),
        ("samplesPerSecond", "img/s"),
    )
    parts += [f"{label} {trainer[key]}" for key, label in labels if key in trainer]
    if status.get("restarts"):
        parts.append(f"restarts {status['restarts']}")
    return "  ".join(parts)


def blocking_message(job: dict[str, Any]) -> str | None:
    """Why the job is not accepted, or why its pods are not ready, in the cluster's own words, or
    None.
    """
    conditions = {c["type"]: c for c in job.get("status", {}).get("conditions", ())}
    for kind in ("Accepted", "PodsReady"):
        if (condition := conditions.get(kind, {})).get("status") == "False":
            return f"{condition['reason']}: {condition.get('message', '')}"
    return None


def ended(job: dict[str, Any]) -> bool:
    """Whether Succeeded or Failed is True."""
    conditions = {c["type"]: c["status"] for c in job.get("status", {}).get("conditions", ())}
    return "True" in (conditions.get("Succeeded"), conditions.get("Failed"))


def job_line(job: dict[str, Any]) -> str:
    """The one line to show: what keeps a job from running, else its progress."""
    state = job.get("status", {}).get("state", "Pending")
    message = blocking_message(job)
    if message is None or state == "Running" or ended(job):
        return progress_line(job)
    return f"{state:<10}  {message}"[:150]


class Screen:
    """Shows changes: in place on a terminal, as lines elsewhere."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self.out = out
        self.last = ""

    def show(self, line: str) -> None:
        """Show a line unless it is the one shown last."""
        if line == self.last:
            return
        self.last = line
        self.out.write(f"\r\033[K  {line}" if self.out.isatty() else f"  {line}\n")
        self.out.flush()

    def end(self) -> None:
        """Leave the line as it is and go on below it."""
        if self.out.isatty() and self.last:
            self.out.write("\n")


def follow(
    kube: Kube, namespace: str, name: str, snapshot: Path, limit_seconds: float = 1800
) -> dict[str, Any]:
    """Show the job's progress until it has ended; keeps the newest /metrics of rank 0 in
    `snapshot`.
    """
    screen = Screen()
    deadline = time.monotonic() + limit_seconds
    while time.monotonic() < deadline:
        job = kube.read("get", "inceptiontraining", name, "-n", namespace)
        if job is None:
            raise DemoError(f"{namespace}/{name} was deleted while it was being followed")
        screen.show(job_line(job))
        if job.get("status", {}).get("state") == "Running":
            save_metrics(kube, namespace, name, snapshot)
        if ended(job):
            screen.end()
            return dict(job)
        time.sleep(POLL_SECONDS)
    screen.end()
    raise DemoError(
        f"{namespace}/{name} has not ended after {limit_seconds:.0f} s; see kubectl describe "
        f"itrain {name}"
    )


def save_metrics(kube: Kube, namespace: str, name: str, snapshot: Path) -> None:
    """Write rank 0's /metrics, read through the API server's pod proxy; nothing when it does not
    answer yet.
    """
    selector = f"training.inception.dev/job={name},training.inception.dev/slot=0"
    try:
        pod = kube.run(
            "get",
            "pods",
            "-n",
            namespace,
            "-l",
            selector,
            "-o",
            "jsonpath={.items[-1:].metadata.name}",
        )
        text = kube.run(
            "get", "--raw", f"/api/v1/namespaces/{namespace}/pods/{pod}:8081/proxy/metrics"
        )
    except DemoError:
        return
    if "trainer_samples_total" in text:
        snapshot.write_text(text)
