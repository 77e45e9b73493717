"""Colour jitter, RandAugment, TrivialAugment and erasing: known values, bounds, and nothing but
(seed, epoch, index) decides.
"""

import colorsys
import dataclasses
import logging
from contextlib import closing

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, autoaugment

from inception_trainer.config.training import from_mapping
from inception_trainer.data import Batch, open_splits
from inception_trainer.data import autoaugment as ours
from inception_trainer.data.augment import Augment, erased_rectangle, finish, jitter_colors
from inception_trainer.data.base import UNREADABLE
from inception_trainer.data.encoded import GREY
from inception_trainer.data.randaugment import CHANGES, DRAWS, randaugment
from inception_trainer.data.trivialaugment import BINS, trivial_augment
from inception_trainer.data.trivialaugment import CHANGES as TRIVIAL_CHANGES
from inception_trainer.log import logger
from inception_trainer.train import device_augment
from inception_trainer.train.device_augment import defer_to_device
from shard_files import noise_folder

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
    assert torch.equal(jitter_colors(images(), torch.ones(8, 3)), images())


def test_jitter_by_hand() -> None:
    pixel = (
        torch.tensor([100, 50, 200], dtype=torch.uint8)
        .view(1, 3, 1, 1)
        .expand(2, 3, 2, 2)
        .contiguous()
    )
    grey = 0.299 * 100 + 0.587 * 50 + 0.114 * 200
    brighter, paler = jitter_colors(pixel, torch.tensor([[1.2, 1, 1], [1, 1, 0.5]]))[
        :, :, 0, 0
    ].tolist()
    assert brighter == [120, 60, 240]
    assert paler == [round(grey + (value - grey) / 2) for value in (100, 50, 200)]
    # One colour everywhere: contrast moves it away from the mean grey.
    (stronger,) = jitter_colors(pixel[:1], torch.tensor([[1, 1.2, 1]]))[:, :, 0, 0].tolist()
    assert stronger == [round(grey + 1.2 * (value - grey)) for value in (100, 50, 200)]


def test_jitter_is_clamped_and_keeps_hues() -> None:
    bright = torch.full((1, 3, 2, 2), 250, dtype=torch.uint8)
    assert jitter_colors(bright, torch.tensor([[1.4, 1, 1]])).unique().tolist() == [255]
    orange = torch.tensor([160, 80, 40], dtype=torch.uint8).view(1, 3, 1, 1)
    changed_colour = jitter_colors(orange, torch.tensor([[1.1, 0.9, 0.8]]))[0, :, 0, 0]
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


DEFERRED = {
    "jitter": KINDS["jitter"],
    "jitter and erasing": {**KINDS["jitter"], "randomErasing": "0.5"},
}


def deferring(before: Augment) -> Augment:
    return dataclasses.replace(before, defers=True)


@pytest.mark.parametrize("kind", DEFERRED)
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_left_to_the_device_makes_the_loaders_images(kind, channels) -> None:
    by_loader = augment(**DEFERRED[kind])
    before, indices = images(40, channels), np.arange(40) * 3
    expected = by_loader(before, indices, 2)
    later = deferring(by_loader)
    assert torch.equal(later(before, indices, 2), before)
    pending = later.pending(before, indices, 2, torch.ones(40, dtype=torch.bool))
    assert torch.equal(finish(before, pending), expected)
    assert torch.equal(before, images(40, channels))
    # However the samples are spread over batches, and so over ranks and steps.
    for part in (slice(0, 1), slice(1, 16), slice(16, 40)):
        some = before[part]
        pending = later.pending(some, indices[part], 2, torch.ones(len(some), dtype=torch.bool))
        assert torch.equal(finish(some, pending), expected[part])
    nothing = torch.zeros(40, dtype=torch.bool)
    untouched = later.pending(before, indices, 2, nothing)
    assert len(untouched.erased) == 0
    assert torch.equal(finish(before, untouched), before)


def test_loader_workers_hand_over_what_is_left_to_the_device(tmp_path) -> None:
    """Whatever their number; an image that cannot be read stays grey."""
    noise_folder(tmp_path)
    broken = tmp_path / "train" / "class-1" / "5.png"
    broken.write_bytes(broken.read_bytes()[:200])
    order = [np.array([5, 0, 6]), np.array([7, 1]), np.array([2, 4, 3])]
    found = {}
    for workers, defers in ((0, False), (0, True), (2, False), (2, True)):
        data = {"kind": "ImageFolder", "path": str(tmp_path), "imageSize": 32, "workers": workers}
        config = {"data": data, "augmentation": DEFERRED["jitter and erasing"]}
        splits = open_splits(from_mapping(config))
        splits.train.augment = dataclasses.replace(splits.train.augment, defers=defers)
        with closing(splits), splits.train.stream(order, 1) as stream:
            batches = list(stream)
        assert [batch.pending is not None for batch in batches] == [defers] * 3
        found[workers, defers] = [finish(batch.images, batch.pending) for batch in batches]
        unreadable = torch.cat([batch.labels for batch in batches]) == UNREADABLE
        assert unreadable.sum() == 1
        assert torch.cat(found[workers, defers])[unreadable].unique().tolist() == [GREY]
        assert splits.val.batch(np.arange(2), None).pending is None
    for images_of in found.values():
        assert all(map(torch.equal, images_of, found[0, False]))


def test_a_batch_is_put_together_again_from_its_tensors() -> None:
    labels = torch.arange(4)
    assert Batch.of(*Batch(images(4), labels).tensors()).pending is None
    later = deferring(augment(**DEFERRED["jitter and erasing"]))
    pending = later.pending(images(4), np.arange(4), 0, torch.ones(4, dtype=torch.bool))
    again = Batch.of(*Batch(images(4), labels, pending).tensors())
    assert all(map(torch.equal, again.pending, pending))


class Data:
    """A split that has no more than its augmentation."""

    def __init__(self, augmentation: dict) -> None:
        config = from_mapping({"data": {"kind": "Digits"}, "augmentation": augmentation})
        self.augment = Augment.of(config.augmentation, 0)


META = torch.device("meta")
"""It computes nothing, so it stands for a device that is not a CPU and for one that cannot."""


@pytest.mark.parametrize(
    ("augmentation", "kind", "device", "works", "words"),
    [
        pytest.param(
            DEFERRED["jitter"], "ImageFolder", META, True, "jitter is done on the device", id="yes"
        ),
        pytest.param(
            DEFERRED["jitter and erasing"],
            "WebDataset",
            META,
            True,
            "colour jitter and random erasing are done on the device",
            id="both",
        ),
        pytest.param(
            DEFERRED["jitter"],
            "ImageList",
            META,
            False,
            "by the loader workers, as meta cannot: NotImplementedError",
            id="fails",
        ),
        pytest.param(
            {**KINDS["jitter"], **KINDS["changes"]},
            "ImageFolder",
            META,
            True,
            "by the loader workers: RandAugment",
            id="changes after it",
        ),
        pytest.param(DEFERRED["jitter"], "ImageFolder", torch.device("cpu"), True, "", id="cpu"),
        pytest.param(DEFERRED["jitter"], "Cifar10", META, True, "", id="in memory"),
        pytest.param(KINDS["erasing"], "ImageFolder", META, True, "", id="erasing alone"),
        pytest.param({}, "ImageFolder", META, True, "", id="nothing"),
    ],
)
def test_who_augments_is_decided_and_told_at_the_start(
    monkeypatch, caplog, augmentation, kind, device, works, words
) -> None:
    logger.propagate = True
    caplog.set_level(logging.INFO, logger.name)
    if works:
        monkeypatch.setattr(device_augment, "_problem", lambda *_: None)
    data = Data(augmentation)
    before = data.augment
    config = from_mapping({"data": {"kind": kind, "path": "/data"}, "augmentation": augmentation})
    defer_to_device(data, config, device)
    assert (data.augment != before) == ("on the device, not" in caplog.text)
    assert len(caplog.messages) == bool(words)
    assert words in caplog.text


def test_a_device_is_tried_before_it_is_trusted(monkeypatch) -> None:
    by_loader = augment(**DEFERRED["jitter and erasing"])
    cpu = torch.device("cpu")
    assert device_augment._problem(by_loader, deferring(by_loader), cpu) is None
    monkeypatch.setattr(device_augment, "finish", lambda images, _pending: images)
    problem = device_augment._problem(by_loader, deferring(by_loader), cpu)
    assert "makes images that differ" in problem
