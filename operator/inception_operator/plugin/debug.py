"""``debug``: all that is known of a job in one archive, for who has to find out what is wrong."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import click

from inception_operator import __version__
from inception_operator.client.cluster import Cluster
from inception_operator.client.errors import ClientError, CutError
from inception_operator.client.figures import name_of, part, since
from inception_operator.client.log_filter import ranks_of
from inception_operator.contract import conditions, names
from inception_operator.contract.names import ConditionType
from inception_operator.contract.types import Json

from . import describe, doctor, pod_exec
from .debug_archive import FILE_BYTES, Archive
from .options import cluster_options, job_argument
from .output import document
from .redact import Redactor
from .terminal import say, tell

_STACKS_SECONDS: Final = 15.0
_SILENCE_SECONDS: Final = 20.0
_MOST_PODS: Final = 64
"""Logs and stacks of no more pods: a job has up to thousands."""
_PART_OF: Final = (("labelSelector", doctor.PART_OF),)
_MEANINGS: Final = {
    ConditionType.ACCEPTED: "the operator can carry out the spec as it is",
    ConditionType.SUSPENDED: "the job holds no pods, because runPolicy.suspend or a queue says so",
    ConditionType.PODS_READY: "all pods that the job needs are there and their launchers answer",
    ConditionType.RUNNING: "the ranks of the present attempt run",
    ConditionType.RESTARTING: "an attempt has ended and the next one is being prepared",
    ConditionType.SUCCEEDED: "the job is over, and has done what it was to do",
    ConditionType.FAILED: "the job is over and is not tried again; status.rootCause says why",
}


@click.command("debug")
@cluster_options
@job_argument
@click.option(
    "-f",
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Archive to write; default: JOB-debug-TIME.tar.gz.",
)
@click.option("--force", is_flag=True, help="Replace the file when it exists.")
@click.option("--no-stacks", is_flag=True, help="Do not ask the ranks where they are.")
def debug(cluster: Cluster, name: str, file: Path | None, force: bool, no_stacks: bool) -> None:
    """Collect all about a job in one archive.

    Spec, status, events, logs of all pods, stacks of all ranks, nodes, operator. summary.txt in it
    is read first. Secrets are taken out as far as they can be known; look before you send it.
    """
    now = datetime.now(UTC)
    path = file or Path(f"{name}-debug-{now:%Y%m%dT%H%M%S}.tar.gz")
    job = cluster.job(name)
    archive, page = collect(cluster, job, now, stacks=not no_stacks)
    archive.write(path, page, replace=force)
    for what, why in archive.missing:
        tell(f"{what}: {why}")
    say(str(path))


def collect(cluster: Cluster, job: Json, now: datetime, *, stacks: bool) -> tuple[Archive, str]:
    """The archive of a job, and its first page."""
    pods: list[Json] = []
    refusal = ""
    try:
        pods = cluster.pods(name_of(job))
    except ClientError as error:
        refusal = error.message
    redactor = Redactor((job, *pods))
    archive = Archive(redactor)
    if refusal:
        archive.missing.append(("pods/", refusal))
    archive.add("job.yaml", _yaml(redactor, job))
    archive.add("conditions.txt", explained(job, now))
    events = _events(archive, cluster, (job, *pods))
    for pod in pods:
        archive.add(f"pods/{name_of(pod)}.yaml", _yaml(redactor, pod))
    _nodes(archive, cluster, pods)
    _operator(archive, cluster)
    # The greatest last: what does not fit any more is a log.
    told = pods[-_MOST_PODS:]
    for pod in pods[:-_MOST_PODS]:
        archive.missing.append((f"logs/{name_of(pod)}.log", f"only {_MOST_PODS} pods are read"))
    if stacks:
        for pod in filter(pod_exec.runs, told):
            archive.attempt(f"stacks/{name_of(pod)}.txt", partial(_stacks, cluster, pod))
    for pod in told:
        archive.attempt(f"logs/{name_of(pod)}.log", partial(_log, cluster, pod))
    return archive, summary(archive, job, None if refusal else pods, events, now)


def _yaml(redactor: Redactor, resource: Json) -> str:
    return document(redactor.resource(resource), "yaml") + "\n"


def explained(job: Json, now: datetime) -> str:
    """The conditions of a job, and what each of them means."""
    lines = []
    for each in conditions.of(job):
        kind = str(each.get("type"))
        lines.append(f"{kind}={each.get('status')}: {_MEANINGS.get(kind, 'unknown here')}")
        ago = since(each.get("lastTransitionTime"), now)
        lines.append(f"  {each.get('reason')}, for {ago}: {each.get('message') or ''}".rstrip())
    return "\n".join(lines or ["no operator has looked at the job"]) + "\n"


def _events(archive: Archive, cluster: Cluster, resources: Sequence[Json]) -> list[Json]:
    """The events on the job and its pods go into the archive; those on the job are given back."""
    uids = [str(part(each, "metadata", "uid")) for each in resources]
    try:
        found = cluster.everything(cluster.core_path("events"))
    except ClientError as error:
        archive.missing.append(("events.yaml", error.message))
        return []
    found.sort(key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
    ours = [each for each in found if part(each, "involvedObject", "uid") in uids]
    archive.add("events.yaml", _yaml(archive.redactor, {"items": ours}))
    return [each for each in ours if part(each, "involvedObject", "uid") == uids[0]]


def _nodes(archive: Archive, cluster: Cluster, pods: Sequence[Json]) -> None:
    """Conditions, devices and taints of the nodes on which the pods are."""
    nodes = dict.fromkeys(part(pod, "spec", "nodeName") for pod in pods)
    for node in [str(name) for name in nodes if name]:
        archive.attempt(f"nodes/{node}.yaml", partial(_node, archive, cluster, node))


def _node(archive: Archive, cluster: Cluster, name: str) -> str:
    found = cluster.request("GET", f"/api/v1/nodes/{name}")
    # The images that a node has are most of it, and tell nothing.
    found.get("status", {}).pop("images", None)
    return _yaml(archive.redactor, found)


def _operator(archive: Archive, cluster: Cluster) -> None:
    """Releases, the operator's Deployment and configuration, and what `doctor` finds."""

    def listed(path: str) -> str:
        found = cluster.everything(path, _PART_OF)
        if not found:
            raise ClientError("none is labelled as the operator's")
        return _yaml(archive.redactor, {"items": found})

    archive.attempt("operator/deployment.yaml", partial(listed, "/apis/apps/v1/deployments"))
    archive.attempt("operator/configuration.yaml", partial(listed, "/api/v1/configmaps"))
    found = doctor.examine(cluster, None)
    archive.add("doctor.txt", "".join(f"{f.verdict:<8} {f.subject}: {f.text}\n" for f in found))


def _stacks(cluster: Cluster, pod: Json) -> str:
    """Where the ranks of a pod are at this moment."""
    assigned = ranks_of(pod)
    if assigned is None:
        raise ClientError("no ranks are assigned to it")
    attempt, ranks = assigned
    output = bytearray()
    command = pod_exec.of_launcher(pod, "show_stacks", str(ranks[0]))
    ending = pod_exec.run(cluster, pod, command, output.extend, _STACKS_SECONDS)
    if ending.code:
        raise ClientError(f"the ranks did not show where they are: {ending.last_words}")
    return f"attempt {attempt}\n\n{output.decode('utf-8', 'replace')}"


def _log(cluster: Cluster, pod: Json) -> str:
    """The end of what a pod has written, with times."""
    query = (("container", names.CONTAINER), ("timestamps", "true"))
    path = cluster.core_path("pods", name_of(pod), "log")
    lines: deque[bytes] = deque()
    size = 0
    try:
        for line in cluster.lines(path, query, _SILENCE_SECONDS):
            lines.append(line)
            size += len(line) + 1
            # One line more than there is room for, so that the archive says that the log is cut.
            while len(lines) > 1 and size - len(lines[0]) > FILE_BYTES + 1:
                size -= len(lines.popleft()) + 1
    except CutError as error:
        lines.append(str(error).encode())
    return b"\n".join((*lines, b"")).decode("utf-8", "replace")


def summary(
    archive: Archive, job: Json, pods: Sequence[Json] | None, events: Sequence[Json], now: datetime
) -> str:
    """The page that a person reads first."""
    page = click.unstyle(describe.describe(job, pods, events, now))
    return "\n".join((*_head(job, now), page, "", *_missing(archive), *_contents(archive)))


def _head(job: Json, now: datetime) -> Iterator[str]:
    yield f"Collected at {now:%Y-%m-%d %H:%M:%S} UTC by release {__version__}."
    untrue = [
        f"{each.get('type')} ({each.get('reason')})"
        for each in conditions.of(job)
        if each.get("type") in (ConditionType.ACCEPTED, ConditionType.PODS_READY)
        and each.get("status") == conditions.FALSE
    ]
    if untrue:
        yield f"Not true: {', '.join(untrue)}."
    yield ""


def _missing(archive: Archive) -> Iterator[str]:
    if archive.missing:
        yield "What is not in here"
        yield from (f"  {what}: {why}" for what, why in archive.missing)
        yield ""


def _contents(archive: Archive) -> Iterator[str]:
    yield "Files"
    yield from (f"  {name} ({len(data)} bytes)" for name, data in archive.files.items())
    yield ""
    yield "Values of variables and what looks like a secret are replaced by (removed)."
    yield ""
