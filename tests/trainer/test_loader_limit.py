"""How many loader processes a rank gets, and what it is told when they are too few."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import small_network
from inception_trainer import affinity, models
from inception_trainer.config.data import DataConfig
from inception_trainer.config.settings import Settings
from inception_trainer.config.training import from_mapping
from inception_trainer.data.workers import default_workers
from inception_trainer.log import logger
from inception_trainer.train import build
from inception_trainer.train.loader_limit import LoaderLimit, workers_that_would_do
from inception_trainer.train.setup import with_workers
from inception_trainer.train.step import StepStats

FILES = {"data": {"kind": "ImageFolder", "path": "/data"}}


@pytest.mark.parametrize(
    ("cpus", "on_cpu", "on_device"),
    [(0.5, 1, 1), (1.0, 1, 1), (2.0, 2, 1), (4.5, 2, 3), (8.0, 2, 7), (52.0, 2, 16)],
)
def test_workers_by_the_cpus_of_the_rank(cpus, on_cpu, on_device) -> None:
    assert default_workers(cpus, computes_on_cpu=True) == on_cpu
    assert default_workers(cpus, computes_on_cpu=False) == on_device


@pytest.mark.parametrize(
    ("quota", "ranks", "pinned", "cpus"),
    [
        ("max 100000", 4, False, 2.0),
        ("max 100000", 4, True, 8.0),
        ("300000 100000", 2, False, 1.5),
        ("no quota", 2, False, 4.0),
        (None, 2, False, 4.0),
    ],
)
def test_cpus_are_those_of_the_pod_shared_by_its_ranks(
    monkeypatch, tmp_path, quota, ranks, pinned, cpus
) -> None:
    monkeypatch.setattr(affinity.os, "sched_getaffinity", lambda _pid: set(range(8)))
    file = tmp_path / "cpu.max"
    if quota is not None:
        file.write_text(f"{quota}\n")
    settings = Settings(local_world_size=ranks, pinned=pinned)
    assert affinity.cpus_of_rank(settings, file) == cpus


def test_a_number_that_is_given_stays_and_data_in_memory_has_none(monkeypatch) -> None:
    monkeypatch.setattr("inception_trainer.train.setup.cpus_of_rank", lambda _settings: 6.0)

    def workers(data: dict, on_cpu: bool = False) -> int | None:
        config = from_mapping({"data": data})
        return with_workers(config, Settings(), computes_on_cpu=on_cpu).data.workers

    assert workers(FILES["data"]) == 5
    assert workers(FILES["data"], on_cpu=True) == 2
    assert workers({**FILES["data"], "workers": 11}) == 11
    assert workers({**FILES["data"], "workers": 0}) == 0
    assert workers({"kind": "Synthetic"}) == 0


@pytest.mark.parametrize(
    ("workers", "waited", "computed", "wanted"),
    [
        (2, 5.0, 5.0, 4),
        (2, 1.0, 9.0, 3),
        (0, 3.0, 10.0, 1),
        (0, 25.0, 10.0, 3),
        (4, 10.0, 0.0, 64),
        (64, 10.0, 1.0, 64),
    ],
)
def test_how_many_would_do(workers, waited, computed, wanted) -> None:
    assert workers_that_would_do(workers, waited, computed) == wanted


@given(
    workers=st.integers(1, 8),
    seconds_of_a_batch=st.floats(0.01, 2),
    step=st.floats(0.01, 1),
)
def test_with_so_many_a_loader_keeps_up_and_with_one_fewer_it_does_not(
    workers, seconds_of_a_batch, step
) -> None:
    """``workers`` processes, each of which takes so long for a batch; a step computes ``step``."""
    waited = seconds_of_a_batch / workers - step
    if waited <= 1e-6:
        return
    wanted = workers_that_would_do(workers, waited, step)
    if wanted < 64:
        assert seconds_of_a_batch / wanted <= step * (1 + 1e-5)
    if wanted > workers + 1:
        assert seconds_of_a_batch / (wanted - 1) > step * (1 - 1e-5)


def stats(waited: float, computed: float) -> StepStats:
    return StepStats(0, 0, 0, 1, 0, 0, data_seconds=waited, compute_seconds=computed)


@pytest.fixture
def warnings(caplog, monkeypatch):
    monkeypatch.setattr(logger, "propagate", True)
    caplog.set_level(logging.WARNING, logger.name)
    return caplog


def limit(workers: int, cpus: float, kind: str = "ImageFolder") -> LoaderLimit:
    return LoaderLimit(DataConfig(kind=kind, path="/data", workers=workers), cpus)


def test_the_warning_says_how_many_would_do_and_comes_once(warnings) -> None:
    watch = limit(2, 8.0)
    for _ in range(10):
        watch.check(stats(3.0, 3.0))
    (record,) = warnings.records
    assert record.getMessage() == (
        "the loader is the limit: 50 % of the time is spent waiting for images with data.workers "
        "2; 4 would do"
    )


def test_more_workers_than_cpus_need_a_larger_pod(warnings) -> None:
    watch = limit(2, 2.5)
    for _ in range(3):
        watch.check(stats(6.0, 6.0))
    (record,) = warnings.records
    assert record.getMessage().endswith(
        "4 would do, but this rank may use 2.5 CPUs: give the pod more of them"
    )


@pytest.mark.parametrize(
    "intervals",
    [
        [(100.0, 1.0)],  # the first one starts the processes
        [(0.0, 1.0), (4.0, 4.0)],  # too short to tell
        [(0.0, 1.0), (0.5, 9.5), (0.9, 9.1), (0.9, 9.5)],
    ],
)
def test_there_is_no_warning_without_a_reason(warnings, intervals) -> None:
    watch = limit(2, 8.0)
    for waited, computed in intervals:
        watch.check(stats(waited, computed))
    assert not warnings.records


def test_images_in_memory_have_no_workers_to_advise(warnings) -> None:
    watch = limit(0, 8.0, "Synthetic")
    for _ in range(5):
        watch.check(stats(50.0, 1.0))
    assert not warnings.records


def test_a_training_whose_images_are_slow_says_so(tmp_path, monkeypatch, capsys) -> None:
    """Images of three megapixels for a network of a few weights."""
    monkeypatch.setitem(models._NETWORKS, "bninception", small_network.Small)
    for split, count in (("train", 8), ("val", 1)):
        for number in range(count):
            path = tmp_path / split / "one" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (2000, 1500), (number, 9, 7)).save(path, compress_level=0)
    monkeypatch.setattr("inception_trainer.train.loader_limit.LEAST_SECONDS", 0.0)
    data = {"kind": "ImageFolder", "path": str(tmp_path), "imageSize": 32, "numClasses": 2}
    config = {
        "data": {**data, "workers": 0},
        "batch": {"global": 4},
        "epochs": 1,
        "logEverySteps": 1,
        "precision": "FP32",
    }
    build.run(from_mapping(config), Settings(threads=1))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "is the limit" in line]
    assert "waiting for images with data.workers 0; " in line
