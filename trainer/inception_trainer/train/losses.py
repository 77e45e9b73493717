"""From what a network returns to the number that training makes small."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

Outputs = Tensor | tuple[Tensor, Tensor]
"""Logits, or the pair of the classifier's and the auxiliary head's."""


@dataclass(frozen=True)
class Loss:
    """Sums over a micro-batch; unreadable images (negative labels) count nothing."""

    logits: Tensor
    """Of the classifier, in fp32."""
    main: Tensor
    """The classifier's cross entropy: what is reported."""
    total: Tensor
    """With the auxiliary head's share: what is differentiated."""


@dataclass(frozen=True)
class Criterion:
    """Cross entropy with label smoothing; an auxiliary head adds ``auxiliary_weight`` times its
    own.
    """

    label_smoothing: float = 0.0
    auxiliary_weight: float = 0.0

    def __call__(self, outputs: Outputs, labels: Tensor) -> Loss:
        """The losses of one micro-batch."""
        logits, auxiliary = outputs if isinstance(outputs, tuple) else (outputs, None)
        logits = logits.float()
        main = self._cross_entropy(logits, labels)
        if auxiliary is None:
            return Loss(logits, main, main)
        return Loss(
            logits,
            main,
            main + self.auxiliary_weight * self._cross_entropy(auxiliary.float(), labels),
        )

    def mixed(self, outputs: Outputs, labels: Tensor, share: float) -> Loss:
        """Those of images that were blended with the ones at the mirrored positions (mixup)."""
        own, other = self(outputs, labels), self(outputs, labels.flip(0))
        main = share * own.main + (1 - share) * other.main
        return Loss(own.logits, main, share * own.total + (1 - share) * other.total)

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(
            logits, labels, reduction="sum", label_smoothing=self.label_smoothing
        )
