"""Devices that a container asks for, as ``spec.accelerator``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inception_operator.accelerators.profile import Profile

from .draft import Draft
from .ledger import Field


def apply(draft: Draft, resources: Field, profiles: Mapping[str, Profile]) -> None:
    """Take the resources over; those that count devices become the accelerator."""
    kept: dict[str, Any] = {}
    counts: dict[str, int] = {}
    vendors: set[str] = set()
    for side in resources.children():
        if side.key not in ("limits", "requests"):
            kept[side.key] = side.take()
            continue
        amounts = kept.setdefault(side.key, {})
        for amount in side.children():
            row = next((each for each in profiles.values() if each.counts(amount.key)), None)
            if row is None:
                amounts[amount.key] = amount.take()
                continue
            number = _count(amount)
            if number:
                counts[amount.key] = max(number, counts.get(amount.key, 0))
                vendors.add(row.name)
        if not side.value:
            side.settle()
    if resources.present and not resources.value:
        resources.settle()
    draft.accelerator = {}
    draft.trainer.pop("resources", None)
    filled = {key: value for key, value in kept.items() if value}
    if filled:
        draft.trainer["resources"] = filled
    if not counts:
        return
    if len(counts) > 1:
        raise resources.refusal(
            f"{' and '.join(sorted(counts))} both count devices", "keep one of them"
        )
    (resource, number), (vendor,) = *counts.items(), vendors
    draft.accelerator = {"profile": vendor, "devicesPerNode": number}
    if resource != profiles[vendor].resource:
        draft.accelerator["resourceName"] = resource


def _count(amount: Field) -> int:
    amount.settle()
    text = str(amount.value)
    if not text.isdecimal():
        raise amount.refusal(f"{text} is not a whole number of devices", "correct it")
    return int(text)
