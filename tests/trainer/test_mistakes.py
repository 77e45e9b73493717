"""The worst mistakes of mode Evaluate: the right ones, in their order, with their pictures, on any
number of ranks and for every kind of data.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import trainer_ranks
from inception_trainer import models
from inception_trainer.comm import Comm
from inception_trainer.config.training import from_mapping, merge
from inception_trainer.data import open_splits
from inception_trainer.data.class_names import readable
from inception_trainer.modes import mistakes
from inception_trainer.modes.mistakes import SIDE, Mistake, Worst, write
from inception_trainer.train.evaluation import Seen
from shard_files import same_data

ALONE = Comm(0, 1, "gloo")
CLASSES = 4
LABELS = ("a", "b", "c", "d")


def batches(count: int = 6, rows: int = 20, side: int = 8) -> list[Seen]:
    """Images whose every pixel is the number of the image."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for number in range(count):
        labels = torch.randint(0, CLASSES, (rows,), generator=generator)
        logits = 2 * torch.randn(rows, CLASSES, generator=generator)
        labels[:2] = -100
        indices = np.arange(number * rows, (number + 1) * rows)
        pixels = torch.from_numpy(indices).to(torch.uint8)[:, None, None, None]
        made.append(Seen(indices, pixels.expand(-1, 1, side, side), logits, labels))
    return made


def expected(most: int) -> list[tuple[int, float]]:
    """Image and loss of the worst mistakes, by sorting all of them."""
    found = []
    for seen in batches():
        for index, logits, label in zip(seen.indices, seen.logits, seen.labels, strict=True):
            if label >= 0 and logits.argmax() != label:
                found.append((int(index), -float(logits.log_softmax(0)[label])))
    return sorted(found, key=lambda pair: -pair[1])[:most]


def test_the_worst_of_all_batches_are_kept_with_their_pictures() -> None:
    worst = Worst(most=7)
    for seen in batches():
        worst.add(seen)
    found = worst.result(ALONE)
    assert [each.image for each in found] == [image for image, _ in expected(7)]
    assert [each.loss for each in found] == pytest.approx([loss for _, loss in expected(7)])
    everything = batches()
    for each in found:
        seen = everything[each.image // 20]
        logits = seen.logits[each.image % 20]
        assert each.label == seen.labels[each.image % 20]
        assert each.predicted == logits.argmax()
        assert each.confidence == pytest.approx(float(logits.softmax(0).max()))
        assert each.probability == pytest.approx(float(logits.softmax(0)[each.label]), abs=1e-6)
        assert each.pixels.shape == (3, 8, 8)
        assert each.pixels.eq(each.image).all()


def test_few_mistakes_leave_no_gaps() -> None:
    worst = Worst(most=500)
    for seen in batches():
        worst.add(seen)
    found = worst.result(ALONE)
    assert [each.image for each in found] == [image for image, _ in expected(500)]
    assert 50 < len(found) < 120


def test_equal_losses_are_in_the_order_of_the_images() -> None:
    logits = torch.tensor([[0.0, 9.0]] * 6)
    worst = Worst(most=3)
    for indices in (np.array([5, 3, 4]), np.array([2, 0, 1])):
        images = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
        worst.add(Seen(indices, images, logits[:3], torch.zeros(3, dtype=torch.int64)))
    assert [each.image for each in worst.result(ALONE)] == [0, 1, 2]


def test_an_infinite_loss_comes_first() -> None:
    logits = torch.tensor([[0.0, 1.0], [-float("inf"), 1.0], [0.0, 2.0]])
    images = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    worst = Worst()
    worst.add(Seen(np.arange(3), images, logits, torch.zeros(3, dtype=torch.int64)))
    assert [each.image for each in worst.result(ALONE)] == [1, 2, 0]


def test_large_images_are_kept_small() -> None:
    images = torch.full((1, 3, 400, 800), 7, dtype=torch.uint8)
    worst = Worst()
    worst.add(Seen(np.arange(1), images, torch.tensor([[0.0, 1.0]]), torch.tensor([0])))
    [found] = worst.result(ALONE)
    assert found.pixels.shape == (3, SIDE // 2, SIDE)
    assert found.pixels.eq(7).all()


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_table_and_picture(tmp_path: Path) -> None:
    pixels = torch.zeros(3, 8, 8, dtype=torch.uint8)
    found = [Mistake(n, 0, 1, 0.75, 0.125, 2.5, pixels) for n in (4, 2, 7, 1, 0, 3)]
    write(found, LABELS, "photos/$a_{}.jpg".format, tmp_path / "new")
    table = rows(tmp_path / "new" / "mistakes.csv")
    assert [row["image"] for row in table] == [f"photos/$a_{n}.jpg" for n in (4, 2, 7, 1, 0, 3)]
    assert table[0] == {
        "image": "photos/$a_4.jpg",
        "class": "0",
        "name": "a",
        "predicted": "1",
        "predictedName": "b",
        "confidence": "0.750000",
        "probability": "0.125000",
        "loss": "2.500000",
    }
    with Image.open(tmp_path / "new" / "mistakes.png") as picture:
        two_lines = picture.height
    write(found[:5], LABELS, str, tmp_path / "new")
    with Image.open(tmp_path / "new" / "mistakes.png") as picture:
        assert picture.height < two_lines
    # Without a mistake no picture of an earlier run is left.
    write([], LABELS, str, tmp_path / "new")
    assert rows(tmp_path / "new" / "mistakes.csv") == []
    assert not (tmp_path / "new" / "mistakes.png").exists()


def test_names_that_are_no_text_are_shown_all_the_same(tmp_path: Path) -> None:
    worst = Worst(most=2)
    for seen in batches():
        worst.add(seen)
    write(worst.result(ALONE), ("gr\udcfcn", "b", "c", "d"), "gr\udcfcn/{}.png".format, tmp_path)
    assert rows(tmp_path / "mistakes.csv")[0]["image"].startswith("gr\\udcfcn/")
    assert (tmp_path / "mistakes.png").exists()


def test_a_folder_that_takes_no_file_is_a_warning(tmp_path: Path, caplog) -> None:
    (tmp_path / "file").write_text("")
    write([], LABELS, str, tmp_path / "file" / "below")
    assert "no gallery of mistakes" in caplog.text


def test_long_names_are_cut_where_they_are_alike() -> None:
    assert mistakes._short("x" * 30) == "x" * 25 + "…"
    assert mistakes._short("/data/imagenet/val/ILSVRC_12.JPEG", end=True).endswith("VRC_12.JPEG")
    assert mistakes._short("short") == "short"


KINDS: dict[str, dict[str, Any]] = {
    "ImageFolder": {"kind": "ImageFolder", "path": "folders"},
    "ImageList": {"kind": "ImageList", "path": "lists"},
    "WebDataset": {"kind": "WebDataset", "path": "shards"},
    "Synthetic": {"kind": "Synthetic", "numClasses": 4, "samples": 12},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root: Path = tmp_path_factory.mktemp("data")
    folders, _ = same_data(root)
    for split in ("train", "val"):
        lines = [f"{path} {path.parent.name[-1]}" for path in sorted(folders.glob(f"{split}/*/*"))]
        (root / "lists").mkdir(exist_ok=True)
        (root / "lists" / f"{split}.txt").write_text("\n".join(lines))
    return root


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("copies_of_indices")
def test_validation_images_of_every_kind_have_names(data: Path, kind: str) -> None:
    section = dict(KINDS[kind])
    if "path" in section:
        section["path"] = str(data / section["path"])
    config = {"mode": "Evaluate", "data": section | {"imageSize": 32, "workers": 0}}
    whole = open_splits(from_mapping(config)).val
    few = open_splits(from_mapping(merge(config, {"evaluation": {"maxSamples": 2}}))).val
    last = len(whole) // 2
    assert few.name(1) == whole.name(last)
    if kind == "Synthetic":
        assert whole.name(last) == f"val/{last}"
    else:
        assert str(data) in whole.name(last)


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("small_bninception")
def test_one_rank_and_two_leave_the_same_gallery(tmp_path: Path) -> None:
    torch.manual_seed(1)
    weights = tmp_path / "weights.pth"
    torch.save(models.create("bninception", 4).state_dict(), weights)
    written = []
    for world in (1, 2):
        folder = trainer_ranks.evaluated(tmp_path, weights, world)
        summary = json.loads((folder / "summary.json").read_text())
        table = rows(folder / "mistakes.csv")
        wrong = round((1 - summary["accuracyTop1"]) * summary["samples"])
        assert len(table) == min(wrong, mistakes.MOST) > 1
        losses = [float(row["loss"]) for row in table]
        assert losses == sorted(losses, reverse=True)
        with Image.open(folder / "mistakes.png") as picture:
            written.append(([row["image"] for row in table], np.asarray(picture)))
    assert written[0][0] == written[1][0]
    assert np.array_equal(written[0][1], written[1][1])


def wordnet_ids() -> tuple[str, ...]:
    """Those of ImageNet's thousand classes, as timm lists them."""
    from importlib.resources import files

    text = (files("timm") / "data" / "_info" / "imagenet_synsets.txt").read_text()
    return tuple(text.split())


def test_classes_of_imagenet_have_readable_names() -> None:
    names = readable(wordnet_ids())
    assert len(set(names)) == 1000
    assert (names[0], names[1], names[999]) == ("tench", "goldfish", "toilet tissue")
    assert (names[207], names[281]) == ("golden retriever", "tabby")


def test_other_names_stay_as_they_are() -> None:
    shifted = ("n00000001", *wordnet_ids()[:-1])
    for names in (shifted, wordnet_ids()[:10], tuple(map(str, range(1000))), ()):
        assert readable(names) == names
