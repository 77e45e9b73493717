"""Training losses. Logits are ``[n, classes]``; losses are sums over the n images, not means.

Sums, because the ranks' micro-batches may differ in size: :mod:`.step` divides by the global batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from inception_trainer.config.training import LossConfig

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
    class_weights: Tensor | None = None
    """What each class counts, ``[classes]``; None: all count 1."""
    is_binary: bool = False
    """Whether every class is a question of its own, of which the mean is taken."""

    @classmethod
    def of(cls, config: LossConfig, device: torch.device) -> Criterion:
        """What ``loss`` of the configuration asks for."""
        weights = None
        if config.class_weights is not None:
            weights = torch.tensor(config.class_weights, device=device)
        return cls(
            config.label_smoothing,
            config.auxiliary_weight or 0.0,
            weights,
            is_binary=config.name == "BinaryCrossEntropy",
        )

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
        if self.is_binary:
            return self._binary_cross_entropy(logits, labels)
        return functional.cross_entropy(
            logits,
            labels,
            self.class_weights,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )

    def _binary_cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        classes = logits.shape[1]
        own = functional.one_hot(labels.clamp(min=0), classes).to(logits)
        targets = own * (1 - self.label_smoothing) + self.label_smoothing / classes
        losses = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        # What an image counts is that of its class, as in the other loss.
        counts = (labels >= 0).to(logits)
        if self.class_weights is not None:
            counts = counts * self.class_weights[labels.clamp(min=0)]
        return (losses.mean(1) * counts).sum()
