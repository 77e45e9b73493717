"""The figures of a job over time, as rows and as a frame of pandas.

They come from the log, the trainer's files or a Prometheus; without any, from what was watched.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from inception_operator.client.errors import NOT_FOUND, UNAVAILABLE, ClientError
from inception_operator.client.figures import name_of, part
from inception_operator.contract.times import parse_time
from inception_operator.contract.types import Json

from .metrics import Metric
from .views import Progress

if TYPE_CHECKING:
    from pandas import DataFrame

    from inception_operator.report.content import Chart

Row = dict[str, Any]
COLUMNS: Final = tuple(field.name for field in fields(Metric))
"""All that a history has, from every source."""
_ADDRESS: Final = (
    "Give the address of a Prometheus that this machine reaches, such as http://127.0.0.1:9090 "
    "after `kubectl port-forward`; history() reads the logs of the pods instead."
)
# The charts of a report: their titles and curves, and what makes a curve the column's unit.
_OF_CURVE: Final = {
    ("Loss", "training"): "loss",
    ("Loss", "validation"): "validation_loss",
    ("Accuracy", "top-1"): "validation_top1",
    ("Accuracy", "top-5"): "validation_top5",
    ("Accuracy", "validation top-1"): "validation_top1",
    ("Accuracy", "training top-1"): "accuracy_top1",
    ("Throughput", "training"): "images_per_second",
    ("Throughput", "all ranks"): "images_per_second",
    ("Learning rate", "learning rate"): "learning_rate",
}


def rows_of(
    name: str, logged: Iterable[Metric], seen: Iterable[Progress], refusal: ClientError | None
) -> list[Row]:
    """Rows of what the logs say, by time; where they say nothing, of what was watched.

    ``refusal`` is what has kept anybody from reading a log, and is raised when there is nothing.
    """
    rows = sorted((asdict(metric) for metric in logged), key=lambda row: row["time"])
    rows = rows or list(_of_progress(seen))
    if rows:
        return rows
    why = refusal.message if refusal is not None else "no pod has a log with any"
    raise ClientError(
        f"there are no figures of {name}: {why}, and nobody has watched it here",
        "Give history(files=…), the job's directory, or history(prometheus=…).",
        NOT_FOUND,
    ) from refusal


def _of_progress(seen: Iterable[Progress]) -> Iterator[Row]:
    """Rows of what was seen of a job while it was watched."""
    for progress in seen:
        if progress.step is not None and progress.time is not None:
            yield {
                "time": progress.time,
                "attempt": progress.attempt,
                "step": progress.step,
                "epoch": progress.epoch,
                "loss": progress.loss,
                "images_per_second": progress.samples_per_second,
                "validation_top1": progress.accuracy_top1,
                "validation_top5": progress.accuracy_top5,
            }


def of_files(folder: str | Path) -> list[Row]:
    """Rows of the files that a run has left in a folder."""
    from inception_operator.report import files

    report = files.read(Path(folder), datetime.now(UTC))
    rows = list(_of_charts(report.charts))
    if not rows:
        why = "; ".join(report.notes) or "it has no raport.json"
        raise ClientError(
            f"{folder} holds no history: {why}",
            "Give the job's directory beside its checkpoints, or the folder output in it.",
            NOT_FOUND,
        )
    return rows


def of_prometheus(resource: Json, url: str) -> list[Row]:
    """Rows of what a Prometheus has recorded over the life of a job."""
    from inception_operator.report import history
    from inception_operator.report.content import Report

    began = parse_time(part(resource, "status", "startTime"))
    if began is None:
        raise ClientError(f"{name_of(resource)} has not begun yet", code=NOT_FOUND)
    now = datetime.now(UTC)
    ended = parse_time(part(resource, "status", "completionTime")) or now
    namespace = str(resource["metadata"]["namespace"])
    life = history.Life(
        namespace, name_of(resource), began.timestamp(), ended.timestamp() + history.LEAST_STEP
    )
    # A loop of its own: that of a notebook runs already.
    with ThreadPoolExecutor(max_workers=1) as thread:
        try:
            report = thread.submit(history.add, Report("", now), url, life).result()
        except history.HistoryError as error:
            raise ClientError(f"no history: {error}", _ADDRESS, UNAVAILABLE) from error
    rows = list(_of_charts(report.charts))
    if not rows:
        raise ClientError(
            f"the Prometheus at {url} has no figures of {namespace}/{name_of(resource)}",
            "Does it scrape the pods of jobs (docs/install.md)? history() reads their logs.",
            NOT_FOUND,
        )
    return rows


def _of_charts(charts: Sequence[Chart]) -> Iterator[Row]:
    by_time: dict[float, Row] = {}
    for chart in charts:
        for curve in chart.curves:
            column = _OF_CURVE.get((chart.title, curve.name))
            if column is not None:
                for time, value in curve.points:
                    by_time.setdefault(time, {})[column] = value
    for time in sorted(by_time):
        yield {"time": datetime.fromtimestamp(time, UTC), **by_time[time]}


def frame(rows: Iterable[Row]) -> DataFrame:
    """The rows as a frame with all columns, indexed by the time."""
    try:
        pandas: Any = importlib.import_module("pandas")
    except ModuleNotFoundError as error:
        if error.name != "pandas":
            raise
        raise ClientError(
            "history() makes a frame of pandas, and the package pandas is not installed",
            "`pip install pandas`; metrics() gives the same figures without it.",
        ) from error
    found = pandas.DataFrame(list(rows), columns=list(COLUMNS))
    found["time"] = pandas.to_datetime(found["time"], utc=True)
    # Whole numbers of which some are missing stay whole.
    kinds = {"attempt": "Int64", "step": "Int64", "epoch": "Int64"}
    rest = [column for column in COLUMNS if column not in kinds and column != "time"]
    return found.astype({**kinds, **dict.fromkeys(rest, "float64")}).set_index("time")
