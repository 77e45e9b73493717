"""``init``: a file with a job to begin with, which says what may be changed in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from inception_operator.client import recipes
from inception_operator.client.errors import ClientError
from inception_operator.client.place import Place
from inception_operator.client.text import program
from inception_operator.contract.types import Json

from .options import options
from .output import document
from .submit import WISHES, wished
from .terminal import say, tell

_SECTION: Final = re.compile(r"  (\w+):")
_WIDTH: Final = 100
# In the order in which they are suggested; a section that the file has is only explained.
_EXPLAINED: Final = {
    "training": "What is trained. A key that stands here replaces that of the recipe.",
    "image": "The image of the pods; without it that of the operator's release.",
    "accelerator": "Devices of each node: a profile such as cpu, nvidia, cambricon or ascend.",
    "numNodes": "How many pods train.",
    "numProcPerNode": "Ranks of each pod; auto: one for each device.",
    "checkpoint": "Where the state goes, so that a job goes on after a failure: the name of a "
    "claim, a path in the container, or a URI such as s3://bucket/folder.",
    "elasticPolicy": "Between which sizes the job may shrink and grow while it runs.",
    "failurePolicy": "How often it is tried again after failures.",
    "runPolicy": "When it starts and ends, and what becomes of it then.",
    "template": "What else its pods need, as in any pod: volumes, variables, memory, placement.",
}
_SUGGESTED: Final = {
    "checkpoint": """
checkpoint:
  volumeClaimName: my-claim
  everySeconds: 600
""",
    "elasticPolicy": """
elasticPolicy:
  minNodes: 1
  maxNodes: 4
""",
    "failurePolicy": """
failurePolicy:
  maxRestarts: 10
""",
    "runPolicy": """
runPolicy:
  activeDeadlineSeconds: 86400
  ttlSecondsAfterFinished: 604800
""",
    "template": """
template:
  spec:
    containers:
    - name: trainer
      resources:
        requests:
          cpu: "4"
          memory: 8Gi
        limits:
          memory: 8Gi
      volumeMounts:
      - name: data
        mountPath: /data
        readOnly: true
    volumes:
    - name: data
      persistentVolumeClaim:
        claimName: my-data
""",
}


@click.command("init")
@click.argument("name", metavar="NAME")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- PROGRAM ARGUMENT...]")
@options(
    click.option("-n", "--namespace", metavar="NAME", help="Written into the file."),
    click.option(
        "-f",
        "--file",
        type=click.Path(dir_okay=False, path_type=Path, allow_dash=True),
        default=Path("job.yaml"),
        help="File to write, - is the standard output; default: job.yaml.",
    ),
    click.option("--force", is_flag=True, help="Replace the file when it exists."),
)
@WISHES
def init(name: str, namespace: str | None, file: Path, force: bool, **wishes: Any) -> None:
    """Write a job into a file, with comments.

    Takes the options of `run`, and asks no cluster.

    \b
    init digits --recipe bninception-digits --nodes 2 --checkpoint my-claim
    """
    resource = wished({"name": name, **wishes}, namespace)
    if str(file) == "-":
        say(commented(resource, "-").rstrip("\n"))
        return
    try:
        with file.open("w" if force else "x", encoding="utf-8") as written:
            written.write(commented(resource, str(file)))
    except FileExistsError as error:
        raise ClientError(
            f"{file} exists", "Choose another file by -f, or --force to replace it."
        ) from error
    except OSError as error:
        raise ClientError(f"{file} cannot be written: {error}") from error
    say(str(file))
    watch = Place(chosen_namespace=namespace).command(f"watch {name}")
    tell(f"Change it as you like; then: `kubectl create -f {file}`, `{watch}`.")


def commented(resource: Json, file: str) -> str:
    """The file: the resource, what its sections mean, and sections that others have."""
    lines = [*_head(resource, file)]
    for line in document(resource, "yaml").splitlines():
        section = _SECTION.match(line)
        if section and section[1] in resource["spec"]:
            lines += ["", *_comment(_EXPLAINED.get(section[1], ""))]
        lines.append(line)
    for name, text in _SUGGESTED.items():
        if name not in resource["spec"]:
            lines += ["", *_comment(_EXPLAINED[name])]
            # Without the sign in front it is YAML; prose has a blank behind the sign.
            lines += [f"  #{line}" for line in text.strip().splitlines()]
    return "\n".join(lines) + "\n"


def _head(resource: Json, file: str) -> Iterator[str]:
    recipe = (resource["spec"].get("training") or {}).get("recipe")
    if recipe in recipes.names():
        yield from _comment(recipes.summary(recipe), "# ")
        yield f"# All keys of the recipe: {program()} recipes {recipe}"
    yield f"# What a key means: {program()} explain spec.checkpoint"
    yield f"# Start it:         kubectl create -f {file}"
    yield f"# Try it here:      inceptionctl local run {file} --accelerator cpu"


def _comment(text: str, indent: str = "  # ") -> list[str]:
    import textwrap

    return textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent)
