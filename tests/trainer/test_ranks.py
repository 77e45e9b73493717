"""Real ranks over gloo: one and two compute the same, a stopped job continues exactly, errors keep
their exit code.
"""

import json
import signal
from collections import Counter
from pathlib import Path

import pytest
import torch

import trainer_ranks
from inception_trainer import models
from inception_trainer.config.normalization import INCEPTION
from inception_trainer.config.training import merge
from inception_trainer.data.sampler import permutation
from trainer_ranks import TINY, final

pytestmark = pytest.mark.timeout(300)
STEPS_PER_EPOCH = 48 // 8


def config(path: Path, **changes) -> dict:
    return merge(TINY, {"checkpoint": {"path": str(path), "everySeconds": 0}, **changes})


def latest_step(path: Path) -> int:
    return json.loads((path / "latest.json").read_text())["step"]


def losses(checkpoint: dict) -> list[float]:
    return [row[1] for row in checkpoint["progress"]["history"]["train"]]


def summary(path: Path) -> dict:
    return json.loads((path / "output" / "summary.json").read_text())


def largest_difference(one: dict, two: dict) -> float:
    weights = [name for name in one["model"] if "running" not in name and "num_batches" not in name]
    return max((one["model"][name] - two["model"][name]).abs().max().item() for name in weights)


def assert_bit_equal(one: dict, two: dict) -> None:
    for name, value in one["model"].items():
        assert torch.equal(value, two["model"][name]), name
    for name, value in one["optimizer"]["momentum"].items():
        assert torch.equal(value, two["optimizer"]["momentum"][name]), name
    assert torch.equal(one["rank_statistics"], two["rank_statistics"])


def stop_at(gang: trainer_ranks.Gang, step: int) -> None:
    gang.until(lambda: gang.progress()["step"] >= step)
    gang.signal(signal.SIGTERM)
    assert gang.wait() == [75] * len(gang.processes), gang.output()


def test_one_rank_and_two_compute_the_same(tmp_path) -> None:
    """The gate of RECIPES 12: two micro-batches on one rank against one on each of two, 20 steps,
    fp32.
    """
    extra = {
        "batch": {"perDevice": 4},
        "epochs": None,
        "maxSteps": 20,
        "schedule": {"name": "Constant"},
    }
    results = []
    for world in (1, 2):
        path = tmp_path / f"world-{world}"
        assert trainer_ranks.run(path, config(path, **extra), world) == [0] * world
        results.append(final(path))
    one, two = results
    assert len(losses(one)) == 20
    assert losses(two) == pytest.approx(losses(one), abs=1e-6)
    assert largest_difference(one, two) < 1e-6


def test_stopped_job_continues_bit_by_bit(tmp_path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert trainer_ranks.run(whole, config(whole), 2) == [0, 0]
    stop_at(trainer_ranks.start(parts, config(parts), 2, pause=0.3), 1)
    stopped = latest_step(parts)
    assert 0 < stopped < 2 * STEPS_PER_EPOCH
    error = json.loads((parts / "error-1.json").read_text())["message"]
    assert error["message"].startswith(
        f"Stopped: stopped on request after {stopped} steps; saved at step {stopped}"
    )
    assert error["extraInfo"]["timestamp"].isdigit()
    assert summary(parts)["exitReason"] == "Stopped"
    assert trainer_ranks.run(parts, config(parts), 2, attempt=2) == [0, 0]
    assert_bit_equal(final(whole), final(parts))
    result = summary(parts)
    assert (result["steps"], result["samplesSeen"], result["attempts"]) == (12, 96, 2)
    assert result["accuracyTop1"] == summary(whole)["accuracyTop1"]
    assert (parts / "output" / "curves.png").is_file()
    assert final(parts)["progress"]["history"]["restarts"] == [stopped]


def test_other_world_sizes_see_every_sample_once(tmp_path) -> None:
    seen = tmp_path / "seen"
    steps = [0]
    for attempt, world in enumerate((2, 1), 1):
        gang = trainer_ranks.start(tmp_path, config(tmp_path), world, attempt, seen, pause=0.3)
        stop_at(gang, steps[-1] + 1)
        steps.append(latest_step(tmp_path))
        assert steps[-1] > steps[-2]
    assert trainer_ranks.run(tmp_path, config(tmp_path), 3, attempt=3, seen=seen) == [0, 0, 0]
    expected = Counter((epoch, int(i)) for epoch in range(2) for i in permutation(48, 0, epoch))
    assert Counter(trainer_ranks.seen_samples(seen)) == expected
    assert summary(tmp_path)["samplesSeen"] == 96


def test_killed_job_continues_from_its_last_checkpoint(tmp_path) -> None:
    every = config(tmp_path, checkpoint={"path": str(tmp_path), "everySteps": 2, "everySeconds": 0})
    gang = trainer_ranks.start(tmp_path, every, 2, pause=0.3)
    gang.until((tmp_path / "latest.json").exists)
    gang.signal(signal.SIGKILL)
    gang.wait()
    newest = tmp_path / json.loads((tmp_path / "latest.json").read_text())["file"]
    gang = trainer_ranks.start(tmp_path, every, 2, attempt=2)
    assert gang.wait() == [0, 0], gang.output()
    assert f"continuing at step {int(newest.stem[5:])} " in gang.output()
    assert summary(tmp_path)["samplesSeen"] == 96


def test_rank_without_validation_samples_joins_in(tmp_path) -> None:
    tiny = config(tmp_path, epochs=1, data={"samples": 8})
    assert trainer_ranks.run(tmp_path, tiny, 3) == [0, 0, 0]
    assert summary(tmp_path)["evaluatedStep"] == 1


def test_stop_file_works_like_the_signal(tmp_path) -> None:
    gang = trainer_ranks.start(tmp_path, config(tmp_path, epochs=50), 2)
    gang.until(lambda: gang.progress()["step"] >= 1)
    (tmp_path / "stop").touch()
    assert gang.wait() == [75, 75]
    assert latest_step(tmp_path) > 0


def test_finished_job_ends_at_once(tmp_path) -> None:
    short = config(tmp_path, epochs=1)
    assert trainer_ranks.run(tmp_path, short) == [0]
    first = summary(tmp_path)
    (tmp_path / "output" / "summary.json").unlink()
    gang = trainer_ranks.start(tmp_path, short, 1, attempt=2)
    assert gang.wait() == [0]
    assert "nothing to do" in gang.output()
    assert summary(tmp_path) == first
    assert gang.progress()["metrics"]["progress"] == 1.0


def test_files_of_a_run(tmp_path) -> None:
    assert trainer_ranks.run(tmp_path, config(tmp_path, epochs=1)) == [0]
    result = summary(tmp_path)
    assert {
        "accuracyTop1",
        "accuracyTop5",
        "loss",
        "samplesSeen",
        "steps",
        "epochs",
        "imagesPerSecond",
    } <= set(result)
    assert {"wallSeconds", "attempts", "parameters", "precision", "worldSize", "exitReason"} <= set(
        result
    )
    assert (result["exitReason"], result["samplesSeen"], result["precision"]) == (
        "Completed",
        48,
        "FP32",
    )
    for name in ("curves.png", "config.yaml", "metrics.prom", "raport.json", "tensorboard"):
        assert (tmp_path / "output" / name).exists(), name
    assert {path.name for path in (tmp_path / "checkpoints").glob("*.pt")} >= {
        "final.pt",
        "best.pt",
    }
    assert "trainer_samples_seen 48.0" in (tmp_path / "output" / "metrics.prom").read_text()


def test_checkpoint_of_another_configuration_is_refused_by_every_rank(tmp_path) -> None:
    assert trainer_ranks.run(tmp_path, config(tmp_path, epochs=1)) == [0]
    gang = trainer_ranks.start(tmp_path, config(tmp_path, epochs=1, seed=5), 2, attempt=2)
    assert gang.wait() == [78, 78]
    assert "seed: 0 in the checkpoint, 5 now" in gang.output()


def test_older_attempt_cannot_start(tmp_path) -> None:
    (tmp_path / "lease.json").write_text('{"attempt": 7}')
    gang = trainer_ranks.start(tmp_path, config(tmp_path), 2, attempt=6)
    assert gang.wait() == [1, 1]
    assert (
        "Fenced: attempt 7 owns"
        in json.loads((tmp_path / "error-0.json").read_text())["message"]["message"]
    )


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"data": {"kind": "ImageFolder", "path": "/nowhere/images"}}, 66, "/nowhere/images"),
        ({"model": {"weights": "/nowhere/w.pt"}}, 66, "/nowhere/w.pt"),
        ({"batch": {"global": 9, "perDevice": 4}}, 78, "batch.global"),
        ({"batch": {"global": 64}}, 78, "48 training samples"),
        (
            {"accelerator": {"device": "cuda", "backend": "nccl", "profile": "nvidia"}},
            78,
            "accelerator.device",
        ),
        ({"accelerator": {"module": "torch_nowhere", "device": "mlu"}}, 78, "torch_nowhere"),
        (
            {"optimizer": {"learningRate": 1e9}, "schedule": {"name": "Constant"}},
            79,
            "NonFiniteLoss",
        ),
    ],
    ids=["data", "weights", "micro-batch", "too-few", "device", "module", "diverges"],
)
def test_errors_end_with_their_code(tmp_path, change, code, words) -> None:
    gang = trainer_ranks.start(tmp_path, config(tmp_path, **change))
    assert gang.wait() == [code], gang.output()
    assert words in json.loads((tmp_path / "error-0.json").read_text())["message"]["message"]


def test_time_based_checkpoints_are_agreed(tmp_path) -> None:
    often = config(
        tmp_path, epochs=1, checkpoint={"path": str(tmp_path), "everySeconds": 0.001, "keep": 50}
    )
    assert trainer_ranks.run(tmp_path, often, 2) == [0, 0]
    assert len(list((tmp_path / "checkpoints").glob("step-*.pt"))) > 1


@pytest.mark.usefixtures("small_bninception")
def test_weights_bring_their_inputs_along_over_restarts(tmp_path) -> None:
    torch.manual_seed(3)
    donor = models.create("bninception", 4)
    state = {f"module.{name}": value for name, value in donor.state_dict().items()}
    torch.save(
        {"state_dict": state, "preprocessing": INCEPTION.as_dict()}, tmp_path / "weights.pth.tar"
    )
    model = {
        "name": "bninception",
        "weights": str(tmp_path / "weights.pth.tar"),
        "foreignPickle": "Allow",
    }
    own = config(tmp_path / "job", model=model, batch={"global": 16}, epochs=1)
    stop_at(trainer_ranks.start(tmp_path / "job", own, 2, pause=0.3), 1)
    first = summary(tmp_path / "job")
    assert (first["weights"], first["normalization"]) == ("this trainer", INCEPTION.as_dict())
    # The file is needed once: the checkpoint holds all that came from it.
    (tmp_path / "weights.pth.tar").unlink()
    assert trainer_ranks.run(tmp_path / "job", own, 2, attempt=2) == [0, 0]
    last = summary(tmp_path / "job")
    assert (last["weights"], last["normalization"]) == ("this trainer", INCEPTION.as_dict())
    saved = final(tmp_path / "job")["preprocessing"]
    assert saved.items() >= {**INCEPTION.as_dict(), "imageSize": 32}.items()


def test_the_auxiliary_head_learns_beside_the_classifier(tmp_path) -> None:
    data = {"kind": "Synthetic", "imageSize": 299, "numClasses": 4, "samples": 4}
    training = config(
        tmp_path,
        model={"name": "inception_v3"},
        data=data,
        batch={"global": 4},
        epochs=None,
        maxSteps=1,
    )
    assert trainer_ranks.run(tmp_path, training, 2) == [0, 0]
    momentum = final(tmp_path)["optimizer"]["momentum"]
    assert momentum["AuxLogits.fc.weight"].abs().sum() > 0
    assert momentum["fc.weight"].abs().sum() > 0
    assert summary(tmp_path)["parameters"] == 24_354_536
