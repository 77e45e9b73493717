"""``local run``: a job on this machine, without Kubernetes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import click

from inception_operator.client.figures import part
from inception_operator.client.outcome import exit_code, summary
from inception_operator.client.text import clean
from inception_operator.contract.types import Json

from . import local_job
from .describe import describe
from .output import document
from .terminal import say, tell

if TYPE_CHECKING:
    from .local_run import LocalRun

_STOPPED: Final = 75
"""As in the launcher's contract: stopped on request, with a checkpoint."""


@click.group("local")
def local() -> None:
    """Run jobs on this machine, without Kubernetes."""


@local.command("run")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("out"),
    help="In place of a claim: folder of checkpoints and results, by job. Default: out.",
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="As of run.")
@click.option("--accelerator", "profile", metavar="PROFILE", help="Other devices: cpu.")
@click.option("--nodes", type=click.IntRange(1), help="Another number of launchers.")
@click.option("--procs", "processes", type=click.IntRange(1), help="Ranks of each of them.")
@click.option("--dry-run", is_flag=True, help="Print the job as it would run here.")
def run(file: Path, output: Path, dry_run: bool, settings: tuple[str, ...], **wishes: Any) -> None:
    """Run the job of a YAML file on this machine.

    The same file as for the cluster, with the same launcher, attempts, restarts and root causes; or
    the trainer's own configuration. Every node of the job becomes a launcher. The exit code is that
    of the job, as of `wait`; Ctrl-C lets it save and ends with 75, and the same command goes on.
    """
    resource = local_job.read(file)
    resource = local_job.localize(resource, output, settings=settings, **wishes)
    if dry_run:
        say(document(resource, "yaml"))
        return
    local_job.check_trainer()
    raise click.exceptions.Exit(_run(resource))


def _run(resource: Json) -> int:
    # Half a second with the decisions and all they import; no other command needs them.
    from .local_run import LocalRun

    nodes = int(resource["spec"].get("numNodes") or 1)
    ranks = nodes * _ranks(resource)
    os.environ.setdefault("OMP_NUM_THREADS", str(local_job.threads(ranks)))
    # A single pod draws its progress on our terminal itself.
    with LocalRun(resource, _Lines() if nodes > 1 else None) as job, _stopping(job):
        told = 0
        while not job.done:
            job.step()
            for event in job.events[told:]:
                tell(clean(f"[{event['type']}] {event['reason']}: {event['message']}"))
            told = len(job.events)
        now = datetime.now(UTC)
        job.look(now)
        pods = [pod.raw for pod in job.pods.values()]
        say()
        say(describe(job.resource, pods, (), now, advises=False))
        code = exit_code(job.resource)
    if code is None:
        tell("stopped; the ranks were asked to save, and the same command goes on from there")
        return _STOPPED
    tell(summary(job.resource))
    return code


def _ranks(resource: Json) -> int:
    count = part(resource, "spec", "numProcPerNode")
    return count if isinstance(count, int) else 1


@contextmanager
def _stopping(job: LocalRun) -> Iterator[None]:
    """Ctrl-C and SIGTERM stop the job instead of this program."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        job.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Lines:
    """Lines of several pods, each with its pod in front."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __call__(self, pod: str, line: str) -> None:
        text = clean(line).rstrip("\n").split("\n")[-1]
        with self._lock:
            say(f"[{pod}] {text}")
