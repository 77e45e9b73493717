"""The commands of docs/recipes.md, each run on small data: what a row promises can be typed in."""

from __future__ import annotations

import shlex
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import cifar_files
import trainer_ranks
from inception_trainer import cli, models, recipes
from inception_trainer.config import sources
from inception_trainer.config import training as schema
from inception_trainer.config.settings import from_environment
from shard_files import png, sample, write_tar

ROOT = Path(__file__).resolve().parents[2]
ROWS = [
    row
    for system in yaml.safe_load((ROOT / "docs" / "recipes.yaml").read_text(encoding="utf-8"))[
        "systems"
    ]
    for row in system["rows"]
    if "command" in row
]
SIDES = {"inception_v3": 75, "inception_v4": 75, "inceptionv3_cifar": 12}
CLASSES = 3
MOST_RANKS = 2

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("copies_of_indices")]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Stands for /data: a small ImageNet, CIFAR-10, CIFAR-100, photographs, weights and names."""
    root = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)

    def picture(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (90, 80, 3), dtype=np.uint8)).save(path)

    for name in ("a", "b", "c"):
        for number in range(4):
            picture(root / "imagenet" / "train" / name / f"{number}.jpg")
        picture(root / "imagenet" / "val" / name / "0.jpg")
        picture(root / "photos" / f"{name}.jpg")
    _cifar10(root / "cifar10", random)
    cifar_files.binary_layout(root / "cifar100")
    for split in ("train", "val"):
        picture(root / "lists" / f"{split}.jpg")
        (root / "lists" / f"{split}.txt").write_text(f"{split}.jpg 0\n{split}.jpg 1\n" * 2)
    for split in ("train", "val"):
        entries = [
            entry
            for number in range(8)
            for entry in sample(str(number), png(number), number % CLASSES)
        ]
        write_tar(root / "shards" / f"{split}.tar", entries)
    (root / "names.txt").write_text("first\nsecond\nthird\n")
    (root / "weights").mkdir()
    for name in ("bninception", "inception_v4", "inceptionv3_cifar", "resnet50"):
        torch.save(models.create(name, CLASSES).state_dict(), root / "weights" / f"{name}.pth")
    return root


DAILY = ["A1", "A3", "A7", "A8", "A11", "B3", "B8", "B11", "C2", "C5", "D4", "D7", "E1", "E2"]
"""Every system, mode, launch and kind of data once; the others say the same with other values."""


def _cifar10(folder: Path, random: np.random.Generator) -> None:
    folder.mkdir()
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        records = random.integers(0, 255, (4, 1 + 3072), dtype=np.uint8)
        records[:, 0] %= 10
        records.tofile(folder / f"{name}.bin")


def parsed(
    command: str, data: Path, output: Path
) -> tuple[dict[str, str], str, int, dict[str, Any]]:
    """Variables, mode, ranks and configuration of a command, with our folders in place of its
    own.
    """
    words = shlex.split(command.replace("/data/", f"{data}/").replace("/out", str(output)))
    variables = dict(word.split("=", 1) for word in takewhile(lambda word: "=" in word, words))
    at = next(
        i for i, word in enumerate(words) if word in ("inception-trainer", "inception_trainer")
    )
    ranks = int(words[words.index("--nproc-per-node") + 1]) if "--nproc-per-node" in words else 1
    options = cli._parser().parse_args(words[at + 1 :])
    job: dict[str, Any] = {}
    for override in options.set:
        sources.override(job, override)
    return variables, options.command.capitalize(), min(ranks, MOST_RANKS), job


def small(mode: str, job: dict[str, Any]) -> dict[str, Any]:
    """The same, over in seconds: few small images, two steps, on the CPU."""
    preset = recipes.read(job["recipe"]) if "recipe" in job else {}
    name = schema.merge(preset, job).get("model", {}).get("name", "bninception")
    kind = schema.merge(preset, job).get("data", {}).get("kind")
    batch = {"global": 4, **({"perDevice": 2} if "perDevice" in job.get("batch", {}) else {})}
    changes = {
        "mode": mode,
        "batch": batch,
        "data": {
            "workers": 0,
            "imageSize": SIDES.get(name, 32),
            **({"samples": 16} if kind == "Synthetic" else {}),
        },
        "accelerator": {"profile": "cpu", "module": None, "device": "cpu", "backend": "gloo"},
        "benchmark": {"warmupSteps": 1, "steps": 2},
        "loss": {"auxiliaryWeight": 0},
    }
    if name != "bninception":
        changes["precision"] = "FP32"  # half precision takes a CPU minutes with the larger networks
    if mode == "Train":
        # Rates for thousands of images would throw four of them out of the numbers' range.
        changes |= {
            "maxSteps": 2,
            "schedule": {"warmupEpochs": 0.5},
            "optimizer": {"learningRate": 0.01},
        }
    return schema.merge(job, changes)


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=row["row"], marks=() if row["row"] in DAILY else pytest.mark.nightly)
        for row in ROWS
    ],
)
def test_commands_run_on_small_data(
    row: dict[str, Any], data: Path, tmp_path: Path, monkeypatch
) -> None:
    variables, mode, ranks, job = parsed(row["command"], data, tmp_path / "out")
    full = schema.from_mapping({**job, "mode": mode}, from_environment(variables).image_folder)
    assert full.mode == mode, "as it stands"
    gang = trainer_ranks.start(
        tmp_path, small(mode, job), ranks, small=False, environment=variables
    )
    assert gang.wait() == [0] * ranks, gang.output()
    done = gang.progress()
    assert (done["metrics"]["progress"], done["step"] > 0) == (1.0, True)
    for key in ("checkpoint", "output"):
        if "path" in job.get(key, {}):
            assert any(Path(job[key]["path"]).iterdir())
    assert all(Path(path).is_file() for name, path in variables.items() if name.endswith("_LOG"))


@pytest.mark.parametrize("name", [name for name in recipes.names() if not name.endswith("-digits")])
def test_every_recipe_is_on_the_page(name) -> None:
    assert f"`{name}`" in (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
