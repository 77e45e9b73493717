"""``checkpoints promote``: keep a checkpoint for good, and make it the one that serves."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Final

import click

from inception_operator.client.cluster import Cluster
from inception_operator.client.errors import ClientError
from inception_operator.client.figures import name_of, part
from inception_operator.client.pod_logs import select
from inception_operator.client.text import clean_line, program
from inception_operator.contract.types import Json

from . import helper_pod, pod_exec
from .options import cluster_options, job_argument, output_option
from .output import document
from .terminal import say

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")
_SILENCE_SECONDS: Final = 600.0
_OUTPUT_BYTES: Final = 1 << 16
_LONGEST_TEXT: Final = 1024
_USAGE_ERROR: Final = 64
"""Of the launcher's contract: the trainer does not know the command."""


@click.command("promote")
@cluster_options
@job_argument
@click.argument("checkpoint", metavar="[STEP]", required=False)
@click.option("--name", "as_name", metavar="NAME", help="Default: step-000000120 of its step.")
@click.option(
    "--to",
    "target",
    metavar="PLACE",
    help="A /path in the pod, or a URI such as s3://…. Default: promoted, beside checkpoints.",
)
@output_option("json", "yaml")
def promote(
    cluster: Cluster,
    name: str,
    checkpoint: str | None,
    as_name: str | None,
    target: str | None,
    output: str | None,
) -> None:
    """Keep a checkpoint for good, as the one that serves.

    STEP is the number of its step or a file of the list; by default best.pt, else final.pt, else
    the newest. Checkpoint, weights (safetensors) and metadata appear at once in a folder that
    nothing prunes, and current.json beside it names it.
    """
    for text in (checkpoint, as_name):
        if text is not None and not _NAME.fullmatch(text):
            raise click.UsageError(f"{text}: write letters, digits, dots and dashes")
    if target is not None and not target.startswith("/") and "://" not in target:
        raise click.UsageError(f"--to {target}: write a /path in the pod, or a URI")
    job = cluster.job(name)
    place = part(job, "status", "checkpointPath")
    if not place:
        raise ClientError(
            f"{name} has no checkpoints",
            f"`{cluster.command(f'describe {name}')}` says where it is; without spec.checkpoint it "
            "has none.",
        )
    arguments = ["promote", str(place)]
    arguments += [checkpoint] if checkpoint is not None else []
    arguments += [f"--name={as_name}"] if as_name is not None else []
    arguments += [f"--to={target}"] if target is not None else []
    about = _promoted(cluster, job, arguments)
    if output is not None:
        say(document(about, output))
        return
    word = "is promoted" if about["isNew"] else "was promoted before and is the current one again"
    say(f"step {about['step']} {word}: {about['place']}")


def _promoted(cluster: Cluster, job: Json, arguments: list[str]) -> Json:
    pods = select(cluster.pods(name_of(job)), previous=False)
    if not pods:
        raise ClientError(
            f"{name_of(job)} has no pods, from which its image and volumes could be known",
            f"In a pod of your own with both: inception-trainer {clean_line(' '.join(arguments))}",
        )
    running = [pod for pod in pods if pod_exec.runs(pod)]
    pod = (running or pods)[0]
    if not pod_exec.has_trainer(pod):
        raise ClientError(
            f"{name_of(job)} runs a program of its own, whose checkpoints only it can read",
            "Copy one by `--download`, or on the volume.",
        )
    command = [pod_exec.interpreter(pod), "-m", "inception_trainer", *arguments]
    code, lines = _run(cluster, job, pod, command, is_running=bool(running))
    last = lines[-1] if lines else f"exit code {code}"
    if code == _USAGE_ERROR:
        raise ClientError(
            f"the trainer in the pod cannot do it: {clean_line(last)}",
            "The command came with the release of this program: its image is older.",
        )
    if code:
        raise ClientError(clean_line(last)[:_LONGEST_TEXT])
    return answer(lines)


def _run(
    cluster: Cluster, job: Json, pod: Json, command: list[str], *, is_running: bool
) -> tuple[int, list[str]]:
    """Run a command in the pod, or in another one of its kind when it has ended."""
    if is_running:
        with contextlib.suppress(pod_exec.ContainerEndedError):
            return _executed(cluster, pod, command)
    return helper_pod.run(cluster, job, pod, command)


def _executed(cluster: Cluster, pod: Json, command: list[str]) -> tuple[int, list[str]]:
    ending, output = pod_exec.run_for_output(cluster, pod, command, _SILENCE_SECONDS, _OUTPUT_BYTES)
    if ending.code:
        return ending.code, [ending.last_words]
    return 0, output.decode("utf-8", "replace").split("\n")


def answer(lines: list[str]) -> Json:
    """What the trainer says that it has promoted: the last line that is a JSON object."""
    for line in reversed(lines):
        try:
            found = json.loads(line)
            return {
                "name": _text(found["name"]),
                "step": int(found["step"]),
                "place": _text(found["place"]),
                "isNew": found["isNew"] is True,
                "files": {_text(file): _text(sha256) for file, sha256 in found["files"].items()},
            }
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    raise ClientError("the pod has not said what it has promoted", f"`{program()} logs` says more.")


def _text(value: object) -> str:
    return clean_line(value)[:_LONGEST_TEXT]
