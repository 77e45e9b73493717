"""Pickled weights of others are read only by a torch that no crafted file can make run code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from inception_trainer import cli, models
from inception_trainer.comm import Comm
from inception_trainer.config.continuation import fingerprint
from inception_trainer.config.training import from_mapping
from inception_trainer.errors import ConfigError, DataError
from inception_trainer.train.network import build_network
from inception_trainer.weights import trained_network
from inception_trainer.weights.pickles import faults_of, is_own, may_unpickle

OLD, NEW = "CVE-2025-32434", "CVE-2026-24747"
CPU = torch.device("cpu")
ALONE = Comm(0, 1, "gloo")


@pytest.mark.parametrize(
    ("version", "faults"),
    [
        ("2.1.0", [OLD, NEW]),
        ("2.5.1+cpu", [OLD, NEW]),
        ("2.6.0a0+ecf3bae40a.nv25.01", [OLD, NEW]),
        ("2.6.0", [NEW]),
        ("2.6.0+debian", [NEW]),
        ("2.9.1+cu128", [NEW]),
        ("2.10.0a0+b4e4ee81d3.nv25.12", [NEW]),
        ("2.10.0.dev20251201", [NEW]),
        ("2.10.0rc2", [NEW]),
        ("2.10.0", []),
        ("2.10.0.post1", []),
        ("2.15.0+cu132", []),
        ("3.0.0a0", []),
        ("vendor-7", [OLD, NEW]),
        ("", [OLD, NEW]),
    ],
)
def test_every_release_has_the_holes_that_were_closed_after_it(
    version: str, faults: list[str]
) -> None:
    assert faults_of(version) == faults


def config(weights: str | None, root: str | None, **model: Any) -> Any:
    return from_mapping(
        {
            "mode": "Evaluate",
            "recipe": "bninception-digits",
            "model": {"weights": weights, **model},
            "checkpoint": {"path": root},
        }
    )


@pytest.mark.parametrize(
    ("weights", "root", "own"),
    [
        (None, "/c/job", True),
        ("/c/job/checkpoints/best.pt", "/c/job", True),
        ("/c/job/checkpoints/best.pt", "/c/job/", True),
        ("file:///c/job/checkpoints/best.pt", "/c/job", True),
        ("/c/job-2/checkpoints/best.pt", "/c/job", False),
        ("/c/job/../other/best.pt", "/c/job", False),
        ("/c/job/best.pt", None, False),
        ("https://host/c/job/best.pt", "/c/job", False),
        ("s3://bucket/job/attempts/00000001/final.pt", "s3://bucket/job", True),
        ("s3://bucket/job-2/final.pt", "s3://bucket/job", False),
        ("s3://bucket/job/../other/final.pt", "s3://bucket/job", False),
        ("s3://bucket/job/a.zip::https://host/final.pt", "s3://bucket/job", False),
        ("https://host/s3://bucket/job/final.pt", "s3://bucket/job", False),
    ],
)
def test_only_what_lies_in_the_jobs_own_directory_is_its_own(
    weights: str | None, root: str | None, own: bool
) -> None:
    assert is_own(config(weights, root)) is own
    assert may_unpickle(config(weights, root)) is own
    assert may_unpickle(config(weights, root, foreignPickle="Allow"))


def test_a_link_out_of_the_jobs_own_directory_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "other.pt").write_bytes(b"")
    (tmp_path / "job" / "best.pt").symlink_to(tmp_path / "other.pt")
    assert not is_own(config(str(tmp_path / "job" / "best.pt"), str(tmp_path / "job")))


@pytest.fixture
def pickled(tmp_path: Path) -> Path:
    path = tmp_path / "other" / "weights.pth"
    path.parent.mkdir()
    torch.save(models.create("bninception", 10).state_dict(), path)
    return path


def evaluate(weights: Path | None, root: Path, **model: Any) -> None:
    trained_network.open_trained(
        config(None if weights is None else str(weights), str(root), **model), ALONE, CPU
    )


@pytest.mark.parametrize(("version", "faults"), [("2.5.1", f"{OLD}, {NEW}"), ("2.9.1", NEW)])
def test_a_pickle_of_others_is_refused_with_the_remedies(
    monkeypatch: pytest.MonkeyPatch, pickled: Path, tmp_path: Path, version: str, faults: str
) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(ConfigError) as caught:
        evaluate(pickled, tmp_path / "job")
    text = str(caught.value)
    assert text.startswith(f"model.weights: {pickled} is a pickle of somebody else, and torch")
    assert f"torch {version} may run code that is hidden in it ({faults})" in text
    assert text.index(".safetensors") < text.index("model.foreignPickle")
    assert "2.10 or newer" in text


def test_training_refuses_it_likewise(
    monkeypatch: pytest.MonkeyPatch, pickled: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch, "__version__", "2.9.1")
    job = {
        "recipe": "bninception-digits",
        "model": {"weights": str(pickled)},
        "checkpoint": {"path": str(tmp_path / "job")},
    }
    with pytest.raises(ConfigError, match=NEW):
        build_network(from_mapping(job), 10, ALONE, CPU)
    job["model"]["foreignPickle"] = "Allow"  # type: ignore[index]
    _, source = build_network(from_mapping(job), 10, ALONE, CPU)
    assert source is not None


def test_what_is_allowed_or_cannot_hold_code_or_is_the_jobs_own_is_read(
    monkeypatch: pytest.MonkeyPatch, pickled: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch, "__version__", "2.10.0")
    evaluate(pickled, tmp_path / "job")
    monkeypatch.setattr(torch, "__version__", "2.1.0")
    evaluate(pickled, tmp_path / "job", foreignPickle="Allow")
    evaluate(pickled, pickled.parent)
    harmless = tmp_path / "weights.safetensors"
    save_file(models.create("bninception", 10).state_dict(), harmless)
    evaluate(harmless, tmp_path / "job")


def test_the_command_average_asks_for_the_same_permission(
    monkeypatch: pytest.MonkeyPatch, pickled: Path, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.setattr(torch, "__version__", "2.9.1")
    command = ["average", str(pickled), str(pickled), "--output", str(tmp_path / "mean.pt")]
    with pytest.raises(SystemExit) as ended:
        cli.main(command)
    assert ended.value.code == ConfigError.exit_code
    assert "--allow-pickle" in capsys.readouterr().err
    assert cli.main([*command, "--allow-pickle"]) == 0


def test_the_permission_is_no_part_of_what_decides_a_training() -> None:
    plain, allowed = (
        fingerprint(config("/w.pt", "/c", foreignPickle=word)) for word in ("Refuse", "Allow")
    )
    assert plain == allowed
    assert not [key for key in plain if "foreignPickle" in key]


def test_the_jobs_best_checkpoint_is_no_link_to_elsewhere(pickled: Path, tmp_path: Path) -> None:
    (tmp_path / "job" / "checkpoints").mkdir(parents=True)
    (tmp_path / "job" / "checkpoints" / "best.pt").symlink_to(pickled)
    with pytest.raises(DataError, match=r"best\.pt leads out of .*name the file as model\.weights"):
        evaluate(None, tmp_path / "job")


# Tracing is deprecated, and what is tested here is what becomes of files that were made so.
@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_an_exported_file_of_others_is_named_as_a_program(
    pickled: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = models.create("bninception", 10).eval()
    program = tmp_path / "other" / "network.torchscript"
    torch.jit.trace(network, torch.zeros(1, 3, 32, 32)).save(str(program))
    evaluate(program, tmp_path / "other")
    assert "is a program" not in caplog.text
    evaluate(program, tmp_path / "job")
    assert f"model.weights: {program} is a program, not weights" in caplog.text
