"""Compiled execution: the same numbers, or an error that says what to install."""

import json
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
from inception_trainer.weights.exported_network import ExportedFile, ExportedNetwork
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
        "output": {"path": str(path / "output")},
        **length,
    }
    return trainer_ranks.start(path, merge(TINY, changes))


def losses(path: Path) -> list[float]:
    state = torch.load(path / "checkpoints" / "final.pt", weights_only=True)
    return [row[1] for row in state["progress"]["history"]["train"]]


@pytest.mark.timeout(1200)
@pytest.mark.nightly
def test_compiled_trains_the_same_or_says_what_is_missing(tmp_path) -> None:
    gang = run(tmp_path / "compiled", "Compiled")
    if not compilers_are_there():
        assert gang.wait() == [78]
        assert "execution: Compiled needs" in gang.output()
        return
    assert gang.wait(600) == [0], gang.output()
    assert run(tmp_path / "eager", "Eager").wait() == [0]
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "eager"), abs=1e-4)
    for mode in ("Benchmark", "Evaluate", "Infer"):
        gang = run(tmp_path / "compiled", "Compiled", mode)
        assert gang.wait(600) == [0], gang.output()
    assert run(tmp_path / "eager", "Eager", "Evaluate").wait() == [0]
    accuracies = [
        json.loads((tmp_path / kind / "output" / "evaluate" / "summary.json").read_text())["loss"]
        for kind in ("compiled", "eager")
    ]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=1e-4)


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


@pytest.mark.parametrize("execution", ["Compiled", "CompiledGraphs"])
def test_synchronized_norms_are_not_compiled(execution) -> None:
    both = {
        "data": {"kind": "Digits"},
        "model": {"batchNorm": "Synchronized"},
        "execution": execution,
    }
    with pytest.raises(
        ConfigError,
        match=rf"execution: {execution} does not go with model\.batchNorm Synchronized",
    ):
        from_mapping(both)


def test_graphs_need_a_device_that_has_them() -> None:
    with pytest.raises(ConfigError, match=r"CompiledGraphs needs a device of type cuda, .* cpu;"):
        compiling.compile_if_asked(network(), "CompiledGraphs", CPU)


@pytest.mark.nightly
def test_a_device_that_torch_cannot_compile_for_is_named_before_the_first_step() -> None:
    """Nothing can be computed on torch's device without memory, so a trial on it fails."""
    with pytest.raises(
        ConfigError, match=r"torch\.compile, which does not work on this meta device"
    ):
        compiling.compile_if_asked(network(), "Compiled", torch.device("meta"))


def test_evaluation_compiles_the_usual_sizes_only() -> None:
    own = network()
    called: list[int] = []

    class Compiled(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            called.append(len(images))
            return own(images)

    both = compiling._CompiledForSizes(own, Compiled(), {4, 8})
    for size in (4, 8, 3):
        assert both(torch.zeros(size, 3, 8, 8)).shape == (size, 2)
    assert called == [4, 8]


def test_an_exported_file_is_run_as_it_is(tmp_path) -> None:
    exported = ExportedNetwork(ExportedFile(tmp_path / "a.pt2", lambda images: images, {}))
    assert compiling.compile_for_evaluation(exported, "Compiled", CPU, {1}) is exported


def test_nothing_is_compiled_for_evaluation_unless_asked() -> None:
    own = network()
    assert compiling.compile_for_evaluation(own, "Eager", CPU, {1}) is own
