"""Compiled execution: the same numbers, or an error that says what to install."""

import shutil
import sysconfig
from pathlib import Path

import pytest
import torch
from torch import nn

import trainer_ranks
from inception_trainer.config.training import from_mapping, merge
from inception_trainer.errors import ConfigError
from inception_trainer.train import compiling
from trainer_ranks import TINY

CPU = torch.device("cpu")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2)
    )


def test_eager_is_the_network_itself() -> None:
    own = network()
    assert compiling.compile_if_asked(own, "Eager", CPU) is own


def compilers_are_there() -> bool:
    has_compiler = any(map(shutil.which, compiling._cpp_compilers()))
    return has_compiler and Path(sysconfig.get_paths()["include"], "Python.h").is_file()


def run(path: Path, kind: str, mode: str = "Train") -> trainer_ranks.Gang:
    length = {"maxSteps": 4, "benchmark": {"warmupSteps": 1, "steps": 2}}
    changes = {
        "mode": mode,
        "execution": kind,
        "checkpoint": {"path": str(path), "everySeconds": 0},
        **length,
    }
    return trainer_ranks.start(path, merge(TINY, changes), small=True)


def losses(path: Path) -> list[float]:
    state = torch.load(path / "checkpoints" / "final.pt", weights_only=True)
    return [row[1] for row in state["progress"]["history"]["train"]]


@pytest.mark.timeout(300)
@pytest.mark.nightly
def test_compiled_trains_the_same_or_says_what_is_missing(tmp_path) -> None:
    gang = run(tmp_path / "compiled", "Compiled")
    if not compilers_are_there():
        assert gang.wait() == [78]
        assert "execution: Compiled needs" in gang.output()
        return
    assert gang.wait(240) == [0], gang.output()
    assert run(tmp_path / "eager", "Eager").wait() == [0]
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "eager"), abs=1e-4)
    gang = run(tmp_path / "benchmark", "Compiled", "Benchmark")
    assert gang.wait(240) == [0], gang.output()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_missing_compiler_is_named(monkeypatch, device) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(ConfigError, match=r"execution: Compiled needs a compiler .* choose Eager"):
        compiling.compile_if_asked(network(), "Compiled", torch.device(device))


def test_missing_headers_are_named(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    with pytest.raises(
        ConfigError, match=r"Python's headers, and there is no .*Python\.h; install them"
    ):
        compiling.compile_if_asked(network(), "Compiled", CPU)


def test_synchronized_norms_are_not_compiled() -> None:
    both = {
        "data": {"kind": "Digits"},
        "model": {"batchNorm": "Synchronized"},
        "execution": "Compiled",
    }
    with pytest.raises(
        ConfigError, match=r"execution: Compiled does not go with model\.batchNorm Synchronized"
    ):
        from_mapping(both)
