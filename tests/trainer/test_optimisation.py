"""Optimizers, clipping, decay rules, averages, mixup, FP16: each against a plain calculation, and
exact resume.
"""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

import trainer_ranks
from inception_trainer import device, models
from inception_trainer.comm import Comm
from inception_trainer.config.settings import Settings
from inception_trainer.config.training import (
    AugmentationConfig,
    TrainingConfig,
    from_mapping,
    merge,
)
from inception_trainer.data.sampler import LengthPlan
from inception_trainer.device import Accelerator
from inception_trainer.errors import ConfigError
from inception_trainer.train.ema import WeightAverage, decay_after
from inception_trainer.train.mixup import (
    blend_images,
    draw_mix,
    mix_images,
    mixing_coefficient,
    rectangle,
)
from inception_trainer.train.optimizers import RMSProp, parameter_groups
from inception_trainer.train.schedule import learning_rate
from inception_trainer.train.state import TrainingState
from inception_trainer.train.step import OptimizerStep
from trainer_ranks import TINY, assert_equal, final

DIGITS = {"data": {"kind": "Digits"}}


def accelerator(precision: str = "FP32") -> Accelerator:
    return device.resolve(from_mapping(DIGITS).accelerator, precision, Settings())


def method(**optimizer: object) -> TrainingConfig:
    return from_mapping({**DIGITS, "optimizer": optimizer})


def test_rmsprop_is_tensorflows() -> None:
    weights = [nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor([-2.0]))]
    optimizer = RMSProp(weights, lr=0.1, momentum=0.9, decay=0.9, epsilon=1.0, weight_decay=0.01)
    expected, squares, buffers = [1.0, -2.0], [1.0, 1.0], [0.0, 0.0]
    for gradient in (2.0, -1.0, 0.5, 0.0, 3.0):
        for i, weight in enumerate(weights):
            weight.grad = torch.full_like(weight, gradient * (i + 1))
            whole = gradient * (i + 1) + 0.01 * expected[i]
            squares[i] = 0.9 * squares[i] + 0.1 * whole**2
            buffers[i] = 0.9 * buffers[i] + 0.1 * whole / math.sqrt(squares[i] + 1.0)
            expected[i] -= buffers[i]
        optimizer.step()
        assert [weight.item() for weight in weights] == pytest.approx(expected, rel=1e-6)


def test_first_step_of_rmsprop_by_hand() -> None:
    weight = nn.Parameter(torch.tensor(1.0))
    weight.grad = torch.tensor(2.0)
    RMSProp([weight], lr=0.1, momentum=0.9, decay=0.9, epsilon=1.0).step()
    assert weight.item() == pytest.approx(1 - 0.1 * 2 / 2.3**0.5)  # mean square 0.9 x 1 + 0.1 x 4


@pytest.mark.parametrize(
    ("exempt", "spared"), [("Nothing", 0), ("Norm", 138), ("NormAndBias", 208)]
)
def test_decay_spares_by_the_type_of_the_layer(exempt, spared) -> None:
    network = models.create("bninception", 10)
    groups = parameter_groups(network, 0.5, exempt)
    counts = {group["weight_decay"]: len(group["params"]) for group in groups}
    assert counts.get(0.0, 0) == spared
    assert counts[0.5] == len(list(network.parameters())) - spared


def linear(config: TrainingConfig, precision: str = "FP32") -> tuple[nn.Linear, OptimizerStep]:
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    return network, OptimizerStep(config, network, accelerator(precision))


def test_clipping_shortens_the_whole_gradient() -> None:
    network, updater = linear(method(learningRate=1, momentum=0, weightDecay=0, clipNorm="0.01"))
    before = [parameter.detach().clone() for parameter in network.parameters()]
    updater.backward(network(torch.full((4, 3), 50.0)).sum())
    norm = math.sqrt(sum(value.grad.square().sum().item() for value in network.parameters()))
    updater.apply(1.0, 1)
    moved = math.sqrt(
        sum(
            (old - new).square().sum().item()
            for old, new in zip(before, network.parameters(), strict=True)
        )
    )
    assert moved == pytest.approx(0.01, rel=1e-3)
    assert updater.read_gradient_norm() == pytest.approx(norm), "as it was before"


@pytest.mark.parametrize("name", ["SGD", "RMSProp"])
def test_overflowing_fp16_step_changes_nothing_and_is_counted(name) -> None:
    network, updater = linear(method(name=name, learningRate=1, clipNorm=1), "FP16")
    before = network.weight.detach().clone()
    scale = updater.scaler.get_scale()
    updater.backward(network(torch.ones(1, 3)).sum() * 1e38)
    updater.apply(1.0, 1)
    assert torch.equal(network.weight, before)
    assert updater.scaler.get_scale() == scale / 2
    updater.backward(network(torch.ones(1, 3)).sum())
    updater.apply(1.0, 2)
    assert not torch.equal(network.weight, before)
    assert network.weight.isfinite().all()
    assert (updater.read_skipped(), updater.read_skipped()) == (1, 0)


def test_the_first_step_may_overflow_whatever_is_in_new_memory() -> None:
    network, updater = linear(method(learningRate=0.1, momentum=0.9, clipNorm=None), "FP16")
    torch.use_deterministic_algorithms(True)
    try:
        # Memory that nobody has written to is full of NaN then.
        assert torch.empty(1).isnan()
        updater.backward(network(torch.ones(1, 3)).sum() * 1e38)
        updater.apply(0.1, 1)
        updater.backward(network(torch.ones(1, 3)).sum())
        updater.apply(0.1, 2)
    finally:
        torch.use_deterministic_algorithms(False)
    assert updater.read_skipped() == 1
    assert network.weight.isfinite().all()


def test_average_follows_the_weights_and_the_statistics() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = WeightAverage(
        network,
        from_mapping({**DIGITS, "weightAverage": {"decay": 0.2, "everySteps": 2}}).weight_average,
    )
    average.reset()
    start = network[0].weight.detach().clone()
    with torch.no_grad():
        network[0].weight += 1
        network[1].running_mean += 3
        network[1].num_batches_tracked += 7
    average.update(1)
    assert torch.equal(average.model[0].weight, start)
    average.update(2)
    kept = decay_after(1, 0.2)
    assert kept == pytest.approx(2 / 11)
    assert torch.allclose(average.model[0].weight, start + 1 - kept)
    assert torch.allclose(average.model[1].running_mean, torch.full((2,), 3 * (1 - kept)))
    assert average.model[1].num_batches_tracked == 7
    assert decay_after(10**6, 0.999) == 0.999


@pytest.mark.parametrize("alpha", [0.01, 0.2, 1.0])
def test_mixup_draws_from_beta(alpha) -> None:
    draws = torch.tensor(
        [mixing_coefficient(seed, step, alpha) for seed in range(20) for step in range(200)]
    )
    assert ((draws >= 0) & (draws <= 1)).all()
    assert draws.mean().item() == pytest.approx(0.5, abs=0.03)
    assert draws.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), abs=0.01)
    assert mixing_coefficient(3, 7, alpha) == mixing_coefficient(3, 7, alpha)


def test_mixup_blends_with_the_mirrored_position() -> None:
    images = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    assert blend_images(images, 0.75)[:, 0, 0, 0].tolist() == [0.5, 1.0, 1.5]


def mixing(**augmentation: object) -> AugmentationConfig:
    return from_mapping({**DIGITS, "augmentation": augmentation}).augmentation


def test_cutmix_replaces_a_rectangle_by_that_of_the_mirrored_position() -> None:
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 16, 24).contiguous()
    shares = []
    cuts = mixing(cutMix=1)
    for step in range(100):
        mix = draw_mix(cuts, 5, step)
        assert mix == draw_mix(cuts, 5, step)
        mixed, lam = mix_images(images, mix)
        for number in range(4):
            own = mixed[number] == number
            assert (own | (mixed[number] == 3 - number)).all()
            assert own.float().mean().item() == pytest.approx(lam, abs=1e-6)
            # What is foreign is one rectangle.
            rows, columns = (~own[0]).any(1).nonzero(), (~own[0]).any(0).nonzero()
            assert (~own[0]).sum() == len(rows) * len(columns)
        shares.append(lam)
    assert torch.equal(images[2], torch.full((3, 16, 24), 2.0)), "the images of others stay"
    # Drawn evenly; at the border rectangles are cut, so that more of an image stays its own.
    assert 0.45 < sum(shares) / len(shares) < 0.8
    assert min(shares) < 0.4


def test_rectangles_have_the_area_that_was_drawn_where_no_border_cuts_them() -> None:
    top, bottom, left, right = rectangle(100, 200, 0.75, (0.5, 0.5))
    assert (top, bottom, left, right) == (25, 75, 50, 150)
    assert rectangle(100, 200, 0.75, (0.0, 0.99)) == (0, 25, 148, 200)
    assert rectangle(100, 200, 1.0, (0.5, 0.5))[:2] == (50, 50)


def test_mixup_and_cutmix_share_the_steps() -> None:
    both = mixing(mixup="0.2", cutMix=1)
    kinds = [draw_mix(both, 0, step).centre is None for step in range(400)]
    assert 0.4 < sum(kinds) / 400 < 0.6
    assert all(draw_mix(mixing(mixup="0.2"), 0, step).centre is None for step in range(9))
    assert draw_mix(mixing(), 0, 0) is None
    blended = draw_mix(mixing(mixup="0.2"), 0, 3)
    assert blended.lam == mixing_coefficient(0, 3, 0.2)


@pytest.mark.nightly
@pytest.mark.timeout(200)
def test_the_last_epochs_mix_no_images(tmp_path) -> None:
    """They go on from the same state, so that only their own images could make a difference."""
    mixed = {"augmentation": {"mixup": 1, "cutMix": 1}}
    results = {}
    for name, change in {
        "all": {**mixed},
        "some": merge(mixed, {"augmentation": {"mixOffEpochs": 1}}),
        "none": {},
    }.items():
        path = tmp_path / name
        job = config(path, epochs=2, schedule={"name": "Constant"}, **change)
        gang = trainer_ranks.start(path, job)
        assert gang.wait() == [0], gang.output()
        results[name] = [row[1] for row in final(path)["progress"]["history"]["train"]]
    # Six steps in an epoch; the loss of the seventh shows the first images that are not mixed.
    assert results["some"][:6] == results["all"][:6] != results["none"][:6]
    assert results["some"][6:] != results["all"][6:]
    only_last = tmp_path / "only"
    change = merge(mixed, {"augmentation": {"mixOffEpochs": 2}})
    job = config(only_last, epochs=2, schedule={"name": "Constant"}, **change)
    assert trainer_ranks.start(only_last, job).wait() == [0]
    found = [row[1] for row in final(only_last)["progress"]["history"]["train"]]
    assert found == results["none"]


def test_exponential_schedule_begins_after_the_warm_up() -> None:
    schedule = {"name": "Exponential", "warmupEpochs": 1, "gamma": 0.25, "stepEpochs": 2}
    config = from_mapping({**DIGITS, "batch": {"global": 10}, "epochs": 5, "schedule": schedule})
    length = LengthPlan.of(config, 40)
    rates = [learning_rate(1.0, config.schedule, length, step) for step in range(20)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[8] == pytest.approx(0.5)
    assert rates[12] == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"optimizer": {"epsilon": 1}}, ["optimizer.epsilon", "only RMSProp, AdamW and LAMB"]),
        (
            {"optimizer": {"squareDecay": 0.5}},
            ["optimizer.squareDecay", "only RMSProp, AdamW and LAMB"],
        ),
        (
            {"optimizer": {"name": "RMSProp", "nesterov": True}},
            ["optimizer.nesterov", "RMSProp has no Nesterov"],
        ),
        (
            {"optimizer": {"name": "LARS", "nesterov": True}},
            ["optimizer.nesterov", "LARS has no Nesterov"],
        ),
        ({"optimizer": {"trustCoefficient": 1}}, ["optimizer.trustCoefficient", "only LARS"]),
        ({"optimizer": {"name": "RMSProp", "epsilon": 0}}, ["optimizer.epsilon", "greater than 0"]),
        ({"optimizer": {"clipNorm": -1}}, ["optimizer.clipNorm", "greater than 0"]),
        ({"optimizer": {"decayExempt": "Bias"}}, ["optimizer.decayExempt", "NormAndBias"]),
        ({"weightAverage": {"decay": 1}}, ["weightAverage.decay", "less than 1"]),
        ({"augmentation": {"mixup": 2}}, ["augmentation.mixup", "at most 1"]),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else "",
)
def test_mistakes(data, words) -> None:
    with pytest.raises(ConfigError) as caught:
        from_mapping({**DIGITS, **data})
    for word in words:
        assert word in str(caught.value)


def test_rmsprop_has_the_papers_defaults_and_replaces_a_recipes_method() -> None:
    config = from_mapping({"recipe": "bninception-digits", "optimizer": {"name": "RMSProp"}})
    assert (config.optimizer.square_decay, config.optimizer.epsilon, config.optimizer.nesterov) == (
        0.9,
        1.0,
        False,
    )
    assert config.optimizer.weight_decay == 0.0005
    assert from_mapping(config.as_dict()) == config


ALL = {
    "optimizer": {
        "name": "RMSProp",
        "learningRate": 0.01,
        "clipNorm": 1.0,
        "decayExempt": "NormAndBias",
    },
    "weightAverage": {"decay": 0.9},
    "augmentation": {"mixup": 0.4},
    "schedule": {"name": "Exponential", "gamma": 0.5},
}


def config(path: Path, **changes) -> dict:
    return merge(TINY, {"checkpoint": {"path": str(path), "everySeconds": 0}, **changes})


@pytest.mark.timeout(300)
def test_four_steps_and_four_more_are_eight(tmp_path) -> None:
    world, change = 2, ALL
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    change = {
        **change,
        "data": {"samples": 32},
    }  # epochs of four steps: both runs evaluate after the fourth
    assert trainer_ranks.run(whole, config(whole, maxSteps=8, **change), world) == [0] * world
    assert trainer_ranks.run(parts, config(parts, maxSteps=4, **change), world) == [0] * world
    gang = trainer_ranks.start(parts, config(parts, maxSteps=8, **change), world, attempt=2)
    assert gang.wait() == [0] * world
    assert "continuing at step 4" in gang.output()
    one, two = final(whole), final(parts)
    for key in ("model", "optimizer", "rank_statistics", "average"):
        assert_equal(one.get(key), two.get(key), key)
    assert one["progress"]["accuracy_top1"] == two["progress"]["accuracy_top1"]
    assert (
        one["optimizer"]["squares"].keys()
        == one["optimizer"]["momentum"].keys()
        == dict(one_parameters(one)).keys()
    )


def one_parameters(checkpoint: dict) -> list[tuple[str, torch.Tensor]]:
    return [
        item
        for item in checkpoint["model"].items()
        if "running_" not in item[0] and "num_batches" not in item[0]
    ]


def test_loss_scale_is_saved_and_restored() -> None:
    network, updater = linear(method(), "FP16")
    updater.backward(network(torch.ones(1, 3)).sum() * 1e38)
    updater.apply(1.0, 1)
    saved = TrainingState(network, updater, Comm(0, 1, "gloo")).snapshot()
    assert saved is not None
    other, fresh = linear(method(), "FP16")
    TrainingState(other, fresh, Comm(0, 1, "gloo")).restore_scaler(saved.tensors["scaler"])
    assert fresh.scaler.get_scale() == updater.scaler.get_scale() == 2.0**15


@pytest.mark.timeout(300)
def test_one_rank_and_two_compute_the_same(tmp_path) -> None:
    extra = {
        **ALL,
        "batch": {"perDevice": 4},
        "epochs": None,
        "maxSteps": 6,
        "schedule": {"name": "Constant"},
    }
    results = []
    for world in (1, 2):
        path = tmp_path / f"world-{world}"
        assert trainer_ranks.run(path, config(path, **extra), world) == [0] * world
        results.append([row[1] for row in final(path)["progress"]["history"]["train"]])
    assert results[1] == pytest.approx(results[0], abs=1e-5)


@pytest.mark.timeout(300)
def test_the_average_is_what_is_evaluated_and_read(tmp_path) -> None:
    job = config(tmp_path, maxSteps=4, weightAverage={"decay": 0.9})
    assert trainer_ranks.run(tmp_path, job) == [0]
    saved = final(tmp_path)
    name = "last_linear.weight"
    assert not torch.equal(saved["average"]["model"][name], saved["model"][name])
    assert trainer_ranks.run(tmp_path, {**job, "mode": "Evaluate"}, attempt=2) == [0]
    measured = json.loads((tmp_path / "output" / "evaluate" / "summary.json").read_text())
    assert measured["loss"] == pytest.approx(saved["progress"]["loss"], abs=1e-6)


@pytest.mark.timeout(300)
def test_the_network_itself_is_measured_beside_its_average(tmp_path) -> None:
    """An average changes nothing of the training, so without one the same network is measured."""
    averaged, plain = tmp_path / "averaged", tmp_path / "plain"
    both = {"weightAverage": {"decay": 0.9}, "evaluation": {"rawWeights": True}}
    gang = trainer_ranks.start(averaged, config(averaged, **both), 2)
    assert gang.wait() == [0, 0], gang.output()
    assert "of the weights without their average" in gang.output()
    assert trainer_ranks.start(plain, config(plain), 2).wait() == [0, 0]
    found, expected = (
        json.loads((path / "output" / "summary.json").read_text()) for path in (averaged, plain)
    )
    assert found["rawAccuracyTop1"] == expected["accuracyTop1"]
    assert expected["rawAccuracyTop1"] is None
    tags = (averaged / "output" / "tensorboard").rglob("events*")
    assert any(b"val/raw_top1" in path.read_bytes() for path in tags)
