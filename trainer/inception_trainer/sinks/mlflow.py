"""MLflow: the curves of a job as a run of a tracking server, or of a file store.

MLflow numbers runs itself, so that of a job is known by a tag, and found by it in every attempt.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from inception_trainer import __version__
from inception_trainer.config import settings
from inception_trainer.config.sources import flat
from inception_trainer.config.tracking import MLflowConfig
from inception_trainer.log import logger
from inception_trainer.reporting.records import RunInfo

from .tracking import Outcome, Point, Stored, needed

RUN_TAG = "inception.run"
ENVIRONMENT = {
    # A request that hangs would hold up our thread, and so would retries of the client's own, with
    # a line in the log for each.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    # Version 3.7 and newer ask whether one is sure.
    "MLFLOW_ALLOW_FILE_STORE": "true",
    # The client prints addresses at the end of a run, which the log knows.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # Nothing is told to the makers of MLflow of whoever trains.
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""What the client reads when it is loaded; values that are set already stay."""
LINE = re.compile(rb"[0-9]+ [^ \0\n]+ [0-9]+( [^ \0\n]+ [^ \0\n]+)?\n")
"""Of a curve in a file store: time, value and step, and what a data set adds to them."""
STATUS = {Outcome.FINISHED: "FINISHED", Outcome.STOPPED: "SCHEDULED", Outcome.FAILED: "FAILED"}
MOST_PARAMETERS = 100
"""MLflow takes no more at once."""
LONGEST = 500
"""Characters of a value: servers of all versions take so many."""


class MLflow:
    """A run of MLflow."""

    name = "MLflow"
    remedy = (
        "Look at tracking.mlflow.uri, at the network policies of the namespace, and at "
        "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD or MLFLOW_TRACKING_TOKEN in the "
        "environment"
    )

    def __init__(self, config: MLflowConfig) -> None:
        self._config = config
        self._package: Any = None
        self._client: Any = None
        self._run_id = ""

    def open(self, info: RunInfo, run: str) -> Stored:
        """Find the run by its tag, or make it, and say what runs."""
        settings.prefer(ENVIRONMENT)
        self._package = needed("mlflow", "mlflow-skinny or mlflow")
        uri = self._config.uri or ""
        if "://" not in uri:
            mend(Path(uri), run)
            uri = Path(uri).absolute().as_uri()
        self._client = self._package.MlflowClient(tracking_uri=uri)
        found = self._find_or_create(info, run)
        self._run_id = found.info.run_id
        self._describe(info, found.data.params)
        self._client.update_run(self._run_id, status="RUNNING")
        # The proto has the steps of the last values, which `data.metrics` leaves out.
        return {metric.key: metric.step for metric in found.to_proto().data.metrics}

    def write(self, points: list[Point]) -> None:
        """Each value with the time when it was measured."""
        metric = self._package.entities.Metric
        metrics = [
            metric(tag, value, round(1000 * point.seconds), point.step)
            for point in points
            for tag, value in point.values.items()
        ]
        self._client.log_batch(self._run_id, metrics=metrics)

    def finish(self, outcome: Outcome) -> None:
        """SCHEDULED is a run that goes on later."""
        self._client.set_terminated(self._run_id, status=STATUS[outcome])

    def _find_or_create(self, info: RunInfo, run: str) -> Any:
        experiment = self._experiment()
        # Also after a request that failed: the server may have made the run nevertheless.
        for found in self._client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{run}'"):
            return found
        name = info.job or info.model
        return self._client.create_run(experiment, tags={RUN_TAG: run}, run_name=name)

    def _experiment(self) -> str:
        name = self._config.experiment
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                created: str = self._client.create_experiment(name)
            except self._package.MlflowException:
                # Another job has just made it, or there is a reason that is not ours to repair.
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
            else:
                return created
        identity: str = found.experiment_id
        return identity

    def _describe(self, info: RunInfo, known: dict[str, str]) -> None:
        """The configuration as parameters. MLflow never changes one, so what a later attempt says
        otherwise is a tag.
        """
        entities = self._package.entities
        values = {name: str(value)[:LONGEST] for name, value in flat(info.config).items()}
        tags = facts(info)
        tags |= {
            f"changed.{name}": value
            for name, value in values.items()
            if known.get(name, value) != value
        }
        new = [entities.Param(name, text) for name, text in values.items() if name not in known]
        self._client.log_batch(
            self._run_id, tags=[entities.RunTag(name, text) for name, text in tags.items()]
        )
        for start in range(0, len(new), MOST_PARAMETERS):
            self._client.log_batch(self._run_id, params=new[start : start + MOST_PARAMETERS])


def mend(store: Path, run: str) -> None:
    """Cut from the curves of a run in a file store what a node that died had not written whole: for
    one torn line MLflow gives nothing of the run any more.
    """
    for tag in store.glob(f"*/*/tags/{RUN_TAG}"):
        if tag.read_text(encoding="utf-8", errors="replace").strip() == run:
            for curve in (tag.parents[1] / "metrics").rglob("*"):
                if curve.is_file():
                    _cut_torn_end(curve)


def _cut_torn_end(curve: Path) -> None:
    content = curve.read_bytes()
    lines = content.splitlines(keepends=True)
    while lines and not LINE.fullmatch(lines[-1]):
        lines.pop()
    whole = b"".join(lines)
    if whole and whole == content:
        return
    logger.info(
        "%s: the last %d of %d bytes are no whole lines, as of an attempt that was killed: they "
        "are removed, and points that were in them are written again",
        curve,
        len(content) - len(whole),
        len(content),
    )
    if whole:
        os.truncate(curve, len(whole))
    else:
        # MLflow takes a curve without points for a damaged one.
        curve.unlink()


def facts(info: RunInfo) -> dict[str, str]:
    """What runs where, by the names of tags."""
    values = {
        "job": info.job,
        "attempt": info.attempt,
        "model": info.model,
        "parameters": info.parameters,
        "precision": info.precision,
        "device": info.device,
        "profile": info.profile,
        "ranks": info.world_size,
        "trainer": __version__,
    }
    return {f"inception.{name}": str(value) for name, value in values.items()}
