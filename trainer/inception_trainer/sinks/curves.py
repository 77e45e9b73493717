"""curves.png: loss and accuracy over the whole job, restarts marked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inception_trainer.reporting.outputs import replacing
from inception_trainer.reporting.progress import Row
from inception_trainer.reporting.records import EndRecord, RunInfo, Sink

TRAIN, VALIDATION, MUTED = "#7aa6c2", "#c8502d", "#8a8f98"
SHORT = 20
"""Curves of so few points are drawn as they are; longer ones are averaged over a twentieth of their
length.
"""


class Curves(Sink):
    """Drawn once, when the run is finished: matplotlib is imported only then."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._info: RunInfo | None = None

    def start(self, info: RunInfo) -> None:
        """Remember what to write into the title."""
        self._info = info

    def end(self, record: EndRecord) -> None:
        """Draw."""
        if record.finished and self._info is not None:
            draw(self._output / "curves.png", record, self._info)


def draw(path: Path, record: EndRecord, info: RunInfo) -> None:
    """Two panels over epochs; raises what matplotlib or the disk raises."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2)
    history, scale = record.history, 1 / info.steps_per_epoch
    _line(left, history.train, 1, scale)
    _points(left, history.evaluations, 1, scale, "validation", VALIDATION)
    _line(right, history.train, 2, scale, 100)
    _points(right, history.evaluations, 2, scale, "validation top-1", VALIDATION, 100)
    left.set(
        title="Loss",
        ylabel="cross entropy",
        ylim=(0, _loss_limit(history.train, history.evaluations)),
    )
    right.set(title="Accuracy", ylabel="%", ylim=(0, 101))
    for axes in (left, right):
        _style(axes, [step * scale for step in history.restarts], info.total_steps * scale)
    summary = record.summary
    figure.suptitle(
        f"{info.job or info.model}: top-1 {100 * summary['accuracyTop1']:.2f} % after {summary['epochs']:g} epochs   "
        f"({info.world_size} x {info.device}, {info.precision}, {summary['imagesPerSecond']:.0f} img/s)",
        fontsize=11,
    )
    with replacing(path) as draft:
        figure.savefig(draft, format="png")


def smoothed(values: list[float]) -> list[float]:
    """Exponential running mean, unbiased at its start."""
    keep = 1 - SHORT / max(SHORT, len(values))
    total = weight = 0.0
    result = []
    for value in values:
        total, weight = keep * total + value, keep * weight + 1
        result.append(total / weight)
    return result


def _loss_limit(train: list[Row], evaluations: list[Row]) -> float:
    """Room for the training curve and the last validation: early validations can be off by orders
    of magnitude.
    """
    return 1.1 * max([row[1] for row in train] + [row[1] for row in evaluations[-1:]], default=1.0)


def _line(axes: Any, rows: list[Row], column: int, scale: float, factor: float = 1) -> None:
    x = [row[0] * scale for row in rows]
    y = [row[column] * factor for row in rows]
    if len(y) > SHORT:
        axes.plot(x, y, color=TRAIN, alpha=0.35, linewidth=0.9)
    axes.plot(x, smoothed(y), color=TRAIN, linewidth=1.8, label="training")


def _points(
    axes: Any, rows: list[Row], column: int, scale: float, label: str, color: str, factor: float = 1
) -> None:
    x, y = [row[0] * scale for row in rows], [row[column] * factor for row in rows]
    last = f", at the end {y[-1]:.4g}" if y else ""
    axes.plot(x, y, color=color, linewidth=1.6, marker="o", markersize=3.5, label=label + last)


def _style(axes: Any, restarts: list[float], end: float) -> None:
    for number, epoch in enumerate(restarts):
        axes.axvline(
            epoch,
            color=MUTED,
            linewidth=0.8,
            linestyle=(0, (4, 3)),
            label=None if number else "restart",
        )
    axes.set(xlabel="epoch", xlim=(0, end * 1.02))
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
