"""What is known of a network without building it, whoever says so: :mod:`.catalog` of ours,
:mod:`.timm_networks` of timm's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .normalization import Normalization


@dataclass(frozen=True)
class ModelFacts:
    """One network of the catalogue; sizes are sides of square inputs in pixels."""

    image_size: int
    """What its published weights were trained on."""
    smallest: int
    auxiliary_smallest: int | None = None
    """The smallest input of the auxiliary head; None for a network that has none."""
    fits: Callable[[int], bool] = lambda _side: True
    """Which sides from the smallest on the network accepts."""
    has_dropout: bool = False
    """Whether it has dropout before its classifier."""
    normalization: Normalization | None = None
    """What its published weights expect of their inputs, where their layout does not say it."""
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    """What they were evaluated with: keys of ``data`` and their values."""
    head: str | None = None
    """Prefix of the classifier's keys, where our layouts do not say it."""

    def smallest_with(self, auxiliary: bool) -> int:
        """The smallest input of the network, with or without its auxiliary head."""
        return (self.auxiliary_smallest if auxiliary else None) or self.smallest
