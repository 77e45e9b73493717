"""Of benchmarks/gpu.py: what a recorded time line says, in figures and as a picture.

The file is the Chrome trace of torch's profiler, times in microseconds.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Span = tuple[float, float]
"""Beginning and end, in microseconds."""
LANES = {
    "host": ("cpu_op",),
    "copies": ("gpu_memcpy", "gpu_memset"),
    "device": ("kernel",),
}
STEP = "ProfilerStep#"
LONGEST = 5
"""Operations that are named."""


@dataclass(frozen=True)
class Timeline:
    """Recorded steps, and when host, copies and device were at work; overlapping work of a lane is
    one span.
    """

    steps: list[Span]
    lanes: dict[str, list[Span]]
    longest: dict[str, float]
    """Milliseconds of the operations that took longest in all, those of the device if it has any.
    """

    @property
    def span(self) -> Span:
        return self.steps[0][0], self.steps[-1][1]

    def busy_share(self, lane: str) -> float:
        """Share of the recorded time in which the lane was at work."""
        begin, end = self.span
        inside = sum(
            max(0.0, min(stop, end) - max(start, begin)) for start, stop in self.lanes[lane]
        )
        return inside / max(1e-9, end - begin)

    def figures(self) -> dict[str, Any]:
        begin, end = self.span
        return {
            "recordedSteps": len(self.steps),
            "recordedStepMilliseconds": round((end - begin) / 1000 / len(self.steps), 3),
            "busyShares": {lane: round(self.busy_share(lane), 4) for lane in LANES},
            "longestOperationsMilliseconds": self.longest,
        }


def read(path: Path) -> Timeline:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    return timeline(event for event in events if event.get("ph") == "X")


def timeline(events: Iterable[dict[str, Any]]) -> Timeline:
    """``events`` are the complete ones of the trace."""
    steps: list[Span] = []
    found: dict[str, list[Span]] = {lane: [] for lane in LANES}
    longest: dict[str, Counter[str]] = {lane: Counter() for lane in LANES}
    for event in events:
        category, name = event.get("cat"), str(event.get("name"))
        span = (float(event["ts"]), float(event["ts"]) + float(event["dur"]))
        # The device repeats the steps of the host as annotations of its own.
        if name.startswith(STEP) and category == "user_annotation":
            steps.append(span)
        for lane, categories in LANES.items():
            if category in categories:
                found[lane].append(span)
                longest[lane][name] += span[1] - span[0]
    if not steps:
        raise ValueError("no step was recorded")
    lane = "device" if found["device"] else "host"
    most = {name: round(time / 1000, 3) for name, time in longest[lane].most_common(LONGEST)}
    lanes = {name: joined(spans) for name, spans in found.items()}
    return Timeline(sorted(steps), lanes, most)


def joined(spans: Sequence[Span]) -> list[Span]:
    """The same times without overlaps, in order."""
    result: list[Span] = []
    for start, stop in sorted(spans):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(stop, result[-1][1]))
        else:
            result.append((start, stop))
    return result


def draw(path: Path, line: Timeline, title: str) -> None:
    """A lane for host, copies and device, with the borders of the steps."""
    from matplotlib.figure import Figure

    begin, end = line.span
    figure = Figure(figsize=(12, 2.4), layout="constrained")
    axes = figure.subplots()
    for height, (lane, spans) in enumerate(line.lanes.items()):
        bars = [((start - begin) / 1000, (stop - start) / 1000) for start, stop in spans]
        share = f"{lane}, {100 * line.busy_share(lane):.0f} %"
        axes.broken_barh(bars, (height - 0.35, 0.7), label=share)
    for start, _ in line.steps:
        axes.axvline((start - begin) / 1000, color="black", linewidth=0.5)
    axes.set_xlim(0, (end - begin) / 1000)
    axes.set_yticks(range(len(LANES)), [f"{lane}" for lane in LANES])
    axes.set_xlabel("milliseconds")
    axes.set_title(
        title
        + " (share of the time at work: "
        + ", ".join(f"{lane} {100 * line.busy_share(lane):.0f} %" for lane in LANES)
        + ")",
        fontsize=9,
    )
    figure.savefig(path, dpi=120)
