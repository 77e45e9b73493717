"""``checkpoints``: which ones a job has, and one of them on this machine."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

import click
from click.shell_completion import CompletionItem

from inception_operator.client.cluster import Cluster
from inception_operator.client.errors import ClientError
from inception_operator.client.figures import NONE, part, since
from inception_operator.client.text import clean_line
from inception_operator.contract.types import Json

from . import in_pod, pod_exec, promote
from .options import cluster_options, complete_jobs, job_argument, output_option
from .output import document
from .terminal import say, table, tell

_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,200}")
_STEP: Final = re.compile(r"step-0*(\d{1,20})\.pt")
_LIST_BYTES: Final = 1 << 20
_SILENCE_SECONDS: Final = 60.0
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


class _Group(click.Group):
    """Lists where no other command is named, as ``checkpoints JOB``."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        return super().resolve_command(ctx, self._with_command(args))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        jobs = [CompletionItem(name) for name in complete_jobs(ctx, self, incomplete)]
        return [*super().shell_complete(ctx, incomplete), *jobs]

    def _with_command(self, args: list[str]) -> list[str]:
        """The command in front: kubectl's users write options before it as well."""
        flags = {
            flag
            for option in show.params
            if getattr(option, "is_flag", False)
            for flag in option.opts
        }
        at = 0
        while at < len(args) and args[at].startswith("-"):
            has_value = args[at].startswith("--") and "=" in args[at]
            has_value |= not args[at].startswith("--") and len(args[at]) > 2
            at += 1 if has_value or args[at] in flags else 2
        if at < len(args) and args[at] in self.commands:
            return [args[at], *args[:at], *args[at + 1 :]]
        return ["list", *args]


# Options in front are those of the command that follows.
@click.group("checkpoints", cls=_Group, context_settings={"ignore_unknown_options": True})
def checkpoints() -> None:
    """List the checkpoints of a job, copy or promote one.

    `checkpoints JOB` is `checkpoints list JOB`.
    """


checkpoints.add_command(promote.promote)


@checkpoints.command("list")
@cluster_options
@job_argument
@click.option("--download", metavar="FILE", help="Copy one here, for example best.pt.")
@click.option(
    "--to",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    help="Folder for the copy; default: this one.",
)
@click.option("--force", is_flag=True, help="Replace the file when it exists.")
@output_option("json", "yaml")
def show(
    cluster: Cluster,
    name: str,
    download: str | None,
    folder: Path,
    force: bool,
    output: str | None,
) -> None:
    """List the checkpoints of a job, or copy one here.

    A pod of the job reads its volume for that, so one has to run.
    """
    job = cluster.job(name)
    place = part(job, "status", "checkpointPath")
    if not place:
        raise ClientError(
            f"{name} has no checkpoints",
            "Without spec.checkpoint a job keeps none."
            if not part(job, "spec", "checkpoint")
            else f"It has had no pods yet: `{cluster.command(f'describe {name}')}`.",
        )
    if download is not None:
        if not _NAME.fullmatch(download):
            raise click.UsageError(f"--download {download}: write the name of a file of the list")
        pod = _reader(cluster, job, str(place))
        say(str(_download(cluster, pod, str(place), download, folder / download, force)))
        return
    try:
        found: Json | None = _listed(cluster, _reader(cluster, job, str(place)), str(place))
    except ClientError as error:
        # What the status says is known all the same.
        tell(f"The files cannot be listed: {error}")
        found = None
    saved = part(job, "status", "trainerStatus", "lastCheckpointTime")
    if output is not None:
        say(document({"place": place, "lastCheckpointTime": saved, **(found or {})}, output))
        return
    now = datetime.now(UTC)
    say(f"{clean_line(place)}, last saved {f'{since(saved, now)} ago' if saved else 'never'}")
    if found is not None:
        say(files_table(found, now))


def files_table(found: Json, now: datetime) -> str:
    """The files as a table, the newest first."""
    rows = []
    files = sorted(found["files"], key=lambda each: float(each["time"]), reverse=True)
    for each in files:
        step = _STEP.fullmatch(str(each["file"]))
        saved = datetime.fromtimestamp(float(each["time"]), UTC).isoformat()
        rows.append(
            (
                str(each["file"]),
                step[1] if step else NONE,
                size(int(each["bytes"])),
                f"{since(saved, now)} ago",
                "goes on from it" if each["file"] == found.get("latest") else "",
            )
        )
    return table(("FILE", "STEP", "SIZE", "SAVED", ""), rows) if rows else "No files are there."


def size(count: int) -> str:
    """A number of bytes in the greatest unit."""
    number, unit = float(count), 0
    while number >= 1024 and unit < len(_UNITS) - 1:
        number, unit = number / 1024, unit + 1
    return f"{number:.1f} {_UNITS[unit]}" if unit else f"{count} B"


def _reader(cluster: Cluster, job: Json, place: str) -> Json:
    """A pod of the job that can read the place."""
    name = str(job["metadata"]["name"])
    if "://" in place:
        raise ClientError(
            f"the checkpoints of {name} are in an object store, which no pod needs to read",
            f"Use the store's own program for {clean_line(place)}, for example `aws s3 ls`; "
            "docs/architecture/names.md has the layout.",
        )
    running = [pod for pod in cluster.pods(name) if pod_exec.runs(pod)]
    if not running:
        raise ClientError(
            f"no pod of {name} runs, which could read {clean_line(place)}", _without_pod(job, place)
        )
    return running[0]


def _without_pod(job: Json, place: str) -> str:
    claim = part(job, "spec", "checkpoint", "volumeClaimName")
    if not claim:
        return "Read the volume of spec.template that is mounted there with a pod of your own."
    folder = place.rstrip("/").rpartition("/")[2]
    return clean_line(
        f"They are in the claim {claim}, folder {folder}: mount it in a pod of your own, and copy "
        "from there by `kubectl cp`."
    )


def _command(pod: Json, *arguments: str) -> list[str]:
    source = Path(in_pod.__file__).read_text(encoding="utf-8")
    return [pod_exec.interpreter(pod), "-c", source, *arguments]


def _listed(cluster: Cluster, pod: Json, place: str) -> Json:
    ending, output = pod_exec.run_for_output(
        cluster, pod, _command(pod, place), _SILENCE_SECONDS, _LIST_BYTES
    )
    _succeeded(ending)
    try:
        found = json.loads(output)
        files = [
            {"file": str(each["file"]), "bytes": int(each["bytes"]), "time": float(each["time"])}
            for each in found["files"]
        ]
        return {"latest": found["latest"], "files": files}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ClientError(f"{clean_line(place)} could not be listed: no list came back") from error


def _succeeded(ending: pod_exec.Ending) -> None:
    if ending.code:
        raise ClientError(clean_line(ending.last_words))


class Incoming:
    """A file as it comes: a line with its size and checksums, and then its bytes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._head = b""
        self._facts: Json | None = None
        self._count = 0
        self._digest = hashlib.sha256()

    def __call__(self, data: bytes) -> None:
        """Take the next bytes."""
        if self._facts is None:
            self._head += data
            line, end, data = self._head.partition(b"\n")
            if not end:
                return
            self._facts = _facts(line)
        self._file.write(data)
        self._digest.update(data)
        self._count += len(data)

    def check(self) -> None:
        """Raise when it is not the whole file."""
        facts = self._facts or {"bytes": None, "sha256": []}
        if self._count != facts["bytes"]:
            raise ClientError(f"only {self._count} of {facts['bytes']} bytes have come")
        if facts["sha256"] and self._digest.hexdigest() not in facts["sha256"]:
            raise ClientError(
                "the copy is damaged: it has another SHA-256 than the file in the job"
            )


def _facts(line: bytes) -> Json:
    try:
        found: Any = json.loads(line)
        return {"bytes": int(found["bytes"]), "sha256": [str(each) for each in found["sha256"]]}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ClientError("the pod has not answered with a file") from error


def _download(cluster: Cluster, pod: Json, place: str, name: str, path: Path, force: bool) -> Path:
    if path.exists() and not force:
        raise ClientError(
            f"{path} exists", "Choose another folder by --to, or --force to replace it."
        )
    draft = path.with_name(f".{path.name}.part")
    try:
        with draft.open("wb") as file:
            incoming = Incoming(file)
            command = _command(pod, place, name)
            _succeeded(pod_exec.run(cluster, pod, command, incoming, _SILENCE_SECONDS))
            incoming.check()
        draft.replace(path)
    except OSError as error:
        raise ClientError(f"{path} cannot be written: {error}") from error
    finally:
        draft.unlink(missing_ok=True)
    return path
