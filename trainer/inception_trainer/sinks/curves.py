"""curves.png: loss and accuracy over the epochs of the whole job, restarts marked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typing_extensions import override

from inception_trainer.reporting.outputs import replacing
from inception_trainer.reporting.records import EndRecord, RunInfo, Sink

TRAIN_COLOR = "#7aa6c2"
VALIDATION_COLOR = "#c8502d"
MUTED_COLOR = "#8a8f98"
SHORT = 20
"""Curves of so few points are drawn as they are; longer ones are averaged over a twentieth of their
length.
"""


class Curves(Sink):
    """Draws curves.png, once, when the job is finished: matplotlib is imported only then."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._info: RunInfo | None = None

    @override
    def start(self, info: RunInfo) -> None:
        self._info = info

    @override
    def end(self, record: EndRecord) -> None:
        if record.finished and self._info is not None:
            draw(self._output / "curves.png", record, self._info)


def draw(path: Path, record: EndRecord, info: RunInfo) -> None:
    """Draw two panels over epochs, loss and accuracy; raises what matplotlib or the disk raises."""
    import matplotlib as mpl

    # The back end that needs no display.
    mpl.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2)
    history = record.history
    epochs_per_step = 1 / info.steps_per_epoch
    train_epochs = [row[0] * epochs_per_step for row in history.train]
    validation_epochs = [row[0] * epochs_per_step for row in history.evaluations]

    train_loss = [row[1] for row in history.train]
    validation_loss = [row[1] for row in history.evaluations]
    _draw_training(left, train_epochs, train_loss)
    _draw_validation(left, validation_epochs, validation_loss, "validation")
    highest_loss = _loss_limit(train_loss, validation_loss)
    left.set(title="Loss", ylabel="cross entropy", ylim=(0, highest_loss))

    train_top1 = [100 * row[2] for row in history.train]
    validation_top1 = [100 * row[2] for row in history.evaluations]
    _draw_training(right, train_epochs, train_top1)
    _draw_validation(right, validation_epochs, validation_top1, "validation top-1")
    right.set(title="Accuracy", ylabel="%", ylim=(0, 101))

    restarts = [step * epochs_per_step for step in history.restarts]
    end = info.total_steps * epochs_per_step
    for axes in (left, right):
        _style(axes, restarts, end)
    figure.suptitle(_title(record.summary, info), fontsize=11)
    with replacing(path) as draft:
        figure.savefig(draft, format="png")


def smoothed(values: list[float]) -> list[float]:
    """Exponential running mean over a twentieth of the values, unbiased at its start."""
    keep = 1 - SHORT / max(SHORT, len(values))
    total = 0.0
    weight = 0.0
    means: list[float] = []
    for value in values:
        # Divided by the sum of the weights so far: else the first means would be too small.
        total = keep * total + value
        weight = keep * weight + 1
        means.append(total / weight)
    return means


def _title(summary: dict[str, Any], info: RunInfo) -> str:
    top1 = 100 * summary["accuracyTop1"]
    speed = summary["imagesPerSecond"]
    return (
        f"{info.job or info.model}: top-1 {top1:.2f} % after {summary['epochs']:g} epochs   "
        f"({info.world_size} x {info.device}, {info.precision}, {speed:.0f} img/s)"
    )


def _loss_limit(train: list[float], validation: list[float]) -> float:
    """Room for the training curve and the last validation.

    Early validations can be off by orders of magnitude, and would press everything else flat.
    """
    losses = train + validation[-1:]
    return 1.1 * max(losses, default=1.0)


def _draw_training(axes: Any, epochs: list[float], values: list[float]) -> None:
    """The smoothed curve, over the values themselves where there are many."""
    if len(values) > SHORT:
        axes.plot(epochs, values, color=TRAIN_COLOR, alpha=0.35, linewidth=0.9)
    axes.plot(epochs, smoothed(values), color=TRAIN_COLOR, linewidth=1.8, label="training")


def _draw_validation(axes: Any, epochs: list[float], values: list[float], label: str) -> None:
    """A curve with a mark for each evaluation, whose last value is in the legend."""
    if values:
        label = f"{label}, at the end {values[-1]:.4g}"
    axes.plot(
        epochs,
        values,
        color=VALIDATION_COLOR,
        linewidth=1.6,
        marker="o",
        markersize=3.5,
        label=label,
    )


def _style(axes: Any, restarts: list[float], end: float) -> None:
    """Marks of the restarts, grid and legend; ``restarts`` and ``end`` in epochs."""
    for number, epoch in enumerate(restarts):
        axes.axvline(
            epoch,
            color=MUTED_COLOR,
            linewidth=0.8,
            linestyle=(0, (4, 3)),
            # One entry in the legend for all of them.
            label=None if number else "restart",
        )
    axes.set(xlabel="epoch", xlim=(0, end * 1.02))
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
