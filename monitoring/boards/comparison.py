"""Several jobs side by side: what came of them, and how they got there."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from monitoring.boards.job import of_training
from monitoring.boards.parts import (
    JOB_LEGEND,
    About,
    Panel,
    Query,
    bars,
    board,
    filled,
    graph,
    job_link,
    table,
    unit,
)
from monitoring.boards.queries import OF_JOB, growth_in_view, job, per


def comparison() -> Dashboard:
    """The dashboard for runs of the same recipe, or of two."""
    made = board(
        "inception-comparison",
        "Inception: comparison of jobs",
        "Results, speed and goodput of the chosen jobs side by side.",
        ["namespace", "job"],
    )
    return filled(made, {"": _results(), "Curves": _curves(), "Time": _time()})


def _results() -> list[Panel]:
    outcome = per("max", (*OF_JOB, "outcome", "reason"), job("outcome"))
    return [
        table(
            About(
                "Jobs that have ended",
                "Outcome and last figures of each job that has ended and still exists. The name "
                "leads to the dashboard of the job.",
            ),
            [
                ("", outcome),
                ("top-1", per("max", OF_JOB, job("final_accuracy_ratio", 'k="1"'))),
                ("loss", per("max", OF_JOB, job("final_loss"))),
                ("duration", per("max", OF_JOB, job("final_duration_seconds"))),
                ("samples", per("max", OF_JOB, job("final_samples"))),
                ("goodput", per("max", OF_JOB, job("goodput_ratio"))),
                ("restarts", per("sum", OF_JOB, job("restarts"))),
            ],
            overrides={
                "name": [job_link("inception-job", "name")],
                "top-1": [unit("percentunit")],
                "goodput": [unit("percentunit")],
                "duration": [unit("s")],
            },
        ),
        _bars("Progress", "Share of the steps that are done.", job("progress_ratio")),
        _bars(
            "Top-1 accuracy", "Latest one on the validation data.", job("accuracy_ratio", 'k="1"')
        ),
        _bars("Goodput", "Productive share of the time.", job("goodput_ratio")),
    ]


def _bars(title: str, description: str, series: str) -> Panel:
    about = About(title, description, "percentunit")
    return bars(about, Query(per("max", OF_JOB, series), JOB_LEGEND))


def _curves() -> list[Panel]:
    def over_time(title: str, description: str, unit: str, series: str) -> Panel:
        query = Query(per("max", OF_JOB, series), JOB_LEGEND)
        return graph(About(title, description, unit), query)

    return [
        over_time(
            "Top-1 accuracy over time",
            "On the validation data, as the operator last read it.",
            "percentunit",
            job("accuracy_ratio", 'k="1"'),
        ),
        of_training("Loss", "Training loss of the last log interval.", "short", "avg", "loss"),
        over_time(
            "Samples per second",
            "Training samples over all ranks.",
            "short",
            job("samples_per_second"),
        ),
        over_time(
            "Progress over time",
            "Share of the steps that are done.",
            "percentunit",
            job("progress_ratio"),
        ),
        of_training(
            "Samples seen",
            "Training samples consumed over all epochs, exact over restarts.",
            "short",
            "max",
            "samples_seen",
        ),
        of_training("Learning rate", "That of the present step.", "sci", "max", "learning_rate"),
    ]


def _time() -> list[Panel]:
    spent = per("sum", (*OF_JOB, "cause"), growth_in_view(job("goodput_seconds_total")))
    return [
        table(
            About(
                "Where the time went",
                "Seconds of each job within the range of this dashboard, by cause.",
                "s",
            ),
            [("time", f"{spent} > 0")],
        )
    ]
