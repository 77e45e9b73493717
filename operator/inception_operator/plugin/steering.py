"""``suspend``, ``resume``, ``restart``, ``scale``, ``cancel`` and ``delete``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from inception_operator.client.cluster import Cluster
from inception_operator.client.errors import NOT_FOUND, AnswerError, ClientError
from inception_operator.client.figures import name_of, part
from inception_operator.client.following import until_gone, until_held
from inception_operator.client.outcome import is_over, is_suspended, summary
from inception_operator.client.text import clean_line
from inception_operator.contract.types import Json

from .options import Duration, cluster_options, job_argument, jobs_argument, timeout_option
from .terminal import say

_RESTART_SECONDS: Final = 600.0


@click.command("suspend")
@cluster_options
@jobs_argument
@click.option("--wait", "waits", is_flag=True, help="Until they have saved and stopped.")
@timeout_option
def suspend(cluster: Cluster, jobs: Sequence[str], waits: bool, timeout: float | None) -> None:
    """Save the state of jobs and free their nodes.

    `resume` goes on from there."""
    for name in jobs:
        cluster.ask(cluster.questions.suspend(name))
        if not waits:
            say(f"{name} saves its state and is suspended")
    # Asked first, so that they save at the same time.
    for name in jobs if waits else ():
        _check_held(until_held(cluster, name, timeout, given_up=_stays))
        say(f"{name} is suspended")


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
    for name in jobs:
        cluster.ask(cluster.questions.suspend(name, False))
        say(f"{name} resumes")


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
    for name in jobs:
        cluster.ask(cluster.questions.cancel(name))
        say(f"{name} saves its state and ends")


@click.command("delete")
@cluster_options
@jobs_argument
@click.option("--wait", "waits", is_flag=True, help="Until they and their pods are gone.")
@click.option("--ignore-not-found", is_flag=True, help="A job that is not there is no error.")
def delete(cluster: Cluster, jobs: Sequence[str], waits: bool, ignore_not_found: bool) -> None:
    """Delete jobs and their pods. Checkpoints stay."""
    for name in jobs:
        try:
            _delete(cluster, name, waits)
        except AnswerError as error:
            if not ignore_not_found or error.code != NOT_FOUND:
                raise
            continue
        say(f"{name} is deleted")


def _delete(cluster: Cluster, name: str, waits: bool) -> None:
    cluster.ask(cluster.questions.delete(name, waits=waits))
    if waits:
        until_gone(cluster, name)
