"""A training that ends before its last step: at an accuracy, or once it gets no better."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import trainer_ranks
from inception_trainer.config.continuation import fingerprint
from inception_trainer.config.training import EvaluationConfig, from_mapping, merge
from inception_trainer.reporting.progress import History, Progress
from inception_trainer.train.ending import (
    NO_IMPROVEMENT,
    TARGET_REACHED,
    describe_end,
    early_end,
)
from trainer_ranks import TINY


def progress(*accuracies: float, step: int | None = None) -> Progress:
    """After evaluations with these accuracies, at the steps 10, 20, ..."""
    best = max(accuracies, default=-1.0)
    return Progress(
        step=10 * len(accuracies) if step is None else step,
        evaluated_step=10 * len(accuracies) if accuracies else -1,
        accuracy_top1=accuracies[-1] if accuracies else 0.0,
        best_accuracy=best,
        best_step=10 * (accuracies.index(best) + 1) if accuracies else -1,
        history=History(
            evaluations=[[10 * n, 1.0, top1, 1.0] for n, top1 in enumerate(accuracies, 1)]
        ),
    )


@pytest.mark.parametrize(
    ("evaluation", "accuracies", "reason"),
    [
        ({}, (0.5, 0.4, 0.3, 0.2), None),
        ({"target": 0.6}, (0.5,), None),
        ({"target": 0.6}, (0.5, 0.6), TARGET_REACHED),
        ({"target": 0.6}, (0.7, 0.5), None),
        ({"patience": 2}, (0.5, 0.4), None),
        ({"patience": 2}, (0.5, 0.4, 0.5), NO_IMPROVEMENT),
        ({"patience": 2}, (0.5, 0.4, 0.6, 0.5), None),
        ({"patience": 1}, (0.0, 0.0), NO_IMPROVEMENT),
        ({"patience": 1, "target": 0.1}, (0.5, 0.4), TARGET_REACHED),
        ({"patience": 1}, (), None),
    ],
    ids=str,
)
def test_reasons(evaluation, accuracies, reason) -> None:
    assert early_end(progress(*accuracies), EvaluationConfig(**evaluation)) == reason


def test_only_an_evaluation_of_the_step_ends_it() -> None:
    config = EvaluationConfig(target=0.1, patience=1)
    assert early_end(progress(0.5, 0.4, step=21), config) is None
    said = describe_end(NO_IMPROVEMENT, progress(0.5, 0.4, 0.3), config)
    assert said == (
        "ending at step 30: 2 evaluations without a better top-1 than 0.5000 of step 10 "
        "(evaluation.patience)"
    )


def test_neither_changes_what_a_checkpoint_continues_under() -> None:
    plain = {"data": {"kind": "Digits"}}
    changed = {**plain, "evaluation": {"target": "0.9", "patience": 3}}
    assert fingerprint(from_mapping(plain)) == fingerprint(from_mapping(changed))


def job(path: Path, **changes: Any) -> dict[str, Any]:
    place = {"path": str(path), "everySeconds": 0}
    return merge(merge(TINY, {"checkpoint": place, "epochs": 6}), changes)


def summary(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((path / "output" / "summary.json").read_text())
    return content


@pytest.mark.timeout(300)
def test_a_reached_target_ends_the_job_as_done(tmp_path) -> None:
    """Any accuracy is above the target, so that the first evaluation ends it."""
    world = 2
    config = job(tmp_path, evaluation={"target": 1e-9, "everySteps": 4})
    gang = trainer_ranks.start(tmp_path, config, world)
    assert gang.wait() == [0] * world, gang.output()
    found = summary(tmp_path)
    assert (found["exitReason"], found["steps"], found["bestStep"]) == ("TargetReached", 4, 4)
    assert "reaches evaluation.target" in gang.output()
    assert "TargetReached after 4 steps" in gang.output()
    assert gang.progress()["metrics"]["progress"] == 1.0
    names = sorted(path.name for path in (tmp_path / "checkpoints").glob("*.pt"))
    assert names == ["best.pt", "final.pt", "step-000000004.pt"]


@pytest.mark.timeout(300)
def test_a_job_that_has_ended_early_stays_so_and_goes_on_when_asked_for_more(tmp_path) -> None:
    early = job(tmp_path, evaluation={"target": 1e-9, "everySteps": 4})
    assert trainer_ranks.start(tmp_path, early).wait() == [0]
    ended = (tmp_path / "latest.json").read_bytes()
    again = trainer_ranks.start(tmp_path, early, attempt=2)
    assert again.wait() == [0]
    assert "finished before, at step 4: nothing to do" in again.output()
    assert (tmp_path / "latest.json").read_bytes() == ended
    # As if the final save had been cut off after it had written the checkpoint.
    for name in ("latest.json", "checkpoints/final.pt", "checkpoints/final.safetensors"):
        (tmp_path / name).unlink()
    assert trainer_ranks.start(tmp_path, early, attempt=3).wait() == [0]
    assert json.loads((tmp_path / "latest.json").read_bytes())["step"] == 4
    assert (tmp_path / "checkpoints" / "final.safetensors").exists()
    more = trainer_ranks.start(tmp_path, job(tmp_path), attempt=4)
    assert more.wait() == [0]
    assert "continuing at step 4 " in more.output()
    assert (summary(tmp_path)["exitReason"], summary(tmp_path)["steps"]) == ("Completed", 36)
    whole = tmp_path / "whole"
    assert trainer_ranks.start(whole, job(whole)).wait() == [0]
    finals = [
        torch.load(path / "checkpoints" / "final.pt", weights_only=True)["model"]
        for path in (tmp_path, whole)
    ]
    for name, value in finals[0].items():
        assert torch.equal(value, finals[1][name]), name


@pytest.mark.timeout(300)
def test_a_training_that_gets_no_better_ends(tmp_path) -> None:
    """With a rate of next to nothing every evaluation after the first is as good as it."""
    config = job(tmp_path, evaluation={"patience": 2, "everySteps": 2})
    config = merge(config, {"optimizer": {"learningRate": 1e-12}})
    config = merge(config, {"model": {"batchNormMomentum": 1e-9}})
    gang = trainer_ranks.start(tmp_path, config)
    assert gang.wait() == [0], gang.output()
    found = summary(tmp_path)
    assert (found["exitReason"], found["steps"], found["bestStep"]) == ("NoImprovement", 6, 2)
    assert "2 evaluations without a better top-1" in gang.output()
