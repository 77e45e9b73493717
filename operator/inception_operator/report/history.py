"""The history of a job in Prometheus: curves, states and restarts over its life."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Final

import aiohttp

from inception_operator.contract.decoding import MalformedError, decode
from inception_operator.contract.errors import OperatorError

from .content import Chart, Curve, Point, Report, Restart, Span
from .figures import number

POINTS: Final = 500
"""Samples of each curve that are asked for."""
LEAST_STEP: Final = 15.0
"""Seconds between two samples; jobs are seldom scraped more often."""
_MOST_BYTES: Final = 32 * 1024 * 1024
_LONGEST_REASON: Final = 400
_TIMEOUT: Final = aiohttp.ClientTimeout(total=60)
_STATE: Final = "inception_operator_job_state"
_RESTARTS: Final = "inception_operator_job_restarts"
# Title, unit, and by the name of a curve: operation, series and more matchers of its query.
_CHARTS: Final = (
    ("Loss", "", {"training": ("avg", "trainer_loss", "")}),
    (
        "Accuracy",
        "%",
        {
            "validation top-1": ("max", "trainer_accuracy_ratio", ', split="val", k="1"'),
            "training top-1": ("max", "trainer_accuracy_ratio", ', split="train", k="1"'),
        },
    ),
    ("Throughput", "samples/s", {"all ranks": ("max", "trainer_samples_per_second", "")}),
    ("Learning rate", "", {"learning rate": ("max", "trainer_learning_rate", "")}),
    ("Progress", "%", {"steps": ("max", "trainer_progress_ratio", "")}),
)
Series = list[tuple[Mapping[str, str], list[Point]]]


class HistoryError(OperatorError):
    """Prometheus does not answer, or not with what was asked for."""


@dataclass(frozen=True)
class Life:
    """A job, and from when to when it is asked about, in seconds since 1970."""

    namespace: str
    name: str
    begin: float
    end: float

    @property
    def step(self) -> float:
        """Seconds between two samples."""
        return max(LEAST_STEP, (self.end - self.begin) / POINTS)


def add(report: Report, url: str, life: Life) -> Report:
    """A report with the history that the Prometheus at this address has; raises HistoryError."""
    return asyncio.run(_add(report, url.rstrip("/"), life))


async def _add(report: Report, url: str, life: Life) -> Report:
    try:
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
            charts = [await _chart(session, url, life, *chart) for chart in _CHARTS]
            states = await _ask(session, url, life, _of_job(_STATE, "state", life))
            counts = await _ask(session, url, life, f"sum({_of_job(_RESTARTS, 'counted', life)})")
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        # A time that is over has no text.
        raise HistoryError(f"{url}: {str(error) or type(error).__name__}") from error
    known = {restart.time for restart in report.restarts}
    return replace(
        report,
        sources=(*report.sources, f"history from {url}"),
        charts=tuple(charts),
        spans=tuple(spans(states, life.step)),
        # Causes are told by events and the status; the history knows of older ones that there were.
        restarts=(*(one for one in restarts(counts) if not known), *report.restarts),
    )


async def _chart(
    session: aiohttp.ClientSession,
    url: str,
    life: Life,
    title: str,
    unit: str,
    wanted: Mapping[str, tuple[str, str, str]],
) -> Chart:
    curves = []
    for name, (operation, series, matchers) in wanted.items():
        matchers = (
            f'namespace="{_quoted(life.namespace)}", training="{_quoted(life.name)}"{matchers}'
        )
        found = await _ask(session, url, life, f"{operation}({series}{{{matchers}}})")
        curves.append(Curve(name, tuple(point for _, points in found for point in points)))
    return Chart(title, unit, tuple(curves))


def _of_job(series: str, label: str, life: Life) -> str:
    """The operator's series of a job, whether its labels were honoured by the scrape or not."""
    name = f'name="{_quoted(life.name)}"'
    namespace = _quoted(life.namespace)
    ways = (
        f'{series}{{{name}, namespace="{namespace}", exported_namespace=""}}',
        f'{series}{{{name}, exported_namespace="{namespace}"}}',
    )
    # Two operators may have told of the same job.
    return f"max by ({label}) ({' or '.join(ways)})"


def _quoted(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


async def _ask(session: aiohttp.ClientSession, url: str, life: Life, query: str) -> Series:
    fields = {"query": query, "start": life.begin, "end": life.end, "step": life.step}
    form = {key: str(value) for key, value in fields.items()}
    async with session.post(f"{url}/api/v1/query_range", data=form) as answer:
        text = await answer.content.read(_MOST_BYTES)
        while not answer.content.at_eof() and len(text) < _MOST_BYTES:
            text += await answer.content.read(_MOST_BYTES - len(text))
        try:
            result = decode(text)
        except MalformedError as error:
            raise HistoryError(f"{url} answers {answer.status} and no JSON: {error}") from error
    if not isinstance(result, dict) or result.get("status") != "success":
        reason = result.get("error") if isinstance(result, dict) else result
        raise HistoryError(f"{url} refuses a query: {str(reason)[:_LONGEST_REASON]}")
    try:
        return [(entry["metric"], list(_points(entry))) for entry in result["data"]["result"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise HistoryError(f"{url} answers as no Prometheus does: it has no series") from error


def _points(entry: Mapping[str, Any]) -> Iterator[Point]:
    for time, text in entry["values"]:
        value = number(text)
        if value is not None:
            yield float(time), value


def spans(states: Series, step: float) -> Iterator[Span]:
    """When a job was in which state, from the samples of its states: 1 is the present one."""
    by_time = {
        time: labels.get("state", "")
        for labels, points in states
        for time, value in points
        if value == 1
    }
    for name, group in groupby(sorted(by_time), key=lambda time: by_time[time]):
        times = list(group)
        yield Span(name, times[0], times[-1] + step)


def restarts(counts: Series) -> Iterator[Restart]:
    """A restart for each time at which their number has grown."""
    for _, points in counts:
        before: float | None = None
        for time, value in points:
            if before is not None and value > before:
                yield Restart(time, "", f"restart {value:.0f}")
            before = value
