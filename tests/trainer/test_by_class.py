"""What mode Evaluate says of each class, against plain counting."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, precision_score, recall_score

import trainer_ranks
from inception_trainer import models
from inception_trainer.comm import Comm
from inception_trainer.data.class_names import class_names
from inception_trainer.modes.by_class import BATCHES_WAITING, BINS, ByClass, ClassResult, write
from inception_trainer.modes.mistakes import MOST, Worst
from inception_trainer.train.evaluation import Seen

ALONE = Comm(0, 1, "gloo")
CLASSES = 4


def batches(count: int = 5, rows: int = 40) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(count):
        labels = torch.randint(0, CLASSES, (rows,), generator=generator)
        logits = 2 * torch.randn(rows, CLASSES, generator=generator)
        logits[torch.arange(rows), labels] += 1
        labels[:3] = -100
        made.append((logits, labels))
    return made


def seen(logits: torch.Tensor, labels: torch.Tensor) -> Seen:
    images = torch.zeros(len(labels), 3, 8, 8, dtype=torch.uint8)
    return Seen(np.arange(len(labels)), images, logits, labels)


def counted() -> ClassResult:
    counts = ByClass(CLASSES)
    for logits, labels in batches():
        counts.add(seen(logits, labels))
    return counts.result(ALONE)


def flat() -> tuple[torch.Tensor, torch.Tensor]:
    logits, labels = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    return logits[labels >= 0], labels[labels >= 0]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_confusion_accuracy_and_precision_are_those_of_scikit_learn(tmp_path) -> None:
    logits, labels = flat()
    predicted = logits.argmax(1)
    result = counted()
    expected = confusion_matrix(labels, predicted, labels=range(CLASSES))
    assert result.confusion.tolist() == expected.tolist()
    write(result, class_names(None, ("a", "b", "c"), CLASSES), tmp_path / "new")
    by_class = rows(tmp_path / "new" / "classes.csv")
    assert [row["name"] for row in by_class] == ["a", "b", "c", "class-3"]
    recalls = recall_score(labels, predicted, average=None)
    precisions = precision_score(labels, predicted, average=None)
    assert [float(row["accuracy"]) for row in by_class] == pytest.approx(recalls, abs=1e-6)
    assert [float(row["precision"]) for row in by_class] == pytest.approx(precisions, abs=1e-6)
    assert result.mean_class_accuracy == pytest.approx(recalls.mean())
    pairs = rows(tmp_path / "new" / "confusion.csv")
    assert {(int(row["class"]), int(row["predicted"])): int(row["images"]) for row in pairs} == {
        (true, guess): count
        for true, line in enumerate(expected.tolist())
        for guess, count in enumerate(line)
        if count
    }
    assert (tmp_path / "new" / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_probabilities_are_computed_once_for_classes_and_mistakes(monkeypatch) -> None:
    softmax, computed = torch.Tensor.softmax, []

    def counting(tensor: torch.Tensor, dim: int) -> torch.Tensor:
        computed.append(tensor.shape)
        return softmax(tensor, dim)

    monkeypatch.setattr(torch.Tensor, "softmax", counting)
    counts, worst = ByClass(CLASSES), Worst()
    for logits, labels in batches():
        batch = seen(logits, labels)
        counts.add(batch)
        worst.add(batch)
    assert computed == [logits.shape for logits, _ in batches()]
    confusion = counts.result(ALONE).confusion
    wrong = int(confusion.sum() - confusion.diagonal().sum())
    assert len(worst.result(ALONE)) == min(MOST, wrong) == MOST


def test_calibration_error_by_hand() -> None:
    logits, labels = flat()
    confidence, predicted = logits.softmax(1).max(1)
    error = 0.0
    for number in range(BINS):
        inside = (confidence > number / BINS) & (confidence <= (number + 1) / BINS)
        if inside.any():
            accuracy = (predicted == labels)[inside].double().mean()
            distance = (accuracy - confidence[inside].double().mean()).abs().item()
            error += distance * inside.double().mean().item()
    assert counted().calibration_error == pytest.approx(error, abs=1e-6)


@pytest.mark.parametrize(("scale", "error"), [(0.0, 0.0), (1000.0, 0.75)])
def test_a_network_that_is_too_sure_has_a_large_error(scale, error) -> None:
    """It always says class 0, which a quarter of the images are."""
    logits = torch.zeros(100, CLASSES)
    logits[:, 0] = scale
    counts = ByClass(CLASSES)
    counts.add(seen(logits, torch.arange(100) % CLASSES))
    assert counts.result(ALONE).calibration_error == pytest.approx(error, abs=1e-6)


def test_what_is_kept_follows_from_the_pairs_that_occur(tmp_path) -> None:
    """Of a million classes all pairs would be eight terabytes."""
    classes = 1_000_000
    counts = ByClass(classes)
    logits = torch.zeros(3, classes)
    logits[:, 7] = 1
    batch = seen(logits, torch.tensor([7, classes - 1, -100]))
    for _ in range(BATCHES_WAITING + 1):
        counts.add(batch)
    result = counts.result(ALONE)
    again = BATCHES_WAITING + 1
    assert result.pairs.tolist() == [[7 * classes + 7, (classes - 1) * classes + 7], [again] * 2]
    assert result.of_class.nonzero().flatten().tolist() == [7, classes - 1]
    assert (int(result.predicted[7]), int(result.correct.sum())) == (2 * again, again)
    assert result.mean_class_accuracy == 0.5
    few = ClassResult(2, torch.tensor([[1], [3]]), *torch.zeros(3, BINS).unbind())
    write(few, ("a", "b"), tmp_path)
    assert rows(tmp_path / "confusion.csv") == [
        {"class": "0", "name": "a", "predicted": "1", "predictedName": "b", "images": "3"}
    ]


def test_a_class_without_images_has_no_accuracy(tmp_path) -> None:
    counts = ByClass(2)
    counts.add(seen(torch.tensor([[1.0, 0.0]]), torch.tensor([0])))
    result = counts.result(ALONE)
    write(result, class_names(None, (), 2), tmp_path)
    absent = rows(tmp_path / "classes.csv")[1]
    assert (absent["images"], absent["accuracy"], absent["precision"]) == ("0", "", "")
    assert result.mean_class_accuracy == 1.0


@pytest.mark.parametrize("name", ["gr\udcfcn", "$x_$"], ids=["no text", "no formula"])
def test_classes_may_be_called_anything(tmp_path, name) -> None:
    write(counted(), (name, "b", "c", "d"), tmp_path)
    shown = name.replace("\udcfc", "\\udcfc")
    assert rows(tmp_path / "classes.csv")[0]["name"] == shown
    assert rows(tmp_path / "confusion.csv")[0]["name"] == shown
    assert (tmp_path / "confusion.png").exists()


def test_a_folder_that_takes_no_file_is_a_warning(tmp_path, caplog) -> None:
    (tmp_path / "file").write_text("")
    write(counted(), class_names(None, (), CLASSES), tmp_path / "file" / "below")
    assert "no figures by class" in caplog.text


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("small_bninception")
def test_evaluation_on_one_rank_and_two_leaves_the_same_files(tmp_path) -> None:
    weights = tmp_path / "weights.pth"
    torch.save(models.create("bninception", 4).state_dict(), weights)
    written = []
    for world in (1, 2):
        folder = trainer_ranks.evaluated(tmp_path, weights, world)
        summary = json.loads((folder / "summary.json").read_text())
        pairs = rows(folder / "confusion.csv")
        hits = sum(int(row["images"]) for row in pairs if row["class"] == row["predicted"])
        assert summary["accuracyTop1"] == pytest.approx(hits / summary["samples"])
        assert 0 <= summary["calibrationError"] <= 1
        accuracies = [float(row["accuracy"]) for row in rows(folder / "classes.csv")]
        assert summary["meanClassAccuracy"] == pytest.approx(
            sum(accuracies) / len(accuracies), abs=1e-5
        )
        written.append((folder / "confusion.csv").read_bytes())
    assert written[0] == written[1]
