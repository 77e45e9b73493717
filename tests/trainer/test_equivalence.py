"""One, two and four ranks on the same samples and the same global batch train the same: the losses
of every step.

With accumulation the micro-batches are the same on any number of ranks, and with them the batch
norm; without, batch norm is synchronized. What remains is the order of summation. The trainer and
its ranks are the real ones; the network is a small one, because the others turn the last bit of a
gradient into a tenth of the loss within a few steps.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import trainer_ranks
from inception_trainer.config.training import merge
from nightly import but_nightly
from trainer_ranks import TINY

pytestmark = pytest.mark.timeout(300)
STEPS, GLOBAL = 20, 16
# Processors with wider vectors add in another order: 2.5e-5 was seen with RMSProp on one of them.
TOLERANCES = {"FP32": 5e-5, "BF16": 0.02}
"""Of the mean loss of a step, which begins near ln 4."""
WAYS = {
    "accumulation": {"batch": {"global": GLOBAL, "perDevice": 4}},
    "synchronized": {"model": {"batchNorm": "Synchronized"}},
}
METHODS = {
    "SGD": {"name": "SGD", "learningRate": 0.02, "nesterov": True},
    "RMSProp": {"name": "RMSProp", "learningRate": 0.02, "epsilon": 0.1},
}


def config(path: Path, *changes: dict) -> dict:
    base = {
        "data": {"samples": 8 * GLOBAL},
        "batch": {"global": GLOBAL},
        "epochs": 4,
        "maxSteps": STEPS,
        "evaluation": {"everyEpochs": 9},
        "checkpoint": {"path": str(path), "everySeconds": 0},
    }
    result = merge(TINY, base)
    for change in changes:
        result = merge(result, change)
    return result


def losses(path: Path) -> list[float]:
    state = torch.load(path / "checkpoints" / "final.pt", weights_only=True)
    return [row[1] for row in state["progress"]["history"]["train"]]


def trained(
    path: Path, world: int, *changes: dict, attempt: int = 1, small: bool = True
) -> list[float]:
    gang = trainer_ranks.start(path, config(path, *changes), world, attempt, small=small)
    assert gang.wait() == [0] * world, gang.output()
    return losses(path)


def combinations() -> list[Any]:
    """Every value once in `make test`, all of them together in test-all."""
    daily = (("accumulation", "SGD", "FP32"), ("synchronized", "RMSProp", "BF16"))
    return but_nightly(itertools.product(WAYS, METHODS, TOLERANCES), daily)


@pytest.mark.parametrize(("way", "method", "precision"), combinations())
def test_one_two_and_four_ranks_train_the_same(tmp_path, way, method, precision) -> None:
    changes = (WAYS[way], {"optimizer": METHODS[method], "precision": precision})
    one, two, four = (trained(tmp_path / str(world), world, *changes) for world in (1, 2, 4))
    assert len(one) == STEPS
    assert one[0] - one[-1] > 5 * TOLERANCES[precision], (
        "nothing was learnt, so nothing is compared"
    )
    assert two == pytest.approx(one, abs=TOLERANCES[precision])
    assert four == pytest.approx(one, abs=TOLERANCES[precision])


def test_without_either_two_ranks_train_another_way(tmp_path) -> None:
    """What the tolerance notices: batch norm over half the samples, and nothing else."""
    one, two = (trained(tmp_path / str(world), world) for world in (1, 2))
    assert two != pytest.approx(one, abs=10 * TOLERANCES["FP32"])


@pytest.mark.parametrize("way", but_nightly(WAYS, ("synchronized",)))
def test_other_numbers_of_ranks_continue_the_trajectory(tmp_path, way) -> None:
    whole = trained(tmp_path / "whole", 1, WAYS[way])
    parts = tmp_path / "parts"
    for attempt, (world, steps) in enumerate(((4, 6), (2, 13), (1, STEPS)), 1):
        continued = trained(parts, world, WAYS[way], {"maxSteps": steps}, attempt=attempt)
    summary = json.loads((parts / "output" / "summary.json").read_text())
    assert (summary["steps"], summary["attempts"], summary["samplesSeen"]) == (
        STEPS,
        3,
        STEPS * GLOBAL,
    )
    assert continued == pytest.approx(whole, abs=TOLERANCES["FP32"])


def test_the_first_steps_of_a_network_of_the_catalogue_are_the_same(tmp_path) -> None:
    """The gate of RECIPES 12 at four ranks: one gradient through all layers of BN-Inception, before
    rounding grows.
    """
    first = {"maxSteps": 2, "data": {"samples": 2 * GLOBAL}, "optimizer": {"learningRate": 0.002}}
    one, four = (
        trained(tmp_path / str(world), world, WAYS["accumulation"], first, small=False)
        for world in (1, 4)
    )
    assert abs(one[0] - one[1]) > 1e-2
    assert four[0] == pytest.approx(one[0], abs=1e-5)
    assert four[1] == pytest.approx(one[1], abs=1e-3)
