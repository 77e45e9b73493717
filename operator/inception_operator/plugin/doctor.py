"""``doctor`` and ``version``: is everything there that a job needs, and do the releases fit?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import click

from inception_operator import __version__
from inception_operator.client.cluster import Cluster
from inception_operator.client.errors import ClientError
from inception_operator.client.figures import part, since
from inception_operator.client.text import clean_line
from inception_operator.contract import names
from inception_operator.contract.shard import OF_SHARD
from inception_operator.contract.times import parse_time
from inception_operator.contract.types import Json

from .options import cluster_options, output_option
from .output import document
from .terminal import is_coloured, say

OK: Final = "ok"
WARNING: Final = "warning"
BROKEN: Final = "broken"
_COLOURS: Final = {OK: "green", WARNING: "yellow", BROKEN: "red"}
_LEASE_NAME: Final = "inception-operator"
PART_OF: Final = "app.kubernetes.io/part-of=inception-training-operator"
_VERSION_LABEL: Final = "app.kubernetes.io/version"
_LEASE_SECONDS: Final = 15
# Clocks of laptops are wrong by more than a Lease lasts.
_CLOCKS: Final = timedelta(seconds=60)
# What a user needs, in the group of the kind and in the core group.
_EXEC: Final = "checkpoints, checkpoints promote, debug"
_HELPER: Final = "checkpoints promote, where no pod of the job runs"
_RIGHTS: Final = (
    ("list", names.GROUP, names.PLURAL, "", "list, get, wait"),
    ("get", names.GROUP, names.PLURAL, "", "describe, logs, wait"),
    ("watch", names.GROUP, names.PLURAL, "", "watch, wait"),
    ("create", names.GROUP, names.PLURAL, "", "run"),
    ("patch", names.GROUP, names.PLURAL, "", "suspend, resume, restart, cancel"),
    ("patch", names.GROUP, names.PLURAL, "scale", "scale"),
    ("delete", names.GROUP, names.PLURAL, "", "delete"),
    ("list", "", "pods", "", "describe, logs"),
    ("get", "", "pods", "log", "logs"),
    ("list", "", "events", "", "describe"),
    # A command in a pod is a WebSocket: a GET, for which Kubernetes 1.35 and later ask both rights.
    ("get", "", "pods", "exec", _EXEC),
    ("create", "", "pods", "exec", _EXEC),
    ("create", "", "pods", "", _HELPER),
    ("get", "", "pods", "", _HELPER),
    ("delete", "", "pods", "", _HELPER),
)


@dataclass(frozen=True)
class Finding:
    """What one check has found."""

    verdict: str
    subject: str
    text: str


@click.command("doctor")
@cluster_options
@click.option(
    "--lease", metavar="NAMESPACE/NAME", help="The operator's; default: found by its labels."
)
@output_option("json", "yaml")
def doctor(cluster: Cluster, lease: str | None, output: str | None) -> None:
    """Check the cluster, the API, your rights, the operator.

    The exit code is 1 when something is broken.
    """
    findings = []
    for finding in examine(cluster, lease):
        findings.append(finding)
        if output is None:
            mark = click.style(f"{finding.verdict:<8}", fg=_COLOURS[finding.verdict])
            say(f"{mark} {finding.subject}: {clean_line(finding.text)}")
    if output is not None:
        say(document([vars(finding) for finding in findings], output))
    if any(finding.verdict == BROKEN for finding in findings):
        raise click.exceptions.Exit(1)


def examine(cluster: Cluster, lease: str | None) -> Iterator[Finding]:
    """All checks; the first that makes the others useless ends them."""
    try:
        found = cluster.request("GET", "/version")
    except ClientError as error:
        yield Finding(BROKEN, "API server", str(error))
        return
    yield Finding(OK, "API server", f"{cluster.address}, Kubernetes {found.get('gitVersion')}")
    kind = _kind(cluster)
    yield kind
    if kind.verdict == BROKEN:
        return
    yield from _rights(cluster)
    yield _operator(cluster, lease)
    yield _release(cluster)


def _kind(cluster: Cluster) -> Finding:
    try:
        found = cluster.request("GET", f"/apis/{names.API_VERSION}")
    except ClientError as error:
        return Finding(BROKEN, "API", str(error))
    kinds = [each.get("name") for each in found.get("resources") or []]
    if names.PLURAL not in kinds:
        return Finding(BROKEN, "API", f"{names.API_VERSION} has no {names.PLURAL}")
    if f"{names.PLURAL}/scale" not in kinds:
        return Finding(
            WARNING, "API", "the definition is of an older release: no sub-resource scale"
        )
    return Finding(OK, "API", f"{names.API_VERSION} {names.KIND} is served")


def _rights(cluster: Cluster) -> Iterator[Finding]:
    place = f"your rights in {cluster.namespace}"
    missing = []
    for verb, group, plural, sub, commands in _RIGHTS:
        allowed = _is_allowed(cluster, verb, group, plural, sub)
        if allowed is None:
            yield Finding(WARNING, place, "the API server does not tell them")
            return
        if not allowed:
            what = f"{plural}/{sub}" if sub else plural
            missing.append(f"{verb} {what} (for {commands})")
    if missing:
        yield Finding(
            WARNING, place, f"you may not {'; '.join(missing)}. The role edit has all of them."
        )
    else:
        yield Finding(OK, place, "all that the commands need")


def _is_allowed(cluster: Cluster, verb: str, group: str, plural: str, sub: str) -> bool | None:
    attributes = {
        "verb": verb,
        "group": group,
        "resource": plural,
        "subresource": sub,
        "namespace": cluster.namespace,
    }
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    try:
        return bool(part(cluster.request("POST", path, body), "status", "allowed"))
    except ClientError:
        return None


def _operator(cluster: Cluster, chosen: str | None) -> Finding:
    """Whether an operator holds its Lease and renews it."""
    try:
        leases = _leases(cluster, chosen)
    except ClientError as error:
        return Finding(
            WARNING, "operator", f"its Lease cannot be read, so it may be there or not: {error}"
        )
    if not leases:
        return Finding(
            BROKEN,
            "operator",
            "no Lease of it in any namespace: it is not installed (docs/install.md), runs without "
            "leader election, or its Lease has another name (--lease NAMESPACE/NAME)",
        )
    return operator_finding(leases, datetime.now(UTC))


def operator_finding(leases: Sequence[Json], now: datetime) -> Finding:
    """What all its Leases say about the operator."""
    findings = [lease_finding(lease, now) for lease in leases]
    best = min(findings, key=lambda finding: (OK, WARNING, BROKEN).index(finding.verdict))
    # Each shard has a Lease beside that of the whole: without a holder nobody works at its jobs.
    idle = (
        finding
        for lease, finding in zip(leases, findings, strict=True)
        if OF_SHARD in lease["metadata"]["name"] and finding.verdict != OK
    )
    return next(idle, best) if best.verdict == OK else best


def _leases(cluster: Cluster, chosen: str | None) -> list[Json]:
    root = "/apis/coordination.k8s.io/v1"
    if chosen:
        namespace, sign, name = chosen.partition("/")
        if not sign:
            raise click.UsageError("--lease: write NAMESPACE/NAME")
        return [cluster.request("GET", f"{root}/namespaces/{namespace}/leases/{name}")]
    labelled = cluster.everything(f"{root}/leases", [("labelSelector", PART_OF)])
    named = [("fieldSelector", f"metadata.name={_LEASE_NAME}")]
    return labelled or cluster.everything(f"{root}/leases", named)


def lease_finding(lease: Json, now: datetime) -> Finding:
    """What a Lease says about its operator."""
    spec = lease.get("spec") or {}
    name = f"{lease['metadata'].get('namespace')}/{lease['metadata']['name']}"
    holder, renewed = spec.get("holderIdentity"), parse_time(spec.get("renewTime"))
    if not holder or renewed is None:
        return Finding(
            BROKEN,
            "operator",
            f"nobody holds the Lease {name}: no operator runs. Look at the pods of its Deployment "
            f"in {lease['metadata'].get('namespace')}.",
        )
    lasts = timedelta(seconds=int(spec.get("leaseDurationSeconds") or _LEASE_SECONDS))
    age = since(spec.get("renewTime"), now)
    if now - renewed > lasts + _CLOCKS:
        return Finding(
            BROKEN,
            "operator",
            f"{holder} has not renewed the Lease {name} for {age}: it is gone or cut off.",
        )
    return Finding(OK, "operator", f"{holder} leads (Lease {name}, renewed {age} ago)")


def _release(cluster: Cluster) -> Finding:
    found = operator_version(cluster)
    if found is None:
        return Finding(WARNING, "release", f"the operator's is not known; this is {__version__}")
    verdict, text = skew(__version__, found)
    return Finding(verdict, "release", text)


def operator_version(cluster: Cluster) -> str | None:
    """The release of the operator, by the label of its Deployment; None where that is not seen."""
    try:
        found = cluster.everything("/apis/apps/v1/deployments", [("labelSelector", PART_OF)])
    except ClientError:
        return None
    versions = [part(each, "metadata", "labels", _VERSION_LABEL) for each in found]
    return next((str(version) for version in versions if version), None)


def skew(own: str, operator: str) -> tuple[str, str]:
    """Whether two releases fit: those of one minor version do."""
    if own == operator:
        return OK, f"operator and this program are both {own}"
    text = f"the operator is {clean_line(operator)}, this program {own}"
    if own.split(".")[:2] == operator.split(".")[:2]:
        return OK, text
    return WARNING, f"{text}: use the one of the operator's release (docs/upgrade.md)"


@click.command("version")
@cluster_options
@click.option("--client", "only_own", is_flag=True, help="Only of this program; asks nobody.")
@output_option("json", "yaml")
def version(cluster: Cluster, only_own: bool, output: str | None) -> None:
    """Say the versions, and whether they fit.

    Of this program, of the operator and of Kubernetes."""
    versions: dict[str, str | None] = {"client": __version__}
    if not only_own:
        versions["operator"] = operator_version(cluster)
        versions["kubernetes"] = cluster.request("GET", "/version").get("gitVersion")
    if output is not None:
        say(document(versions, output))
        return
    for name, found in versions.items():
        say(f"{name:<12}{clean_line(found) if found else 'unknown'}")
    if found := versions.get("operator"):
        verdict, text = skew(__version__, found)
        if verdict != OK:
            say(click.style(text, fg=_COLOURS[verdict]) if is_coloured() else text)
    elif not only_own:
        say(f"The operator's Deployment was not seen: `{cluster.command('doctor')}` says more.")
