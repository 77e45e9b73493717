"""The network is the published one: counts of RECIPES 6.1, key names of 6.3."""

import pytest
import torch
from torch import nn

from inception_trainer import models
from inception_trainer.errors import ConfigError, DataError, InputMissing
from inception_trainer.weights import load_weights


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with torch.device("meta"):
        return models.create("bninception", 1000)


def multiply_adds(network: nn.Module, side: int) -> int:
    total = 0

    def count(module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            total += output.shape[0] * module.weight.numel()

    handles = [module.register_forward_hook(count) for module in network.modules()]
    network.eval()(torch.empty(1, 3, side, side, device="meta"))
    for handle in handles:
        handle.remove()
    return total


def test_counts(network: nn.Module) -> None:
    assert sum(p.numel() for p in network.parameters()) == 11_295_240
    assert len(list(network.parameters())) == 278
    assert len(network.state_dict()) == 485
    assert sum(b.numel() for b in network.buffers()) == 20_101


def test_work_at_224_pixels(network: nn.Module) -> None:
    assert multiply_adds(network, 224) / 1e9 == pytest.approx(2.033, abs=0.001)


def test_published_key_names(network: nn.Module) -> None:
    keys = network.state_dict().keys()
    for name in (
        "conv1_7x7_s2",
        "conv2_3x3_reduce",
        "conv2_3x3",
        "inception_3c_double_3x3_2",
        "inception_5b_pool_proj",
    ):
        assert {f"{name}.weight", f"{name}.bias", f"{name}_bn.weight", f"{name}_bn.running_mean"} <= keys
    assert "inception_3c_1x1.weight" not in keys
    assert "inception_4e_pool_proj.weight" not in keys
    assert {"last_linear.weight", "last_linear.bias"} <= keys


@pytest.mark.parametrize(("side", "map_side"), [(32, 1), (64, 2), (224, 7)])
def test_feature_map_sizes(side: int, map_side: int) -> None:
    with torch.device("meta"):
        small = models.create("inception_v2", 10).eval()
        images = torch.empty(2, 3, side, side)
    assert small.features(images).shape == (2, 1024, map_side, map_side)
    assert small(images).shape == (2, 10)


@pytest.mark.parametrize("side", [31, 32, 36, 39, 40, 48, 63, 64, 96, 128, 160, 192, 224, 225, 256, 299])
def test_image_sizes_are_checked_before_the_first_step(side: int) -> None:
    with torch.device("meta"):
        network, images = models.create("bninception", 10).eval(), torch.empty(2, 3, side, side)
    try:
        network(images)
        works = side >= 32
    except RuntimeError:
        works = False
    if works:
        models.check_image_size("bninception", side)
    else:
        with pytest.raises(ConfigError, match=rf"data\.imageSize: {side} does not fit"):
            models.check_image_size("bninception", side)


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"model\.name: 'bninceptoin' is unknown \(did you mean bninception\?\)"):
        models.create("bninceptoin", 10)


def test_weights_of_another_class_count_keep_a_new_head(tmp_path, caplog) -> None:
    donor, heir = models.create("bninception", 7), models.create("bninception", 5)
    state = {f"module.{name}": value for name, value in donor.state_dict().items() if "num_batches" not in name}
    torch.save({"state_dict": state}, tmp_path / "weights.pt")
    head = heir.last_linear.weight.clone()
    load_weights(heir, tmp_path / "weights.pt")
    assert torch.equal(heir.conv1_7x7_s2.weight, donor.conv1_7x7_s2.weight)
    assert torch.equal(heir.last_linear.weight, head)


def test_weights_that_do_not_fit_are_named(tmp_path) -> None:
    network = models.create("bninception", 5)
    state = network.state_dict()
    state["conv9.weight"] = state.pop("conv1_7x7_s2.weight")
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(ConfigError, match=r"missing: conv1_7x7_s2\.weight; unknown: conv9\.weight"):
        load_weights(network, tmp_path / "weights.pt")


def test_missing_and_unreadable_weights(tmp_path) -> None:
    network = models.create("bninception", 5)
    with pytest.raises(InputMissing, match=r"no-such\.pt"):
        load_weights(network, tmp_path / "no-such.pt")
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(DataError, match=r"text\.pt"):
        load_weights(network, tmp_path / "text.pt")
