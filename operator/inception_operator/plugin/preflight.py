"""``preflight``: a small job that tries what another one needs, before that one is started."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from inception_operator.client import figures
from inception_operator.client.cluster import Cluster
from inception_operator.client.errors import FAILED, TIMED_OUT, ClientError
from inception_operator.client.figures import name_of, part
from inception_operator.client.following import until
from inception_operator.client.log_filter import ranks_of
from inception_operator.client.outcome import BAD_CONFIGURATION, is_ended, is_rejected, sentence
from inception_operator.client.pod_logs import end_of_log, select
from inception_operator.client.text import clean_line
from inception_operator.contract import conditions
from inception_operator.contract.names import ConditionType, State
from inception_operator.contract.types import Json

from . import local_job, preflight_job, preflight_results
from .options import Duration, cluster_options, optional_job_argument, output_option
from .output import document
from .preflight_results import Problem, Results, Seat
from .resources import put
from .submit import WISHES, create, wished
from .terminal import say, tell

_TIMEOUT_SECONDS: Final = 600.0
_SILENCE_SECONDS: Final = 30.0
_LOG_LINES: Final = 20_000
_LOG_BYTES: Final = 8 << 20
_LONGEST_TEXT: Final = 400


@click.command("preflight")
@cluster_options
@optional_job_argument
@click.option(
    "-f",
    "--file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="Of the job of this file, - is the standard input; only --set goes with it.",
)
@WISHES
@click.option("--keep", is_flag=True, help="Do not delete the small job afterwards.")
@click.option(
    "--timeout",
    type=Duration(),
    default=_TIMEOUT_SECONDS,
    metavar="TIME",
    help="Give up after this time, pods that wait for a node included. Default: 10m.",
)
@output_option("json", "yaml")
def preflight(
    cluster: Cluster,
    name: str | None,
    file: Path | None,
    keep: bool,
    timeout: float,
    output: str | None,
    **wishes: Any,
) -> None:
    """Try devices, network, data and checkpoints of a job.

    Of a job that is there, of a file, or of the options of run. A small job NAME-preflight does it
    on as many nodes and devices, names the rank, pod and node that is wrong or slow, and is
    deleted. The exit code is 1 when something was found.

    \b
    preflight -f job.yaml
    preflight digits
    preflight digits --recipe bninception-digits --accelerator nvidia --devices 8 --nodes 4
    """
    resource, remark = preflight_job.of(_resource(cluster, name, file, wishes), timeout)
    if remark:
        tell(remark)
    # Its namespace is that of the request.
    place = resource["metadata"].pop("namespace", None)
    cluster.chosen_namespace = cluster.chosen_namespace or place
    created = create(cluster, resource)
    tell(f"{name_of(created)} is created in the namespace {cluster.namespace}")
    try:
        job, late = _waited(cluster, created, timeout)
        results = judged(job, collected(cluster, name_of(created)), late)
    finally:
        if not keep:
            _remove(cluster, created)
    _show(job, results, output)
    raise click.exceptions.Exit(_code(job, results, late))


def _resource(
    cluster: Cluster, name: str | None, file: Path | None, wishes: Mapping[str, Any]
) -> Json:
    """The job that is to be tried."""
    given = sorted(key for key, value in wishes.items() if value not in (None, (), False))
    if file is not None:
        others = [key for key in given if key != "settings"]
        if others:
            raise click.UsageError(
                "--file says what the job is: only --set goes with it, no other option of run"
            )
        resource = local_job.read(file)
        for setting in wishes["settings"]:
            put(resource, setting)
        if name is not None:
            resource = {**resource, "metadata": {**(resource.get("metadata") or {}), "name": name}}
        return resource
    if name is None:
        raise click.UsageError("name a job, or its file by --file")
    return wished({**wishes, "name": name, "command": ()}) if given else cluster.job(name)


def _waited(cluster: Cluster, created: Json, timeout: float) -> tuple[Json, bool]:
    """The job when it has ended, or when the time is over."""
    said = ""

    def show(job: Json) -> None:
        nonlocal said
        text = f"{figures.state(job)}"
        if text != said:
            tell(f"{name_of(job)}: {text}")
        said = text

    try:
        return until(cluster, name_of(created), is_ended, timeout, show), False
    except ClientError as error:
        if error.code != TIMED_OUT:
            raise
    return cluster.job(name_of(created)), True


def collected(cluster: Cluster, job: str) -> Results:
    """What the ranks have told, judged."""
    seats: list[Seat] = []
    told: dict[int, dict[str, Json]] = {}
    for pod in select(cluster.pods(job), previous=False):
        assigned = ranks_of(pod)
        if assigned is None:
            continue
        node = clean_line(part(pod, "spec", "nodeName") or figures.NONE)
        seats += [Seat(rank, name_of(pod), node) for rank in assigned[1]]
        try:
            lines = end_of_log(cluster, name_of(pod), _LOG_LINES, _LOG_BYTES, _SILENCE_SECONDS)
            told |= preflight_results.read(lines, assigned[1])
        except ClientError as error:
            tell(f"[{clean_line(name_of(pod))}] no log: {error.message}")
    return preflight_results.judge(sorted(seats, key=lambda seat: seat.rank), told)


def judged(job: Json, results: Results, late: bool) -> Results:
    """The results, with what the job as a whole says where the ranks do not say it."""
    problems = list(results.problems)
    if not any(results.told.values()):
        # Nobody has begun: that all are silent says nothing.
        problems = []
    root = part(job, "status", "rootCause") or {}
    blamed = {problem.seat.rank for problem in problems if problem.seat is not None}
    seat = next((seat for seat in results.seats if seat.rank == root.get("rank")), None)
    if root and (seat is None or seat.rank not in blamed):
        text = f"{root.get('reason')}: {root.get('message') or 'nothing more is known'}"
        if seat is None and root.get("pod"):
            text = f"pod {root['pod']} on node {root.get('node') or figures.NONE}: {text}"
        problems.append(_of_job("job", text, "", seat))
    elif late:
        problems.append(_of_job("time", _waits(job), "Raise --timeout, or free the nodes."))
    elif not problems and figures.state(job) != State.SUCCEEDED:
        problems.append(_of_job("job", sentence(job) or f"it is {figures.state(job)}", ""))
    return Results(results.seats, results.told, problems)


def _of_job(check: str, text: str, remedy: str, seat: Seat | None = None) -> Problem:
    return Problem(check, clean_line(text)[:_LONGEST_TEXT], remedy, seat)


def _waits(job: Json) -> str:
    """What a job that has not ended in time was at."""
    ready = conditions.find(conditions.of(job), ConditionType.PODS_READY) or {}
    message = ready.get("message") if ready.get("status") != conditions.TRUE else ""
    text = f"it has not ended in time and is {figures.state(job)}"
    return f"{text}: {message}" if message else text


def _show(job: Json, results: Results, output: str | None) -> None:
    if output is not None:
        say(document({"job": name_of(job), **results.as_dict()}, output))
        return
    if results.seats:
        say(preflight_results.ranks_table(results))
    for line in (preflight_results.sums_line(results), *preflight_results.remarks(results)):
        if line:
            say(line)
    for problem in results.problems:
        say(f"FAILED {problem.lines()}")
    if not results.problems:
        say(f"{len(results.seats)} ranks are fit for the job")


def _code(job: Json, results: Results, late: bool) -> int:
    if not results.problems:
        return 0
    if is_rejected(job):
        return BAD_CONFIGURATION
    return TIMED_OUT if late else FAILED


def _remove(cluster: Cluster, created: Json) -> None:
    """Delete the small job, and no other one of its name."""
    uid = part(created, "metadata", "uid")
    body = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
    try:
        cluster.request("DELETE", cluster.jobs_path(name_of(created)), body)
    except ClientError as error:
        tell(
            f"{name_of(created)} could not be deleted: {error.message}; "
            f"`{cluster.command(f'delete {name_of(created)}')}` does it, and it ends by itself"
        )
