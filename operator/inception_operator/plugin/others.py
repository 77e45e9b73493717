"""``convert`` and ``report``, which are programs of their own as well."""

from __future__ import annotations

from pathlib import Path

import click

from inception_operator.client.cluster import Cluster

from .options import job_argument


@click.command("convert")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("-o", "--output", type=click.Choice(("yaml", "json")), default="yaml")
def convert(files: tuple[str, ...], output: str) -> int:
    """Make jobs of those of other operators.

    PyTorchJobs, TrainJobs, MPIJobs, Volcano Jobs and JobSets. FILE is YAML or JSON, - is the
    standard input. What could not be carried over is said beside it.
    """
    from .convert.__main__ import main

    return main(["--output", output, *files])


@click.command("report")
@job_argument
@click.option("--kubeconfig", metavar="FILE", help="Default: KUBECONFIG, or ~/.kube/config.")
@click.option("--context", metavar="NAME", help="Context of the kubeconfig.")
@click.option("-n", "--namespace", metavar="NAME", help="Default: that of the context.")
@click.option("--prometheus", metavar="URL", help="Prometheus with the job's history.")
@click.option(
    "--files",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Files of the run: its output.",
)
@click.option("--output", metavar="FILE", help="Page to write; - is the standard output.")
def report(
    name: str,
    kubeconfig: str | None,
    context: str | None,
    namespace: str | None,
    **given: str | Path | None,
) -> int:
    """Make a page of HTML of a job.

    It shows curves, states, restarts and where its time went, and needs no script.
    """
    from inception_operator.report.__main__ import main

    with Cluster(kubeconfig, context, namespace) as cluster:
        # A job that is not there, or cannot be asked for, is said as every other command says it.
        cluster.job(name)
        place = cluster.namespace
    chosen = {"kubeconfig": kubeconfig, "context": context, **given}
    options = [
        word for key, value in chosen.items() if value is not None for word in (f"--{key}", value)
    ]
    return main([f"{place}/{name}", *map(str, options)])
