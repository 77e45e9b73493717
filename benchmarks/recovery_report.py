"""The figures of the benchmark of recovery, as a Markdown table and as JSON."""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.recovery_tools import quantile
from benchmarks.recovery_trials import Result

MOMENTS = {
    "detected": "detected",
    "decided": "decided",
    "assigned": "assigned",
    "read": "assignment read",
    "begun": "ranks begun",
    "first_step": "first step of the next attempt",
    "first_new_step": "first new step",
}
COUNTS = {"repeated_steps": "steps done again", "attempts": "attempts used"}


def table(results: Sequence[Result]) -> str:
    """One table for all kinds; seconds after the disturbance, p50 / p95 / max."""
    heads = ["what was done", "trials", *MOMENTS.values(), *COUNTS.values(), "at the end"]
    rows = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for result in results:
        cells = [result.title, _trials(result)]
        cells += [_figures(result, name, ".2f") for name in MOMENTS]
        cells += [_figures(result, name, ".0f") for name in COUNTS]
        rows.append(f"| {' | '.join([*cells, _end(result)])} |")
    return "\n".join(rows)


def document(
    results: Sequence[Result], options: dict[str, Any], undisturbed_step_seconds: float
) -> dict[str, Any]:
    """Everything that was measured, for a JSON file."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"cores": os.cpu_count(), "load": os.getloadavg()},
        "options": options,
        "undisturbedStepSeconds": undisturbed_step_seconds,
        "results": [
            {
                **dataclasses.asdict(result),
                "parameters_equal": result.parameters_equal,
                "table": table([result]),
            }
            for result in results
        ],
    }


def _trials(result: Result) -> str:
    lost = sum(not trial.recovered for trial in result.trials)
    return f"{len(result.trials)}" + (f", {lost} did not recover" if lost else "")


def _figures(result: Result, name: str, form: str) -> str:
    values = [float(v) for t in result.trials if (v := getattr(t, name)) is not None]
    if not values:
        return ""
    figures = (statistics.median(values), quantile(values, 0.95), max(values))
    return " / ".join(format(figure, form) for figure in figures)


def _end(result: Result) -> str:
    """Whether nothing was lost or done wrongly."""
    skipped = sum(trial.skipped_steps or 0 for trial in result.trials)
    words = {
        "samples": result.samples_exact,
        "parameters": result.parameters_equal,
    }
    said = [
        f"{name} {'exact' if exact else 'DIFFER'}"
        for name, exact in words.items()
        if exact is not None
    ]
    statistics_differ = result.differences.get("statistics", {}).get("differ")
    if statistics_differ:
        said.append(f"{statistics_differ:.0f} batch norm statistics differ")
    if skipped:
        said.append(f"{skipped} STEPS SKIPPED")
    if result.failure:
        said.append(f"FAILED: {result.failure}")
    return ", ".join(said)
