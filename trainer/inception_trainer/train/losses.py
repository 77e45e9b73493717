"""Training losses. Logits are ``[n, classes]``; losses are sums over the n images, not means.

Sums, because the ranks' micro-batches may differ in size: :mod:`.step` divides by the global batch.
"""

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
    """Of the classifier, in FP32."""
    main: Tensor
    """The classifier's cross entropy: what is reported."""
    total: Tensor
    """With the auxiliary head's part: what is differentiated."""


@dataclass(frozen=True)
class Criterion:
    """Cross entropy with label smoothing; an auxiliary head adds ``auxiliary_weight`` times its
    own.
    """

    label_smoothing: float = 0.0
    auxiliary_weight: float = 0.0

    def __call__(self, outputs: Outputs, labels: Tensor) -> Loss:
        """The losses of one micro-batch, ``labels`` int64 ``[n]``."""
        logits, auxiliary = outputs if isinstance(outputs, tuple) else (outputs, None)
        # Sums of exponentials lose too much in BF16 and FP16.
        logits = logits.float()
        main = self._cross_entropy(logits, labels)
        total = main
        if auxiliary is not None:
            total = main + self.auxiliary_weight * self._cross_entropy(auxiliary.float(), labels)
        return Loss(logits, main, total)

    def mixed(self, outputs: Outputs, labels: Tensor, lam: float) -> Loss:
        """The losses of images that were blended with those at the mirrored positions (mixup)."""
        own = self(outputs, labels)
        other = self(outputs, labels.flip(0))
        main = lam * own.main + (1 - lam) * other.main
        return Loss(own.logits, main, lam * own.total + (1 - lam) * other.total)

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(
            logits, labels, reduction="sum", label_smoothing=self.label_smoothing
        )
