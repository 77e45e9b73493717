"""Compiled execution: the same numbers, or an error that says what to install."""

import shutil
import sysconfig
from pathlib import Path

import pytest
import torch
from torch import nn

from inception_trainer import execution
from inception_trainer.config import from_mapping
from inception_trainer.errors import ConfigError

CPU = torch.device("cpu")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))


def test_eager_is_the_network_itself() -> None:
    own = network()
    assert execution.executed(own, "Eager", CPU) is own


@pytest.mark.timeout(300)
def test_compiled_computes_the_same_or_says_what_is_missing() -> None:
    has_compiler = any(map(shutil.which, execution._cpp_compilers()))
    if not (has_compiler and Path(sysconfig.get_paths()["include"], "Python.h").is_file()):
        with pytest.raises(ConfigError, match=r"execution: Compiled needs .*; install .*, or choose Eager"):
            execution.executed(network(), "Compiled", CPU)
        return
    images = torch.randn(6, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    results = []
    for kind in ("Eager", "Compiled"):
        own = network().to(memory_format=torch.channels_last)
        run = execution.executed(own, kind, CPU)
        logits = run(images)
        logits.logsumexp(1).sum().backward()
        results.append((logits.detach(), *(parameter.grad for parameter in own.parameters()), own[1].running_var))
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_missing_compiler_is_named(monkeypatch, device) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(ConfigError, match=r"execution: Compiled needs a compiler .* choose Eager"):
        execution.executed(network(), "Compiled", torch.device(device))


def test_missing_headers_are_named(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    with pytest.raises(ConfigError, match=r"Python's headers, and there is no .*Python\.h; install them"):
        execution.executed(network(), "Compiled", CPU)


def test_synchronized_norms_are_not_compiled() -> None:
    both = {"data": {"kind": "Digits"}, "model": {"batchNorm": "Synchronized"}, "execution": "Compiled"}
    with pytest.raises(ConfigError, match=r"execution: Compiled does not go with model\.batchNorm Synchronized"):
        from_mapping(both)
