"""``suspend``, ``resume``, ``restart``, ``scale``, ``cancel`` and ``delete``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import click

from inception_operator.client.cluster import Cluster
from inception_operator.client.errors import NOT_FOUND, UNAVAILABLE, AnswerError, ClientError
from inception_operator.client.figures import name_of, part
from inception_operator.client.following import until_gone, until_held
from inception_operator.client.outcome import is_over, is_suspended, summary
from inception_operator.client.text import clean, clean_line
from inception_operator.contract.types import Json

from .options import Duration, cluster_options, job_argument, jobs_argument, timeout_option
from .terminal import say, tell

_RESTART_SECONDS: Final = 600.0


@click.command("suspend")
@cluster_options
@jobs_argument
@click.option("--wait", "waits", is_flag=True, help="Until they have saved and stopped.")
@timeout_option
def suspend(cluster: Cluster, jobs: Sequence[str], waits: bool, timeout: float | None) -> None:
    """Save the state of jobs and free their nodes.

    `resume` goes on from there."""

    def ask(name: str) -> str:
        cluster.ask(cluster.questions.suspend(name))
        return "" if waits else f"{name} saves its state and is suspended"

    def wait(name: str) -> str:
        _check_held(until_held(cluster, name, timeout, given_up=_stays))
        return f"{name} is suspended"

    # Asked first, so that they save at the same time.
    _each(jobs, ask)
    if waits:
        _each(jobs, wait)


def _each(jobs: Sequence[str], act: Callable[[str], str]) -> None:
    """Act on each job, also after one on which it could not be; say what ``act`` returns.

    Ends with the exit code of the first that failed.
    """
    failed: ClientError | None = None
    for name in jobs:
        try:
            said = act(name)
        except ClientError as error:
            # Nobody else answers either.
            if len(jobs) == 1 or error.code == UNAVAILABLE:
                raise
            tell(f"error: {clean(error)}")
            failed = failed or error
            continue
        if said:
            say(said)
    if failed is not None:
        raise click.exceptions.Exit(failed.code)


def _check_held(job: Json) -> None:
    """Raise for a job that was asked to suspend, and did not."""
    if is_over(job):
        raise ClientError(f"{summary(job)}; it ended before it was suspended")
    if not is_suspended(job):
        raise ClientError(f"{name_of(job)} was resumed meanwhile")


def _stays(job: Json) -> bool:
    """Whether a job that was asked to suspend will not any more: it is over, or was resumed."""
    return is_over(job) or not part(job, "spec", "runPolicy", "suspend")


@click.command("resume")
@cluster_options
@jobs_argument
def resume(cluster: Cluster, jobs: Sequence[str]) -> None:
    """Go on with suspended jobs from where they were."""

    def go_on(name: str) -> str:
        cluster.ask(cluster.questions.suspend(name, False))
        return f"{name} resumes"

    _each(jobs, go_on)


@click.command("restart")
@cluster_options
@job_argument
@click.option("--timeout", type=Duration(), default=_RESTART_SECONDS, metavar="TIME")
def restart(cluster: Cluster, name: str, timeout: float) -> None:
    """Give a job new pods.

    It saves, stops, and goes on from its checkpoint."""
    job = cluster.ask(cluster.questions.living(name))
    if part(job, "spec", "runPolicy", "suspend"):
        raise ClientError(
            f"{name} is suspended", f"`{cluster.command(f'resume {name}')}` starts it."
        )
    cluster.ask(cluster.questions.suspend(name))
    try:
        job = until_held(cluster, name, timeout, given_up=_stays)
    except (ClientError, KeyboardInterrupt) as error:
        raise ClientError(
            f"{name} was asked to stop and has not yet: {clean_line(error) or 'interrupted'}",
            f"It is to be suspended now; `{cluster.command(f'resume {name}')}` lets it go on.",
        ) from error
    _check_held(job)
    cluster.ask(cluster.questions.suspend(name, False))
    say(f"{name} restarts with new pods")


@click.command("scale")
@cluster_options
@job_argument
@click.option("--nodes", type=click.IntRange(1), required=True, help="How many pods train.")
def scale(cluster: Cluster, name: str, nodes: int) -> None:
    """Give a job another number of nodes.

    An elastic job while it runs, any other one while it is suspended."""
    cluster.ask(cluster.questions.scale(name, nodes))
    say(f"{name} is given {nodes} nodes")


@click.command("cancel")
@cluster_options
@jobs_argument
def cancel(cluster: Cluster, jobs: Sequence[str]) -> None:
    """End jobs for good, and keep them and their logs.

    They save their state first and end as Failed with the reason DeadlineExceeded: cancelling is a
    runPolicy.activeDeadlineSeconds of one second.
    """

    def end(name: str) -> str:
        cluster.ask(cluster.questions.cancel(name))
        return f"{name} saves its state and ends"

    _each(jobs, end)


@click.command("delete")
@cluster_options
@jobs_argument
@click.option("--wait", "waits", is_flag=True, help="Until they and their pods are gone.")
@click.option("--ignore-not-found", is_flag=True, help="A job that is not there is no error.")
def delete(cluster: Cluster, jobs: Sequence[str], waits: bool, ignore_not_found: bool) -> None:
    """Delete jobs and their pods. Checkpoints stay."""

    def remove(name: str) -> str:
        try:
            _delete(cluster, name, waits)
        except AnswerError as error:
            if not ignore_not_found or error.code != NOT_FOUND:
                raise
            return ""
        return f"{name} is deleted"

    _each(jobs, remove)


def _delete(cluster: Cluster, name: str, waits: bool) -> None:
    cluster.ask(cluster.questions.delete(name, waits=waits))
    if waits:
        until_gone(cluster, name)
