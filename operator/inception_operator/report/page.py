"""The page of a report. It loads nothing and runs nothing, so it can be mailed and kept.

The page is built of elements and written by the standard library, which escapes every text and
attribute; a policy in its head forbids the browser whatever might get past that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Final
from xml.etree.ElementTree import Element, SubElement, tostring

from inception_operator.contract.times import from_timestamp, parse_time
from inception_operator.contract.types import Json

from . import figures, svg
from .content import Chart, Report, Restart
from .figures import Rows, duration, percent

MOST_TEXT: Final = 64 * 1024
"""Characters of one text; a longer one is cut."""
MOST_ROWS: Final = 200
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
# Control characters, halves of surrogate pairs, which no file can hold, and what turns the
# direction of reading around, so that a text shows as another one.
_UNSAFE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_STYLE: Final = """
:root { color-scheme: light dark; --line: #8886; --soft: #8883; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1200px; margin: 2rem auto;
  padding: 0 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin-bottom: 0; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; border-bottom: 1px solid var(--line); }
h3 { font-size: .95rem; margin: .5rem 0; }
.muted { opacity: .7; }
.badge { padding: .1rem .6rem; border-radius: 1rem; color: #fff; font-weight: 600; }
.grid { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: .2rem .6rem .2rem 0; border-bottom: 1px solid var(--soft);
  vertical-align: top; white-space: pre-line; }
th { font-weight: 600; white-space: nowrap; }
.facts th { width: 12rem; }
/* Whole words in what is short beside a long message, and yet no word makes the page wider. */
.rows td[data-name=when], .rows td[data-name=since], .rows td[data-name=reason] {
  min-width: 13rem; }
.rows td[data-name=condition], .rows td[data-name=cause] { min-width: 10rem; }
.rows td[data-name=status] { min-width: 4rem; }
svg { width: 100%; height: auto; display: block; overflow: visible; }
.bar { height: 2rem; overflow: hidden; }
.axis { display: flex; justify-content: space-between; margin: .2rem 0; font-size: 11px;
  opacity: .8; }
svg text { fill: currentColor; opacity: .8; }
.key { margin-right: 1rem; white-space: nowrap; }
.key i { display: inline-block; width: .8em; height: .8em; border-radius: 2px;
  margin-right: .35em; }
pre { background: var(--soft); padding: .8rem; overflow: auto; max-height: 30rem;
  white-space: pre-wrap; }
@media (max-width: 640px) {
  .rows tr { display: block; padding: .4rem 0; border-bottom: 1px solid var(--soft); }
  .rows .head { display: none; }
  .rows td { display: flex; border: 0; padding: .1rem 0; }
  .rows td::before { content: attr(data-name); font-weight: 600; flex: 0 0 6rem; }
  .facts th { width: 9rem; }
  svg text { font-size: 16px; }
  svg .quarter { display: none; }
}
"""


def render(report: Report) -> str:
    """The HTML of a report."""
    page = Element("html", {"lang": "en"})
    head = SubElement(page, "head")
    SubElement(head, "meta", {"charset": "utf-8"})
    SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": _POLICY})
    SubElement(head, "meta", {"name": "viewport", "content": "width=device-width"})
    _add(head, "title", f"{report.title}: report")
    # The one text that is not escaped; it is ours alone.
    SubElement(head, "style").text = _STYLE
    body = SubElement(page, "body")
    _headline(body, report)
    _figures(body, report)
    _times(body, report)
    _charts(body, report)
    _restarts(body, report)
    _conditions(body, report)
    if report.configuration:
        _add(body, "h2", "Configuration")
        _add(body, "pre", report.configuration)
    for element in page.iter():
        _make_safe(element)
    return "<!doctype html>\n" + tostring(page, encoding="unicode", method="html") + "\n"


def _make_safe(element: Element) -> None:
    """Texts and attributes as a file may hold them and a reader sees them: in one place for all."""
    element.text, element.tail = _safe(element.text), _safe(element.tail)
    element.attrib = {name: _safe(value) or "" for name, value in element.attrib.items()}


def _safe(text: str | None) -> str | None:
    if text is None:
        return None
    cut = text if len(text) <= MOST_TEXT else text[:MOST_TEXT] + " … (cut)"
    return _UNSAFE.sub("\ufffd", cut)


def _headline(body: Element, report: Report) -> None:
    _add(body, "h1", report.title)
    line = SubElement(body, "p")
    state = report.status.get("state")
    if isinstance(state, str):
        badge = _add(line, "span", state, "badge")
        badge.set("style", f"background: {svg.colour_of_state(state)}")
    made = f" made {_moment(report.made)}"
    _add(line, "span", "; ".join([made, *report.sources]), "muted")
    for note in report.notes:
        _add(body, "p", note, "muted")


def _figures(body: Element, report: Report) -> None:
    tables = {
        "The job": figures.of_status(report.status),
        "The run": figures.of_summary(report.summary),
    }
    if any(tables.values()):
        _add(body, "h2", "Figures")
        grid = SubElement(body, "div", {"class": "grid"})
        for title, rows in tables.items():
            if rows:
                part = SubElement(grid, "div")
                _add(part, "h3", title)
                _table(part, rows)


def _times(body: Element, report: Report) -> None:
    if report.spans:
        _add(body, "h2", "States over time")
        spans = report.spans[:MOST_ROWS]
        body.append(svg.timeline(spans, svg.colour_of_state))
        axis = SubElement(body, "p", {"class": "axis"})
        for _, text in svg.quarters(*svg.life(spans)):
            _add(axis, "span", text)
        _key(body, [span.name for span in spans], svg.colour_of_state)
    seconds = [(str(cause), figures.number(value)) for cause, value in report.goodput.items()]
    parts = [(cause, value) for cause, value in seconds if value is not None and value > 0]
    if parts:
        whole = sum(value for _, value in parts)
        _add(body, "h2", "Where the time went")
        body.append(svg.shares(parts, svg.colour_of_cause))
        _key(body, [cause for cause, _ in parts], svg.colour_of_cause)
        rows = [(cause, f"{duration(value)}, {percent(value / whole)}") for cause, value in parts]
        _table(body, rows)


def _charts(body: Element, report: Report) -> None:
    charts = [chart for chart in report.charts if any(curve.points for curve in chart.curves)]
    if not charts:
        return
    marks = [restart.time for restart in report.restarts if restart.time is not None]
    _add(body, "h2", "Curves")
    _add(body, "p", "Over the time since the first figure; dashed lines are restarts.", "muted")
    grid = SubElement(body, "div", {"class": "grid"})
    for chart in charts:
        part = SubElement(grid, "div")
        _add(part, "h3", _titled(chart))
        part.append(svg.curves(chart, marks))
        names = [curve.name for curve in chart.curves if curve.points][: svg.MOST_CURVES]
        colours = dict(zip(names, svg.COLOURS, strict=False))
        _key(part, names, colours.__getitem__)


def _titled(chart: Chart) -> str:
    return chart.title if chart.unit in {"", "%"} else f"{chart.title} ({chart.unit})"


def _restarts(body: Element, report: Report) -> None:
    if not report.restarts:
        return
    _add(body, "h2", "Restarts")
    head = ("when", "cause", "message")
    _rows(body, head, [_restart(restart) for restart in report.restarts[:MOST_ROWS]])


def _restart(restart: Restart) -> Sequence[str]:
    time = from_timestamp(restart.time) if restart.time is not None else None
    return _moment(time) if time else "", restart.reason, restart.message


def _conditions(body: Element, report: Report) -> None:
    found = report.status.get("conditions")
    conditions = [entry for entry in found or () if isinstance(entry, dict)]
    if conditions:
        _add(body, "h2", "Conditions")
        head = ("condition", "status", "reason", "since", "message")
        _rows(body, head, [_condition(entry) for entry in conditions[:MOST_ROWS]])


def _condition(entry: Json) -> Sequence[str]:
    kind, status, reason, since, message = (
        str(entry.get(key) or "")
        for key in ("type", "status", "reason", "lastTransitionTime", "message")
    )
    time = parse_time(since)
    return kind, status, reason, _moment(time) if time else since, message


def _moment(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _key(parent: Element, names: Iterable[str], palette: Callable[[str], str]) -> None:
    line = SubElement(parent, "p")
    for name in dict.fromkeys(names):
        entry = SubElement(line, "span", {"class": "key"})
        mark = SubElement(entry, "i", {"style": f"background: {palette(name)}"})
        mark.tail = name


def _table(parent: Element, rows: Rows) -> None:
    table = SubElement(parent, "table", {"class": "facts"})
    for name, text in rows:
        row = SubElement(table, "tr")
        _add(row, "th", name)
        _add(row, "td", text)


def _rows(parent: Element, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = SubElement(parent, "table", {"class": "rows"})
    line = SubElement(table, "tr", {"class": "head"})
    for name in head:
        _add(line, "th", name)
    for row in rows:
        line = SubElement(table, "tr")
        for name, text in zip(head, row, strict=True):
            # The name is for the style; on a narrow screen each cell is a line and bears it itself.
            _add(line, "td", text).set("data-name", name)


def _add(parent: Element, tag: str, text: object, kind: str = "") -> Element:
    element = SubElement(parent, tag, {"class": kind} if kind else {})
    element.text = str(text)
    return element
