"""Networks of the package timm: what is known of them, and that they train, resume, evaluate and
are exported as those of our own.
"""

from __future__ import annotations

import csv
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

import trainer_ranks
from inception_trainer import models
from inception_trainer.comm import Comm
from inception_trainer.config import catalog, timm_networks
from inception_trainer.config.normalization import IMAGENET, INCEPTION
from inception_trainer.config.training import TrainingConfig, from_mapping, merge
from inception_trainer.errors import ConfigError
from inception_trainer.train.network import build_network
from inception_trainer.weights.load import open_weights
from shard_files import same_data
from trainer_ranks import TINY, final

pytestmark = pytest.mark.timeout(600)

ALONE = Comm(0, 1, "gloo")
CPU = torch.device("cpu")
NETWORK = "timm/test_resnet.r160_in1k"
FOLDERS = {"kind": "ImageFolder", "path": "/data"}


@pytest.fixture(autouse=True)
def _nothing_is_remembered() -> Iterator[None]:
    timm_networks.facts.cache_clear()
    yield
    timm_networks.facts.cache_clear()


def configured(name: str, **sections: Any) -> TrainingConfig:
    return from_mapping({"model": {"name": name}, "data": FOLDERS, **sections})


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("resnet18.a1_in1k", "fc."),
        ("vit_tiny_patch16_224.augreg_in21k_ft_in1k", "head."),
        ("xception41", "head.fc."),
        ("levit_128s", "head.linear."),
    ],
)
def test_a_network_is_evaluated_as_timm_evaluates_it(name: str, head: str) -> None:
    published = timm.get_pretrained_cfg(name)
    assert published is not None
    data = configured(f"timm/{name}").data
    assert data.image_size == published.input_size[1]
    assert data.evaluation_crop_ratio == published.crop_pct
    assert data.interpolation.lower() == published.interpolation
    known = catalog.facts(f"timm/{name}")
    assert known.normalization is not None
    assert known.normalization.mean == published.mean
    assert known.normalization.std == published.std
    assert known.head == head


def test_normalizations_that_have_a_name_keep_it() -> None:
    assert catalog.facts("timm/resnet18").normalization is IMAGENET
    assert catalog.facts("timm/vit_tiny_patch16_224").normalization is INCEPTION


def test_what_is_written_comes_before_what_timm_says() -> None:
    written = configured(
        "timm/resnet18", data={**FOLDERS, "imageSize": 64, "interpolation": "Nearest"}
    ).data
    assert (written.image_size, written.interpolation) == (64, "Nearest")
    assert written.evaluation_crop_ratio == timm.get_pretrained_cfg("resnet18").crop_pct
    recipe = from_mapping(
        {
            "recipe": "resnet50-imagenet",
            "model": {"name": "timm/resnet18"},
            "data": {"path": "/d", "evaluationCropRatio": 1},
        }
    ).data
    assert recipe.evaluation_crop_ratio == 1


def test_small_data_keep_their_size_where_the_network_takes_it() -> None:
    digits = {"kind": "Digits"}
    assert configured("timm/resnet18", data=digits).data.image_size == 32
    assert configured("timm/test_vit", data=digits).data.image_size == 160
    # Synthetic images are made at their size.
    assert configured("timm/test_vit", data={"kind": "Synthetic"}).data.interpolation == "Bilinear"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm/resnet_18", "has no network 'resnet_18' (did you mean timm/resnet"),
        ("timm/resnet18.nobody", "known: timm/resnet18.a1_in1k"),
        ("resnet-50", "did you mean resnet50"),
        ("resnet-50", "and timm/<name>"),
    ],
)
def test_unknown_names(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=r"^model\.name: ") as refused:
        configured(name)
    assert words in str(refused.value)


def test_a_network_of_one_size_refuses_others() -> None:
    with pytest.raises(ConfigError, match=r"data\.imageSize: 96 does not fit timm/test_vit"):
        configured("timm/test_vit", data={**FOLDERS, "imageSize": 96})
    with pytest.raises(ConfigError, match=r"data\.imageSize: 200 does not fit .*try 160"):
        configured("timm/test_vit", data={**FOLDERS, "imageSize": 200})


def test_without_timm_the_error_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"timm/resnet18 needs the Python package timm"):
        configured("timm/resnet18")
    # Nobody else needs it.
    configured("resnet50")


def test_dropout_is_that_of_the_configuration() -> None:
    network = models.create("timm/test_vit", 4, dropout=0.25)
    assert network.head_drop.p == 0.25  # type: ignore[union-attr]


def test_tensors_that_no_file_has_are_right_after_a_resume() -> None:
    """Positions of attention are computed when the network is built."""
    config = from_mapping(
        {
            "model": {"name": "timm/test_coatnet"},
            "data": {"kind": "Synthetic", "numClasses": 4},
            "seed": 3,
        }
    )
    begun, _ = build_network(config, 4, ALONE, CPU)
    assert {name for name, _ in begun.named_buffers()} - begun.state_dict().keys()
    resumed, _ = build_network(config, 4, ALONE, CPU, saved=begun.state_dict(), resumes=True)
    images = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(begun.eval()(images), resumed.eval()(images))


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_published_weights_bring_their_preprocessing(tmp_path: Path, suffix: str) -> None:
    network = timm.create_model("test_vit", num_classes=7)
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save(network.state_dict(), path)
    else:
        save_file(network.state_dict(), path)
    file = open_weights("timm/test_vit", path, may_unpickle=True)
    assert (file.model, file.classes) == ("timm/test_vit", 7)
    assert file.source.layout == "timm"
    assert file.source.normalization == catalog.facts("timm/test_vit").normalization


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ConfigError, match=r"holds no head\.weight, the classifier of timm/test_v"):
        _ = open_weights("timm/test_vit", tmp_path / "weights.pth", may_unpickle=True).classes


def job(path: Path, **changes: Any) -> dict[str, Any]:
    own = {
        "model": {"name": NETWORK},
        "checkpoint": {"path": str(path), "everySteps": 2, "everySeconds": 0},
    }
    return merge(merge(TINY, own), changes)


def run(folder: Path, config: dict[str, Any], attempt: int = 1) -> str:
    gang = trainer_ranks.start(folder, config, attempt=attempt)
    assert gang.wait() == [0], gang.output()
    return gang.output()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole training."""
    root: Path = tmp_path_factory.mktemp("timm")
    run(root / "ranks", job(root / "job"))
    return root / "job"


@pytest.mark.nightly
def test_a_killed_training_goes_on_bit_by_bit(tmp_path: Path, trained: Path) -> None:
    config = job(tmp_path / "job")
    gang = trainer_ranks.start(tmp_path / "ranks", config)
    gang.until((tmp_path / "job" / "latest.json").exists)
    gang.signal(signal.SIGKILL)
    gang.wait()
    saved = json.loads((tmp_path / "job" / "latest.json").read_text())["step"]
    assert saved < final(trained)["progress"]["step"]
    assert f"continuing at step {saved} " in run(tmp_path / "ranks", config, 2)
    for part in ("model", "optimizer"):
        trainer_ranks.assert_equal(final(trained)[part], final(tmp_path / "job")[part], part)


@pytest.mark.parametrize("file", ["best.pt", "final.safetensors"])
def test_a_trained_network_evaluates_as_it_did(tmp_path: Path, trained: Path, file: str) -> None:
    """A file of ours says which network it is of."""
    config = job(tmp_path / "none", mode="Evaluate", output={"path": str(tmp_path / "out")})
    del config["checkpoint"]
    weights = str(trained / "checkpoints" / file)
    run(tmp_path / "ranks", merge(config, {"model": {"weights": weights}}))
    summary = json.loads((tmp_path / "out" / "evaluate" / "summary.json").read_text())
    whole = json.loads((trained / "output" / "summary.json").read_text())
    assert summary["model"] == NETWORK
    if file.startswith("final"):
        assert summary["loss"] == pytest.approx(whole["loss"], abs=1e-6)
        assert summary["accuracyTop1"] == whole["accuracyTop1"]


def test_a_trained_network_classifies(tmp_path: Path, trained: Path) -> None:
    folders, _ = same_data(tmp_path / "data")
    config = {
        "mode": "Infer",
        "model": {"name": NETWORK, "weights": str(trained / "checkpoints" / "final.pt")},
        "inference": {"path": str(folders / "val")},
        "output": {"path": str(tmp_path / "out")},
        "precision": "FP32",
    }
    run(tmp_path / "ranks", config)
    with (tmp_path / "out" / "infer" / "predictions.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert len(rows) == 9
    assert all(float(row["probability1"]) > 0.2 for row in rows)


@pytest.mark.nightly
def test_a_trained_network_is_exported(tmp_path: Path, trained: Path) -> None:
    config = {
        "mode": "Export",
        "model": {"name": NETWORK, "weights": str(trained / "checkpoints" / "final.pt")},
        "export": {"formats": ["TorchScript", "Safetensors"]},
        "output": {"path": str(tmp_path / "out")},
    }
    run(tmp_path / "ranks", config)
    folder = tmp_path / "out" / "export"
    names = {path.name for path in folder.iterdir()}
    assert {f"timm-{NETWORK[5:]}.torchscript", f"timm-{NETWORK[5:]}.safetensors"} <= names
    evaluate = job(tmp_path / "none", mode="Evaluate", output={"path": str(tmp_path / "again")})
    del evaluate["checkpoint"]
    weights = str(folder / f"timm-{NETWORK[5:]}.torchscript")
    run(tmp_path / "ranks 2", merge(evaluate, {"model": {"weights": weights}}))
    summary = json.loads((tmp_path / "again" / "evaluate" / "summary.json").read_text())
    whole = json.loads((trained / "output" / "summary.json").read_text())
    assert summary["loss"] == pytest.approx(whole["loss"], abs=1e-4)
