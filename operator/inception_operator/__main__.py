"""Command line of the operator: ``python -m inception_operator run --trainer-image IMAGE``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from . import __version__
from .contract.errors import OperatorError, SettingsError
from .contract.shard import parse_shard
from .runtime.logs import configure
from .runtime.settings import LOG_LEVELS, POD_POLICIES, PULL_POLICIES, Settings


def parse(argv: Sequence[str] | None, environment: dict[str, str]) -> Settings:
    """Settings from the command line; KUBECONFIG is the default of ``--kubeconfig``."""
    parser = argparse.ArgumentParser(
        prog="inception-operator", description="The Inception training operator"
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "run", help="run the operator", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    # Defaults are those of Settings, which validates: they are written down once.
    defaults = Settings(trainer_image="-")
    _add_options_of_jobs(run, defaults)
    _add_options_of_the_process(run, defaults, environment.get("KUBECONFIG") or None)
    _add_options_of_metrics(run, defaults)
    values = vars(parser.parse_args(argv))
    del values["command"]
    values["namespaces"] = _names(values["namespaces"])
    try:
        values["shard"] = parse_shard(values["shard"])
    except ValueError as error:
        parser.error(f"--shard: {error}")
    values["leave_on"] = _names(values["leave_on"]) or defaults.leave_on
    try:
        return Settings(**values)
    except SettingsError as error:
        parser.error(str(error))


def _add_options_of_jobs(run: argparse.ArgumentParser, defaults: Settings) -> None:
    run.add_argument(
        "--trainer-image", required=True, help="image of the bundled trainer and launcher"
    )
    run.add_argument(
        "--trainer-pull-policy",
        choices=PULL_POLICIES,
        help="when nodes pull the images of jobs; default: as Kubernetes decides by the tag",
    )
    run.add_argument(
        "--profiles-dir", type=Path, help="directory with further accelerator profiles"
    )
    run.add_argument(
        "--pod-policy",
        choices=POD_POLICIES,
        default=defaults.pod_policy,
        help="level of the Pod Security Standards that the pods of all jobs must keep to",
    )
    run.add_argument(
        "--pod-user",
        type=_user,
        default=defaults.pod_user,
        help="number of the user and group of all jobs' processes and volumes; none leaves it to "
        "the cluster",
    )
    run.add_argument(
        "--leave-on",
        action="append",
        default=[],
        help="signs by which jobs leave a node, by comma: default, none, cordon, taint=KEY, "
        "taint=KEY:EFFECT, condition=TYPE, condition=TYPE=STATUS; -SIGN takes one off again",
    )
    run.add_argument(
        "--namespaces",
        action="append",
        default=[],
        help="only these, by comma; without it all of them",
    )


def _add_options_of_the_process(
    run: argparse.ArgumentParser, defaults: Settings, kubeconfig: str | None
) -> None:
    run.add_argument(
        "--http-port",
        type=int,
        default=defaults.http_port,
        help="port of /healthz, /readyz and /metrics",
    )
    run.add_argument(
        "--advertise-address",
        help="IP address at which launchers notify the operator; default: they do not",
    )
    run.add_argument(
        "--lease-namespace", default=defaults.lease_namespace, help="namespace of the Lease"
    )
    run.add_argument(
        "--lease-name", default=defaults.lease_name, help="name of the Lease of the leader"
    )
    run.add_argument(
        "--no-leader-election",
        dest="leader_election",
        action="store_false",
        help="work at once, alone",
    )
    run.add_argument(
        "--shard",
        default=str(defaults.shard),
        help="which part of all jobs this process runs, such as 0/3, 1/3 and 2/3; others run the "
        "rest (docs/scale.md)",
    )
    run.add_argument(
        "--kubeconfig",
        type=Path,
        default=kubeconfig,
        help="default: the service account of the pod",
    )
    run.add_argument(
        "--log-format",
        choices=("json", "text"),
        default=defaults.log_format,
        help="form of log lines",
    )
    run.add_argument(
        "--log-level",
        choices=LOG_LEVELS,
        default=defaults.log_level,
        help="least level that is logged",
    )
    run.add_argument(
        "--workers", type=int, default=defaults.workers, help="jobs worked on at the same time"
    )


def _add_options_of_metrics(run: argparse.ArgumentParser, defaults: Settings) -> None:
    run.add_argument(
        "--metrics-secure",
        action="store_true",
        help="serve /metrics on --metrics-port alone, over TLS, to those whom the API server lets",
    )
    run.add_argument(
        "--metrics-port",
        type=int,
        default=defaults.metrics_port,
        help="port of /metrics with --metrics-secure",
    )
    run.add_argument(
        "--metrics-cert-path",
        type=Path,
        help="folder of tls.crt and tls.key, which are read again when they change",
    )


def _user(text: str) -> int | None:
    return None if text == "none" else int(text)


def _names(lists: Sequence[str]) -> tuple[str, ...]:
    """The names of several lists, each once."""
    return tuple(dict.fromkeys(name.strip() for text in lists for name in text.split(",")))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 after a signal, 1 when something broke."""
    settings = parse(argv, dict(os.environ))
    configure(settings.log_format, settings.log_level)
    # Only now: kopf takes a third of a second to import, and --help and --version need none of it.
    from .runtime.app import run

    try:
        asyncio.run(run(settings))
    except Exception as error:
        # A task group raises a group, and kopf's errors come in groups within groups.
        for reason in _reasons(error):
            logging.getLogger("inception_operator").error(
                "the operator ends: %s: %s",
                type(reason).__name__,
                reason,
                exc_info=_traceback(reason),
            )
        return 1
    return 0


def _reasons(error: BaseException) -> list[BaseException]:
    """The errors inside a group of them."""
    if isinstance(error, BaseExceptionGroup):
        return [reason for inner in error.exceptions for reason in _reasons(inner)]
    return [error]


def _traceback(error: BaseException) -> BaseException | None:
    # Errors that we raise ourselves explain themselves; anything else is a bug.
    return None if isinstance(error, OperatorError) else error


if __name__ == "__main__":
    # PID 1 of a container gets no signal without a handler, and those of the event loop come late.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    sys.exit(main())
