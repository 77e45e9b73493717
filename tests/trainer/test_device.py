"""The accelerator of a rank: chosen in the order the vendors need, or refused with a remedy.

Whole trainings on stubs of the vendors' plug-ins are in ``test_device_vendors.py``.
"""

import dataclasses
import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from inception_trainer import affinity, device
from inception_trainer.config.settings import Settings
from inception_trainer.config.training import AcceleratorConfig
from inception_trainer.device import choice, figures, precision, scaling, table
from inception_trainer.device.figures import Figures, Reader
from inception_trainer.errors import ConfigError

FAKE = AcceleratorConfig(profile="cambricon", module="torch_fake", device="fake", backend="fakecl")
CPU = AcceleratorConfig(device="cpu")


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
def cuda(monkeypatch):
    """Makes torch.cuda that of a vendor who presents its devices as CUDA, seen through its own
    build of torch.
    """

    def install(capability: tuple[int, int] | None = (9, 0), bf16: bool = True) -> FakeModule:
        module = FakeModule(bf16=bf16)
        if capability is not None:
            module.get_device_capability = lambda: capability
        for name in (
            "is_available",
            "device_count",
            "set_device",
            "is_bf16_supported",
            "get_device_capability",
        ):
            monkeypatch.setattr(torch.cuda, name, getattr(module, name, lambda: None))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")
        monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        monkeypatch.setattr(
            torch.cuda, "set_device", lambda index: module.calls.append(f"set_device {index}")
        )
        return module

    return install


def settings(local_rank: int = 1, local_world_size: int = 2) -> Settings:
    return Settings(local_rank=local_rank, local_world_size=local_world_size)


def test_cpu_when_it_is_asked_for() -> None:
    found = device.resolve(CPU, "FP32", settings())
    assert (found.device.type, found.process_group_backend, found.precision) == (
        "cpu",
        "gloo",
        "FP32",
    )
    assert found.is_cpu
    assert found.device_ids is None
    assert found.peak_memory_bytes() is None
    assert found.figures() == Figures()


def test_cpu_is_loud_when_nobody_asked_for_it(monkeypatch, caplog) -> None:
    monkeypatch.setattr(choice, "_current", lambda: None)
    assert device.resolve(AcceleratorConfig(), "FP32", settings()).is_cpu
    assert "NO ACCELERATOR FOUND" in caplog.text


@pytest.mark.parametrize(
    ("profile", "capability", "bf16", "expected"),
    [
        ("nvidia", (9, 0), True, "BF16"),
        ("nvidia", (8, 0), True, "BF16"),
        ("nvidia", (7, 5), True, "FP16"),
        ("nvidia", (7, 0), True, "FP16"),
        ("nvidia", (6, 1), False, "FP32"),
        ("amd", (9, 4), True, "BF16"),
        ("hygon", (9, 2), True, "BF16"),
        ("hygon", (9, 2), False, "FP16"),
        ("iluvatar", (7, 1), True, "BF16"),
        ("metax", (8, 0), False, "FP16"),
    ],
)
def test_vendors_that_present_their_devices_as_cuda(
    cuda, monkeypatch, profile, capability, bf16, expected
) -> None:
    module = cuda(capability, bf16)
    config = AcceleratorConfig(profile=profile, device="cuda", backend="nccl")
    found = device.resolve(config, "Auto", settings())
    assert module.calls == ["set_device 1"]
    assert (found.precision, found.profile, found.name) == (expected, profile, "GPU 1")
    assert (found.process_group_backend, found.device_ids) == ("cpu:gloo,cuda:nccl", [1])
    assert (found.loss_scaler() is not None) == (expected == "FP16")


def test_xpu_is_in_torch(monkeypatch) -> None:
    module = FakeModule()
    for name in ("is_available", "device_count", "set_device", "is_bf16_supported"):
        monkeypatch.setattr(torch.xpu, name, getattr(module, name))
    monkeypatch.setattr(torch.xpu, "get_device_name", lambda index: f"XPU {index}")
    found = device.resolve(
        AcceleratorConfig(profile="intel-gpu", device="xpu", backend="xccl"), "Auto", settings()
    )
    assert module.calls == ["set_device 1"]
    assert (found.process_group_backend, found.precision, found.name) == (
        "cpu:gloo,xpu:xccl",
        "BF16",
        "XPU 1",
    )


def test_cuda_shim_is_imported_before_the_first_call(cuda, monkeypatch, tmp_path) -> None:
    module = cuda(None)
    monkeypatch.setattr(torch.cuda, "calls", module.calls, raising=False)
    (tmp_path / "torch_xmlir.py").write_text(
        "import torch\ntorch.cuda.calls.append('import torch_xmlir')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = AcceleratorConfig(
        profile="kunlunxin", module="torch_xmlir", device="cuda", backend="nccl"
    )
    assert device.resolve(config, "Auto", settings(local_rank=0)).precision == "BF16"
    assert module.calls == ["import torch_xmlir", "set_device 0"]
    sys.modules.pop("torch_xmlir")


def test_rule_of_the_row_comes_first(cuda) -> None:
    cuda((9, 0))
    config = AcceleratorConfig(profile="mine", device="cuda", backend="nccl", precision_rule="FP16")
    assert device.resolve(config, "Auto", settings()).precision == "FP16"


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_device_counts(cuda, monkeypatch, caplog, ranks) -> None:
    cuda()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    monkeypatch.delenv("NVIDIA_VISIBLE_DEVICES", raising=False)
    config = AcceleratorConfig(profile="nvidia", device="cuda", backend="nccl")
    shown = "CUDA_VISIBLE_DEVICES=4,5, NVIDIA_VISIBLE_DEVICES is not set"
    if ranks > 2:
        with pytest.raises(
            ConfigError, match=f"3 ranks in this pod but torch sees 2 devices \\({shown}\\)"
        ):
            device.resolve(config, "Auto", settings(0, ranks))
        return
    device.resolve(config, "Auto", settings(0, ranks))
    assert (f"1 of 2 visible devices are used: 1 ranks ({shown})" in caplog.text) == (ranks == 1)


def test_unknown_device_type_and_module() -> None:
    with pytest.raises(ConfigError, match=r"accelerator\.module: 'torch_fake'.*cannot be imported"):
        device.resolve(FAKE, "Auto", settings())
    no_module = AcceleratorConfig(profile="tecorigin", device="sdaa", backend="tccl")
    with pytest.raises(ConfigError, match=r"'torch_sdaa' \(profile tecorigin\) cannot be imported"):
        device.resolve(no_module, "Auto", settings())
    with pytest.raises(ConfigError, match=r"'fake'.*accelerator\.module names no plug-in"):
        device.resolve(AcceleratorConfig(device="fake", backend="x"), "Auto", settings())
    with pytest.raises(ConfigError, match=r"accelerator\.backend: missing"):
        device.resolve(AcceleratorConfig(device="fake"), "Auto", settings())


def test_plug_in_that_shows_no_device(monkeypatch) -> None:
    monkeypatch.setattr(choice, "_current", lambda: None)
    with pytest.raises(ConfigError, match=r"accelerator\.device: missing.*after importing 'json'"):
        device.resolve(AcceleratorConfig(module="json"), "Auto", settings())


def test_broken_plug_in_is_named(monkeypatch) -> None:
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "torch_fake":
                raise RuntimeError("libfake.so: undefined symbol")

    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(ConfigError, match=r"RuntimeError: libfake\.so.*use an image"):
        device.resolve(FAKE, "Auto", settings())


def test_torch_2_6_without_an_accelerator_means_the_cpu(monkeypatch, caplog) -> None:
    """That release raises where it has none; later ones return None."""

    def current_accelerator(check_available: bool = False) -> None:
        raise RuntimeError("Cannot access accelerator device when none is available.")

    fake = types.SimpleNamespace(
        current_accelerator=current_accelerator, is_available=lambda: False
    )
    monkeypatch.setattr(torch, "accelerator", fake, raising=False)
    assert device.resolve(AcceleratorConfig(), "FP32", settings()).is_cpu
    assert "NO ACCELERATOR FOUND: training on the CPU" in caplog.text
    with pytest.raises(ConfigError, match=r"accelerator\.device: missing.*shows no accelerator"):
        device.resolve(AcceleratorConfig(module="json"), "Auto", settings())


def test_an_accelerator_that_cannot_be_asked_is_none(monkeypatch, caplog) -> None:
    def is_available() -> bool:
        raise RuntimeError("driver too old")

    fake = types.SimpleNamespace(current_accelerator=lambda: torch.device("cuda"))
    fake.is_available = is_available
    monkeypatch.setattr(torch, "accelerator", fake, raising=False)
    assert device.resolve(AcceleratorConfig(), "FP32", settings()).is_cpu
    assert "shows no accelerator: driver too old" in caplog.text


def test_older_torch_knows_cuda_only(monkeypatch) -> None:
    monkeypatch.delattr(torch, "accelerator", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choice._current() == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "xpu", FakeModule(available=False), raising=False)
    assert choice._current() is None


@pytest.mark.parametrize(
    ("flags", "expected"),
    [({"avx512_bf16"}, "BF16"), ({"amx_bf16"}, "BF16"), ({"avx512f"}, "FP32"), (set(), "FP32")],
)
def test_automatic_precision_of_cpus(monkeypatch, flags, expected) -> None:
    monkeypatch.setattr(precision, "cpu_flags", lambda: flags)
    assert device.resolve(CPU, "Auto", settings()).precision == expected
    assert device.resolve(CPU, "FP32", settings()).precision == "FP32"


def test_fp32_means_fp32_on_devices_that_compute_less(monkeypatch) -> None:
    monkeypatch.delenv("TORCH_SDAA_CONV_USE_FP32", raising=False)
    sdaa = AcceleratorConfig(profile="tecorigin", device="sdaa")
    for wanted, expected in (("FP16", None), ("FP32", "1")):
        with pytest.raises(ConfigError, match="torch_sdaa"):
            device.resolve(sdaa, wanted, settings())
        assert os.environ.get("TORCH_SDAA_CONV_USE_FP32") == expected
    monkeypatch.delenv("TORCH_SDAA_CONV_USE_FP32")


def test_scaler_of_older_torch(monkeypatch) -> None:
    monkeypatch.delattr(torch.amp, "GradScaler", raising=False)
    with pytest.raises(ConfigError, match=r"FP16 on mlu needs torch 2\.3"):
        scaling.loss_scaler(types.SimpleNamespace(type="mlu"))
    own = types.SimpleNamespace(amp=types.SimpleNamespace(GradScaler=lambda: "own"))
    assert scaling.loss_scaler(types.SimpleNamespace(type="mlu"), own) == "own"


SCALER: Any = getattr(torch.amp, "GradScaler", object)
"""torch's own; before 2.3 there is none for the CPU."""


class NoKernel(SCALER):
    """torch's scaler on a device whose plug-in has no operation for it."""

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        raise NotImplementedError("'aten::_amp_foreach_non_finite_check_and_unscale_' is missing")


class Losing(SCALER):
    """The same where the CPU computes it and nobody copies the gradients back."""

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        pass


@pytest.mark.parametrize(
    ("scaler", "words"),
    [
        (SCALER, None),
        (NoKernel, "check_and_unscale_' is missing"),
        (Losing, "a loss scaler makes 65536.0 of a gradient of 1"),
    ],
)
def test_fp16_needs_a_loss_scaler_that_works(monkeypatch, scaler, words) -> None:
    monkeypatch.setattr(torch.amp, "GradScaler", scaler)
    found = precision.obstacle("FP16", torch.device("cpu"), None)
    assert found is None if words is None else words in str(found)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda including_emulation=True: including_emulation, "FP16"),  # Moore Threads' S80
        (lambda including_emulation=True: True, "BF16"),
        (lambda: True, "BF16"),  # Cambricon has no such word
        (lambda: False, "FP16"),
    ],
)
def test_bf16_that_is_emulated_is_none(answer, expected) -> None:
    functions = types.SimpleNamespace(is_bf16_supported=answer)
    assert precision.by_rule("AskDevice", functions) == expected


def test_images_lie_as_the_device_can_have_them(monkeypatch) -> None:
    cpu, other = torch.device("cpu"), torch.device("meta")
    assert device.image_format(cpu) == torch.channels_last
    empty = torch.empty

    def refuse(*size: int, memory_format=torch.contiguous_format, **options) -> torch.Tensor:
        if memory_format != torch.contiguous_format:
            raise RuntimeError("Only c10::MemoryFormat::Contiguous is supported")
        return empty(*size, **options)

    monkeypatch.setattr(torch, "empty", refuse)
    assert device.image_format(other) == torch.contiguous_format
    device.image_format.cache_clear()


def test_fused_kernels_are_those_of_the_device(monkeypatch) -> None:
    cpu = torch.device("cpu")
    assert device.supports_fused_sgd(cpu)
    asked: list[tuple[str, str]] = []

    def has_kernel(operation: str, key: str) -> bool:
        asked.append((operation, key))
        return False

    # A plug-in that leaves to the CPU what it has no kernel for, where the trial works.
    monkeypatch.setattr(torch._C, "_dispatch_has_kernel_for_dispatch_key", has_kernel)
    assert not device.supports_fused_sgd(cpu)
    assert asked == [("aten::_fused_sgd_", "CPU")]


def test_random_numbers_of_every_device_begin_with_the_seed(monkeypatch) -> None:
    """torch seeds its own devices and those of plug-ins that have no type of their own in it."""
    seeded: list[tuple[str, int]] = []
    monkeypatch.setattr(torch, "manual_seed", lambda value: seeded.append(("torch", value)))
    cpu = device.resolve(CPU, "FP32", settings())
    cpu.seed(3)
    dataclasses.replace(cpu, seeder=lambda value: seeded.append(("device", value))).seed(4)
    assert seeded == [("torch", 3), ("torch", 4), ("device", 4)]
    unknown_to_torch = {name for name, row in table.TYPES.items() if row.seeder is not None}
    assert unknown_to_torch == {"hpu", "xla"}


class Telling:
    """A device that answers, until it breaks."""

    def __init__(self) -> None:
        self.broken = False
        self.asked: list[str] = []

    def mem_get_info(self, index: int) -> tuple[int, int]:
        self.asked.append("mem_get_info")
        if self.broken:
            raise RuntimeError("device lost")
        return 1, 4

    def utilization(self, index: int) -> int:
        self.asked.append("utilization")
        raise ModuleNotFoundError("pynvml")

    def power_draw(self, index: int) -> int:
        return 250_000

    def temperature(self, index: int) -> int:
        return 61


def test_figures_are_those_that_the_device_tells() -> None:
    device_functions = Telling()
    reader = Reader(device_functions, 0)
    assert reader.read() == Figures(
        memory_used_bytes=3,
        memory_total_bytes=4,
        temperature_celsius=61,
        power_watts=250.0,
        healthy=1.0,
    )
    reader.read()
    assert device_functions.asked.count("utilization") == 1
    device_functions.broken = True
    assert reader.read() == Figures(temperature_celsius=61, power_watts=250.0, healthy=0.0)
    device_functions.broken = False
    assert reader.read().healthy == 1.0


@pytest.mark.parametrize(
    ("name", "hip", "told"),
    [("cuda", None, 250_000), ("cuda", "6.4", 250), ("xpu", None, 250.0)],
)
def test_power_is_in_watts_whatever_the_vendor_tells(monkeypatch, name, hip, told) -> None:
    functions = getattr(torch, name)
    monkeypatch.setattr(torch.version, "hip", hip)
    memory = ("mem_get_info", "memory_allocated", "max_memory_allocated")
    for other in (*memory, "utilization", "temperature"):
        monkeypatch.setattr(functions, other, None, raising=False)
    monkeypatch.setattr(functions, "power_draw", lambda _index: told, raising=False)
    assert Reader(functions, 0).read() == Figures(power_watts=250.0, healthy=1.0)


def test_device_that_tells_nothing_has_no_figures() -> None:
    assert Reader(types.ModuleType("torch.silent"), 0).read() == Figures()
    allocated = types.SimpleNamespace(memory_allocated=lambda: 7, max_memory_allocated=lambda: 9)
    assert Reader(allocated, None).read() == Figures(
        memory_used_bytes=7, memory_peak_bytes=9, healthy=1.0
    )


@pytest.mark.parametrize(
    ("content", "ranks", "limit", "pinned", "threads"),
    [
        ("max 100000", 1, None, False, 8),
        ("max 100000", 4, None, False, 2),
        ("200000 100000", 1, None, False, 2),
        ("150000 100000", 2, None, False, 1),
        ("50000 100000", 1, None, False, 1),
        ("400000 100000", 1, 2, False, 2),
        ("max 100000", 4, None, True, 8),
        ("max 100000", 4, 3, True, 3),
        ("600000 100000", 2, None, True, 3),
        ("6400000 100000", 4, None, True, 8),
    ],
)
def test_threads(monkeypatch, content, ranks, limit, pinned, threads) -> None:
    monkeypatch.setattr(affinity.os, "sched_getaffinity", lambda _pid: set(range(8)))
    monkeypatch.setattr(affinity.Path, "read_text", lambda *_args, **_kwargs: content)
    assert (
        device.threads_per_rank(Settings(local_world_size=ranks, threads=limit, pinned=pinned))
        == threads
    )


@pytest.mark.parametrize(("pinned", "set_to"), [(False, []), (True, [3])])
def test_pinned_ranks_have_no_more_threads_than_cpus_beside_any_device(
    cuda, monkeypatch, pinned, set_to
) -> None:
    cuda()
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.setattr(affinity.os, "sched_getaffinity", lambda _pid: {0, 1, 2})
    monkeypatch.setattr(affinity.Path, "read_text", lambda *_args, **_kwargs: "max 100000")
    config = AcceleratorConfig(profile="nvidia", device="cuda", backend="nccl")
    device.resolve(config, "FP32", Settings(local_rank=1, local_world_size=2, pinned=pinned))
    assert asked == set_to


def test_cuda_is_named_only_where_devices_are_resolved() -> None:
    home = Path(device.__file__).parent
    users = {path for path in home.parent.rglob("*.py") if "torch.cuda" in path.read_text()}
    assert {path.parent for path in users} <= {home}


def test_every_field_of_the_figures_is_exported() -> None:
    from inception_trainer.sinks.prometheus import DEVICE_GAUGES

    assert list(figures.Figures.__dataclass_fields__) == list(DEVICE_GAUGES)


def test_rows_of_the_operator_agree_with_what_the_trainer_knows() -> None:
    """Without the operator a device type alone must lead to the same plug-in and back end."""
    import yaml

    rows = (
        Path(__file__).parents[2] / "operator" / "inception_operator" / "accelerators" / "profiles"
    )
    for path in rows.glob("*.yaml"):
        row = yaml.safe_load(path.read_text())["torch"]
        known = table.TYPES[row["device"]]
        assert row["backend"] == known.backend, path.name
        if row["device"] not in ("cuda", "xla"):
            assert row["module"] == known.module, path.name
        assert row.get("precisionRule") == table.RULES.get(path.stem), path.name
