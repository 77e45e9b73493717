"""Each network is the published one: exact counts, work, key names, input sizes; and it can be
traced whole.
"""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from inception_trainer import models
from inception_trainer.config import catalog
from inception_trainer.errors import ConfigError

# Network, classes, auxiliary head: parameters, parameter tensors, keys, elements of buffers.
COUNTS = {
    "bninception": ("bninception", 1000, False, 11_295_240, 278, 485, 20_101),
    "inception_v3": ("inception_v3", 1000, False, 23_834_568, 284, 566, 34_526),
    "inception_v3-auxiliary": ("inception_v3", 1000, True, 27_161_264, 292, 580, 36_320),
    "inception_v4": ("inception_v4", 1000, False, 42_679_816, 449, 896, 63_317),
    "inception_v4-1001": ("inception_v4", 1001, False, 42_681_353, 449, 896, 63_317),
    "resnet50": ("resnet50", 1000, False, 25_557_032, 161, 320, 53_173),
    "inceptionv3_cifar-10": ("inceptionv3_cifar", 10, False, 22_133_738, 284, 566, 34_526),
    "inceptionv3_cifar-100": ("inceptionv3_cifar", 100, False, 22_318_148, 284, 566, 34_526),
}
WORK = {
    "bninception": (224, 2.033),
    "inception_v3": (299, 5.713),
    "inception_v4": (299, 12.254),
    "resnet50": (224, 4.089),
    "inceptionv3_cifar": (32, 3.391),
}
SMALLEST = {
    "bninception": 32,
    "inception_v3": 75,
    "inception_v4": 75,
    "resnet50": 32,
    "inceptionv3_cifar": 9,
}


def outline(name: str, classes: int = 1000, *, auxiliary: bool = False) -> nn.Module:
    with torch.device("meta"):
        return models.create(name, classes, auxiliary=auxiliary)


def blank(side: int) -> Tensor:
    return torch.empty(2, 3, side, side, device="meta")


def multiply_adds(network: nn.Module, side: int) -> int:
    total = 0

    def count(module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output[0].numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            total += module.weight.numel()

    handles = [module.register_forward_hook(count) for module in network.modules()]
    network.eval()(blank(side))
    for handle in handles:
        handle.remove()
    return total


@pytest.mark.parametrize("case", COUNTS)
def test_counts(case: str) -> None:
    name, classes, auxiliary, parameters, tensors, keys, buffers = COUNTS[case]
    network = outline(name, classes, auxiliary=auxiliary)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert len(list(network.parameters())) == tensors
    assert len(network.state_dict()) == keys
    assert sum(b.numel() for b in network.buffers()) == buffers


@pytest.mark.parametrize("name", WORK)
def test_work_at_the_published_size(name: str) -> None:
    side, giga = WORK[name]
    classes = 10 if name.endswith("cifar") else 1000
    assert multiply_adds(outline(name, classes), side) / 1e9 == pytest.approx(giga, abs=0.001)


def test_every_network_is_counted() -> None:
    assert {models.canonical(name) for name in models.names()} == WORK.keys() == SMALLEST.keys()


def test_published_key_names_of_bninception() -> None:
    keys = outline("bninception").state_dict().keys()
    for name in (
        "conv1_7x7_s2",
        "conv2_3x3_reduce",
        "conv2_3x3",
        "inception_3c_double_3x3_2",
        "inception_5b_pool_proj",
    ):
        assert {
            f"{name}.weight",
            f"{name}.bias",
            f"{name}_bn.weight",
            f"{name}_bn.running_mean",
        } <= keys
    assert "inception_3c_1x1.weight" not in keys
    assert "inception_4e_pool_proj.weight" not in keys
    assert {"last_linear.weight", "last_linear.bias"} <= keys


def test_published_key_names_of_inceptionv3_cifar() -> None:
    """No package carries this network: its names and shapes stand here."""
    state = outline("inceptionv3_cifar", 100).state_dict()
    shapes = {
        "Conv2d_4a_3x3.conv.weight": (192, 80, 3, 3),
        "Mixed_5b.branch5x5.1.conv.weight": (64, 48, 5, 5),
        "Mixed_5b.branchpool.1.conv.weight": (32, 192, 3, 3),
        "Mixed_5d.branch3x3.2.bn.running_var": (96,),
        "Mixed_6a.branch3x3stack.2.conv.weight": (96, 96, 3, 3),
        "Mixed_6b.branch7x7.1.conv.weight": (128, 128, 7, 1),
        "Mixed_6e.branch7x7stack.4.conv.weight": (192, 192, 1, 7),
        "Mixed_6e.branch_pool.1.conv.weight": (192, 768, 1, 1),
        "Mixed_7a.branch7x7.3.conv.weight": (192, 192, 3, 3),
        "Mixed_7b.branch3x3_2b.conv.weight": (384, 384, 3, 1),
        "Mixed_7c.branch3x3stack_3a.conv.weight": (384, 384, 1, 3),
        "linear.weight": (100, 2048),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


def test_batch_norms_are_the_published_ones() -> None:
    wanted = {"bninception": 1e-5, "inception_v3": 1e-3, "inception_v4": 1e-3, "resnet50": 1e-5}
    for name, eps in {**wanted, "inceptionv3_cifar": 1e-5}.items():
        norms = [module for module in outline(name).modules() if isinstance(module, nn.BatchNorm2d)]
        assert {(norm.eps, norm.momentum) for norm in norms} == {(eps, 0.1)}, name


@pytest.mark.parametrize(("side", "map_side"), [(32, 1), (64, 2), (224, 7)])
def test_feature_map_sizes_of_bninception(side: int, map_side: int) -> None:
    network = outline("inception_v2", 10).eval()
    assert network.features(blank(side)).shape == (2, 1024, map_side, map_side)
    assert network(blank(side)).shape == (2, 10)


@pytest.mark.parametrize("name", SMALLEST)
def test_smallest_images(name: str) -> None:
    side = SMALLEST[name]
    models.check_image_size(name, side)
    assert outline(name, 10).train()(blank(side)) is not None
    with pytest.raises(ConfigError, match=rf"data\.imageSize: {side - 1} does not fit {name}"):
        models.check_image_size(name, side - 1)


@pytest.mark.parametrize("name", ["inception_v3", "inception_v4", "inceptionv3_cifar"])
def test_smaller_images_would_fail_inside_the_network(name: str) -> None:
    with pytest.raises(RuntimeError):
        outline(name, 10).eval()(blank(SMALLEST[name] - 1))


def test_auxiliary_head_needs_large_images() -> None:
    network = outline("inception_v3", 10, auxiliary=True)
    assert [tuple(logits.shape) for logits in network.train()(blank(299))] == [(2, 10), (2, 10)]
    assert network.eval()(blank(75)).shape == (2, 10)
    models.check_image_size("inception_v3", 299, auxiliary=True)
    with pytest.raises(RuntimeError):
        network.train()(blank(298))
    with pytest.raises(
        ConfigError, match=r"data\.imageSize: 298 .*needs 299; set loss\.auxiliaryWeight to 0"
    ):
        models.check_image_size("inception_v3", 298, auxiliary=True)


@pytest.mark.parametrize(
    "side", [31, 32, 36, 39, 40, 48, 63, 64, 96, 128, 160, 192, 224, 225, 256, 299]
)
def test_image_sizes_are_checked_before_the_first_step(side: int) -> None:
    network = outline("bninception", 10).eval()
    try:
        network(blank(side))
        works = side >= 32
    except RuntimeError:
        works = False
    if works:
        models.check_image_size("bninception", side)
    else:
        with pytest.raises(ConfigError, match=rf"data\.imageSize: {side} does not fit"):
            models.check_image_size("bninception", side)


@pytest.mark.parametrize("name", WORK)
def test_traced_whole(name: str) -> None:
    """No control flow depends on data: export fails on the first graph break, and it keeps what is
    computed.
    """
    network, side = models.create(name, 10).eval(), max(16, SMALLEST[name])
    images = torch.randn(2, 3, side, side)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter(
            "ignore", (DeprecationWarning, FutureWarning)
        )  # of torch's own exporter
        program = torch.export.export(network, (images,)).module()
        torch.testing.assert_close(program(images), network(images))


@pytest.mark.parametrize("name", WORK)
def test_channels_last_all_the_way(name: str) -> None:
    """A map in another format costs a copy at every convolution behind it."""
    network = models.create(name, 10).to(memory_format=torch.channels_last).eval()
    wrong: list[str] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if not inputs[0].is_contiguous(memory_format=torch.channels_last):
            wrong.append(repr(module))

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(look)
    side = {"inceptionv3_cifar": 16, "inception_v3": 107, "inception_v4": 107}.get(name, 64)
    with torch.inference_mode():
        network(torch.randn(2, 3, side, side).to(memory_format=torch.channels_last))
    assert not wrong


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"model\.name: 'bninceptoin' is unknown \(did you mean bninception\?\)"
    ):
        models.create("bninceptoin", 10)


def test_only_inception_v3_has_an_auxiliary_head() -> None:
    with pytest.raises(ConfigError, match=r"loss\.auxiliaryWeight: resnet50 has no auxiliary head"):
        models.create("resnet50", 10, auxiliary=True)


def test_weights_begin_as_their_recipes_say() -> None:
    torch.manual_seed(0)
    resnet, v3 = models.create("resnet50", 10), models.create("inception_v3", 10)
    spread = resnet.layer4[0].conv2.weight.std().item()
    assert spread == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    bound = (6 / (448 * 9 + 384 * 9)) ** 0.5
    assert v3.Mixed_7c.branch3x3dbl_2.conv.weight.abs().max().item() == pytest.approx(
        bound, rel=0.01
    )


@pytest.mark.parametrize("name", sorted(catalog.MODELS))
def test_dropout_is_replaced_where_the_catalogue_knows_of_one(name) -> None:
    def shares(**options) -> list[float]:
        with torch.device("meta"):
            network = models.create(name, 3, **options)
        return [module.p for module in network.modules() if isinstance(module, nn.Dropout)]

    own = shares()
    assert bool(own) == catalog.MODELS[name].has_dropout
    assert shares(dropout=0.7) == [0.7] * len(own)
    assert 0.7 not in own
