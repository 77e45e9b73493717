"""What evaluation does to an image before the network sees it, as checkpoints and exported files
carry it: the side, the crop, the interpolation and the normalization.

It belongs to the weights as the normalization does: a network that was evaluated on whole images
of 64 pixels is another one on the centre of larger ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from .data import DataConfig
from .declare import camel
from .normalization import Normalization
from .schema import parse

FIELDS = ("image_size", "evaluation_crop_ratio", "interpolation", "exif_orientation")
"""Keys of ``data`` that decide what evaluation sees of an image."""


def described(data: DataConfig, normalization: Normalization) -> dict[str, Any]:
    """Plain data, for checkpoints, exported files and summary.json."""
    return {
        **normalization.as_dict(),
        **{camel(name): getattr(data, name) for name in FIELDS},
    }


def of_file(content: Mapping[str, Any]) -> dict[str, Any]:
    """Those of FIELDS that a file of ours says, by their names; ``content`` is a checkpoint's.

    Raises ConfigError for values that no key may have.
    """
    said = dict(content.get("preprocessing") or {})
    # Checkpoints of before 0.2 say in their configuration what they do not say beside the mean.
    config = content.get("config")
    before = config.get("data") if isinstance(config, Mapping) else None
    if isinstance(before, Mapping):
        said = {**before, **said}
    keys = {camel(name): name for name in FIELDS}
    known = {key: said[key] for key in keys if said.get(key) is not None}
    parsed = parse(DataConfig, known, "preprocessing")
    return {keys[key]: getattr(parsed, keys[key]) for key in known}


@dataclasses.dataclass(frozen=True)
class Difference:
    """A key whose value the configuration and the weights disagree about."""

    key: str
    configured: Any
    of_weights: Any
    written: bool
    """Whether the user wrote the configured one, which then is taken."""

    def __str__(self) -> str:
        if self.written:
            return (
                f"{self.key}: {self.configured} as configured, where the weights were evaluated "
                f"with {self.of_weights}"
            )
        return (
            f"{self.key}: {self.of_weights}, with which the weights were evaluated, and not "
            f"{self.configured}, which nobody wrote"
        )


def following(
    data: DataConfig, of_weights: Mapping[str, Any], written: Collection[str]
) -> tuple[DataConfig, list[Difference]]:
    """``data`` with what the weights say in the place of defaults and a recipe's values, and where
    both differ. ``written`` are the keys that the user wrote.
    """
    changes: dict[str, Any] = {}
    differences: list[Difference] = []
    for name, value in of_weights.items():
        configured, key = getattr(data, name), f"data.{camel(name)}"
        if configured == value:
            continue
        if key not in written:
            changes[name] = value
        # A size of 0 only says that the weights will say it.
        if configured:
            differences.append(Difference(key, configured, value, key in written))
    return dataclasses.replace(data, **changes), differences
