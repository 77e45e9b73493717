"""What may change while a training goes on, and what must stay: by rule, and as real ranks that go
on with it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image

import trainer_ranks
from cifar_files import python_layout
from inception_trainer.config import continuation
from inception_trainer.config.continuation import compare, current, fingerprint, saved
from inception_trainer.config.data import DataConfig
from inception_trainer.config.training import from_mapping, merge
from inception_trainer.data import Splits, open_splits
from inception_trainer.data.files import FileList
from inception_trainer.data.identity import fingerprint as data_fingerprint
from inception_trainer.data.sampler import LengthPlan
from shard_files import same_data
from trainer_ranks import TINY

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("copies_of_indices")]

FOLDER = {
    "data": {"kind": "ImageFolder", "path": "/one"},
    "model": {"weights": "/w/a.pth"},
    "epochs": 1,
}
FOUND = {
    continuation.SAMPLES: 100,
    continuation.CLASSES: 10,
    continuation.TRAINING_DATA: "aa",
    continuation.VALIDATION_DATA: "bb",
}


def told(change: dict[str, Any] | None = None, **found: Any) -> dict[str, Any]:
    return current(from_mapping(merge(FOLDER, change or {})), {**FOUND, **found})


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"model": {"name": "resnet50"}}, "model.name"),
        ({"model": {"name": "inception_v3"}}, "model.name"),
        ({"model": {"weights": "/w/b.pth"}}, "model.weights"),
        ({"optimizer": {"name": "RMSProp"}}, "optimizer.name"),
        ({"seed": 1}, "seed"),
        ({"batch": {"global": 128}}, "batch.global"),
        ({"data": {"kind": "ImageList"}}, "data.kind"),
        ({"data": {"numClasses": 20}}, "data.found.classes"),
        ({"data": {"normalization": "Inception"}}, "data.normalization"),
    ],
    ids=str,
)
def test_what_must_stay_is_refused_with_the_reason(change: dict[str, Any], key: str) -> None:
    comparison = compare(told(), told(change))
    assert key in {conflict.key for conflict in comparison.conflicts}
    text = comparison.refusal("/c")
    assert text.startswith("checkpoint.path: /c holds a checkpoint of another configuration (")
    assert f"{key}: " in text
    assert "in the checkpoint, " in text
    assert "undo the change, or use another folder to begin anew" in text
    assert "epochs, rates and schedule, evaluation, workers" in text


@pytest.mark.parametrize(
    "found",
    [
        {continuation.SAMPLES: 101},
        {continuation.CLASSES: 11},
        {continuation.TRAINING_DATA: "cc"},
    ],
    ids=str,
)
def test_other_data_are_refused(found: dict[str, Any]) -> None:
    (conflict,) = compare(told(), told(**found)).conflicts
    assert conflict.key == next(iter(found))


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        ({"epochs": 9}, ["epochs: 1 before, 9 now"]),
        ({"maxSteps": 9}, ["maxSteps: not set before, 9 now"]),
        ({"optimizer": {"learningRate": 0.5}}, ["optimizer.learningRate: 0.1 before, 0.5 now"]),
        ({"optimizer": {"momentum": 0.8}}, ["optimizer.momentum: 0.9 before, 0.8 now"]),
        ({"schedule": {"name": "Constant"}}, ["schedule.name: Cosine before, Constant now"]),
        ({"evaluation": {"maxSamples": 5}}, ["evaluation.maxSamples: not set before, 5 now"]),
        ({"data": {"workers": 7}}, ["data.workers: not set before, 7 now"]),
        ({"batch": {"perDevice": 8}}, ["batch.perDevice: not set before, 8 now"]),
        ({"loss": {"labelSmoothing": 0.1}}, ["loss.labelSmoothing: 0.0 before, 0.1 now"]),
        ({"precision": "BF16"}, ["precision: Auto before, BF16 now"]),
        (
            {"data": {"path": "/two"}},
            ["data.path: /one before, /two now; the data are the same by names, classes and sizes"],
        ),
        (
            {"model": {"weights": "s3://w/a.pth"}},
            ["model.weights: /w/a.pth before, s3://w/a.pth now; they only begin a training"],
        ),
        (
            {"model": {"weights": "https://w/a.pth?sign=1/2"}},
            [
                "model.weights: /w/a.pth before, https://w/a.pth?sign=1/2 now; "
                "they only begin a training"
            ],
        ),
        ({"data": {"numClasses": 10}}, []),
        ({"model": {"foreignPickle": "Allow"}}, []),
        ({"model": {"name": "inception_v2"}}, []),
        ({"logEverySteps": 3, "checkpoint": {"path": "/x", "keep": 9}}, []),
    ],
    ids=str,
)
def test_what_may_change_is_a_line_each(change: dict[str, Any], lines: list[str]) -> None:
    comparison = compare(told(), told(change))
    assert comparison.conflicts == ()
    assert [str(change) for change in comparison.changes] == lines


def test_other_validation_data_are_told() -> None:
    comparison = compare(told(), told(**{continuation.VALIDATION_DATA: "cc"}))
    assert comparison.conflicts == ()
    assert [str(change) for change in comparison.changes] == [
        "data: one validation set before, another one now"
    ]


def test_only_whether_there_is_an_auxiliary_head_must_stay() -> None:
    def with_head(weight: str) -> dict[str, Any]:
        return told({"model": {"name": "inception_v3"}, "loss": {"auxiliaryWeight": weight}})

    assert [str(change) for change in compare(with_head("0.4"), with_head("0.2")).changes] == [
        "loss.auxiliaryWeight: 0.4 before, 0.2 now"
    ]
    (conflict,) = compare(with_head("0.4"), with_head("0")).conflicts
    assert conflict.key == "loss.auxiliaryWeight"


def test_a_key_that_a_later_version_adds_is_no_change_while_it_has_its_default() -> None:
    before = told()
    del before["data.interpolation"]
    comparison = compare(before, told())
    assert (comparison.conflicts, comparison.changes) == ((), ())
    nearest = compare(before, told({"data": {"interpolation": "Nearest"}}))
    assert [str(change) for change in nearest.changes] == [
        "data.interpolation: not set before, Nearest now"
    ]


def test_checkpoints_of_before_know_their_fingerprint_alone() -> None:
    config = from_mapping(merge(FOLDER, {"epochs": 1}))
    old = {**fingerprint(config), continuation.SAMPLES: 100, continuation.CLASSES: 10}
    same = compare(saved({"fingerprint": old}), told())
    assert (same.conflicts, same.changes) == ((), ())
    moved = compare(saved({"fingerprint": old}), told({"data": {"path": "/two"}, "epochs": 2}))
    assert moved.conflicts == ()
    assert [str(change) for change in moved.changes] == [
        "data.path: /one before, /two now; "
        "the checkpoint does not know names: only the number of samples was compared",
        "epochs: 1 before, 2 now",
    ]
    fewer = compare(saved({"fingerprint": old}), told(**{continuation.SAMPLES: 99}))
    assert [conflict.key for conflict in fewer.conflicts] == [continuation.SAMPLES]


def test_a_run_beyond_its_end_is_measured() -> None:
    config = from_mapping(merge(TINY, {"epochs": 1}))
    length = LengthPlan.of(config, 48)
    assert (length.total_steps, length.evaluates_at(7, config.evaluation)) == (6, True)


# The fingerprints of data.


def images(root: Path) -> dict[str, Any]:
    random = np.random.default_rng(0)
    for split, count in (("train", 40), ("val", 8)):
        for number in range(count):
            folder = root / split / f"class-{number % 4}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, (36, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return {"kind": "ImageFolder", "path": str(root), "workers": 0}


def image_list(root: Path) -> dict[str, Any]:
    images(root)
    for split in ("train", "val"):
        files = sorted((root / split).glob("*/*.png"))
        lines = [f"{file.relative_to(root)} {file.parent.name[-1]}" for file in files]
        (root / f"{split}.txt").write_text("\n".join(lines))
    return {"kind": "ImageList", "path": str(root), "workers": 0}


def shards(root: Path) -> dict[str, Any]:
    root.mkdir()
    return {"kind": "WebDataset", "path": str(same_data(root)[1]), "workers": 0}


def held_out(root: Path) -> dict[str, Any]:
    data = images(root)
    shutil.rmtree(root / "val")
    return {**data, "heldOutShare": 0.2}


def cifar(root: Path) -> dict[str, Any]:
    return {"kind": "Cifar100", "path": str(python_layout(root))}


def digits(_root: Path) -> dict[str, Any]:
    return {"kind": "Digits"}


def opened(data: dict[str, Any]) -> Splits:
    return open_splits(from_mapping({"data": data}))


def prints(data: dict[str, Any]) -> tuple[str, str]:
    splits = opened(data)
    return data_fingerprint(splits.train), data_fingerprint(splits.val)


@pytest.mark.parametrize("kind", [images, image_list, shards, held_out, cifar, digits])
def test_data_have_the_same_fingerprint_wherever_they_are(
    tmp_path: Path, kind: Callable[[Path], dict[str, Any]]
) -> None:
    here, there = tmp_path / "one", tmp_path / "a" / "longer" / "path"
    data = kind(here)
    if "path" not in data:
        assert prints(data) == prints(data)
        return
    shutil.copytree(here, there)
    below = Path(data["path"]).relative_to(here)
    moved = {**data, "path": str(there / below)}
    assert prints(moved) == prints(data)
    assert prints({**moved, "path": f"file://{there / below}/"}) == prints(data)
    assert prints(data)[0] != prints(data)[1]


def test_data_in_a_store_have_the_fingerprint_of_the_folder(tmp_path: Path) -> None:
    data = images(tmp_path / "one")
    fsspec.filesystem("memory").put(data["path"], "/copy", recursive=True)
    assert prints({**data, "path": "memory://copy"}) == prints(data)


def rename(root: Path) -> None:
    (root / "train" / "class-0" / "0.png").rename(root / "train" / "class-0" / "00.png")


def other_class(root: Path) -> None:
    (root / "train" / "class-0" / "0.png").rename(root / "train" / "class-1" / "0.png")


def other_size(root: Path) -> None:
    with (root / "train" / "class-0" / "0.png").open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize("change", [rename, other_class, other_size])
def test_names_classes_and_sizes_make_the_fingerprint(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    data = images(tmp_path)
    before = prints(data)
    change(tmp_path)
    after = prints(data)
    assert (after[0] != before[0], after[1] == before[1]) == (True, True)


def test_a_part_of_the_validation_data_is_the_same_data(tmp_path: Path) -> None:
    data = images(tmp_path)
    few = open_splits(from_mapping({"data": data, "evaluation": {"maxSamples": 3}}))
    assert len(few.val) == 3
    assert data_fingerprint(few.val) == prints(data)[1]


def test_files_kept_near_are_the_same_data(tmp_path: Path) -> None:
    data = images(tmp_path)
    assert prints({**data, "cache": {"memoryMebibytes": 1}}) == prints(data)


def test_all_names_and_classes_are_in_the_fingerprint_without_a_gap() -> None:
    files = FileList("/r")
    for at in range(20_000):
        files.add(f"/r/{at}", at % 3)
    folder, numbers, names, ends, classes = files.build().fingerprinted()
    assert (folder, numbers) == (b"/\0", bytes(4 * 20_000))
    assert names == b"".join(str(at).encode() for at in range(20_000))
    assert np.diff(np.frombuffer(ends, "<i8"), prepend=0).tolist() == [
        len(str(at)) for at in range(20_000)
    ]
    assert np.frombuffer(classes, "<i4").tolist() == [at % 3 for at in range(20_000)]


# Real ranks.


def config(path: Path, **changes: Any) -> dict[str, Any]:
    base = {"epochs": 1, "checkpoint": {"path": str(path), "everySteps": 2, "everySeconds": 0}}
    return merge(merge(TINY, base), changes)


def summary(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((path / "output" / "summary.json").read_text())
    return content


def test_a_finished_run_goes_on_with_more_epochs(tmp_path: Path) -> None:
    job, seen = tmp_path / "job", tmp_path / "seen"
    assert trainer_ranks.start(tmp_path / "1", config(job)).wait() == [0]
    assert summary(job)["steps"] == 6
    more = config(job, epochs=3, optimizer={"learningRate": 0.02})
    gang = trainer_ranks.start(tmp_path / "2", more, attempt=2, seen=seen)
    assert gang.wait() == [0], gang.output()
    output = gang.output()
    assert "continuing at step 6 " in output
    assert output.count("going on with a changed configuration: epochs: 1 before, 3 now") == 1
    assert "optimizer.learningRate: 0.01 before, 0.02 now" in output
    # The cosine of 18 steps at its seventh: 0.02 x (1 + cos(pi / 3)) / 2.
    assert "schedule Cosine as configured now, over 18 steps" in output
    assert "number 7, has the learning rate 0.015" in output
    assert sorted(trainer_ranks.seen_samples(seen)) == [
        (epoch, index) for epoch in (1, 2) for index in range(48)
    ]
    assert (summary(job)["steps"], summary(job)["epochs"]) == (18, 3.0)
    # And it is finished again.
    again = trainer_ranks.start(tmp_path / "3", more, attempt=3)
    assert again.wait() == [0]
    assert "finished before, at step 18: nothing to do" in again.output()


def test_a_run_that_is_made_shorter_ends_at_once_and_is_measured(tmp_path: Path) -> None:
    job = tmp_path / "job"
    two = config(job, epochs=2, maxSteps=9)
    assert trainer_ranks.start(tmp_path / "1", two).wait() == [0]
    shorter = config(job, epochs=1)
    gang = trainer_ranks.start(tmp_path / "2", shorter, attempt=2)
    assert gang.wait() == [0], gang.output()
    assert "epochs: 2 before, 1 now" in gang.output()
    assert "9 steps are done, and 6 are asked for" in gang.output()
    assert (summary(job)["steps"], summary(job)["evaluatedStep"]) == (9, 9)


def of_job(uid: str, created: str) -> dict[str, str]:
    return {
        "INCEPTION_JOB": "default/test",
        "INCEPTION_JOB_UID": uid,
        "INCEPTION_JOB_CREATED": f"2026-11-30T{created}Z",
    }


def test_a_job_made_anew_with_more_epochs_goes_on_where_the_finished_one_ended(
    tmp_path: Path,
) -> None:
    """What ``kubectl delete`` and ``kubectl apply`` do to a job that is over."""
    job = tmp_path / "job"

    def start(name: str, epochs: int, environment: dict[str, str]) -> trainer_ranks.Gang:
        # Without memory: other tests of this machine have pods with these names.
        own = config(job, epochs=epochs, checkpoint={"memory": "Never"})
        return trainer_ranks.start(tmp_path / name, own, environment=environment)

    assert start("before", 1, of_job("0a1b", "03:33:11")).wait() == [0]
    gang = start("anew", 2, of_job("0c2d", "03:40:00"))
    assert gang.wait() == [0], gang.output()
    assert "continuing at step 6 " in gang.output()
    assert summary(job)["steps"] == 12


def test_the_same_data_at_another_path_go_on_and_others_do_not(tmp_path: Path) -> None:
    data = images(tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    job = tmp_path / "job"
    first = config(job, maxSteps=2, epochs=2, data=None) | {"data": data | {"imageSize": 32}}
    gang = trainer_ranks.start(tmp_path / "1", first)
    assert gang.wait() == [0], gang.output()
    moved = first | {"data": first["data"] | {"path": str(tmp_path / "there")}, "maxSteps": 4}
    gang = trainer_ranks.start(tmp_path / "2", moved, attempt=2)
    assert gang.wait() == [0], gang.output()
    assert "continuing at step 2 " in gang.output()
    assert (
        f"data.path: {tmp_path / 'here'} before, {tmp_path / 'there'} now; "
        "the data are the same by names, classes and sizes"
    ) in gang.output()
    rename(tmp_path / "there")
    gang = trainer_ranks.start(tmp_path / "3", moved | {"maxSteps": 6}, attempt=3)
    assert gang.wait() == [78], gang.output()
    assert "the data must be the same: names, classes or sizes differ" in gang.output()


def test_another_network_is_refused(tmp_path: Path) -> None:
    job = tmp_path / "job"
    assert trainer_ranks.start(tmp_path / "1", config(job)).wait() == [0]
    other = config(job, model={"name": "resnet50"}, epochs=2)
    gang = trainer_ranks.start(tmp_path / "2", other, attempt=2)
    assert gang.wait() == [78], gang.output()
    assert "model.name: 'bninception' in the checkpoint, 'resnet50' now" in gang.output()


def without_what_is_new(job: Path) -> None:
    """Make the newest checkpoint one of version 0.1, which knew no names and less of its inputs."""
    latest = json.loads((job / "latest.json").read_text())
    path = job / latest["file"]
    content = torch.load(path, weights_only=True)
    for key in (continuation.TRAINING_DATA, continuation.VALIDATION_DATA):
        del content["fingerprint"][key]
    for key in ("evaluationCropRatio", "interpolation"):
        del content["preprocessing"][key]
    del content["config"]["model"]["weightsKind"]
    for key in ("preprocessing", "classNames"):
        del content["progress"]["summary"][key]
    path.unlink()
    torch.save(content, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(f"{path.name}.sha256").write_text(f"{digest}  {path.name}\n")
    (job / "latest.json").write_text(json.dumps(latest | {"sha256": digest}))


def test_a_checkpoint_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    job = tmp_path / "job"
    assert trainer_ranks.start(tmp_path / "1", config(job)).wait() == [0]
    without_what_is_new(job)
    gang = trainer_ranks.start(tmp_path / "2", config(job, epochs=2), attempt=2)
    assert gang.wait() == [0], gang.output()
    changes = [line for line in gang.output().splitlines() if "changed configuration" in line]
    assert [line.partition("configuration: ")[2] for line in changes] == ["epochs: 1 before, 2 now"]
    assert summary(job)["steps"] == 12


def test_defaults_of_the_reader_of_images_are_those_of_version_0_1() -> None:
    """Checkpoints of then that do not say how images were evaluated were evaluated so."""
    data = DataConfig()
    assert (data.evaluation_crop_ratio, data.interpolation) == (0.875, "Bilinear")
