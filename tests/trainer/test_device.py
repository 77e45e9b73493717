"""The accelerator of a rank: chosen in the order the vendors need, or refused with a remedy."""

import sys
import types

import pytest
import torch

from inception_trainer import device
from inception_trainer.config import AcceleratorConfig
from inception_trainer.errors import ConfigError
from inception_trainer.settings import Settings

FAKE = AcceleratorConfig(profile="cambricon", module="torch_fake", device="fake", backend="fakecl")


class FakeModule(types.ModuleType):
    """A vendor's ``torch.<device>`` module that writes down what it is asked."""

    def __init__(self, available: bool = True, count: int = 2, bf16: bool = True) -> None:
        super().__init__("torch.fake")
        self.calls: list[str] = []
        self.is_available = lambda: available
        self.device_count = lambda: count
        self.is_bf16_supported = lambda: bf16
        self.set_device = lambda index: self.calls.append(f"set_device {index}")


@pytest.fixture
def plug_in(monkeypatch):
    """Installs ``torch_fake``; its import adds ``torch.fake``, as a vendor's does."""

    def install(**kinds) -> FakeModule:
        module = FakeModule(**kinds)
        monkeypatch.setitem(sys.modules, "torch_fake", types.ModuleType("torch_fake"))
        monkeypatch.setattr(torch, "fake", module, raising=False)
        # A real device type, so that torch.device() knows it; nothing is ever put there.
        real = torch.device
        monkeypatch.setattr(torch, "device", lambda kind, index=None: real("meta" if kind == "fake" else kind, index))
        return module

    return install


def settings(local_rank: int = 1, local_world_size: int = 2) -> Settings:
    return Settings(local_rank=local_rank, local_world_size=local_world_size)


def test_cpu_is_the_default() -> None:
    found = device.resolve(AcceleratorConfig(), "FP32", settings())
    assert (found.device.type, found.process_group_backend, found.precision) == ("cpu", "gloo", "FP32")
    assert found.is_cpu
    assert found.peak_memory_bytes() is None


def test_own_device_type(plug_in) -> None:
    module = plug_in()
    found = device.resolve(FAKE, "Auto", settings())
    assert module.calls == ["set_device 1"]
    assert found.process_group_backend == "cpu:gloo,fake:fakecl"
    assert found.precision == "BF16"
    assert not found.is_cpu


@pytest.mark.parametrize(
    ("kinds", "words"),
    [({"available": False}, "not available"), ({"count": 1}, "local rank 1 has no device, torch sees 1")],
)
def test_absent_devices_are_errors(plug_in, kinds, words) -> None:
    plug_in(**kinds)
    with pytest.raises(ConfigError, match=words):
        device.resolve(FAKE, "Auto", settings())


def test_unknown_device_type_and_module() -> None:
    with pytest.raises(ConfigError, match=r"accelerator\.module: 'torch_fake'.*cannot be imported"):
        device.resolve(FAKE, "Auto", settings())
    no_module = AcceleratorConfig(profile="tecorigin", device="sdaa", backend="tccl")
    with pytest.raises(ConfigError, match=r"'sdaa'.*accelerator\.module names no plug-in"):
        device.resolve(no_module, "Auto", settings())


def test_broken_plug_in_is_named(monkeypatch) -> None:
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "torch_fake":
                raise RuntimeError("libfake.so: undefined symbol")

    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(ConfigError, match=r"RuntimeError: libfake\.so.*use an image"):
        device.resolve(FAKE, "Auto", settings())


@pytest.mark.parametrize(
    ("flags", "precision"),
    [({"avx512_bf16"}, "BF16"), ({"amx_bf16"}, "BF16"), ({"avx512f"}, "FP32"), (set(), "FP32")],
)
def test_automatic_precision_of_cpus(monkeypatch, flags, precision) -> None:
    monkeypatch.setattr(device, "_cpu_flags", lambda: flags)
    assert device.resolve(AcceleratorConfig(), "Auto", settings()).precision == precision
    assert device.resolve(AcceleratorConfig(), "FP32", settings()).precision == "FP32"


def test_automatic_precision_of_devices() -> None:
    old = FakeModule()
    old.get_device_capability = lambda: (7, 5)
    assert device._device_precision("Auto", "cuda", old) == "FP32"
    assert device._device_precision("Auto", "sdaa", FakeModule()) == "FP32"
    assert device._device_precision("Auto", "npu", FakeModule(bf16=False)) == "FP32"
    assert device._device_precision("BF16", "sdaa", FakeModule()) == "BF16"


@pytest.mark.parametrize(
    ("content", "ranks", "limit", "threads"),
    [
        ("max 100000", 1, None, 8),
        ("max 100000", 4, None, 2),
        ("200000 100000", 1, None, 2),
        ("150000 100000", 2, None, 1),
        ("50000 100000", 1, None, 1),
        ("400000 100000", 1, 2, 2),
    ],
)
def test_threads(monkeypatch, content, ranks, limit, threads) -> None:
    monkeypatch.setattr(device.os, "sched_getaffinity", lambda _pid: set(range(8)))
    monkeypatch.setattr(device.Path, "read_text", lambda *_args, **_kwargs: content)
    assert device.threads_per_rank(Settings(local_world_size=ranks, threads=limit)) == threads


def test_cuda_is_named_only_where_devices_are_resolved() -> None:
    package = device.Path(device.__file__).parent
    users = {path.name for path in package.rglob("*.py") if "torch.cuda" in path.read_text()}
    assert users <= {"device.py"}
