"""How FP32 is multiplied, images are normalised, batches counted and copied on accelerators, as far
as it can be shown without one.
"""

from __future__ import annotations

import logging
import types
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from inception_trainer.config.normalization import CAFFE_BGR, IMAGENET, INCEPTION
from inception_trainer.device import numerics, precision, transfers
from inception_trainer.errors import ConfigError
from inception_trainer.log import logger
from inception_trainer.train.norm_counters import NormCounters
from inception_trainer.train.step import Normalise, count_hits

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    matrices, convolutions = numerics.is_tf32_allowed()
    benchmark = torch.backends.cudnn.benchmark
    yield
    numerics.allow_tf32(allowed=matrices and convolutions)
    torch.backends.cudnn.benchmark = benchmark


@pytest.mark.parametrize("kind", ["FP32", "TF32", "BF16", "FP16"])
def test_fp32_means_fp32_for_matrices_and_convolutions(kind) -> None:
    numerics.prepare(CUDA, kind)
    assert numerics.is_tf32_allowed() == (kind != "FP32", kind != "FP32")
    assert torch.backends.cudnn.benchmark
    # The old switch, which torch's exporters read.
    assert torch.backends.cudnn.allow_tf32 == (kind != "FP32")


def test_a_device_without_tf32_is_left_alone() -> None:
    before = numerics.is_tf32_allowed(), torch.backends.cudnn.benchmark
    numerics.prepare(CPU, "FP32")
    assert (numerics.is_tf32_allowed(), torch.backends.cudnn.benchmark) == before


def capability(major: int) -> Any:
    return types.SimpleNamespace(get_device_capability=lambda: (major, 0))


@pytest.mark.parametrize(
    ("device", "functions", "works"),
    [
        (CUDA, capability(8), True),
        (CUDA, capability(9), True),
        (CUDA, capability(7), False),
        (CUDA, types.SimpleNamespace(), False),
        (CPU, None, False),
    ],
    ids=["A100", "H100", "V100", "untold", "cpu"],
)
def test_tf32_is_a_choice_where_the_device_has_it(device, functions, works) -> None:
    if works:
        assert precision.resolve("TF32", "BF16", device, functions) == "TF32"
        return
    with pytest.raises(ConfigError, match=r"precision: TF32 does not work .* compute capability 8"):
        precision.resolve("TF32", "BF16", device, functions)


def test_automatic_precision_says_what_it_took(caplog) -> None:
    with caplog.at_level(logging.INFO, logger.name):
        assert precision.resolve("Auto", "BF16", CPU, None) == "BF16"
    assert "precision: Auto takes BF16 on this cpu device" in caplog.text


@pytest.mark.parametrize(
    "normalization", [IMAGENET, INCEPTION, CAFFE_BGR], ids=lambda chosen: chosen.name
)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_one_pass_normalises_as_several_do(normalization, channels, kind) -> None:
    images = torch.arange(2 * channels * 64).reshape(2, channels, 8, 8).to(torch.uint8)
    several = Normalise(normalization, CPU)
    one = Normalise(normalization, CPU, kind)
    one._in_one_pass = True
    found = one(images)
    assert (found.dtype, found.shape) == (kind, (2, 3, 8, 8))
    assert found.is_contiguous(memory_format=torch.channels_last)
    error = {torch.float32: 1e-6, torch.bfloat16: 1 / 256, torch.float16: 1 / 2048}[kind]
    torch.testing.assert_close(found.float(), several(images), rtol=error, atol=2e-5)


def norms(**options: Any) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(3, **options), nn.ReLU(), nn.BatchNorm2d(3, **options))


def counts(network: nn.Module) -> list[int]:
    return [int(value) for name, value in network.state_dict().items() if "num_batches" in name]


def test_batches_are_counted_together_as_each_norm_would() -> None:
    images = torch.randn(4, 3, 5, 5)
    torch.manual_seed(0)
    alone, together = norms(), norms()
    counters = NormCounters(together)
    for _ in range(3):
        alone(images)
        with counters:
            together(images)
    assert counts(together) == counts(alone) == [3, 3]
    for name, value in alone.state_dict().items():
        assert torch.equal(value, together.state_dict()[name]), name


def test_frozen_norms_count_nothing_and_those_that_weigh_by_their_count_do_so() -> None:
    frozen, weighing = norms(), norms(momentum=None)
    frozen[0].eval()
    with NormCounters(frozen):
        frozen(torch.randn(4, 3, 5, 5))
    assert counts(frozen) == [0, 1]
    with NormCounters(weighing):
        weighing(torch.randn(4, 3, 5, 5))
    assert counts(weighing) == [1, 1]


def test_a_forward_pass_that_fails_counts_nothing_and_loses_no_counter() -> None:
    network = norms()
    with pytest.raises(ValueError, match="expected 4D"), NormCounters(network):
        network(torch.randn(4, 3))
    assert counts(network) == [0, 0]


class Streams:
    """As torch.cuda has them; writes down what is asked for."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._name = "compute"

    def Stream(self, device: torch.device) -> Streams:  # noqa: N802
        made = Streams()
        made.calls, made._name = self.calls, "copies"
        return made

    def Event(self) -> Any:  # noqa: N802
        return types.SimpleNamespace(
            record=lambda stream: self.calls.append(f"record on {stream._name}")
        )

    def stream(self, other: Streams) -> Streams:
        return other

    def current_stream(self, device: torch.device) -> Streams:
        return self

    def wait_event(self, event: object) -> None:
        self.calls.append(f"{self._name} waits")

    def __enter__(self) -> None:
        self.calls.append(f"enter {self._name}")

    def __exit__(self, *_: object) -> None:
        self.calls.append(f"leave {self._name}")


class Pinned:
    """A tensor, as far as copying it goes."""

    def __init__(self, calls: list[str], name: str) -> None:
        self._calls = calls
        self._name = name

    def to(self, device: torch.device, non_blocking: bool) -> Pinned:
        assert non_blocking
        self._calls.append(f"copy {self._name}")
        return self

    def record_stream(self, stream: Streams) -> None:
        self._calls.append(f"{self._name} is used on {stream._name}")


def test_copies_have_a_stream_of_their_own_and_are_kept_until_they_have_been_used() -> None:
    streams = Streams()
    uploads = transfers.Uploads(CUDA, streams)
    tensors: Any = (Pinned(streams.calls, "images"), Pinned(streams.calls, "labels"))
    copies, arrived = uploads.send(tensors)
    assert streams.calls == [
        "enter copies",
        "copy images",
        "copy labels",
        "record on copies",
        "leave copies",
    ]
    streams.calls.clear()
    uploads.receive(copies, arrived)
    assert streams.calls == [
        "compute waits",
        "images is used on compute",
        "labels is used on compute",
    ]


class Watched(TorchDispatchMode):
    """Notes what many accelerators cannot do, or do slowly."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.faults: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.seen.append(name)
        tensors = [value for value in args if isinstance(value, torch.Tensor)]
        if name == "sum" and not tensors[0].is_floating_point():
            self.faults.append(f"a sum of {tensors[0].dtype}")
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.dtype == torch.float64:
            self.faults.append(f"float64 by {name}")
        return result


def test_hits_are_counted_without_float64_and_without_sums_of_integers() -> None:
    device = torch.device("meta")
    labels = torch.zeros(4, dtype=torch.int64, device=device)
    with Watched() as watched:
        count_hits(torch.zeros((), device=device), torch.zeros(4, 10, device=device), labels)
    assert watched.seen.count("sum") == 3
    assert watched.faults == []
