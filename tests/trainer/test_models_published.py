"""The same weights give the same logits and gradients as the published definitions, torchvision's
and timm's.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from inception_trainer import models

pytestmark = pytest.mark.timeout(300)


def torchvision_inception(aux_logits: bool) -> nn.Module:
    import torchvision

    return torchvision.models.inception_v3(
        weights=None, aux_logits=aux_logits, init_weights=False, num_classes=20
    )


def torchvision_resnet() -> nn.Module:
    import torchvision

    return torchvision.models.resnet50(weights=None, num_classes=20)


def timm(name: str) -> nn.Module:
    with warnings.catch_warnings():
        # Its packages still use what torch has deprecated.
        warnings.simplefilter("ignore")
        import timm

        network: nn.Module = timm.create_model(name, pretrained=False, num_classes=20)
    return network


PUBLISHED: dict[str, tuple[str, Callable[[], nn.Module], int]] = {
    "torchvision-inception_v3": ("inception_v3", lambda: torchvision_inception(False), 75),
    "timm-inception_v3": ("inception_v3", lambda: timm("inception_v3"), 75),
    "timm-inception_v4": ("inception_v4", lambda: timm("inception_v4"), 75),
    "torchvision-resnet50": ("resnet50", torchvision_resnet, 64),
    "timm-resnet50": ("resnet50", lambda: timm("resnet50"), 64),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pair(name: str, make: Callable[[], nn.Module], **options: bool) -> tuple[nn.Module, nn.Module]:
    """The published network with lively statistics, and ours with its weights; without dropout."""
    torch.manual_seed(0)
    published, own = make(), models.create(name, 20, **options)
    for module in published.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.8, 1.2)
            module.bias.data.uniform_(-0.1, 0.1)
    own.load_state_dict(published.state_dict())
    for module in (*published.modules(), *own.modules()):
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return published, own


def gradients(network: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*network.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def assert_same_gradients(published: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    assert published.keys() == own.keys()
    for name, gradient in published.items():
        scale = gradient.abs().max().clamp(min=1e-12)
        assert (own[name] - gradient).abs().max() / scale < 1e-6, name


@pytest.mark.parametrize("case", PUBLISHED)
def test_same_weights_same_logits(case: str) -> None:
    name, make, side = PUBLISHED[case]
    published, own = pair(name, make)
    images = torch.randn(2, 3, side, side)
    with torch.inference_mode():
        torch.testing.assert_close(
            own.eval()(images), published.eval()(images), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("case", PUBLISHED)
def test_same_step_same_gradients(case: str) -> None:
    """In float64, because batch norm over two samples multiplies rounding."""
    name, make, side = PUBLISHED[case]
    published, own = (network.double().train() for network in pair(name, make))
    images, labels = torch.randn(2, 3, side, side).double(), torch.tensor([3, 11])
    losses = [functional.cross_entropy(network(images), labels) for network in (published, own)]
    torch.testing.assert_close(losses[1], losses[0])
    assert_same_gradients(gradients(published, losses[0]), gradients(own, losses[1]))
    for (key, wanted), (own_key, found) in zip(
        published.named_buffers(), own.named_buffers(), strict=True
    ):
        assert key == own_key
        torch.testing.assert_close(found, wanted)


def test_same_auxiliary_head() -> None:
    published, own = pair("inception_v3", lambda: torchvision_inception(True), auxiliary=True)
    published, own = published.train(), own.train()
    images, labels = torch.randn(2, 3, 299, 299), torch.tensor([3, 11])
    with torch.no_grad():
        for wanted, found in zip(published(images), own(images), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    middle = torch.randn(2, 768, 17, 17)
    losses = [
        functional.cross_entropy(network.AuxLogits(middle), labels) for network in (published, own)
    ]
    assert_same_gradients(
        *(gradients(n.AuxLogits, loss) for n, loss in zip((published, own), losses, strict=True))
    )
