"""Colour jitter, RandAugment, TrivialAugment and erasing: known values, bounds, and nothing but
(seed, epoch, index) decides.
"""

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, autoaugment

from inception_trainer.config.training import from_mapping
from inception_trainer.data import autoaugment as ours
from inception_trainer.data import open_splits
from inception_trainer.data.augment import Augment, erased_rectangle, jitter_colors
from inception_trainer.data.randaugment import CHANGES, DRAWS, randaugment
from inception_trainer.data.trivialaugment import BINS, trivial_augment
from inception_trainer.data.trivialaugment import CHANGES as TRIVIAL_CHANGES

KINDS = {
    "jitter": {"colorJitter": {"brightness": "0.4", "contrast": "0.4", "saturation": "0.4"}},
    "changes": {"randAugment": {"magnitude": 9}},
    "erasing": {"randomErasing": "1"},
    "one change": {"trivialAugment": True},
    "policy": {"autoAugment": "ImageNet"},
}


def augment(seed: int = 0, **augmentation) -> Augment:
    config = from_mapping({"data": {"kind": "Digits"}, "augmentation": augmentation, "seed": seed})
    found = Augment.of(config.augmentation, config.seed)
    assert found is not None
    return found


def images(count: int = 8, channels: int = 3, side: int = 24) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, channels, side, side), generator=torch.Generator().manual_seed(1)
    ).byte()


def test_nothing_is_done_unless_it_is_asked_for() -> None:
    none = from_mapping({"data": {"kind": "Digits"}, "augmentation": {"mixup": "0.2"}})
    assert Augment.of(none.augmentation, 0) is None
    assert open_splits(none).train.augment is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_is_a_function_of_seed_epoch_and_index(kind, channels) -> None:
    act, before = augment(**KINDS[kind]), images(channels=channels)
    indices = np.arange(8) * 7
    together = act(before, indices, 3)
    assert (together.dtype, together.shape) == (torch.uint8, before.shape)
    alone = torch.cat([act(before[i : i + 1], indices[i : i + 1], 3) for i in range(8)])
    assert torch.equal(together, alone)
    assert not torch.equal(together, before)
    assert not torch.equal(together, act(before, indices, 4))
    assert not torch.equal(together, augment(seed=1, **KINDS[kind])(before, indices, 3))
    assert torch.equal(before, images(channels=channels)), "the data set's own images were changed"


def test_jitter_without_change_changes_nothing() -> None:
    assert torch.equal(jitter_colors(images(), np.ones((8, 3))), images())


def test_jitter_by_hand() -> None:
    pixel = (
        torch.tensor([100, 50, 200], dtype=torch.uint8)
        .view(1, 3, 1, 1)
        .expand(2, 3, 2, 2)
        .contiguous()
    )
    grey = 0.299 * 100 + 0.587 * 50 + 0.114 * 200
    brighter, paler = jitter_colors(pixel, np.array([[1.2, 1, 1], [1, 1, 0.5]]))[
        :, :, 0, 0
    ].tolist()
    assert brighter == [120, 60, 240]
    assert paler == [round(grey + (value - grey) / 2) for value in (100, 50, 200)]
    # One colour everywhere: contrast moves it away from the mean grey.
    (stronger,) = jitter_colors(pixel[:1], np.array([[1, 1.2, 1]]))[:, :, 0, 0].tolist()
    assert stronger == [round(grey + 1.2 * (value - grey)) for value in (100, 50, 200)]


def test_jitter_is_clamped_and_keeps_hues() -> None:
    bright = torch.full((1, 3, 2, 2), 250, dtype=torch.uint8)
    assert jitter_colors(bright, np.array([[1.4, 1, 1]])).unique().tolist() == [255]
    orange = torch.tensor([160, 80, 40], dtype=torch.uint8).view(1, 3, 1, 1)
    changed_colour = jitter_colors(orange, np.array([[1.1, 0.9, 0.8]]))[0, :, 0, 0]
    hues = [
        colorsys.rgb_to_hsv(*(value / 255 for value in colour.tolist()))[0]
        for colour in (orange[0, :, 0, 0], changed_colour)
    ]
    assert hues[0] == pytest.approx(hues[1], abs=0.01)


def test_rectangles_stay_inside_and_have_their_share() -> None:
    generator = np.random.default_rng(0)
    shares = []
    for _ in range(300):
        top, left, height, width = erased_rectangle(40, 60, generator.random(4).tolist())
        assert 0 <= top <= top + height <= 40
        assert 0 <= left <= left + width <= 60
        shares.append(height * width / 2400)
    assert min(shares) < 0.05
    assert max(shares) == pytest.approx(1 / 3, abs=0.05)


def test_erasing_takes_its_share_of_the_images() -> None:
    before, indices = images(200), np.arange(200)
    erased = augment(randomErasing="0.3")(before, indices, 0)
    touched = (erased != before).flatten(1).any(1)
    assert touched.float().mean().item() == pytest.approx(0.3, abs=0.1)
    assert (erased[touched] != before[touched]).any(1).flatten(1).float().mean() < 0.4


def ramp() -> torch.Tensor:
    """Red grows to the right, green downwards; one spot for what only edges show."""
    row = torch.arange(24, dtype=torch.uint8) * 10
    image = torch.stack(
        [
            row.expand(24, 24),
            row[:, None].expand(24, 24),
            torch.full((24, 24), 90, dtype=torch.uint8),
        ]
    )
    image[:, 5:8, 5:8] = 200
    return image


@pytest.mark.parametrize("which", range(len(CHANGES)))
def test_every_change_of_randaugment_changes_the_image(which) -> None:
    position = (which + 0.5) / len(CHANGES)
    once = [0.9, position, 0.2, 0.5, 0.25, 0.1, 0.5, 0.5, 0.5, 0.5]
    assert len(once) == DRAWS
    strong, weak = (randaugment(ramp(), once, magnitude, 0.0) for magnitude in (9, 5))
    assert strong.shape == ramp().shape
    assert not torch.equal(strong, ramp())
    graded = which > 2
    assert torch.equal(strong, weak) != graded


def test_changes_are_skipped_at_even_odds() -> None:
    never = [0.4, 0.5, 0.5, 0.5, 0.5] * 2
    assert torch.equal(randaugment(ramp(), never, 9, 0.5), ramp())


def test_sign_turns_the_other_way() -> None:
    shift = 13.5 / len(CHANGES)
    left, right = (
        randaugment(ramp(), [0.9, shift, side, 0.5, 0.25, 0, 0, 0, 0, 0], 5, 0.0)
        for side in (0.2, 0.8)
    )
    # 5 tenths of 45 % of 24 pixels are 5.4; red grows by 10 with each.
    middle = ramp()[0, 12, 12].item()
    assert (left[0, 12, 12].item(), right[0, 12, 12].item()) == pytest.approx(
        (middle + 54, middle - 54), abs=1
    )


@pytest.mark.parametrize("kind", ["Digits", "Synthetic"])
def test_training_images_are_augmented_and_others_are_not(kind) -> None:
    plain, loud = (
        open_splits(
            from_mapping({"data": {"kind": kind, "imageSize": 32}, "augmentation": augmentation})
        )
        for augmentation in ({}, KINDS["erasing"])
    )
    indices = np.arange(4)
    assert not torch.equal(
        plain.train.batch(indices, 0).images, loud.train.batch(indices, 0).images
    )
    assert torch.equal(
        plain.train.batch(indices, None).images, loud.train.batch(indices, None).images
    )
    assert torch.equal(plain.val.batch(indices, None).images, loud.val.batch(indices, None).images)


PUBLISHED = autoaugment.TrivialAugmentWide()._augmentation_space(BINS)


@pytest.mark.parametrize(
    ("which", "name"), list(enumerate(PUBLISHED)), ids=[name.lower() for name in PUBLISHED]
)
def test_every_change_of_trivialaugment_is_torchvisions(which, name) -> None:
    assert len(PUBLISHED) == len(TRIVIAL_CHANGES)
    picture = Image.fromarray(images(1)[0].permute(1, 2, 0).numpy())
    magnitudes, has_sign = PUBLISHED[name]
    for level in (0, 1, 7, 15, 30):
        for side, sign in ((0.2, -1.0), (0.8, 1.0)):
            found = trivial_augment(
                images(1)[0],
                [(which + 0.5) / len(TRIVIAL_CHANGES), (level + 0.5) / BINS, side],
            )
            magnitude = float(magnitudes[level]) if magnitudes.ndim else 0.0
            expected = autoaugment._apply_op(
                picture,
                name,
                magnitude * (sign if has_sign else 1.0),
                InterpolationMode.NEAREST,
                None,
            )
            difference = torch.from_numpy(np.array(expected)).permute(2, 0, 1).ne(found)
            assert not difference.any(), (level, side)


def test_trivialaugment_draws_every_change_and_magnitude(monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(
        "inception_trainer.data.trivialaugment.CHANGES",
        [
            lambda picture, magnitude, sign, which=which: (
                seen.append((which, magnitude, sign)) or picture
            )
            for which in range(14)
        ],
    )
    augment(trivialAugment=True)(images(2000, side=2), np.arange(2000), 0)
    changes, magnitudes, signs = (set(column) for column in zip(*seen, strict=True))
    assert (changes, magnitudes, signs) == (set(range(14)), set(range(31)), {-1.0, 1.0})


THEIRS = {
    "ImageNet": autoaugment.AutoAugmentPolicy.IMAGENET,
    "Cifar10": autoaugment.AutoAugmentPolicy.CIFAR10,
}
BEFORE = 1e-9
"""By so much a draw is below a probability."""


@pytest.mark.parametrize("name", THEIRS)
def test_every_pair_of_autoaugment_is_torchvisions(name, monkeypatch) -> None:
    """Both changes, either and none of each pair, and both signs, by the numbers that are drawn."""
    theirs = autoaugment.AutoAugment(THEIRS[name])
    assert len(theirs.policies) == len(ours.POLICIES[name]) == 25
    image = images(1)[0]
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    for which, pair in enumerate(ours.POLICIES[name]):
        odds = [step.probability for step in pair]
        for sides, lack in (((0.2, 0.8), (0, 0)), ((0.8, 0.2), (0, 1)), ((0.9, 0.9), (1, 0))):
            chances = [
                min(1.0 - BEFORE, odd + 0.01) if is_lacking else odd - BEFORE
                for odd, is_lacking in zip(odds, lack, strict=True)
            ]
            drawn = (
                which,
                torch.tensor(chances, dtype=torch.float64),
                [int(side >= 0.5) for side in sides],
            )
            monkeypatch.setattr(theirs, "get_params", lambda _count, drawn=drawn: drawn)
            expected = torch.from_numpy(np.array(theirs(picture))).permute(2, 0, 1)
            found = ours.auto_augment(image, [(which + 0.5) / 25, *chances, *sides], name)
            assert found.equal(expected), (which, sides, lack)


def test_autoaugment_draws_every_pair_as_often(monkeypatch) -> None:
    """And the two changes of a pair as probable as they are, both ways."""
    steps = tuple((ours.Step(f"{at} 0", 0.25, 0), ours.Step(f"{at} 1", 1.0, 0)) for at in range(25))
    seen = []
    monkeypatch.setitem(ours.POLICIES, "ImageNet", steps)
    changes = {
        step.name: lambda picture, _level, sign, name=step.name: (
            seen.append((name, sign)) or picture
        )
        for pair in steps
        for step in pair
    }
    monkeypatch.setattr(ours, "CHANGES", changes)
    augment(autoAugment="ImageNet")(images(2500, side=2), np.arange(2500), 0)
    firsts = [entry for entry in seen if entry[0].endswith(" 0")]
    assert len(firsts) == pytest.approx(2500 / 4, rel=0.12)
    assert len(seen) - len(firsts) == 2500
    counts = {name: sum(1 for other, _ in seen if other == name) for name in changes}
    assert all(60 < counts[f"{at} 1"] < 145 for at in range(25))
    assert sum(sign for _, sign in seen) == pytest.approx(0, abs=220)
