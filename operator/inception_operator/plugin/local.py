"""``local run``: a job on this machine, without Kubernetes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from inception_operator.client.figures import part
from inception_operator.client.outcome import exit_code, summary
from inception_operator.client.text import clean
from inception_operator.contract.types import Json

from . import local_job
from .describe import describe
from .output import document
from .terminal import say, silence, tell

if TYPE_CHECKING:
    from .local_run import LocalRun

_STOPPED: Final = 75
"""As in the launcher's contract: stopped on request, with a checkpoint."""


@click.group("local")
def local() -> None:
    """Run jobs on this machine, without Kubernetes."""


@local.command("run")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
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
    """Run the job of a YAML file on this machine; - is the standard input.

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

    nodes = local_job.count(part(resource, "spec", "numNodes"))
    ranks = nodes * local_job.count(part(resource, "spec", "numProcPerNode"))
    os.environ.setdefault("OMP_NUM_THREADS", str(local_job.threads(ranks)))
    for remark in local_job.foreign_variables(resource, os.environ):
        tell(clean(remark))
    # A single pod draws its progress on our terminal itself.
    voice = _Voice(has_prefix=nodes > 1)
    sink = None if nodes == 1 and sys.stdout.isatty() else voice.hear
    with LocalRun(resource, sink) as job, _stopping(job):
        told = 0
        while not job.done:
            job.step()
            for event in job.events[told:]:
                voice.tell(clean(f"[{event['type']}] {event['reason']}: {event['message']}"))
            told = len(job.events)
            if not voice.is_heard:
                _stop(job)
        now = datetime.now(UTC)
        job.look(now)
        pods = [pod.raw for pod in job.pods.values()]
        voice.say(f"\n{describe(job.resource, pods, (), now, advises=False)}")
        code = exit_code(job.resource)
    if code is None:
        voice.tell("stopped; the ranks were asked to save, and the same command goes on from there")
        return _STOPPED
    voice.tell(summary(job.resource))
    return code


def _stop(job: LocalRun) -> None:
    """Stop a job that was not asked to yet: the second time it would be killed."""
    if not job.is_stopped:
        job.stop()


@contextmanager
def _stopping(job: LocalRun) -> Iterator[None]:
    """Ctrl-C, SIGTERM and a terminal that is closed stop the job instead of this program."""

    def stop(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            # The shell sends one and the kernel another.
            _stop(job)
        else:
            job.stop()

    numbers = [signal.SIGINT, signal.SIGTERM]
    # nohup wants it to go on.
    numbers += [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else []
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Voice:
    """What the run and its pods say, line by line, as long as somebody reads it."""

    def __init__(self, *, has_prefix: bool) -> None:
        self.is_heard = True
        self._has_prefix = has_prefix
        self._lock = threading.Lock()

    def hear(self, pod: str, line: str) -> None:
        """Pass a line of a pod on; of several pods each with its pod in front."""
        text = clean(line).rstrip("\n").split("\n")[-1]
        self.say(f"[{pod}] {text}" if self._has_prefix else text)

    def say(self, text: str) -> None:
        """Print to standard output."""
        self._write(say, text, sys.stdout)

    def tell(self, text: str) -> None:
        """Print to standard error."""
        self._write(tell, text, sys.stderr)

    def _write(self, write: Callable[[str], None], text: str, stream: TextIO) -> None:
        with self._lock:
            try:
                write(text)
            except OSError:
                # `head` has read enough, or the terminal was closed. Pods may write on.
                silence(stream)
                self.is_heard = False
