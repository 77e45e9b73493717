"""Options that many commands have, and names of jobs that a shell completes."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from typing import Any, Final, TypeVar

import click

from inception_operator.client.cluster import Cluster
from inception_operator.client.errors import ClientError
from inception_operator.contract import names

from .output import FORMATS

F = TypeVar("F", bound=Callable[..., Any])
_KINDS: Final = (names.PLURAL[:-1], names.PLURAL, "itrain")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def options(*some: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator."""

    def decorated(command: F) -> F:
        for option in reversed(some):
            command = option(command)
        return command

    return decorated


def cluster_options(command: F) -> F:
    """Which cluster and namespace: the command's first argument is a `Cluster`."""

    @click.option("--kubeconfig", metavar="FILE", help="Default: KUBECONFIG, or ~/.kube/config.")
    @click.option("--context", metavar="NAME", help="Context of the kubeconfig.")
    @click.option("-n", "--namespace", metavar="NAME", help="Default: that of the context.")
    @wraps(command)
    def wrapped(
        *arguments: Any,
        kubeconfig: str | None,
        context: str | None,
        namespace: str | None,
        **others: Any,
    ) -> Any:
        with Cluster(kubeconfig, context, namespace) as cluster:
            return command(cluster, *arguments, **others)

    return wrapped  # type: ignore[return-value]


def complete_jobs(context: click.Context, _: object, incomplete: str) -> list[str]:
    """The names of jobs that begin so; none where they cannot be asked for."""
    chosen = context.params
    places = (chosen.get("kubeconfig"), chosen.get("context"), chosen.get("namespace"))
    try:
        with Cluster(*places) as cluster:
            found = [str(job["metadata"]["name"]) for job in cluster.jobs()]
    except ClientError:
        return []
    return [name for name in found if name.startswith(incomplete)]


class JobName(click.ParamType[str]):
    """The name of a job, also as ``get -o name`` writes it."""

    name = "job"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> str:
        """The name alone."""
        kind, slash, name = str(value).rpartition("/")
        if slash and kind.partition(".")[0].lower() not in _KINDS:
            self.fail(f"{value} is no {names.KIND}", param, context)
        return name


def job_argument(command: F) -> F:
    """The name of one job."""
    return click.argument("name", type=JobName(), metavar="JOB", shell_complete=complete_jobs)(
        command
    )


def optional_job_argument(command: F) -> F:
    """The name of one job, which may be left out."""
    return click.argument(
        "name",
        type=JobName(),
        metavar="[JOB]",
        required=False,
        shell_complete=complete_jobs,
    )(command)


def jobs_argument(command: F) -> F:
    """The names of one or more jobs."""
    return click.argument(
        "jobs",
        type=JobName(),
        metavar="JOB...",
        nargs=-1,
        required=True,
        shell_complete=complete_jobs,
    )(command)


def output_option(*formats: str) -> Callable[[F], F]:
    """``-o``, of these formats or of all."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(formats or FORMATS),
        help="Format of the output; default: for people.",
    )


def everywhere_option(command: F) -> F:
    """``-A``: all namespaces."""
    return click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Of all.")(
        command
    )


class Duration(click.ParamType[float]):
    """A span of time such as 90, 90s, 15m or 2h30m; in seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> float:
        """Seconds."""
        if isinstance(value, int | float):
            return float(value)
        text = str(value)
        if re.fullmatch(r"\d{1,9}", text):
            return float(text)
        if not re.fullmatch(r"(\d{1,9}[smhd])+", text):
            self.fail(f"{value!r} is no span of time: write 90s, 15m or 2h30m", param, context)
        parts = re.findall(r"(\d+)([smhd])", text)
        return float(sum(int(count) * _UNITS[unit] for count, unit in parts))


def timeout_option(command: F) -> F:
    """``--timeout``."""
    return click.option(
        "--timeout",
        type=Duration(),
        metavar="TIME",
        help="Give up after this time, for example 30m: exit code 124. Default: never.",
    )(command)
