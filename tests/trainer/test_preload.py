"""What the launcher imports before it forks ranks: all that they need, and nothing for other
jobs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import cifar_files
import shard_files
from inception_trainer import preload
from inception_trainer.data import cache
from trainer_ranks import TINY

SCRIPT = Path(__file__).resolve().parents[1] / "support" / "late_imports.py"


def data_of_every_kind(folder: Path) -> dict[str, dict[str, Any]]:
    folders, shards = shard_files.same_data(folder)
    for split in ("train", "val"):
        files = sorted(folders.glob(f"{split}/*/*.png"))
        lines = [f"{path.relative_to(folders)} {path.parent.name[-1]}\n" for path in files]
        (folders / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
    cifar_files.python_layout(folder)
    return {
        "Synthetic": TINY["data"],
        "Digits": {"kind": "Digits", "imageSize": 32},
        "Cifar100": {"kind": "Cifar100", "path": str(folder), "imageSize": 32},
        "ImageFolder": {"kind": "ImageFolder", "path": str(folders), "imageSize": 32},
        "ImageList": {"kind": "ImageList", "path": str(folders), "imageSize": 32},
        "WebDataset": {"kind": "WebDataset", "path": str(shards), "imageSize": 32},
    }


def test_a_forked_rank_imports_nothing_before_its_first_step(tmp_path: Path) -> None:
    checkpoint = {"path": "memory://late-imports/job"}
    jobs = {
        name: {
            **TINY,
            "model": {"name": "bninception"},
            "data": {**data, "workers": 0} if name[0] in "IW" else data,
            **({"checkpoint": checkpoint} if name == "Digits" else {}),
        }
        for name, data in data_of_every_kind(tmp_path).items()
    }
    done = subprocess.run(
        [sys.executable, str(SCRIPT), json.dumps(jobs)],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    # Tables of characters are read when the first file in them is.
    late = {
        name: [module for module in modules if not module.startswith("encodings.")]
        for name, modules in json.loads(done.stdout).items()
    }
    assert late == {name: [] for name in jobs}


def test_what_decodes_files_is_imported_for_jobs_that_have_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("INCEPTION_CONFIG", json.dumps({"recipe": "bninception-digits"}))
    assert preload.modules() == preload.MODULES
    data = {"kind": "ImageFolder", "path": "/data"}
    monkeypatch.setenv(
        "INCEPTION_CONFIG", json.dumps({"recipe": "bninception-digits", "data": data})
    )
    assert set(preload.DECODERS) < set(preload.modules())


def test_the_package_of_a_store_is_imported_for_jobs_that_use_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = {"path": "s3://bucket/jobs/a"}
    monkeypatch.setenv(
        "INCEPTION_CONFIG", json.dumps({"recipe": "bninception-digits", "checkpoint": path})
    )
    assert preload.modules()[-2:] == ("fsspec.implementations.chained", "s3fs")


@pytest.mark.parametrize("text", ["", "{", '{"recipe": "no such"}'])
def test_a_wrong_configuration_is_left_to_the_ranks(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INCEPTION_CONFIG", text)
    assert preload.modules() == preload.MODULES


@pytest.mark.parametrize(("kind", "caches"), [("ImageFolder", 1), ("Cifar10", 0)])
def test_the_cache_that_ranks_share_is_made_before_they_are_forked(
    monkeypatch: pytest.MonkeyPatch, kind: str, caches: int
) -> None:
    monkeypatch.setattr(cache, "_reserved", {})
    data = {"kind": kind, "path": "/data", "cache": {"memoryMebibytes": 1}}
    monkeypatch.setenv("INCEPTION_CONFIG", json.dumps({"data": data}))
    preload.reserve()
    assert len(cache._reserved) == caches
    monkeypatch.setenv("INCEPTION_CONFIG", "{")
    preload.reserve()
    assert len(cache._reserved) == caches
