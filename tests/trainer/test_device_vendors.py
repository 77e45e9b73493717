"""Short trainings on a stub of every vendor that brings a device type of its own: what is imported,
chosen and used.

The plug-ins are found under their real names, the tensors have the vendor's device type, and two
ranks share their gradients through the vendor's back end (``stub_plugin``): nothing here says what
the hardware does.
"""

import ast
import json
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import stub_images
import stub_plugin
import trainer_ranks
from inception_trainer.config.training import merge
from nightly import but_nightly
from shard_files import noise_folder
from stub_plugin import Stub
from trainer_ranks import TINY

pytestmark = pytest.mark.timeout(900)  # the first one compiles the stub
SUPPORT = str(Path(stub_plugin.__file__).parent)
SHORT: dict[str, Any] = {"data": {"samples": 16}, "epochs": 1, "precision": "Auto"}
HABANA, XLA = "habana_frameworks.torch", "torch_xla.core.xla_model"


@dataclass(frozen=True)
class Vendor:
    """A plug-in, and what a training on its device must show."""

    profile: str
    module: str
    stub: Stub
    precision: str
    others: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Further modules of the plug-in with the functions that the trainer may call."""
    choosing: str = "set_device"
    marks: bool = False
    """Whether the trainer must say where a step ends."""


# Of the formats of tensors it has the contiguous one alone.
NPU = Stub("npu", "hccl", bf16=True, own_scaler=True, contiguous_only=True)
MLU = Vendor("cambricon", "torch_mlu", Stub("mlu", "cncl", bf16=False, own_scaler=True), "FP16")
VENDORS = {
    "mlu": MLU,
    "mlu-bf16": replace(MLU, stub=replace(MLU.stub, bf16=True), precision="BF16"),
    "npu": Vendor("ascend", "torch_npu", NPU, "BF16"),
    "npu-910A": Vendor("ascend", "torch_npu", replace(NPU, bf16=False), "FP16"),
    "sdaa": Vendor(
        "tecorigin", "torch_sdaa", Stub("sdaa", "tccl", bf16=True, own_scaler=True), "FP16"
    ),
    "musa": Vendor("mthreads", "torch_musa", Stub("musa", "mccl"), "FP16"),
    "gcu": Vendor("enflame", "torch_gcu", Stub("gcu", "eccl", bf16=True), "BF16"),
    "gcu-without-autocast": Vendor(
        "enflame", "torch_gcu", Stub("gcu", "eccl", bf16=True, numbers=()), "FP32"
    ),
    "hpu": Vendor(
        "gaudi",
        HABANA,
        Stub("hpu", "hccl"),
        "BF16",
        {
            f"{HABANA}.core": ("mark_step",),
            f"{HABANA}.distributed.hccl": ("initialize_distributed_hpu",),
        },
        "initialize_distributed_hpu",
        marks=True,
    ),
    "xla": Vendor(
        "aws-neuron",
        "torch_neuronx",
        Stub("xla", "xla"),
        "BF16",
        {XLA: ("xla_device", "mark_step"), "torch_xla.distributed.xla_backend": ()},
        "xla_device",
        marks=True,
    ),
}


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> str:
    return str(stub_plugin.library())


@dataclass
class Ranks:
    """Starts trainings with stubs on the path."""

    folder: Path
    library: str

    @property
    def plugins(self) -> Path:
        return self.folder / "plugins"

    def install(self, vendor: Vendor) -> None:
        stub_plugin.write(self.plugins, vendor.module, vendor.stub)
        for module, names in vendor.others.items():
            stub_plugin.write_functions(self.plugins, module, *names)

    def run(
        self, config: dict[str, Any], world: int = 2, **variables: str
    ) -> tuple[list[int], str]:
        """Exit codes and output."""
        log = self.folder / "log"
        log.mkdir()
        environment = {
            "PYTHONPATH": os.pathsep.join((str(self.plugins), SUPPORT)),
            "STUB_LIBRARY": self.library,
            "STUB_LOG": str(log),
            **variables,
        }
        config = merge(
            merge(TINY, SHORT), {"output": {"path": str(self.folder / "output")}, **config}
        )
        gang = trainer_ranks.start(self.folder, config, world, environment=environment)
        return gang.wait(), gang.output()

    def events(self, rank: int) -> list[dict[str, Any]]:
        return stub_plugin.events(self.folder / "log", rank)

    def error(self, rank: int = 0) -> str:
        content = json.loads((self.folder / f"error-{rank}.json").read_text())
        message: str = content["message"]["message"]
        return message

    def summary(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / "output" / "summary.json").read_text())
        return content


@pytest.fixture
def ranks(tmp_path, library) -> Ranks:
    return Ranks(tmp_path, library)


def row(vendor: Vendor, **more: Any) -> dict[str, Any]:
    """What the operator hands over."""
    torch = {"module": vendor.module, "device": vendor.stub.kind, "backend": vendor.stub.backend}
    return {"accelerator": {"profile": vendor.profile, **torch, **more}}


# Two vendors differ in back end and precision; the others are rows of the same table.
@pytest.mark.parametrize("name", but_nightly(VENDORS, ("mlu", "npu")))
def test_training_on_a_device_of_its_own(ranks, name) -> None:
    vendor = VENDORS[name]
    ranks.install(vendor)
    codes, output = ranks.run(row(vendor))
    assert codes == [0, 0], output
    for rank in range(2):
        events = ranks.events(rank)
        kinds = [event["event"] for event in events]
        # The order that vendors ask for: plug-in, device, process group.
        assert events[0] == {"event": "import", "module": vendor.module, "initialized": False}
        imported = {event["module"] for event in events if event["event"] == "import"}
        assert imported == {vendor.module, *vendor.others}
        chosen = events[kinds.index(vendor.choosing)]
        assert chosen.get("index", rank) == rank
        assert not chosen["initialized"]
        made = events[kinds.index("process_group")]
        assert made == {
            "event": "process_group",
            "backend": vendor.stub.backend,
            "rank": rank,
            "size": 2,
        }
        # Gradients travel through the vendor's back end, on the device of this rank.
        reduced = {event["device"] for event in events if event.get("what") == "allreduce"}
        number = rank if vendor.choosing == "set_device" else 0
        assert reduced == {f"{vendor.stub.type}:{number}"}
        # Autocast: what the convolutions were really computed in.
        assert events[-1] == {"event": "convolutions", "types": [vendor.precision]}
        assert ("own_scaler" in kinds) == (vendor.precision == "FP16" and vendor.stub.own_scaler)
        # No stub has a fused kernel, so no step may copy all weights to the host for it.
        assert "left_sgd_to_cpu" not in kinds
        assert kinds.count("mark_step") == (2 if vendor.marks else 0)
    summary = ranks.summary()
    assert (summary["precision"], summary["worldSize"], summary["steps"]) == (
        vendor.precision,
        2,
        2,
    )
    assert (ranks.folder / "output" / "tcap_dllogger.json").exists() == (
        vendor.profile == "tecorigin"
    )


JITTER = {
    "colorJitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4},
    "randomErasing": 0.5,
}


def test_a_device_makes_the_images_of_the_loader(tmp_path, library) -> None:
    arguments = (library, str(tmp_path), MLU.stub, JITTER)
    process = trainer_ranks.CONTEXT.Process(target=stub_images.compare, args=arguments)
    process.start()
    process.join(150)
    assert process.exitcode == 0


def test_colours_are_jittered_on_the_device(ranks) -> None:
    noise_folder(ranks.folder / "images")
    ranks.install(MLU)
    data = {"kind": "ImageFolder", "path": str(ranks.folder / "images"), "workers": 1}
    codes, output = ranks.run({**row(MLU), "data": data, "augmentation": JITTER}, world=1)
    assert codes == [0], output
    assert "colour jitter and random erasing are done on the device" in output
    assert ranks.summary()["steps"] == 1


def test_figures_of_the_devices_are_exported(ranks) -> None:
    ranks.install(MLU)
    codes, output = ranks.run(row(MLU))
    assert codes == [0, 0], output
    page = text_string_to_metric_families((ranks.folder / "output" / "metrics.prom").read_text())
    values = {
        family.name: {s.labels.get("device"): s.value for s in family.samples} for family in page
    }
    told = {
        name.removeprefix("trainer_device_"): by
        for name, by in values.items()
        if name.startswith("trainer_dev") and by
    }
    assert told == {
        "memory_used_bytes": {"0": 1 << 30, "1": 1 << 30},
        "memory_total_bytes": {"0": 4 << 30, "1": 4 << 30},
        "utilization_ratio": {"0": 0.5, "1": 0.5},
        "healthy": {"0": 1, "1": 1},
    }


@pytest.mark.parametrize("events", [True, False], ids=["events", "no-events"])
def test_times_are_those_of_the_device_and_not_of_its_launches(ranks, events) -> None:
    """The device has work for 0.25 s behind a launch of some milliseconds: everything that tells
    times must tell those, whether the vendor has events or not.
    """
    sdaa = VENDORS["sdaa"]
    vendor = replace(sdaa, stub=replace(sdaa.stub, events=events))
    ranks.install(vendor)
    config = {**row(vendor), "data": {"samples": 48}, "logEverySteps": 3}
    codes, output = ranks.run(config, world=1, STUB_QUEUE_SECONDS="0.25")
    assert codes == [0], output
    page = (ranks.folder / "output" / "metrics.prom").read_text()
    values = {
        (sample.name, sample.labels.get("part")): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    steps = values["trainer_step_duration_seconds_count", "compute"]
    assert steps == 6
    assert values["trainer_step_duration_seconds_sum", "compute"] / steps >= 0.25
    assert ("trainer_device_idle_ratio", None) in values or not events
    lines = (ranks.folder / "output" / "raport.json").read_text().splitlines()
    logged = [json.loads(line.removeprefix("DLLL ")) for line in lines]
    times = [
        line["data"]["train.compute_time"]
        for line in logged
        if line.get("step") in ([0, 2], [0, 5])
    ]
    assert len(times) == 2
    assert min(times) >= 0.25
    lines = (ranks.folder / "output" / "tcap_dllogger.json").read_text().splitlines()
    told = [json.loads(line.removeprefix("TCAPPDLL ")) for line in lines]
    totals = [
        float(ast.literal_eval(line["data"])["train.total_time"])
        for line in told
        if "train.total_time" in str(line.get("data", ""))
    ]
    assert len(totals) == 2
    assert min(totals) >= 0.25
    assert ("idle " in output) == events


def test_benchmark_tells_the_time_of_the_device(ranks) -> None:
    vendor = replace(MLU, stub=replace(MLU.stub, events=True))
    ranks.install(vendor)
    config = {"mode": "Benchmark", "benchmark": {"warmupSteps": 1, "steps": 5}, **row(vendor)}
    codes, output = ranks.run(config, world=1, STUB_QUEUE_SECONDS="0.25")
    assert codes == [0], output
    summary = json.loads((ranks.folder / "output" / "benchmark" / "summary.json").read_text())
    assert min(summary["stepSeconds"], summary["computeSeconds"]) >= 0.25
    assert 0 <= summary["deviceIdleRatio"] < 1


def test_benchmark_seeks_the_largest_batch_that_every_device_holds(ranks) -> None:
    """The stub's memory ends where it is told to; twice as much holds about twice the images."""
    config = {
        "mode": "Benchmark",
        "benchmark": {"batch": "Largest", "warmupSteps": 1, "steps": 2},
        **row(MLU),
    }
    found = []
    for mebibytes in (8, 16):
        other = Ranks(ranks.folder / str(mebibytes), ranks.library)
        other.folder.mkdir()
        other.install(MLU)
        codes, output = other.run(config, STUB_MEMORY_BYTES=str(mebibytes << 20))
        assert codes == [0, 0], output
        summary = json.loads((other.folder / "output" / "benchmark" / "summary.json").read_text())
        assert summary["globalBatch"] == 2 * summary["batchPerDevice"]
        assert f"the largest micro-batch that fits is {summary['batchPerDevice']}" in output
        found.append(summary["batchPerDevice"])
    assert 1.5 < found[1] / found[0] < 3


def memory(ranks: Ranks, name: str) -> Ranks:
    """Ranks with a folder of their own."""
    other = Ranks(ranks.folder / name, ranks.library)
    other.folder.mkdir()
    other.install(MLU)
    return other


@pytest.mark.parametrize("world", [1, 2])
def test_a_batch_that_does_not_fit_ends_with_one_that_does(ranks, world) -> None:
    """Exit code 80, and the remedy of the message is one: with it the same training fits."""
    config = {**row(MLU), "batch": {"global": 192}, "data": {"samples": 384}}
    capacity = {"STUB_MEMORY_BYTES": str(6 * 2**20 // world)}
    full = memory(ranks, "full")
    codes, output = full.run(config, world, **capacity)
    assert 80 in codes, output
    message = full.error(codes.index(80))
    assert message.startswith("DeviceOutOfMemory: the memory of this mlu device (4.0 GiB)")
    found = re.search(r"(\d+) fit: set batch\.perDevice to (\d+), of which (\d+) make one", message)
    assert found, message
    fitting, advised, times = (int(number) for number in found.groups())
    assert advised <= fitting < 192 / world
    assert advised * times * world == 192
    config["batch"] = {"global": 192, "perDevice": advised}
    codes, output = memory(ranks, "fitting").run(config, world, **capacity)
    assert codes == [0] * world, output


def test_memory_that_others_had_for_a_moment_is_no_reason_to_give_up(ranks) -> None:
    other = memory(ranks, "taken")
    config = {**row(MLU), "data": {"samples": 48}, "epochs": 20}
    codes, output = other.run(config, 1, STUB_REFUSED_ALLOCATION="3000")
    assert codes == [1], output
    assert other.error().startswith("DeviceMemoryTaken: the memory of this mlu device (4.0 GiB)")
    assert "would fit now" in other.error()


def test_a_network_that_does_not_fit_is_named(ranks) -> None:
    other = memory(ranks, "small")
    codes, output = other.run(row(MLU), 1, STUB_MEMORY_BYTES="10000")
    assert codes == [80], output
    assert "does not hold bninception and its optimizer, without any image" in other.error()


def test_another_mode_names_the_batch_that_does_not_fit(ranks) -> None:
    other = memory(ranks, "full")
    config = {**row(MLU), "mode": "Benchmark", "batch": {"global": 192}, "data": {"samples": 1920}}
    codes, output = other.run(config, 1, STUB_MEMORY_BYTES=str(3 << 20))
    assert codes == [80], output
    assert (
        "does not hold 192 images at once in mode Benchmark; choose a batch.perDevice below 192, "
        "or benchmark.batch Largest" in other.error()
    )


def test_device_alone_is_enough(ranks) -> None:
    """Outside Kubernetes nobody hands a row over: the device type says which plug-in and back end
    belong to it.
    """
    ranks.install(MLU)
    codes, output = ranks.run({"accelerator": {"device": "mlu"}})
    assert codes == [0, 0], output
    assert {event["backend"] for event in ranks.events(0) if event["event"] == "process_group"} == {
        "cncl"
    }


def announce(ranks: Ranks, vendor: Vendor) -> None:
    """Install the plug-in as one that torch 2.5 and newer would load by itself."""
    ranks.install(vendor)
    information = ranks.plugins / f"{vendor.module}-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {vendor.module}\nVersion: 1.0\n"
    )
    (information / "entry_points.txt").write_text(
        f"[torch.backends]\n{vendor.module} = {vendor.module}:_autoload\n"
    )


def test_installed_plug_in_is_found_without_being_asked_for(ranks) -> None:
    announce(ranks, VENDORS["npu"])
    codes, output = ranks.run({})
    assert codes == [0, 0], output
    assert [event["index"] for event in ranks.events(1) if event["event"] == "set_device"] == [1]
    assert ranks.summary()["precision"] == "BF16"


def test_no_device_anywhere_is_said_loudly(ranks) -> None:
    npu = VENDORS["npu"]
    announce(ranks, replace(npu, stub=replace(npu.stub, count=0)))
    codes, output = ranks.run({}, world=1)
    assert codes == [0], output
    assert "NO ACCELERATOR FOUND: training on the CPU" in output


@pytest.mark.parametrize(
    ("vendor", "more", "words"),
    [
        (
            replace(MLU, stub=replace(MLU.stub, count=1)),
            {},
            "2 ranks in this pod but torch sees 1 devices "
            "(MLU_VISIBLE_DEVICES=0,1, CAMBRICON_VISIBLE_DEVICES is not",
        ),
        (
            MLU,
            {"devices": 4},
            "the pod was given 4 devices, torch sees 2 (MLU_VISIBLE_DEVICES=0,1, ",
        ),
        (MLU, {"visible": ["MY_DEVICES"], "devices": 1}, "torch sees 2 (MY_DEVICES is not set)"),
        (
            replace(MLU, stub=replace(MLU.stub, count=0)),
            {},
            "no device or no driver is visible (MLU_VISIBLE_DEVICES=0,1",
        ),
        (
            replace(MLU, module="torch_elsewhere"),
            {},
            "accelerator.device: 'npu' (profile cambricon) is unknown to torch",
        ),
    ],
    ids=["fewer-than-ranks", "fewer-than-given", "own-variables", "none", "other-device"],
)
def test_wrong_devices_end_the_job(ranks, vendor, more, words) -> None:
    ranks.install(vendor)
    wrong = {"device": "npu"} if vendor.module == "torch_elsewhere" else {}
    codes, output = ranks.run(row(vendor, **more, **wrong), MLU_VISIBLE_DEVICES="0,1")
    assert codes == [78, 78], output
    assert words in ranks.error()


@pytest.mark.parametrize("announced", [False, True], ids=["named", "announced"])
def test_broken_plug_in_ends_the_job_with_the_remedy(ranks, announced) -> None:
    announce(ranks, MLU)
    (ranks.plugins / "torch_mlu" / "__init__.py").write_text(
        "raise OSError('libcnrt.so: cannot open shared object')\n"
    )
    codes, output = ranks.run({} if announced else row(MLU), world=1)
    assert codes == [78], output
    assert (
        "OSError: libcnrt.so: cannot open shared object; "
        "use an image that holds the vendor's plug-in" in ranks.error()
    )


def test_precision_that_a_device_cannot_do_is_refused(ranks) -> None:
    ranks.install(VENDORS["gcu-without-autocast"])
    codes, output = ranks.run(
        {**row(VENDORS["gcu-without-autocast"]), "precision": "BF16"}, world=1
    )
    assert codes == [78], output
    assert "precision: BF16 does not work on this gcu device" in ranks.error()
