"""What evaluation does to an image travels with the weights, and is used wherever nobody asks for
something else.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import trainer_ranks
from inception_trainer.config import preprocessing
from inception_trainer.config.data import DataConfig
from inception_trainer.config.normalization import IMAGENET, INCEPTION
from inception_trainer.config.training import from_mapping, merge
from inception_trainer.modes import common
from inception_trainer.weights.exported_network import open_exported
from inception_trainer.weights.trained_network import TrainedModel

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("small_bninception")]

OTHER = {"imageSize": 64, "evaluationCropRatio": 1.0, "interpolation": "Bicubic"}
"""None of them is the default."""
FORMATS = {"PT2": "pt2", "ONNX": "onnx", "TorchScript": "torchscript", "Safetensors": "safetensors"}


def test_every_key_of_the_reader_of_images_is_recorded() -> None:
    """A key of ``data`` that changes what evaluation sees must be in the list, or be named here."""
    others = {
        *("kind", "path", "train_shards", "val_shards", "label_key", "num_classes", "samples"),
        *("cache", "max_corrupt", "max_pixels", "workers", "held_out_share", "normalization"),
    }
    keys = {field.name for field in dataclasses.fields(DataConfig)}
    assert set(preprocessing.FIELDS) <= keys
    assert keys - set(preprocessing.FIELDS) <= others


def test_the_user_comes_before_the_weights_and_these_before_defaults() -> None:
    data = DataConfig(image_size=224, interpolation="Nearest")
    of_weights = {"image_size": 64, "interpolation": "Bicubic", "evaluation_crop_ratio": 0.875}
    taken, differences = preprocessing.following(data, of_weights, ("data.imageSize",))
    assert (taken.image_size, taken.interpolation) == (224, "Bicubic")
    assert [str(difference) for difference in differences] == [
        "data.imageSize: 224 as configured, where the weights were evaluated with 64",
        "data.interpolation: Bicubic, with which the weights were evaluated, and not Nearest, "
        "which nobody wrote",
    ]


def test_a_size_that_is_left_to_the_weights_is_no_difference() -> None:
    taken, differences = preprocessing.following(DataConfig(), {"image_size": 64}, ())
    assert (taken.image_size, differences) == (64, [])


def test_only_what_was_written_counts_as_the_users(tmp_path: Path) -> None:
    job = {"recipe": "inceptionv3-imagenet-timm", "data": {"kind": "ImageFolder", "path": "/d"}}
    plain = from_mapping(job)
    assert plain.data.interpolation == "Bicubic"
    assert plain.written == ("recipe", "data.kind", "data.path")
    written = from_mapping(merge(job, {"data": {"interpolation": "Bicubic", "workers": None}}))
    assert set(written.written) - set(plain.written) == {"data.interpolation"}
    assert "written" not in written.as_dict()
    assert from_mapping(plain.as_dict()) == plain


@pytest.mark.parametrize(
    ("data", "chosen", "level"),
    [
        ({}, INCEPTION, None),
        ({"normalization": "Auto"}, INCEPTION, None),
        ({"normalization": "Inception"}, INCEPTION, None),
        ({"normalization": "ImageNet"}, IMAGENET, "WARNING"),
        ({"normalization": "Data"}, IMAGENET, "WARNING"),
    ],
    ids=str,
)
def test_normalization_of_the_weights(
    caplog: pytest.LogCaptureFixture, data: dict[str, Any], chosen: Any, level: str | None
) -> None:
    config = from_mapping({"mode": "Evaluate", "data": {"kind": "Digits", **data}})
    trained = TrainedModel(
        Path("w.pt"), "bninception", 10, normalization=INCEPTION, evaluated_with={"image_size": 32}
    )
    with caplog.at_level("INFO", "inception_trainer"):
        assert common.choose_normalization(config, trained, IMAGENET) == chosen
    assert [record.levelname for record in caplog.records] == ([level] if level else [])


def test_a_recipes_normalization_gives_way_to_that_of_our_weights(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = from_mapping({"mode": "Evaluate", "data": {"kind": "Digits"}})
    # As if a recipe had said so: nobody has written it.
    data = dataclasses.replace(config.data, normalization="ImageNet")
    config = dataclasses.replace(config, data=data)
    ours = TrainedModel(
        Path("w.pt"), "bninception", 10, normalization=INCEPTION, evaluated_with={"image_size": 32}
    )
    with caplog.at_level("INFO", "inception_trainer"):
        assert common.choose_normalization(config, ours, IMAGENET) == INCEPTION
    assert "data.normalization: Inception, with which the weights were evaluated" in caplog.text
    of_others = dataclasses.replace(ours, evaluated_with={})
    assert common.choose_normalization(config, of_others, IMAGENET) == IMAGENET


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, {}),
        ({"preprocessing": {"imageSize": 64}}, {"image_size": 64}),
        (
            {
                "preprocessing": {"imageSize": 64},
                "config": {"data": {"interpolation": "Bicubic", "evaluationCropRatio": 1.0}},
            },
            {"image_size": 64, "evaluation_crop_ratio": 1.0, "interpolation": "Bicubic"},
        ),
    ],
    ids=["nothing", "a file of before", "a checkpoint of before"],
)
def test_earlier_files_say_what_they_know(content: dict[str, Any], said: dict[str, Any]) -> None:
    assert preprocessing.of_file(content) == said


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images whose borders and fine detail matter: other crops and filters see something else."""
    root = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 8)):
        lines = []
        for number in range(count):
            pixels = random.integers(0, 256, (90, 130, 3), dtype=np.uint8)
            pixels[20:-20, 30:-30] = 60 * (number % 4)
            Image.fromarray(pixels).save(root / f"{split}-{number}.png")
            lines.append(f"{split}-{number}.png {number % 4}")
        (root / f"{split}.txt").write_text("\n".join(lines))
    (root / "classes.txt").write_text("ash\nbirch\ncedar\nelm\n")
    return root


def job(pictures: Path, path: Path, **changes: Any) -> dict[str, Any]:
    base = {
        "data": {"kind": "ImageList", "path": str(pictures), "workers": 0},
        "batch": {"global": 8},
        # Far enough from uniform guesses for every pixel to count.
        "epochs": 4,
        # Once: the best checkpoint, which is what others read, is the last one.
        "evaluation": {"everyEpochs": 4},
        "optimizer": {"learningRate": 0.02},
        "schedule": {"name": "Constant"},
        "precision": "FP32",
        "checkpoint": {"path": str(path), "everySeconds": 0},
        "output": {"path": str(path / "output")},
    }
    return merge(base, changes)


@pytest.fixture(scope="module")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained")
    gang = trainer_ranks.start(path, job(pictures, path, data=OTHER))
    assert gang.wait() == [0], gang.output()
    return path


def summary(folder: Path, mode: str = "") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "output" / mode / "summary.json").read_text())
    return content


def test_checkpoint_and_summary_say_how_images_were_evaluated(trained: Path) -> None:
    saved = torch.load(trained / "checkpoints" / "final.pt", weights_only=True)
    orientation = {"exifOrientation": "Ignore"}
    assert saved["preprocessing"] == {**IMAGENET.as_dict(), **OTHER, **orientation}
    assert summary(trained)["preprocessing"] == saved["preprocessing"]
    assert summary(trained)["classNames"] == ["ash", "birch", "cedar", "elm"]


def evaluate(
    pictures: Path, trained: Path, tmp_path: Path, **changes: Any
) -> tuple[dict[str, Any], str]:
    whole = job(pictures, trained, mode="Evaluate", **changes)
    whole["output"] = {"path": str(tmp_path / "output")}
    gang = trainer_ranks.start(tmp_path, whole)
    assert gang.wait() == [0], gang.output()
    return summary(tmp_path, "evaluate"), gang.output()


def test_the_checkpoint_alone_gives_the_loss_of_the_training(
    pictures: Path, trained: Path, tmp_path: Path
) -> None:
    result, output = evaluate(pictures, trained, tmp_path)
    assert result["loss"] == pytest.approx(summary(trained)["loss"], rel=1e-4)
    assert result["preprocessing"] == summary(trained)["preprocessing"]
    assert result["classNames"] == summary(trained)["classNames"]
    for line in (
        "data.imageSize: 64, with which the weights were evaluated, and not 224",
        "data.evaluationCropRatio: 1.0, with which the weights were evaluated, and not 0.875",
        "data.interpolation: Bicubic, with which the weights were evaluated, and not Bilinear",
    ):
        assert output.count(line) == 1, output


def test_who_asks_for_something_else_gets_it_and_a_warning(
    pictures: Path, trained: Path, tmp_path: Path
) -> None:
    data = {"imageSize": 96, "evaluationCropRatio": 0.5, "interpolation": "Nearest"}
    result, output = evaluate(pictures, trained, tmp_path, data=data)
    assert result["loss"] != summary(trained)["loss"]
    assert {key: result["preprocessing"][key] for key in data} == data
    for key, value in data.items():
        line = f"data.{key}: {value} as configured, where the weights were evaluated with"
        assert output.count(line) == 1, output


@pytest.fixture(scope="module")
def exported(pictures: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported")
    whole = job(pictures, trained, mode="Export", export={"formats": list(FORMATS)})
    whole["output"] = {"path": str(path)}
    gang = trainer_ranks.start(path, whole)
    assert gang.wait() == [0], gang.output()
    return path / "export"


@pytest.mark.parametrize("suffix", [*FORMATS.values(), "final"])
def test_files_for_others_bring_it_along(
    pictures: Path, trained: Path, exported: Path, tmp_path: Path, suffix: str
) -> None:
    weights = exported / f"bninception.{suffix}"
    if suffix == "final":
        weights = trained / "checkpoints" / "final.safetensors"
    elif suffix != "safetensors":
        said = open_exported(weights).metadata
        assert said["preprocessing"] == summary(trained)["preprocessing"]
        assert said["classNames"] == summary(trained)["classNames"]
    result, _ = evaluate(pictures, trained, tmp_path, model={"weights": str(weights)})
    assert result["loss"] == pytest.approx(summary(trained)["loss"], rel=1e-3)
    assert result["preprocessing"] == summary(trained)["preprocessing"]


def test_images_are_classified_as_they_were_evaluated(
    pictures: Path, trained: Path, tmp_path: Path
) -> None:
    whole = job(pictures, trained, mode="Infer", inference={"format": "JSONL"})
    whole["output"] = {"path": str(tmp_path / "output")}
    gang = trainer_ranks.start(tmp_path, whole)
    assert gang.wait() == [0], gang.output()
    result = summary(tmp_path, "infer")
    assert result["preprocessing"] == summary(trained)["preprocessing"]
    assert result["classNames"] == summary(trained)["classNames"]
    lines = (tmp_path / "output" / "infer" / "predictions.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    hits = sum(row["predictions"][0]["name"] == row["label"] for row in rows)
    assert hits / len(rows) == summary(trained)["accuracyTop1"]
