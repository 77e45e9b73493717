"""The loss that is differentiated and the one that is reported; how pixels reach the network."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from inception_trainer.config.normalization import CAFFE_BGR, INCEPTION
from inception_trainer.train.losses import Criterion
from inception_trainer.train.step import Normalise

LOGITS, AUXILIARY = torch.tensor([[1.0, 2.0], [0.5, -1.0]]), torch.tensor([[0.0, 3.0], [2.0, 2.0]])
LABELS = torch.tensor([1, 0])


def test_the_auxiliary_head_adds_its_share() -> None:
    loss = Criterion(label_smoothing=0.1, auxiliary_weight=0.4)((LOGITS, AUXILIARY), LABELS)
    main, auxiliary = (
        functional.cross_entropy(x, LABELS, reduction="sum", label_smoothing=0.1)
        for x in (LOGITS, AUXILIARY)
    )
    torch.testing.assert_close(loss.main, main)
    torch.testing.assert_close(loss.total, main + 0.4 * auxiliary)
    assert torch.equal(loss.logits, LOGITS)


def test_without_the_head_both_losses_are_one() -> None:
    loss = Criterion(auxiliary_weight=0.4)(LOGITS.bfloat16(), LABELS)
    assert loss.logits.dtype == torch.float32
    assert torch.equal(loss.main, loss.total)


def test_unreadable_images_count_nothing() -> None:
    criterion = Criterion(auxiliary_weight=0.3)
    some = criterion((LOGITS, AUXILIARY), torch.tensor([1, -100])).total
    torch.testing.assert_close(some, criterion((LOGITS[:1], AUXILIARY[:1]), LABELS[:1]).total)


def test_binary_cross_entropy_asks_about_every_class() -> None:
    """The mean over the classes, with a smoothed label for each, of the sum over the images."""
    criterion = Criterion(label_smoothing=0.1, is_binary=True)
    found = criterion(LOGITS, LABELS).main
    targets = torch.tensor([[0.05, 0.95], [0.95, 0.05]])
    chances = LOGITS.sigmoid()
    by_hand = -(targets * chances.log() + (1 - targets) * (1 - chances).log())
    torch.testing.assert_close(found, by_hand.mean(1).sum())
    some = criterion(LOGITS, torch.tensor([1, -100])).total
    torch.testing.assert_close(some, criterion(LOGITS[:1], LABELS[:1]).total)
    # Mixed labels are a mixture of losses here, too.
    mixed = criterion.mixed(LOGITS, LABELS, 0.75).main
    half = 0.75 * targets + 0.25 * targets.flip(0)
    by_hand = -(half * chances.log() + (1 - half) * (1 - chances).log())
    torch.testing.assert_close(mixed, by_hand.mean(1).sum())


@pytest.mark.parametrize("is_binary", [False, True])
def test_images_count_what_their_class_does(is_binary) -> None:
    weights = torch.tensor([3.0, 0.5])
    weighted = Criterion(class_weights=weights, is_binary=is_binary)
    plain = Criterion(is_binary=is_binary)
    each = [
        float(weights[label]) * plain(LOGITS[at : at + 1], LABELS[at : at + 1]).main
        for at, label in enumerate(LABELS.tolist())
    ]
    torch.testing.assert_close(weighted(LOGITS, LABELS).main, torch.stack(each).sum())


def test_caffe_inputs_are_blue_first_and_unscaled() -> None:
    pixel = torch.tensor([10, 117, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    found = Normalise(CAFFE_BGR, torch.device("cpu"))(pixel).flatten()
    assert found.tolist() == pytest.approx([255 - 104, 0, 10 - 128], abs=1e-3)


def test_inception_inputs_are_between_minus_one_and_one() -> None:
    pixels = torch.tensor([[0, 255]], dtype=torch.uint8).view(1, 1, 1, 2)
    found = Normalise(INCEPTION, torch.device("cpu"))(pixels)
    assert found.shape == (1, 3, 1, 2)
    assert found[0, 2].flatten().tolist() == pytest.approx([-1, 1])
