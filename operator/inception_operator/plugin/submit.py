"""``run``: from a recipe and options to a job on the cluster."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import click

from inception_operator.client import recipes
from inception_operator.client.cluster import Cluster
from inception_operator.client.errors import USAGE, AnswerError
from inception_operator.client.following import until
from inception_operator.client.outcome import is_ended
from inception_operator.contract.types import Json

from .logs import follow_logs
from .options import Duration, cluster_options, options, output_option, timeout_option
from .output import document, objects
from .resources import Wish, build
from .terminal import say, tell
from .waiting import finish

_MODES: Final = ("Train", "Evaluate", "Benchmark", "Infer", "Export", "Preflight")


_WHAT: Final = options(
    click.option("--recipe", metavar="NAME", help="A preset; `recipes` lists them."),
    click.option("--mode", type=click.Choice(_MODES), help="Default: Train."),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="A key of spec.training, such as batch.global=256; spec.… for any other.",
    ),
    click.option("--image", metavar="IMAGE", help="Default: the operator's trainer image."),
    click.option("--env", "environment", multiple=True, metavar="NAME=VALUE"),
)
_WHERE: Final = options(
    click.option("--accelerator", "profile", metavar="PROFILE", help="cpu, nvidia, cambricon …"),
    click.option("--devices", type=click.IntRange(1), help="Devices of each node."),
    click.option("--resource", "resource_name", metavar="NAME", help="Name of the devices."),
    click.option("--nodes", type=click.IntRange(1), help="How many pods train; default: 1."),
    click.option("--procs", "processes", metavar="N|auto", help="Ranks of each node."),
    click.option("--min-nodes", "least_nodes", type=click.IntRange(1), help="Elastic: at least."),
    click.option("--max-nodes", "most_nodes", type=click.IntRange(1), help="Elastic: at most."),
    click.option("--spares", type=click.IntRange(0), help="Elastic: pods that stand by."),
    click.option("--cpu", metavar="QUANTITY", help="CPU that each pod asks for."),
    click.option("--memory", metavar="QUANTITY", help="Memory of each pod, request and limit."),
    click.option(
        "--checkpoint", metavar="PLACE", help="A claim's name, a /path, or a URI such as s3://…."
    ),
    click.option("--mount", "mounts", multiple=True, metavar="CLAIM:/PATH[:ro]", help="Data."),
)
_HOW: Final = options(
    click.option("--queue", metavar="NAME", help="Kueue's queue."),
    click.option("--priority", metavar="CLASS", help="PriorityClass of the pods."),
    click.option("--suspend", is_flag=True, help="Start it later, by resume."),
    click.option("--deadline", type=Duration(), metavar="TIME", help="End it after this time."),
    click.option("--ttl", type=Duration(), metavar="TIME", help="Delete it so long after its end."),
    click.option("--max-restarts", "most_restarts", type=click.IntRange(0)),
)
WISHES: Final = options(_WHAT, _WHERE, _HOW)
"""All options that say what a job is."""
_THEN: Final = options(
    click.option(
        "--dry-run",
        type=click.Choice(("client", "server")),
        is_flag=False,
        flag_value="client",
        help="Print the resource; server: as the API server would take it. Default: client.",
    ),
    click.option("--wait", "waits", is_flag=True, help="Until it ends; exit codes as of wait."),
    click.option("--follow", is_flag=True, help="Print its logs until it ends, and wait."),
)


@click.command("run")
@cluster_options
@click.argument("name", metavar="NAME")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- PROGRAM ARGUMENT...]")
@WISHES
@_THEN
@timeout_option
@output_option("json", "yaml", "name")
def run(
    cluster: Cluster,
    dry_run: str | None,
    waits: bool,
    follow: bool,
    timeout: float | None,
    output: str | None,
    **wishes: Any,
) -> None:
    """Start a job.

    Of a recipe and options, or of a program of your own after --.

    \b
    run digits --recipe bninception-digits --nodes 2 --checkpoint my-claim
    run mine --image registry/mine --nodes 2 -- torchrun train.py --epochs 3
    """
    resource = wished(wishes, cluster.chosen_namespace if dry_run == "client" else None)
    if dry_run == "client":
        say(_shown(resource, output or "yaml"))
        return
    created = create(cluster, resource, dry=dry_run == "server")
    if dry_run or output:
        say(_shown(created, output or "yaml"))
    if dry_run:
        return
    name = str(created["metadata"]["name"])
    if not output:
        say(f"{name} is created")
    started = time.monotonic()
    if follow:
        follow_logs(cluster, name, timeout=timeout)
    if waits or follow:
        left = None if timeout is None else timeout - (time.monotonic() - started)
        finish(until(cluster, name, is_ended, left))
    elif not output:
        watch, logs = (cluster.command(f"{words} {name}") for words in ("watch", "logs --follow"))
        tell(f"How it goes on: `{watch}`, `{logs}`.")


def wished(wishes: Mapping[str, Any], namespace: str | None = None) -> Json:
    """The resource that the options describe; the recipe is one that is there."""
    recipe = wishes["recipe"]
    if recipe is not None:
        recipes.asked_for(recipe, "--recipe", f"--set recipe={recipe}", USAGE)
    resource = build(Wish(**wishes))
    if namespace:
        resource["metadata"]["namespace"] = namespace
    return resource


def _shown(resource: dict[str, Any], form: str) -> str:
    return objects([resource], form, as_list=False) if form == "name" else document(resource, form)


def create(cluster: Cluster, resource: Json, *, dry: bool = False) -> Json:
    """Create a job; the API server's answer."""
    try:
        return cluster.ask(cluster.questions.create(resource, dry=dry))
    except AnswerError as error:
        if "must be of type string" in error.message:
            raise AnswerError(
                error.status,
                error.message,
                "Decimal numbers are strings in this API: write --set 'KEY=\"1\"'.",
            ) from error
        raise
