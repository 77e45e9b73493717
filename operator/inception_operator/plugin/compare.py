"""``compare``: in what jobs differ, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click

from inception_operator.client import figures
from inception_operator.client.cluster import Cluster
from inception_operator.client.figures import NONE, name_of, part
from inception_operator.contract.times import parse_time
from inception_operator.contract.types import Json

from .options import cluster_options, jobs_argument, output_option
from .output import document
from .terminal import say, table

_TOO_WIDE: Final = 60
_SAME: Final = "The specs are the same."


@click.command("compare")
@cluster_options
@jobs_argument
@output_option("json", "yaml")
def compare(cluster: Cluster, jobs: Sequence[str], output: str | None) -> None:
    """Compare jobs: their figures, and where their specs differ."""
    if len(set(jobs)) < 2:
        raise click.UsageError("write the names of two or more jobs")
    found = [cluster.job(name) for name in dict.fromkeys(jobs)]
    now = datetime.now(UTC)
    measured = [dict(figures_of(job, now)) for job in found]
    differing = differences([job.get("spec") or {} for job in found])
    if output is not None:
        names = [name_of(job) for job in found]
        both = {"figures": _by_name(names, measured), "spec": _by_name(names, differing)}
        say(document(both, output))
        return
    say(page(found, measured, differing))


def page(found: Sequence[Json], measured: Sequence[Json], differing: Sequence[Json]) -> str:
    """Both tables, a column for each job."""
    header = tuple(name_of(job) for job in found)
    parts = [table(("", *header), _rows(measured))]
    rows = _rows(differing)
    parts.append(table(("SPEC", *header), rows) if rows else _SAME)
    return "\n\n".join(parts)


def _by_name(names: Sequence[str], columns: Sequence[Json]) -> Json:
    return dict(zip(names, columns, strict=True))


def _rows(columns: Sequence[Json]) -> list[tuple[str, ...]]:
    """A row for each key that any column has, in the order of their first appearance."""
    keys = dict.fromkeys(key for column in columns for key in column)
    rows = [(key, *(_cell(column.get(key)) for column in columns)) for key in keys]
    return [row for row in rows if any(cell != NONE for cell in row[1:])]


def _cell(value: Any) -> str:
    if value is None:
        return NONE
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _TOO_WIDE else f"{text[: _TOO_WIDE - 1]}…"


def figures_of(job: Json, now: datetime) -> Iterator[tuple[str, str | None]]:
    """What came of a job, row by row; None is not known."""
    # A third of a second with all that it imports; see `describe`.
    from inception_operator.decide import goodput

    status = job.get("status") or {}
    trainer = status.get("trainerStatus") or {}
    yield "state", figures.state(job)
    yield "accuracy top-1", _known(figures.ratio(trainer.get("accuracyTop1")))
    yield "accuracy top-5", _known(figures.ratio(trainer.get("accuracyTop5")))
    yield "loss", trainer.get("loss")
    yield "epoch", _known(figures.text(trainer.get("epoch")))
    yield "images/s now", trainer.get("samplesPerSecond")
    yield "images/s mean", _mean_speed(status, trainer, goodput.KEY, goodput.PRODUCTIVE)
    yield "goodput", _known(figures.ratio(part(status, goodput.KEY, "ratio")))
    yield "duration", _duration(status, now)
    yield "restarts", str(status.get("restarts", 0))
    yield "nodes", _known(figures.text(part(status, "nodes", "summary")))
    yield "each node", status.get("accelerator")
    yield "root cause", part(status, "rootCause", "reason")


def _known(text: str) -> str | None:
    return None if text == NONE else text


def _mean_speed(status: Json, trainer: Json, *productive: str) -> str | None:
    """Images in a second that made progress: a job that is over has no speed any more."""
    seen = trainer.get("samplesSeen")
    seconds = part(status, productive[0], "seconds", productive[1])
    return f"{int(seen) / int(seconds):.1f}" if seen and seconds else None


def _duration(status: Json, now: datetime) -> str | None:
    began = parse_time(status.get("startTime"))
    if began is None:
        return None
    ended = parse_time(status.get("completionTime")) or now
    return figures.span((ended - began).total_seconds())


def differences(specs: Sequence[Json]) -> list[Json]:
    """The fields that are not the same everywhere, with their values in each spec."""
    flat = [dict(_flat(spec)) for spec in specs]
    keys = sorted({key for each in flat for key in each})
    differing = [key for key in keys if any(each.get(key) != flat[0].get(key) for each in flat)]
    return [{key: each.get(key) for key in differing} for each in flat]


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value with its path; items of lists by their name, where they have one."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value and all(_has_name(item) for item in value):
        for item in value:
            rest = {key: inner for key, inner in item.items() if key != "name"}
            yield from _flat(rest, f"{path}[{item['name']}]")
    else:
        yield path, value


def _has_name(item: Any) -> bool:
    return isinstance(item, Mapping) and isinstance(item.get("name"), str)
