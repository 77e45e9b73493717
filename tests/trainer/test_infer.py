"""Infer as real ranks: the same predictions at every number of ranks, in the order of the images,
and latencies.
"""

import csv
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import trainer_ranks
from inception_trainer import models
from inception_trainer.config.training import from_mapping, merge
from inception_trainer.data import open_splits
from inception_trainer.modes import latency
from inception_trainer.train.step import Normalise
from trainer_ranks import TINY

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("small_bninception")]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """What a training of 6 steps has left; 4 classes, 32 pixels."""
    path = tmp_path_factory.mktemp("trained")
    job = merge(TINY, {"epochs": 1, "checkpoint": {"path": str(path), "everySeconds": 0}})
    assert trainer_ranks.run(path, job) == [0]
    return path / "checkpoints" / "final.pt"


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Seven images of several sizes in folders of folders, one broken one, and a file that is no
    image.
    """
    root = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(1)
    (root / "b" / "deep").mkdir(parents=True)
    for name, side in (
        ("a.png", 40),
        ("b/1.jpg", 64),
        ("b/2.JPEG", 33),
        ("b/deep/x.bmp", 32),
        ("c.webp", 50),
    ):
        pixels = random.integers(0, 255, (side, side + 3, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / name)
    Image.fromarray(random.integers(0, 255, (45, 40), dtype=np.uint8)).save(root / "grey.png")
    (root / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    (root / "notes.txt").write_text("not an image")
    return root


NAMES = ["a.png", "b/1.jpg", "b/2.JPEG", "b/deep/x.bmp", "broken.jpg", "c.webp", "grey.png"]


def config(path: Path, weights: Path, **changes) -> dict:
    base = {
        "mode": "Infer",
        "model": {"weights": str(weights)},
        "precision": "FP32",
        "output": {"path": str(path)},
    }
    # Loader processes are test_data's business: from a fork server they could not start.
    return merge({**base, "data": {"workers": 0}}, changes)


def summary(path: Path) -> dict:
    return json.loads((path / "infer" / "summary.json").read_text())


def table(path: Path) -> list[dict[str, str]]:
    with (path / "infer" / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def lines(path: Path) -> list[dict]:
    return [
        json.loads(line) for line in (path / "infer" / "predictions.jsonl").read_text().splitlines()
    ]


@pytest.mark.parametrize("world", [1, 3])
def test_a_folder_of_images(weights, photos, tmp_path, world) -> None:
    job = config(
        tmp_path, weights, inference={"path": str(photos), "topClasses": 2}, batch={"perDevice": 2}
    )
    gang = trainer_ranks.start(tmp_path, job, world)
    assert gang.wait() == [0] * world, gang.output()
    rows = table(tmp_path)
    assert [row["image"] for row in rows] == NAMES
    assert list(rows[0]) == [
        "image",
        "class1",
        "name1",
        "probability1",
        "class2",
        "name2",
        "probability2",
    ]
    broken = rows.pop(4)
    assert set(broken.values()) == {"broken.jpg", ""}
    for row in rows:
        first, second = float(row["probability1"]), float(row["probability2"])
        assert 1 >= first >= second > 0
        assert row["name1"] == f"class-{row['class1']}"
    result = summary(tmp_path)
    assert (result["mode"], result["samples"], result["skippedSamples"], result["weightsStep"]) == (
        "Infer",
        6,
        1,
        6,
    )
    assert result["predictions"] == str(tmp_path / "infer" / "predictions.csv")
    assert gang.progress()["metrics"]["progress"] == 1.0
    assert (
        'trainer_samples_total{phase="infer"} 7.0'
        in (tmp_path / "infer" / "metrics.prom").read_text()
    )
    assert "Classified 6 images, 1 more could not be read" in gang.output()
    assert "imageSize" not in job["data"], "the weights know the size"


def test_predictions_are_those_of_a_plain_loop(weights, tmp_path) -> None:
    """The validation images of the data, whose labels are known, on two ranks with uneven
    shares.
    """
    job = config(
        tmp_path, weights, inference={"format": "JSONL", "topClasses": 9}, data=TINY["data"]
    )
    job["batch"] = {"perDevice": 5}
    assert trainer_ranks.run(tmp_path, job, 2) == [0, 0]
    saved = torch.load(weights, weights_only=True)
    network = models.create("bninception", 4).eval()
    network.load_state_dict(saved["model"])
    splits = open_splits(from_mapping(TINY))
    batch = splits.val.batch(np.arange(len(splits.val)), None)
    with torch.no_grad():
        wanted = network(
            Normalise(splits.normalization, torch.device("cpu"))(batch.images)
        ).softmax(1)
    rows = lines(tmp_path)
    assert [row["image"] for row in rows] == [f"val/{i}" for i in range(12)]
    assert [row["label"] for row in rows] == [f"class-{label}" for label in batch.labels.tolist()]
    for row, expected in zip(rows, wanted, strict=True):
        assert len(row["predictions"]) == 4, "no more classes than the network knows"
        assert sum(one["probability"] for one in row["predictions"]) == pytest.approx(1, abs=1e-5)
        for one in row["predictions"]:
            assert one["probability"] == pytest.approx(expected[one["class"]].item(), abs=2e-5)


def test_one_file_with_names_of_ones_own(weights, photos, tmp_path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("tench, Tinca tinca\n\ngoldfish\nshark\nray\n")
    job = config(
        tmp_path, weights, inference={"path": str(photos / "b" / "1.jpg"), "classNames": str(names)}
    )
    assert trainer_ranks.run(tmp_path, job) == [0]
    (row,) = table(tmp_path)
    assert row["image"] == "1.jpg"
    assert {row[f"name{i}"] for i in range(1, 5)} == {
        "tench, Tinca tinca",
        "goldfish",
        "shark",
        "ray",
    }
    names.write_text('["a", "b", "c", "d"]')
    job["inference"]["format"] = "JSONL"
    assert trainer_ranks.run(tmp_path, job) == [0]
    assert {one["name"] for one in lines(tmp_path)[0]["predictions"]} == {"a", "b", "c", "d"}


@pytest.mark.parametrize("precision", ["BF16", "FP16"])
def test_other_precisions_agree_with_fp32(weights, tmp_path, precision) -> None:
    found = []
    for kind in ("FP32", precision):
        job = config(
            tmp_path / kind,
            weights,
            inference={"format": "JSONL"},
            data=TINY["data"],
            precision=kind,
        )
        assert trainer_ranks.run(tmp_path / kind, job) == [0]
        assert summary(tmp_path / kind)["precision"] == kind
        found.append(
            [
                {p["class"]: p["probability"] for p in row["predictions"]}
                for row in lines(tmp_path / kind)
            ]
        )
    assert found[0] != found[1], "the precision must make a difference"
    for one, other in zip(*found, strict=True):
        assert other == pytest.approx(one, abs=0.03)


@pytest.mark.parametrize("world", [1, 2])
def test_latencies_by_batch_size_without_weights_or_images(tmp_path, world) -> None:
    job = {
        "mode": "Infer",
        "model": {"name": "resnet50"},
        "data": {"imageSize": 32, "numClasses": 10},
        "inference": {"format": "None", "batchSizes": [1, 3]},
        "benchmark": {"warmupSteps": 1, "steps": 4},
        "output": {"path": str(tmp_path)},
    }
    gang = trainer_ranks.start(tmp_path, job, world)
    assert gang.wait() == [0] * world, gang.output()
    result = summary(tmp_path)
    assert [one["batch"] for one in result["latencies"]] == [1, 3]
    for one in result["latencies"]:
        shares = [one[f"{name}Seconds"] for name in ("p50", "p90", "p95", "p99", "max")]
        assert shares == sorted(shares)
        assert one["imagesPerSecond"] == pytest.approx(one["batch"] / one["meanSeconds"], rel=1e-3)
    assert (result["weights"], gang.progress()["step"], result["steps"]) == (None, 10, 10)
    assert not list((tmp_path / "infer").glob("predictions*"))
    assert "batch 3: " in gang.output()


def test_percentiles_are_interpolated() -> None:
    result = latency.figures(2, [float(i) for i in range(101)])
    assert (
        result["p50Seconds"],
        result["p90Seconds"],
        result["p99Seconds"],
        result["maxSeconds"],
    ) == (50, 90, 99, 100)
    assert (result["meanSeconds"], result["imagesPerSecond"]) == (50, 0.04)
    assert latency.figures(1, [1.0, 2.0])["p50Seconds"] == 1.5


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"inference": {"path": "/nowhere"}}, 66, "inference.path: no images"),
        ({"inference": {"path": "EMPTY"}}, 66, "an empty folder"),
        (
            {"inference": {"path": "PHOTOS", "classNames": "/nowhere/names"}},
            66,
            "inference.classNames: /nowhere/names",
        ),
        (
            {"inference": {"path": "PHOTOS", "classNames": "PHOTOS/notes.txt"}},
            65,
            "names 1 classes",
        ),
        ({"inference": {"path": "PHOTOS", "classNames": "PHOTOS/a.png"}}, 65, "no text"),
        (
            {"inference": {"path": "PHOTOS"}, "data": {"maxCorrupt": 0}},
            65,
            "more than 0 images cannot be read",
        ),
        (
            {"inference": {"path": "PHOTOS"}, "model": {"name": "resnet50"}},
            78,
            "set model.name to it",
        ),
        ({"data": {"kind": "Digits"}}, 78, "knows 4 classes, the data has 10"),
        ({"inference": {"path": "PHOTOS"}, "output": {"path": "PHOTOS/a.png"}}, 66, "output.path"),
    ],
    ids=["gone", "empty", "names", "count", "binary", "corrupt", "model", "classes", "output"],
)
def test_what_is_refused(weights, photos, tmp_path, change, code, words) -> None:
    (tmp_path / "empty").mkdir()
    text = (
        json.dumps(change).replace("PHOTOS", str(photos)).replace("EMPTY", str(tmp_path / "empty"))
    )
    gang = trainer_ranks.start(tmp_path, merge(config(tmp_path, weights), json.loads(text)))
    assert gang.wait() == [code], gang.output()
    assert words in json.loads((tmp_path / "error-0.json").read_text())["message"]["message"]
    assert not list(tmp_path.rglob("predictions*"))
    assert not list(tmp_path.rglob(".predictions*"))


def test_stops_on_request_and_leaves_no_half_file(weights, tmp_path) -> None:
    job = config(
        tmp_path, weights, data={**TINY["data"], "samples": 40_000}, batch={"perDevice": 2}
    )
    gang = trainer_ranks.start(tmp_path, job, 2)
    gang.until(lambda: gang.progress()["step"] >= 1)
    gang.signal(signal.SIGTERM)
    assert gang.wait() == [75, 75], gang.output()
    assert not list(tmp_path.rglob("*predictions*"))
