"""``data check``: what was found in a data set, as text for people or JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from inception_trainer.config.training import TrainingConfig
from inception_trainer.errors import TrainerError
from inception_trainer.log import printable

from .check import Check, Duplicates, SplitFacts, check_data, find_duplicates
from .found import found_lines

SPLITS = ("train", "val")
NAMES = {"train": "training", "val": "validation"}
SHOWN = 5
"""Images that a line of text names; JSON has more."""


def run_check(config: TrainingConfig, *, as_json: bool, processes: int) -> int:
    """Print what is found in the data, read by so many processes; returns the exit code of a
    training on it, 0 if it would train.
    """
    try:
        check = check_data(config, processes)
    except TrainerError as error:
        report = json.dumps(_head(config, error), indent=2)
        _print(report if as_json else _verdict(config, error))
        return error.exit_code
    duplicates = find_duplicates(check.train, check.val)
    if as_json:
        _print(json.dumps(as_dict(config, check, duplicates), indent=2))
    else:
        _print("\n".join(as_text(config, check, duplicates)))
    return check.problem.exit_code if check.problem else 0


def _print(text: str) -> None:
    print(printable(text), flush=True)


def _head(config: TrainingConfig, problem: TrainerError | None) -> dict[str, Any]:
    described = None
    if problem is not None:
        described = {"exitCode": problem.exit_code, "message": str(problem)}
    return {
        "kind": config.data.kind,
        "path": config.data.path,
        "wouldTrain": problem is None,
        "problem": described,
    }


def _verdict(config: TrainingConfig, problem: TrainerError | None) -> str:
    where = f"{config.data.kind} {config.data.path or ''}".strip()
    if problem is None:
        return f"{where}: would train"
    return f"{where}: would not train (exit code {problem.exit_code}): {problem}"


def as_dict(config: TrainingConfig, check: Check, duplicates: Duplicates) -> dict[str, Any]:
    """The report as plain data."""
    names = check.splits.class_names
    counts = [facts.counts for facts in (check.train, check.val)]
    classes = [
        {
            "name": name,
            **{
                split: None if of_split is None else int(of_split.images[number])
                for split, of_split in zip(SPLITS, counts, strict=True)
            },
        }
        for number, name in enumerate(names)
    ]
    return {
        **_head(config, check.problem),
        "numClasses": check.splits.num_classes,
        "classes": classes,
        "splits": {
            split: {**_split_dict(facts), "copies": duplicates.copies[number]}
            for number, (split, facts) in enumerate(
                zip(SPLITS, (check.train, check.val), strict=True)
            )
        },
        "duplicates": {
            "validationImagesInTraining": duplicates.in_both,
            "imagesOfSeveralClasses": duplicates.of_two_classes,
            "groups": [_group(check, group) for group in duplicates.groups],
        },
        "notes": list(check.splits.ignored),
    }


def _split_dict(facts: SplitFacts) -> dict[str, Any]:
    result: dict[str, Any] = {
        "images": len(facts.dataset),
        "bytes": facts.bytes,
        "formats": dict(facts.formats.most_common()),
        "unreadable": {
            "count": facts.unreadable_count,
            "first": [
                {"name": facts.name(index), "reason": reason} for index, reason in facts.unreadable
            ],
        },
    }
    for side, values in (("width", facts.widths), ("height", facts.heights)):
        known = values[values > 0]
        result[side] = _range(known) if len(known) else None
    if facts.sums.pixels:
        result["mean"] = [round(value, 6) for value in facts.sums.mean()]
        result["deviation"] = [round(value, 6) for value in facts.sums.deviation()]
    return result


def _range(values: Any) -> dict[str, int]:
    return {
        "least": int(values.min()),
        "median": int(np.median(values)),
        "most": int(values.max()),
    }


def _group(check: Check, group: list[tuple[int, int]]) -> list[str]:
    both = (check.train, check.val)
    return [f"{both[split].name(number)}" for split, number in group]


def as_text(config: TrainingConfig, check: Check, duplicates: Duplicates) -> Iterator[str]:
    """The report in lines."""
    yield _verdict(config, check.problem)
    yield from found_lines(check.splits)
    for split, facts in zip(SPLITS, (check.train, check.val), strict=True):
        yield from _split_text(NAMES[split], facts)
    for split, count in zip(SPLITS, duplicates.copies, strict=True):
        if count:
            yield f"{NAMES[split]} images that are copies of others: {count:,}"
    if duplicates.in_both:
        yield f"validation images that are training images, too: {duplicates.in_both:,}"
    if duplicates.of_two_classes:
        yield f"images that are there in several classes: {duplicates.of_two_classes:,}"
    for group in duplicates.groups[:SHOWN]:
        more = [] if len(group) <= SHOWN else ["..."]
        yield f"  {' = '.join([*_group(check, group[:SHOWN]), *more])}"


def _split_text(name: str, facts: SplitFacts) -> Iterator[str]:
    megabytes = facts.bytes / 1e6
    formats = ", ".join(f"{count:,} x {form}" for form, count in facts.formats.most_common())
    yield f"{name} files: {megabytes:,.1f} MB, {formats or 'none that can be read'}"
    known = facts.widths > 0
    if known.any():
        (least, median, most), (low, middle, high) = (
            _range(values[known]).values() for values in (facts.widths, facts.heights)
        )
        yield (
            f"{name} sizes: width {least} to {most}, median {median}; "
            f"height {low} to {high}, median {middle}"
        )
    if facts.sums.pixels:
        mean, deviation = (
            " ".join(f"{value:.4f}" for value in values)
            for values in (facts.sums.mean(), facts.sums.deviation())
        )
        yield f"{name} pixels, 0 to 1, as evaluation sees them: mean {mean}, deviation {deviation}"
    if facts.unreadable_count:
        yield f"{name} images that cannot be read: {facts.unreadable_count:,}"
        for index, reason in facts.unreadable[:SHOWN]:
            yield f"  {facts.name(index)}: {reason}"
        if facts.unreadable_count > SHOWN:
            yield "  ..."
