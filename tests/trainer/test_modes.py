"""Evaluate and Benchmark as real ranks: exact counts, equal figures at every number of ranks, exit
codes, files.
"""

import json
import math
import signal
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

import trainer_ranks
from inception_trainer import models
from inception_trainer.config.training import from_mapping, merge
from inception_trainer.data import open_splits
from inception_trainer.errors import ConfigError
from inception_trainer.modes.benchmark import spread
from inception_trainer.train.fitting import LIMIT, is_out_of_memory, largest
from inception_trainer.train.step import Normalise
from inception_trainer.weights.pickles import faults_of
from trainer_ranks import TINY

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("small_bninception")]


def config(path: Path, **changes) -> dict:
    return merge(
        TINY, {"epochs": 1, "checkpoint": {"path": str(path), "everySeconds": 0}, **changes}
    )


def summary(path: Path, mode: str) -> dict:
    return json.loads((path / "output" / mode.lower() / "summary.json").read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A job that was trained for one epoch of 6 steps; 12 validation images."""
    path = tmp_path_factory.mktemp("trained")
    assert trainer_ranks.run(path, config(path)) == [0]
    return path


def weights(trained: Path) -> Path:
    return trained / "checkpoints" / "final.pt"


def expected_accuracy(path: Path) -> tuple[float, float]:
    """Top-1 and loss by a plain loop, one image at a time."""
    saved = torch.load(path, weights_only=True)
    network = models.create("bninception", 4).eval()
    network.load_state_dict(saved["model"])
    splits = open_splits(from_mapping(TINY))
    normalise = Normalise(splits.normalization, torch.device("cpu"))
    hits = losses = 0.0
    with torch.no_grad():
        for index in range(len(splits.val)):
            batch = splits.val.batch(np.array([index]), None)
            logits = network(normalise(batch.images))
            hits += float(logits.argmax(1) == batch.labels)
            losses += functional.cross_entropy(logits, batch.labels).item()
    return hits / len(splits.val), losses / len(splits.val)


@pytest.mark.parametrize("world", [1, 2, 5])
def test_evaluation_counts_every_image_once(trained, tmp_path, world) -> None:
    seen = tmp_path / "seen"
    job = config(
        tmp_path,
        mode="Evaluate",
        model={"weights": str(weights(trained)), "foreignPickle": "Allow"},
    )
    assert trainer_ranks.run(tmp_path, job, world, seen=seen) == [0] * world
    assert trainer_ranks.seen_validation(seen) == list(range(12))
    assert not list(trainer_ranks.seen_samples(seen))
    result = summary(tmp_path, "Evaluate")
    assert (result["mode"], result["exitReason"], result["samples"], result["worldSize"]) == (
        "Evaluate",
        "Completed",
        12,
        world,
    )
    top1, loss = expected_accuracy(weights(trained))
    assert result["accuracyTop1"] == top1
    assert result["loss"] == pytest.approx(loss, abs=1e-5)
    assert (result["weightsStep"], result["accuracyTop5"]) == (6, 1.0)


def test_the_checkpoint_of_another_job_is_read_by_a_torch_that_is_safe_with_it(
    trained, tmp_path
) -> None:
    job = config(tmp_path, mode="Evaluate", model={"weights": str(weights(trained))})
    refused = bool(faults_of(str(torch.__version__)))
    assert trainer_ranks.run(tmp_path, job) == [ConfigError.exit_code if refused else 0]
    # It holds the same weights, and no release of torch has anything against it.
    harmless = weights(trained).with_suffix(".safetensors")
    job = config(tmp_path / "again", mode="Evaluate", model={"weights": str(harmless)})
    assert trainer_ranks.run(tmp_path, job) == [0]
    assert summary(tmp_path / "again", "Evaluate")["weightsStep"] == 6


def test_evaluation_of_a_part_is_spread_over_the_whole(trained, tmp_path) -> None:
    seen = tmp_path / "seen"
    job = config(
        tmp_path,
        mode="Evaluate",
        model={"weights": str(weights(trained)), "foreignPickle": "Allow"},
        evaluation={"maxSamples": 5},
    )
    assert trainer_ranks.run(tmp_path, job, 2, seen=seen) == [0, 0]
    assert trainer_ranks.seen_validation(seen) == [0, 2, 4, 7, 9]
    assert summary(tmp_path, "Evaluate")["samples"] == 5


def test_training_evaluates_by_steps(tmp_path) -> None:
    seen = tmp_path / "seen"
    job = config(tmp_path, evaluation={"everySteps": 4, "maxSamples": 3})
    assert trainer_ranks.run(tmp_path, job, seen=seen) == [0]
    saved = torch.load(weights(tmp_path), weights_only=True)
    assert [row[0] for row in saved["progress"]["history"]["evaluations"]] == [4, 6]
    assert trainer_ranks.seen_validation(seen) == [0, 0, 4, 4, 8, 8]


def test_evaluation_reports_progress_and_leaves_the_training_alone(trained) -> None:
    before = (trained / "output" / "summary.json").read_bytes()
    gang = trainer_ranks.start(trained, config(trained, mode="Evaluate"), 1, attempt=2)
    assert gang.wait() == [0], gang.output()
    assert (trained / "output" / "summary.json").read_bytes() == before
    assert summary(trained, "Evaluate")["weights"] == str(trained / "checkpoints" / "best.pt")
    metrics = gang.progress()["metrics"]
    assert (metrics["progress"], metrics["samplesSeen"]) == (1.0, 12)
    assert metrics["accuracyTop1"] == summary(trained, "Evaluate")["accuracyTop1"]
    prom = (trained / "output" / "evaluate" / "metrics.prom").read_text()
    assert 'trainer_samples_total{phase="val"} 12.0' in prom
    assert 'trainer_samples_total{phase="train"} 0.0' in prom
    assert "Evaluated 12 images: top-1" in gang.output()


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({}, 66, "model.weights: not set"),
        ({"model": {"weights": "/nowhere/w.pt"}}, 66, "/nowhere/w.pt"),
        ({"data": {"numClasses": 9}}, 78, "knows 4 classes, the data has 9"),
        ({"data": {"kind": "Digits"}}, 78, "numClasses"),
    ],
    ids=["none", "missing", "more", "other"],
)
def test_evaluation_refuses_what_does_not_fit(trained, tmp_path, change, code, words) -> None:
    given = (
        {}
        if "model" in change or not change
        else {"model": {"weights": str(weights(trained)), "foreignPickle": "Allow"}}
    )
    gang = trainer_ranks.start(tmp_path, config(tmp_path, mode="Evaluate", **given, **change))
    assert gang.wait() == [code], gang.output()
    assert words in json.loads((tmp_path / "error-0.json").read_text())["message"]["message"]


@pytest.mark.parametrize("mode", ["Evaluate", "Infer"])
def test_logits_that_are_no_numbers_are_no_result(trained, tmp_path, mode) -> None:
    state = torch.load(weights(trained), weights_only=True)["model"]
    state["last_linear.bias"][1] = math.inf
    path = tmp_path / "w.pt"
    torch.save({"model": state}, path)
    model = {"weights": str(path), "foreignPickle": "Allow"}
    gang = trainer_ranks.start(tmp_path, config(tmp_path, mode=mode, model=model), 2)
    assert gang.wait() == [65, 65], gang.output()
    message = json.loads((tmp_path / "error-0.json").read_text())["message"]["message"]
    assert f"model.weights: {path} gives logits that are NaN or infinite" in message
    assert not list(tmp_path.rglob("summary.json")) + list(tmp_path.rglob("*predictions*"))


def test_a_network_may_know_more_classes_than_the_data(trained, tmp_path) -> None:
    job = config(
        tmp_path,
        mode="Evaluate",
        model={"weights": str(weights(trained)), "foreignPickle": "Allow"},
        data={"numClasses": 3},
    )
    assert trainer_ranks.run(tmp_path, job) == [0]


@pytest.mark.parametrize("world", [1, 2])
def test_benchmark(tmp_path, world) -> None:
    job = config(
        tmp_path, mode="Benchmark", benchmark={"warmupSteps": 1, "steps": 7}, batch={"perDevice": 2}
    )
    log = tmp_path / "logs" / "benchmark_log"
    variables = {"BENCHMARK_LOG": str(log), "AVG_LOG": str(tmp_path / "avg_log")}
    gang = trainer_ranks.start(tmp_path, job, world, environment=variables)
    assert gang.wait() == [0] * world, gang.output()
    result = summary(tmp_path, "Benchmark")
    assert (result["warmupSteps"], result["measuredSteps"], result["steps"]) == (1, 7, 8)
    assert (result["globalBatch"], result["batchPerDevice"], result["microBatches"]) == (
        8,
        2,
        4 // world,
    )
    assert result["imagesPerSecondPerDevice"] == pytest.approx(
        result["imagesPerSecond"] / world, rel=1e-3
    )
    assert result["imagesPerSecond"] == pytest.approx(8 / result["stepSeconds"], rel=1e-3)
    assert len(result["imagesPerSecondWindows"]) == 5
    assert 0 <= result["dataWaitRatio"] < 1
    assert gang.progress()["step"] == 8
    assert gang.progress()["metrics"]["samplesPerSecond"] > 0
    assert not (tmp_path / "checkpoints").exists()
    logged = json.loads(log.read_text())
    assert (logged["net"], logged["dataset"], logged["precision"]) == (
        "bninception",
        "Synthetic",
        "fp32",
    )
    assert (logged["cards"], logged["batch_size"], logged["DPF_mode"]) == (
        world,
        8 // world,
        ("single", "ddp")[world - 1],
    )
    assert logged["throughput"] == result["imagesPerSecond"]
    assert 0 < logged["hardware_time_avg"] <= logged["batch_time_avg"] == result["stepSeconds"]
    assert logged["batch_time_var"] == result["stepSecondsVariance"] > 0
    assert not (tmp_path / "avg_log").exists()


def test_spread_of_windows_of_unequal_length() -> None:
    """The mean of all steps; here as if each step of a window had taken the same time."""
    mean, variance = spread([2, 1, 1], [2.0, 3.0, 3.0])
    single = [1.0, 1.0, 3.0, 3.0]
    assert (mean, variance) == (statistics.fmean(single), statistics.pvariance(single))
    assert spread([3], [6.0]) == (2.0, 0.0)


def test_accuracies_are_appended_after_training_and_evaluation(tmp_path) -> None:
    """Percent, of the last evaluation; both modes write into one file."""
    log = tmp_path / "logs" / "avg_log"
    for mode in ("Train", "Evaluate"):
        gang = trainer_ranks.start(
            tmp_path, config(tmp_path, mode=mode), environment={"AVG_LOG": str(log)}
        )
        assert gang.wait() == [0], gang.output()
    result = json.loads((tmp_path / "output" / "summary.json").read_text())
    expected = [round(100 * result["accuracyTop1"], 4), 100.0]
    first, last = (json.loads(line) for line in log.read_text().splitlines())
    assert first == expected
    assert last == [round(100 * summary(tmp_path, "Evaluate")["accuracyTop1"], 4), 100.0]


@pytest.mark.nightly
def test_benchmark_of_real_data_goes_through_the_epochs(tmp_path) -> None:
    seen = tmp_path / "seen"
    data = {"kind": "Digits", "imageSize": 32, "numClasses": 10}
    job = merge(config(tmp_path, mode="Benchmark", batch={"global": 700}), {"data": data})
    job["benchmark"] = {"warmupSteps": 1, "steps": 2}
    job["batch"]["perDevice"] = 350
    assert trainer_ranks.run(tmp_path, job, 1, seen=seen) == [0]
    assert {epoch for epoch, _ in trainer_ranks.seen_samples(seen)} == {0, 1}


@given(st.integers(0, 2 * LIMIT))
def test_largest_batch(capacity) -> None:
    tried: list[int] = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= capacity

    found = largest(fits)
    assert found <= min(capacity, LIMIT)
    assert not found if capacity < 2 else min(capacity, LIMIT) - found <= max(1, found // 8)
    assert len(tried) <= 20


@pytest.mark.parametrize(
    "words",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "NPU out of memory. Tried to allocate 260.00 MiB (NPU 0; 28.50 GiB total capacity)",
        "MLU out of memory. Tried to allocate 2.00 GiB (MLU 0; 44.00 GiB total capacity)",
        "MUSA out of memory. Tried to allocate 2.00 GiB",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "miopenStatusAllocFailed",
        "level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)",
        "Native API failed. Native API returns: -5 (PI_ERROR_OUT_OF_RESOURCES)",
        "[Rank:0] FATAL ERROR :: MODULE:PT_DEVMEM Allocation failed for size::939524096 (896)MB",
        'nrt_tensor_allocate status=4 message="Allocation Failure"',
        "Bad StatusOr access: RESOURCE_EXHAUSTED: Error allocating device buffer",
    ],
)
def test_every_vendor_has_its_own_words_for_a_full_memory(words) -> None:
    assert is_out_of_memory(RuntimeError(words))
    assert not is_out_of_memory(ValueError(words))


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: an illegal memory access was encountered",
        "UR_RESULT_ERROR_OUT_OF_HOST_MEMORY",
        "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
        "nrt_tensor_allocate status=2",
    ],
)
def test_other_errors_do_not_mean_a_full_memory(words) -> None:
    assert not is_out_of_memory(RuntimeError(words))


def test_largest_batch_needs_a_device(tmp_path) -> None:
    gang = trainer_ranks.start(
        tmp_path, config(tmp_path, mode="Benchmark", benchmark={"batch": "Largest"})
    )
    assert gang.wait() == [78], gang.output()
    message = json.loads((tmp_path / "error-0.json").read_text())["message"]["message"]
    assert "benchmark.batch: Largest needs an accelerator" in message


@pytest.mark.parametrize("mode", ["Evaluate", "Benchmark"])
def test_modes_stop_on_request(trained, tmp_path, mode) -> None:
    job = config(
        tmp_path,
        mode=mode,
        model={"weights": str(weights(trained)), "foreignPickle": "Allow"},
        batch={"global": 4, "perDevice": 2},
    )
    job["data"] = {**job["data"], "samples": 40_000}
    job["benchmark"] = {"steps": 100_000}
    gang = trainer_ranks.start(tmp_path, job, 2)
    gang.until(lambda: gang.progress()["step"] >= 1)
    gang.signal(signal.SIGTERM)
    assert gang.wait() == [75, 75], gang.output()
    assert not (tmp_path / "output" / mode.lower() / "summary.json").exists()
