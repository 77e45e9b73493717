"""Pictures of a report as inline SVG: curves over time, a line of states, a bar of shares.

They are elements, not text, so that whatever names them is escaped when the page is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from xml.etree.ElementTree import Element, SubElement

from .content import Chart, Curve, Point, Span
from .figures import duration, percent, plain

WIDTH, HEIGHT = 560.0, 240.0
BAR_WIDTH, BAR_HEIGHT = 1000.0, 32.0
"""Of bars, which are stretched over their line and so have no text in them."""
LEFT, RIGHT, TOP, BOTTOM = 64.0, 12.0, 12.0, 28.0
MOST_POINTS = 400
"""Points that are drawn of one curve; more of them nobody sees."""
MOST_CURVES = 8
MOST_VALUE = 1e100
"""Larger values are not drawn, nor are NaN and infinities: their differences are no numbers."""
MOST_TIME = 1e12
MOST_BRIEF = 20.0
"""Seconds of a time that is so short that its quarters are told in tenths of a second."""
COLOURS = ("#3b7dd8", "#d9822b", "#3a9d5d", "#a05cc0", "#c0563f", "#4aa3a3", "#8a7a3b", "#777777")
STATE_COLOURS = {
    "Failed": "#d62728",
    "Rejected": "#e8833a",
    "Pending": "#e6c229",
    "Starting": "#8ec5f2",
    "Restarting": "#9b6bd3",
    "Running": "#3b7dd8",
    "Suspended": "#8e8e8e",
    "Succeeded": "#3a9d5d",
}
CAUSE_COLOURS = {
    "productive": "#3a9d5d",
    "repeatedSteps": "#d62728",
    "data": "#e6c229",
    "checkpoint": "#4aa3a3",
    "queue": "#bdbdbd",
    "pods": "#8ec5f2",
    "firstStep": "#3b7dd8",
    "recovery": "#9b6bd3",
    "backOff": "#e8833a",
    "suspended": "#8e8e8e",
}
# Looks are attributes and no style, so that a picture may be taken out of its page.
GRID = {"stroke": "#88888844"}
RESTART = {"stroke": "#e8833a", "stroke-dasharray": "4 3"}
Scale = Callable[[float], float]


def curves(chart: Chart, marks: Iterable[float] = ()) -> Element:
    """Curves over the time since their first point, with a line at each of ``marks``."""
    known = [curve for curve in chart.curves if curve.points]
    drawn = [thinned(curve) for curve in known[:MOST_CURVES]]
    points = [point for curve in drawn for point in curve.points]
    picture = _picture(WIDTH, HEIGHT, f"{chart.title} over time")
    if not points:
        return picture
    times, values = [time for time, _ in points], [value for _, value in points]
    begin, end = min(times), max(times)
    across = _scale((begin, end), (LEFT, WIDTH - RIGHT))
    low, high, ticks = _ticks(min(values), max(values))
    up = _scale((low, high), (HEIGHT - BOTTOM, TOP))
    write = _short_percent if chart.unit == "%" else plain
    for tick in ticks:
        _line(picture, (LEFT, up(tick)), (WIDTH - RIGHT, up(tick)), GRID)
        _text(picture, (LEFT - 6, up(tick) + 4), write(tick), "end")
    _times(picture, (begin, end), across, HEIGHT - 8)
    for time in marks:
        if begin <= time <= end:
            _line(picture, (across(time), TOP), (across(time), HEIGHT - BOTTOM), RESTART)
    for curve, colour in zip(drawn, COLOURS, strict=False):
        places = [(across(time), up(value)) for time, value in curve.points]
        _path(picture, places, colour, curve.name)
    return picture


def timeline(spans: Sequence[Span], palette: Callable[[str], str]) -> Element:
    """What was when, as one line of coloured parts."""
    picture = _bar("States over time")
    begin, end = life(spans)
    across = _scale((begin, end), (0.0, BAR_WIDTH))
    for span in spans:
        left = across(span.begin)
        long = f"{span.name}: {duration(span.end - span.begin)}"
        _box(picture, (left, across(span.end) - left), palette(span.name), long)
    return picture


def life(spans: Sequence[Span]) -> tuple[float, float]:
    """When the first of them began and the last one ended."""
    return min(span.begin for span in spans), max(span.end for span in spans)


def quarters(begin: float, end: float) -> list[tuple[float, str]]:
    """Times from begin to end at equal distances, and what they are called: since the beginning."""
    whole = end - begin
    if whole <= 0:
        return [(begin, duration(0))]
    # In whole seconds some of a short time would be the same.
    brief = whole < MOST_BRIEF
    since = [whole * quarter / 4 for quarter in range(5)]
    return [
        (begin + time, f"{plain(round(time, 1))} s" if brief else duration(time)) for time in since
    ]


def shares(parts: Sequence[tuple[str, float]], palette: Callable[[str], str]) -> Element:
    """Parts of a whole, one after the other in one bar."""
    picture = _bar("Shares of the time")
    whole = sum(value for _, value in parts)
    left = 0.0
    for name, value in parts:
        wide = BAR_WIDTH * value / whole
        _box(picture, (left, wide), palette(name), f"{name}: {percent(value / whole)}")
        left += wide
    return picture


def thinned(curve: Curve) -> Curve:
    """A curve of no more than `MOST_POINTS`: each stands for the mean of those around it."""
    drawn = sorted(
        (time, value)
        for time, value in curve.points
        if abs(time) <= MOST_TIME and abs(value) <= MOST_VALUE
    )
    each = math.ceil(len(drawn) / MOST_POINTS) or 1
    groups = (drawn[start : start + each] for start in range(0, len(drawn), each))
    return Curve(curve.name, tuple(_mean(group) for group in groups))


def colour_of_state(name: str) -> str:
    """The colour of a state, or of anything else that a time may be called."""
    return STATE_COLOURS.get(name) or COLOURS[sum(name.encode(errors="replace")) % len(COLOURS)]


def colour_of_cause(name: str) -> str:
    """The colour of what time went to."""
    return CAUSE_COLOURS.get(name, "#777777")


def _mean(points: Sequence[Point]) -> Point:
    count = len(points)
    return sum(time for time, _ in points) / count, sum(value for _, value in points) / count


def _scale(source: tuple[float, float], target: tuple[float, float]) -> Scale:
    (low, high), (first, last) = source, target

    def scaled(value: float) -> float:
        share = (value - low) / (high - low) if high > low else 0.5
        return round(first + (last - first) * share, 1)

    return scaled


def _ticks(low: float, high: float) -> tuple[float, float, list[float]]:
    """Limits of an axis, and some round numbers between them."""
    width = high - low
    # Numbers that differ in their last digits alone have no round ones between them.
    if width < 1e-100 or width < abs(low) * 1e-9:
        return low, high, [low]
    step = 10.0 ** math.floor(math.log10(width / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if width / (step * factor) <= 5)
    first, last = math.floor(low / step), math.ceil(high / step)
    ticks = [place * step for place in range(first, last + 1)]
    return ticks[0], ticks[-1], ticks


def _times(picture: Element, life: tuple[float, float], across: Scale, y: float) -> None:
    """An axis of the time since the beginning."""
    labels = quarters(*life)
    # With one label for all, it stands below the point in the middle.
    anchors = ("start", "middle", "middle", "middle", "end") if len(labels) > 1 else ("middle",)
    for place, ((time, text), anchor) in enumerate(zip(labels, anchors, strict=True)):
        label = _text(picture, (across(time), y), text, anchor)
        if place % 2:
            label.set("class", "quarter")


def _short_percent(value: float) -> str:
    return f"{plain(round(100 * value, 6))} %"


def _bar(title: str) -> Element:
    picture = _picture(BAR_WIDTH, BAR_HEIGHT, title)
    picture.set("class", "bar")
    picture.set("preserveAspectRatio", "none")
    return picture


def _picture(width: float, height: float, title: str) -> Element:
    return Element(
        "svg", {"viewBox": f"0 0 {width:.0f} {height:.0f}", "role": "img", "aria-label": title}
    )


def _path(picture: Element, places: Sequence[Point], colour: str, name: str) -> None:
    if len(places) == 1:
        (x, y) = places[0]
        shape = SubElement(picture, "circle", {"cx": f"{x}", "cy": f"{y}", "r": "3"})
        shape.set("fill", colour)
    else:
        steps = " ".join(f"{x},{y}" for x, y in places)
        shape = SubElement(picture, "polyline", {"points": steps, "fill": "none"})
        shape.set("stroke", colour)
        shape.set("stroke-width", "1.6")
    SubElement(shape, "title").text = name


def _line(picture: Element, begin: Point, end: Point, look: Mapping[str, str]) -> None:
    (x1, y1), (x2, y2) = begin, end
    places = {"x1": f"{x1}", "y1": f"{y1}", "x2": f"{x2}", "y2": f"{y2}"}
    SubElement(picture, "line", {**places, **look})


def _text(picture: Element, place: Point, text: str, anchor: str) -> Element:
    x, y = place
    label = SubElement(picture, "text", {"x": f"{x}", "y": f"{y}", "text-anchor": anchor})
    label.set("font-size", "11")
    label.text = text
    return label


def _box(picture: Element, place: tuple[float, float], colour: str, title: str) -> None:
    left, wide = place
    box = SubElement(picture, "rect", {"x": f"{left:.1f}", "y": "0"})
    box.set("height", f"{BAR_HEIGHT:.0f}")
    box.set("width", f"{max(wide, 0.5):.1f}")
    box.set("fill", colour)
    SubElement(box, "title").text = title
