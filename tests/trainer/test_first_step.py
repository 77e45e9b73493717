"""What cannot work is said before the first step, and what works is not called broken."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import trainer_ranks
from inception_trainer import models
from inception_trainer.config.training import TrainingConfig, from_mapping, merge
from inception_trainer.errors import ConfigError
from inception_trainer.train.evaluation import Evaluation, looks_like_guessing
from inception_trainer.train.network import check_batch_norms
from trainer_ranks import TINY

pytestmark = pytest.mark.timeout(300)

# Network, whether it has its auxiliary head, side of its images.
NETWORKS = [
    ("bninception", False, 32),
    ("bninception", False, 64),
    ("inception_v3", False, 75),
    ("inception_v3", False, 299),
    ("inception_v3", True, 299),
    ("inception_v4", False, 75),
    ("inception_v4", False, 299),
    ("resnet50", False, 32),
    ("resnet50", False, 64),
    ("inceptionv3_cifar", False, 9),
    ("inceptionv3_cifar", False, 32),
]


def job(name: str, auxiliary: bool, side: int, **changes: Any) -> TrainingConfig:
    base = {
        "model": {"name": name},
        "data": {"kind": "Synthetic", "imageSize": side},
        "batch": {"perDevice": 1},
    }
    if name == "inception_v3":
        base["loss"] = {"auxiliaryWeight": 0.4 if auxiliary else 0}
    return from_mapping(merge(base, changes))


def refusal(network: torch.nn.Module, config: TrainingConfig, *sizes: int) -> str:
    """What the check says, empty where it has nothing to say."""
    world_size, micro_batch = sizes or (1, 1)
    try:
        check_batch_norms(network, config, world_size, micro_batch)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("name", "auxiliary", "side"), NETWORKS)
def test_a_single_image_is_refused_exactly_where_torch_would_refuse_it(
    name: str, auxiliary: bool, side: int
) -> None:
    network = models.create(name, 5, auxiliary=auxiliary)
    said = refusal(network, job(name, auxiliary, side))
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, side, side))
    except ValueError as error:
        assert "Expected more than 1 value per channel" in str(error)  # noqa: PT017
        assert said.startswith("batch.perDevice: 1 leaves the batch norm ")
        assert f" of {name} a single value per channel at data.imageSize {side}" in said
        assert ("loss.auxiliaryWeight" in said) == auxiliary
    else:
        assert said == ""


@pytest.mark.nightly
def test_some_networks_are_refused_and_some_are_not() -> None:
    """Or the test above would show nothing."""
    refused = {
        (name, auxiliary, side)
        for name, auxiliary, side in NETWORKS
        if refusal(models.create(name, 5, auxiliary=auxiliary), job(name, auxiliary, side))
    }
    assert {
        ("bninception", False, 32),
        ("inception_v3", True, 299),
        ("resnet50", False, 32),
    } <= refused
    assert ("inception_v3", False, 299) not in refused


def test_the_check_leaves_the_network_alone() -> None:
    network = models.create("bninception", 5)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert refusal(network, job("bninception", False, 64)) == ""
    assert refusal(network, job("bninception", False, 32))
    for name, value in network.state_dict().items():
        assert value.device.type == "cpu"
        assert torch.equal(value, before[name]), name
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_norms_that_do_not_train_and_larger_batches_are_fine() -> None:
    network, config = models.create("bninception", 5), job("bninception", False, 32)
    assert refusal(network, config, 1, 2) == ""
    assert refusal(network.eval(), config) == ""


def test_norms_over_all_ranks_see_the_images_of_all() -> None:
    config = job("bninception", False, 32, model={"batchNorm": "Synchronized"})
    network = models.create("bninception", 5)
    assert refusal(network, config, 2, 1) == ""
    assert refusal(network, config, 1, 1)


@pytest.mark.parametrize("mode", ["Train", "Benchmark"])
def test_ranks_end_with_the_key_and_the_remedy_before_the_first_step(
    tmp_path: Path, mode: str
) -> None:
    whole = merge(TINY, {"mode": mode, "batch": {"perDevice": 1}})
    gang = trainer_ranks.start(tmp_path, whole, 2, small=False)
    assert gang.wait() == [78, 78], gang.output()
    message = json.loads((tmp_path / "error-0.json").read_text())["message"]["message"]
    assert message.startswith("ConfigError: batch.perDevice: 1 leaves the batch norm ")
    assert "set it to 2 or more, or leave it out" in message
    assert gang.progress()["step"] <= 0


def test_single_images_train_where_norms_are_synchronized(tmp_path: Path) -> None:
    changes = {"model": {"batchNorm": "Synchronized"}, "batch": {"perDevice": 1}, "maxSteps": 1}
    assert trainer_ranks.run(tmp_path, merge(TINY, changes), 2, small=False) == [0, 0]


@pytest.mark.parametrize(
    ("classes", "samples", "accuracy", "loss", "guesses"),
    [
        (2, 1000, 1.0, 0.01, False),
        (2, 4, 1.0, 0.69, False),
        (2, 1000, 0.9, 0.4, False),
        (2, 1000, 0.5, 0.6931, True),
        (2, 1000, 0.54, 0.70, True),
        (2, 1000, 0.6, 0.70, False),
        (2, 10, 0.8, 0.70, False),
        (2, 1000, 0.5, 0.5, False),
        (2, 1000, 0.5, 9.0, True),
        (10, 359, 0.1, 2.31, True),
        (10, 359, 0.3, 2.0, False),
        (10, 359, 0.19, 2.31, False),
        (1000, 50000, 0.001, 6.91, True),
        (1000, 50000, 0.0021, 6.9, False),
        (1000, 50000, 0.001, 6.5, False),
        (1000, 10, 0.0, 6.91, True),
        (1000, 10, 0.1, 6.91, False),
        (10, 359, 0.1, math.nan, False),
    ],
)
def test_a_run_is_said_not_to_learn_only_where_guessing_would_do_as_well(
    classes: int, samples: int, accuracy: float, loss: float, guesses: bool
) -> None:
    result = Evaluation(loss, accuracy, 1.0, samples, 1.0)
    assert looks_like_guessing(result, classes) is guesses


def test_a_run_that_does_not_learn_is_warned(tmp_path: Path) -> None:
    """Nine steps are too few for this network, after the epoch that every run is given."""
    gang = trainer_ranks.start(tmp_path, merge(TINY, {"maxSteps": 9}))
    assert gang.wait() == [0], gang.output()
    assert "accuracy is at chance level after 1.5 epochs: this run is not learning" in gang.output()
