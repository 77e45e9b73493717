"""``list``, ``get`` and ``describe``: what jobs there are, and how they are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import click

from inception_operator.client import figures
from inception_operator.client.cluster import Cluster
from inception_operator.client.errors import FORBIDDEN, ClientError
from inception_operator.contract.types import Json

from . import describe as page
from . import output
from .options import (
    cluster_options,
    everywhere_option,
    job_argument,
    jobs_argument,
    output_option,
)
from .terminal import say, table, tell

_SORTED_BY: Final = {
    "name": lambda job: str(job["metadata"]["name"]),
    "age": lambda job: str(job["metadata"].get("creationTimestamp", "")),
    "state": figures.state,
}


def now() -> datetime:
    """The time of this machine."""
    return datetime.now(UTC)


def jobs_table(found: Sequence[Json], *, wide: bool, everywhere: bool) -> str:
    """The table of jobs."""
    header = (*figures.HEADER, *(figures.WIDE if wide else ()))
    rows = [tuple(figures.row(job, now(), wide=wide)) for job in found]
    if everywhere:
        places = [str(job["metadata"].get("namespace", "")) for job in found]
        rows = [(place, *row) for place, row in zip(places, rows, strict=True)]
        header = ("NAMESPACE", *header)
    return table(header, rows)


@click.command("list")
@cluster_options
@everywhere_option
@click.option("-l", "--selector", default="", metavar="LABELS", help="Only those with these.")
@click.option("--state", metavar="STATE", help="Only those in this state, for example Running.")
@click.option("--sort-by", type=click.Choice(list(_SORTED_BY)), default="name")
@output_option()
def list_jobs(
    cluster: Cluster,
    everywhere: bool,
    selector: str,
    state: str | None,
    sort_by: str,
    output: str | None,
) -> None:
    """List the jobs of a namespace, or of all."""
    found = cluster.jobs(everywhere=everywhere, selector=selector)
    if state is not None:
        found = [job for job in found if figures.state(job).lower() == state.lower()]
    found.sort(key=_SORTED_BY[sort_by])
    _show(found, output, everywhere=everywhere, as_list=True)
    if not found and output in (None, "wide"):
        place = "any namespace" if everywhere else f"the namespace {cluster.namespace}"
        tell(f"No jobs found in {place}.")


@click.command("get")
@cluster_options
@jobs_argument
@output_option()
def get(cluster: Cluster, jobs: Sequence[str], output: str | None) -> None:
    """Show jobs as rows of the list, or whole with -o yaml."""
    _show([cluster.job(name) for name in jobs], output, as_list=len(jobs) > 1)


def _show(
    found: Sequence[Json], form: str | None, *, everywhere: bool = False, as_list: bool
) -> None:
    if form in ("json", "yaml", "name"):
        text = output.objects(found, form, as_list=as_list)
    else:
        text = jobs_table(found, wide=form == "wide", everywhere=everywhere) if found else ""
    if text:
        say(text)


@click.command("describe")
@cluster_options
@job_argument
def describe(cluster: Cluster, name: str) -> None:
    """Show all about a job on one page.

    What it is, where, how far, why it failed, where its time went, what next."""
    job = cluster.job(name)
    pods, events = _pods(cluster, name), _events(cluster, job)
    say(page.describe(job, pods, events, now(), options=cluster.options))


def _pods(cluster: Cluster, name: str) -> list[Json] | None:
    """The pods of a job; None for who may not see them."""
    try:
        return cluster.pods(name)
    except ClientError as error:
        if error.code != FORBIDDEN:
            raise
        return None


def _events(cluster: Cluster, job: Json) -> list[Json]:
    try:
        own = cluster.events(str(job["metadata"].get("uid", "")))
        return [*own, *cluster.pod_warnings(job)]
    except ClientError as error:
        if error.code != FORBIDDEN:
            raise
        return []
