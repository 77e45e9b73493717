"""Of benchmarks/gpu.py: the results as Markdown tables and pictures."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import gpu_timeline
from benchmarks.recovery_launcher import AFTER_FORK, AGAIN, NEW_STEP

Json = dict[str, Any]


def markdown(results: Json) -> str:
    """All parts; what failed or was left out is said where its figures would be."""
    machine = results["machine"]
    sections = [
        "# make bench-gpu",
        f"{machine['device']}, torch {machine['torch']}, CUDA {machine['cuda']}, "
        f"{machine['cpus']} CPUs, commit {machine['commit']}; "
        f"{results['seconds']:.0f} s in all{', small' if results['small'] else ''}.",
    ]
    tables = {
        "steps": _steps,
        "pipeline": _pipeline,
        "recovery": _recovery,
        "checkpoints": _checkpoints,
    }
    for part, table in tables.items():
        if part in results["parts"]:
            sections += table(results["parts"][part]["rows"])
    for part, found in results["parts"].items():
        if found.get("error"):
            sections.append(f"**{part}: {found['error']}**")
    return "\n\n".join(sections) + "\n"


def _rows(results: Json, part: str) -> list[Json]:
    rows: list[Json] = results["parts"].get(part, {}).get("rows", [])
    return rows


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    if not lines:
        return []
    rows = [head, ["---"] * len(head), *lines]
    return ["\n".join(f"| {' | '.join(row)} |" for row in rows)]


def _notes(rows: Sequence[Json]) -> list[str]:
    return [f"{row['note'][0].upper()}{row['note'][1:]}." for row in rows if "note" in row]


def _steps(rows: Sequence[Json]) -> list[str]:
    cases: dict[tuple[str, ...], dict[str, Json]] = {}
    for row in rows:
        if "network" in row:
            key = (row["network"], row["precision"], row["execution"])
            cases.setdefault(key, {})[row["contestant"]] = row
    lines = []
    for key, contestants in cases.items():
        own = contestants.get("trainer", {})
        others = [_other(contestants.get(name, {})) for name in ("timm", "plain")]
        sizes = f"{own.get('imageSize')} px, {own.get('batch')}"
        first = own.get("firstStepSeconds")
        lines.append([*key, sizes, _speed(own), *others, "" if first is None else f"{first:.2f}"])
    head = ("network", "precision", "execution", "image, batch", "trainer, img/s")
    others = ("timm's loop, img/s (trainer ÷ it)", "plain loop, img/s (trainer ÷ it)")
    return [
        "## Training steps",
        *_notes(rows),
        *_table((*head, *others, "first step, s"), lines),
    ]


def _speed(row: Json) -> str:
    if "imagesPerSecond" in row:
        return f"{row['imagesPerSecond']:.1f}"
    return str(row.get("error", ""))[:80].replace("|", "/")


def _other(row: Json) -> str:
    times = row.get("trainerIsTimesAsFast")
    return _speed(row) + (f" ({times:.3f})" if times else "")


def _pipeline(rows: Sequence[Json]) -> list[str]:
    lines = []
    said = []
    for row in rows:
        if "source" in row:
            busy = row["busyShares"]
            shares = " / ".join(f"{100 * busy[lane]:.0f} %" for lane in busy)
            lines.append(
                [
                    row["source"],
                    f"{row['imagesPerSecond']:.1f}",
                    f"{100 * row['dataWaitRatio']:.1f} %",
                    f"{row['recordedStepMilliseconds']:.1f}",
                    shares,
                ]
            )
        if "loaderBoundShare" in row:
            said.append(
                f"Share of the speed that the loader takes: {100 * row['loaderBoundShare']:.1f} %."
            )
        if "loaderAloneImagesPerSecond" in row:
            said.append(
                f"The loader alone: {row['loaderAloneImagesPerSecond']:.0f} img/s with "
                f"{row['workers']} workers on {row['cpus']} CPUs."
            )
    head = ("ResNet-50 on", "img/s", "waiting for data", "ms per recorded step")
    lanes = "at work in ten recorded steps: " + " / ".join(gpu_timeline.LANES)
    return ["## Loader and time line", *_table((*head, lanes), lines), *said]


def _recovery(rows: Sequence[Json]) -> list[str]:
    lines, said = [], _notes(rows)
    keys = ("detection", AFTER_FORK, "total", NEW_STEP, AGAIN)
    for row in rows:
        if "trials" in row:
            values = [[trial[key] for trial in row["trials"]] for key in keys]
            cells = [f"{statistics.median(some):.2f} / {max(some):.2f}" for some in values]
            lines.append([row["case"], str(len(row["trials"])), *cells])
        if "ncclGroupSeconds" in row:
            said.append(
                f"NCCL with one rank: group {row['ncclGroupSeconds']} s, first sum of 100 MiB "
                f"{row['ncclFirstSumSeconds']} s, next one {row['ncclNextSumSeconds']} s."
            )
    head = ("SIGKILL of a rank, p50 / max in s", "trials", "seen")
    rest = ("fork to first step", "first step", "first new step", "steps done again")
    return ["## Recovery without Kubernetes", *_table((*head, *rest), lines), *said]


def _checkpoints(rows: Sequence[Json]) -> list[str]:
    lines = [
        [
            row["network"],
            f"{row['bytes'] / 2**20:.0f}",
            f"{row['saveSeconds']:.2f}",
            f"{1000 * row['stallSeconds']:.1f}",
            f"{1000 * row['firstStallSeconds']:.1f}",
        ]
        for row in rows
        if "network" in row
    ]
    head = ("network", "MiB", "save, s", "training stands still, ms", "first save, ms")
    return ["## Checkpoints", *_table(head, lines)]


def pictures(results: Json, folder: Path) -> None:
    """Bars of the speeds, and a time line of each recording."""
    _draw_speeds(_rows(results, "steps"), folder / "speeds.png")
    for row in _rows(results, "pipeline"):
        if "timeline" in row:
            trace = folder / row["timeline"]
            picture = folder / f"{trace.name.removesuffix('.json.gz')}.png"
            gpu_timeline.draw(picture, gpu_timeline.read(trace), f"ResNet-50, {row['source']}")


def _draw_speeds(rows: Sequence[Json], path: Path) -> None:
    measured = [row for row in rows if "imagesPerSecond" in row]
    if not measured:
        return
    from matplotlib.figure import Figure

    cases = list(dict.fromkeys(_case(row) for row in measured))
    names = list(dict.fromkeys(row["contestant"] for row in measured))
    figure = Figure(figsize=(10, 1 + 0.45 * len(cases)), layout="constrained")
    axes = figure.subplots()
    for at, name in enumerate(names):
        own = [row for row in measured if row["contestant"] == name]
        heights = [cases.index(_case(row)) + 0.25 * at for row in own]
        axes.barh(heights, [row["imagesPerSecond"] for row in own], 0.23, label=name)
    axes.set_yticks([at + 0.25 for at in range(len(cases))], cases)
    axes.invert_yaxis()
    axes.set_xlabel("images per second")
    axes.legend()
    figure.savefig(path, dpi=120)


def _case(row: Json) -> str:
    return f"{row['network']} {row['precision']} {row['execution']}"
