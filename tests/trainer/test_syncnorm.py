"""Synchronized batch norm: on one rank it is torch's; what several ranks compute is in
test_equivalence.py.
"""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from inception_trainer import models
from inception_trainer.errors import ConfigError
from inception_trainer.train.norm_counters import NormCounters
from inception_trainer.train.syncnorm import SynchronizedBatchNorm, synchronize_batch_norms


@pytest.fixture
def alone():
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    yield
    dist.destroy_process_group()


def norms() -> tuple[nn.BatchNorm2d, SynchronizedBatchNorm]:
    torch.manual_seed(0)
    plain, other = nn.BatchNorm2d(5, eps=1e-3), nn.BatchNorm2d(5, eps=1e-3)
    nn.init.uniform_(plain.weight)
    nn.init.uniform_(plain.bias)
    other.load_state_dict(plain.state_dict())
    return plain, SynchronizedBatchNorm.of(other)


@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_on_one_rank_it_is_torchs(alone, kind, tolerance) -> None:
    plain, synchronized = norms()
    values = (torch.randn(4, 5, 3, 3) * 7 + 20).to(kind)
    results = []
    for norm in (plain, synchronized):
        images = values.clone().requires_grad_()
        output = norm(images)
        assert output.dtype == kind
        (output.float() * torch.arange(36.0).view(4, 1, 3, 3)).sum().backward()
        results.append(
            (
                output.float(),
                images.grad.float(),
                norm.weight.grad,
                norm.bias.grad,
                norm.running_mean,
                norm.running_var,
            )
        )
    for expected, found in zip(*results, strict=True):
        scale = expected.abs().max().item()
        assert (expected - found).abs().max().item() <= tolerance * scale
    assert synchronized.num_batches_tracked == 1


def test_evaluation_needs_no_other_rank() -> None:
    plain, synchronized = (norm.eval() for norm in norms())
    values = torch.randn(2, 5, 3, 3)
    assert torch.equal(plain(values), synchronized(values))


def test_every_norm_of_a_network_is_replaced_and_keeps_its_tensors() -> None:
    network = models.create("resnet50", 3)
    before, names = dict(network.named_parameters()), list(network.state_dict())
    synchronize_batch_norms(network, torch.device("cpu"))
    kinds = {type(module) for module in network.modules() if isinstance(module, nn.BatchNorm2d)}
    assert kinds == {SynchronizedBatchNorm}
    assert list(network.state_dict()) == names
    assert all(parameter is before[name] for name, parameter in network.named_parameters())


def test_torchs_own_counts_its_batches_itself() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    network[1] = nn.SyncBatchNorm.convert_sync_batchnorm(network[1])
    with NormCounters(network):
        network(torch.randn(2, 3, 8, 8))
    assert [norm.num_batches_tracked.item() for norm in network[1:]] == [1, 1]


def test_norms_that_hold_an_activation_are_refused() -> None:
    network = models.create("timm/test_efficientnet", 3)
    with pytest.raises(ConfigError, match=r"model\.batchNorm: .* BatchNormAct2d; choose PerRank"):
        synchronize_batch_norms(network, torch.device("cpu"))


def test_torchs_own_is_taken_where_it_is_known_to_work() -> None:
    network = models.create("bninception", 3)
    before = dict(network.state_dict())
    synchronize_batch_norms(network, torch.device("cuda"))
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert {type(norm) for norm in norms} == {nn.SyncBatchNorm}
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(after[name].data_ptr() == value.data_ptr() for name, value in before.items())
