"""What a killed or stopped training leaves behind: exactly what is needed to go on."""

from __future__ import annotations

import json
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import killed_saves
import trainer_ranks
from inception_trainer.checkpoint import checksums
from inception_trainer.checkpoint.folder import FolderCheckpoints
from inception_trainer.config.training import merge
from nightly import but_nightly
from shard_files import same_data
from trainer_ranks import TINY, final

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("copies_of_indices")]


def killed_at(root: Path, operation: int, write: int) -> bool:
    """Whether the process died; it ends well once there is no such operation any more."""
    process = trainer_ranks.CONTEXT.Process(
        target=killed_saves.save_and_die, args=(str(root), operation, write)
    )
    process.start()
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


@pytest.mark.parametrize("kind", ["operation", "write"])
def test_kill_at_any_moment_of_a_save_leaves_a_whole_checkpoint(tmp_path, kind) -> None:
    deaths, found = 0, set()
    while True:
        root = tmp_path / str(deaths)
        numbers = (deaths, -1) if kind == "operation" else (-1, deaths)
        if not killed_at(root, *numbers):
            break
        deaths += 1
        successor = FolderCheckpoints(root, 2, keep=1)
        successor.acquire()
        newest = successor.load()
        assert newest is not None
        step = newest["progress"]["step"]
        assert all(
            torch.equal(value, torch.full((50, 50), float(step)))
            for value in newest["model"].values()
        )
        for path in (root / "checkpoints").glob("*.pt"):
            checksums.check(path)
            assert torch.load(path, weights_only=True)["progress"]["step"] in (1, 2)
        found.add(step)
    assert deaths > 5
    assert found == {1, 2} if kind == "operation" else {1}


def config(path: Path, **changes: Any) -> dict[str, Any]:
    base = merge(TINY, {"checkpoint": {"path": str(path), "everySteps": 2, "everySeconds": 0}})
    return merge(base, changes)


def assert_same_result(one: Path, two: Path) -> None:
    first, second = final(one), final(two)
    for part in (("model",), ("optimizer", "momentum")):
        tensors, others = first, second
        for name in part:
            tensors, others = tensors[name], others[name]
        for name, value in tensors.items():
            assert torch.equal(value, others[name]), name
    summaries = [json.loads((path / "output" / "summary.json").read_text()) for path in (one, two)]
    for figure in ("samplesSeen", "steps", "accuracyTop1", "loss"):
        assert summaries[0][figure] == summaries[1][figure], figure


def test_kill_while_a_checkpoint_is_written_costs_only_the_steps_since_the_one_before(
    tmp_path,
) -> None:
    """A real training, killed while the draft of a checkpoint grows; the next attempt goes on from
    the one before.
    """
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert trainer_ranks.run(whole, config(whole), small=False) == [0]
    hit = None
    for attempt in range(1, 20):
        gang = trainer_ranks.start(parts, config(parts), 1, attempt, small=False)
        drafts = parts / ".writers" / str(attempt)
        gang.until(lambda: (parts / "latest.json").exists() and any(drafts.glob("step-*.pt.tmp")))  # noqa: B023
        gang.signal(signal.SIGKILL)
        gang.wait()
        left = [path.name for path in drafts.glob("step-*.pt.tmp")]
        newest = json.loads((parts / "latest.json").read_text())
        if left and left != [f"{Path(newest['file']).name}.tmp"]:
            hit = newest["step"]
            break
    assert hit is not None, "no save was hit"
    gang = trainer_ranks.start(parts, config(parts), 1, attempt + 1, small=False)
    assert gang.wait() == [0], gang.output()
    assert f"continuing at step {hit} " in gang.output()
    assert_same_result(whole, parts)


def cifar10(root: Path) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    for name in [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]:
        data = generator.integers(0, 256, (8, 3072), dtype=np.uint8)
        content = {b"data": data, b"labels": [number % 10 for number in range(8)]}
        (root / name).write_bytes(pickle.dumps(content, protocol=2))
    return {"kind": "Cifar10", "path": str(root), "numClasses": None}


def image_list(root: Path) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    for split, count in (("train", 40), ("val", 9)):
        lines = []
        for number in range(count):
            Image.fromarray(generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(
                root / f"{split}-{number}.png"
            )
            lines.append(f"{split}-{number}.png {number % 4}")
        (root / f"{split}.txt").write_text("\n".join(lines))
    return {"kind": "ImageList", "path": str(root), "workers": 1}


def shards(root: Path) -> dict[str, Any]:
    return {"kind": "WebDataset", "path": str(same_data(root)[1]), "workers": 1}


@pytest.mark.parametrize("dataset", but_nightly([cifar10, image_list, shards], [shards]))
def test_a_job_on_files_continues_bit_by_bit(
    tmp_path, dataset: Callable[[Path], dict[str, Any]]
) -> None:
    root, whole, parts = tmp_path / "data", tmp_path / "whole", tmp_path / "parts"
    root.mkdir()
    own = {"data": dataset(root), "checkpoint": {"everySteps": 100}}
    assert trainer_ranks.run(whole, config(whole, **own), 2) == [0, 0]
    gang = trainer_ranks.start(parts, config(parts, **own), 2, pause=0.3)
    gang.until(lambda: gang.progress()["step"] >= 1)
    gang.signal(signal.SIGTERM)
    assert gang.wait() == [75, 75], gang.output()
    stopped = json.loads((parts / "latest.json").read_text())["step"]
    assert 0 < stopped < final(whole)["progress"]["step"]
    assert trainer_ranks.run(parts, config(parts, **own), 2, attempt=2) == [0, 0]
    assert_same_result(whole, parts)


@pytest.mark.parametrize(
    ("optimizer", "parts"),
    [
        ({"name": "LARS", "learningRate": 5, "weightDecay": 0.01}, {"momentum"}),
        pytest.param(
            {"name": "LAMB", "learningRate": 0.01, "weightDecay": 0.02},
            {"momentum", "squares"},
            marks=pytest.mark.nightly,
        ),
    ],
    ids=["LARS", "LAMB"],
)
def test_two_ranks_with_adapted_rates_continue_bit_by_bit_after_a_kill(
    tmp_path, optimizer: dict[str, Any], parts: set[str]
) -> None:
    """With MLPerf's schedule, whose rate the next attempt must find again."""
    own = {
        "optimizer": optimizer,
        "schedule": {"name": "Polynomial", "warmupEpochs": 1, "finalLearningRate": 0.0001},
    }
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert trainer_ranks.run(whole, config(whole, **own), 2) == [0, 0]
    gang = trainer_ranks.start(killed, config(killed, **own), 2, pause=0.3)
    gang.until(lambda: (killed / "latest.json").exists() and gang.progress()["step"] >= 3)
    gang.signal(signal.SIGKILL)
    gang.wait()
    saved = json.loads((killed / "latest.json").read_text())["step"]
    assert 0 < saved < final(whole)["progress"]["step"], gang.output()
    gang = trainer_ranks.start(killed, config(killed, **own), 2, attempt=2)
    assert gang.wait() == [0, 0], gang.output()
    assert f"continuing at step {saved} " in gang.output()
    assert_same_result(whole, killed)
    state = final(whole)["optimizer"]
    for part in parts:
        assert all(tensor.abs().max() > 0 for tensor in state[part].values()), part
    trainer_ranks.assert_equal(state, final(killed)["optimizer"])


def of_job(uid: str, created: str, job: str = "default/test") -> dict[str, str]:
    return {
        "INCEPTION_JOB": job,
        "INCEPTION_JOB_UID": uid,
        "INCEPTION_JOB_CREATED": f"2026-11-30T{created}Z",
    }


def test_a_job_made_anew_finishes_what_the_one_before_began(tmp_path) -> None:
    """Real ranks: the new job's first attempt goes on where the old one's fourth was stopped; from
    then on the old one is fenced, and a neighbour is refused.
    """
    job = tmp_path / "job"
    before, anew = of_job("0a1b", "03:33:11"), of_job("0c2d", "03:40:00")

    def start(attempt: int, environment: dict[str, str]) -> trainer_ranks.Gang:
        folder = tmp_path / f"{environment['INCEPTION_JOB_UID']}-{attempt}"
        return trainer_ranks.start(
            folder, config(job, epochs=20), attempt=attempt, pause=0.05, environment=environment
        )

    gang = start(4, before)
    gang.until((job / "latest.json").exists)
    gang.signal(signal.SIGTERM)
    assert gang.wait() == [75]
    stopped = json.loads((job / "latest.json").read_text())["step"]
    gang = start(1, anew)
    assert gang.wait() == [0]
    assert f"continuing at step {stopped} " in gang.output()
    gang = start(5, before)
    assert gang.wait() == [1]
    assert "Fenced: attempt 1 of job default/test (UID 0c2d) owns" in gang.output()
    gang = start(1, of_job("0e3f", "03:50:00", "team-b/test"))
    assert gang.wait() == [78]
    assert f"ConfigError: checkpoint.path: {job} belongs to job default/test" in gang.output()
