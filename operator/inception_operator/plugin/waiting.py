"""``wait``, ``watch`` and ``top``: jobs as they go on."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final, NoReturn

import click

from inception_operator.client import figures
from inception_operator.client.cluster import Cluster
from inception_operator.client.errors import ClientError
from inception_operator.client.figures import part
from inception_operator.client.following import bear, until, until_held
from inception_operator.client.outcome import exit_code, is_ended, is_over, is_suspended, summary
from inception_operator.client.progress_line import progress_line
from inception_operator.contract.names import State
from inception_operator.contract.types import Json

from .listing import jobs_table
from .options import Duration, cluster_options, everywhere_option, job_argument, timeout_option
from .terminal import is_coloured, say, tell

_REACHED: Final[dict[str, Callable[[Json], bool]]] = {
    "end": lambda _: False,
    "running": lambda job: figures.state(job) == State.RUNNING,
    "suspended": is_suspended,
}


@click.command("wait")
@cluster_options
@job_argument
@click.option("--for", "what", type=click.Choice(list(_REACHED)), default="end")
@timeout_option
def wait(cluster: Cluster, name: str, what: str, timeout: float | None) -> None:
    """Wait for a job; the exit code is the job's.

    0 when it has succeeded; else the exit code of its root cause, 1 when there is none, 78 when
    the operator rejects the spec, 124 when the time is over. With --for running or suspended: 0
    once it is.
    """
    reached = _REACHED[what]
    if what == "suspended":
        job = until_held(cluster, name, timeout)
    else:
        job = until(cluster, name, lambda job: reached(job) or is_ended(job), timeout)
    if not reached(job):
        finish(job)


def finish(job: Json) -> NoReturn:
    """Say how a job has ended, and end with the code that says so."""
    tell(summary(job))
    code = exit_code(job)
    raise click.exceptions.Exit(1 if code is None else code)


@click.command("watch")
@cluster_options
@job_argument
@timeout_option
def watch(cluster: Cluster, name: str, timeout: float | None) -> None:
    """Show the progress of a job until it ends.

    The exit codes are those of wait."""
    shown = _Line()
    try:
        job = until(cluster, name, is_ended, timeout, shown)
    finally:
        shown.close()
    finish(job)


class _Line:
    """A line that a terminal draws over; elsewhere it is printed when it has changed."""

    def __init__(self) -> None:
        self._last = ""
        self._live = sys.stdout.isatty()

    def __call__(self, job: Json) -> None:
        text = progress_line(job)
        if text == self._last:
            return
        self._last = text
        if self._live:
            # \x1b[K: what is left of a longer line before it goes. A text that is wrapped would
            # not be drawn over.
            shown = text[: shutil.get_terminal_size().columns - 1]
            click.echo(f"\r{shown}\x1b[K", nl=False, color=is_coloured())
        else:
            say(text)

    def close(self) -> None:
        """End the line."""
        if self._live and self._last:
            click.echo()


@click.command("top")
@cluster_options
@everywhere_option
@click.option("--once", is_flag=True, help="Print one picture and end.")
@click.option("--every", type=Duration(), default=5.0, metavar="TIME", help="Default: 5s.")
@click.option("--all", "ended", is_flag=True, help="Also jobs that have ended.")
def top(cluster: Cluster, everywhere: bool, once: bool, every: float, ended: bool) -> None:
    """Show the jobs that go on, again and again.

    With progress, images per second, accuracy, time left."""
    if once or not sys.stdout.isatty():
        say(_picture(cluster, everywhere, ended))
        return
    # A sixth of a second to import; only this needs it.
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(no_color=not is_coloured(), highlight=False)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        for picture in pictures(cluster, everywhere, ended):
            live.update(Text.from_ansi(picture, no_wrap=True, overflow="ellipsis"), refresh=True)
            time.sleep(max(1.0, every))


def pictures(cluster: Cluster, everywhere: bool, ended: bool) -> Iterator[str]:
    """One for each turn; while the API server is away, the last one and why."""
    picture = _picture(cluster, everywhere, ended)
    lost_since: float | None = None
    yield picture
    while True:
        try:
            picture = _picture(cluster, everywhere, ended)
            lost_since = None
            yield picture
        except ClientError as error:
            lost_since = bear(error, lost_since)
            yield f"{error.message}\n\n{picture}"


def _picture(cluster: Cluster, everywhere: bool, ended: bool) -> str:
    found = [job for job in cluster.jobs(everywhere=everywhere) if ended or not is_over(job)]
    found.sort(key=lambda job: (figures.state(job) != State.RUNNING, str(job["metadata"]["name"])))
    speeds = [
        figures.decimal(part(job, "status", "trainerStatus", "samplesPerSecond")) or 0.0
        for job in found
    ]
    running = sum(figures.state(job) == State.RUNNING for job in found)
    head = f"{len(found)} jobs, {running} running, {sum(speeds):.1f} img/s together"
    return f"{head}\n{jobs_table(found, wide=True, everywhere=everywhere)}"
