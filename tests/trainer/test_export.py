"""Export: every form is read again by other code than that which wrote it, and Evaluate takes it
like weights.
"""

import json
import signal
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors import safe_open

import trainer_ranks
from inception_trainer import models
from inception_trainer.checkpoint import safetensors_file
from inception_trainer.checkpoint.checksums import file_sha256
from inception_trainer.comm import Comm
from inception_trainer.config import training as schema
from inception_trainer.config.normalization import CIFAR10
from inception_trainer.config.training import from_mapping, merge
from inception_trainer.data import open_splits
from inception_trainer.errors import ConfigError, DataError, ExportDiffers
from inception_trainer.modes.common import with_preprocessing
from inception_trainer.modes.export import describe
from inception_trainer.reporting.outputs import Mirror
from inception_trainer.stores import Remote
from inception_trainer.train.step import Normalise
from inception_trainer.weights import exporters, trained_network
from inception_trainer.weights.exported_network import ExportedFile, ExportedNetwork, open_exported
from nightly import but_nightly
from trainer_ranks import TINY

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("small_bninception")]
SUFFIX = {"PT2": "pt2", "ONNX": "onnx", "TorchScript": "torchscript", "Safetensors": "safetensors"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """What a training of 6 steps has left; 4 classes, 32 pixels."""
    path = tmp_path_factory.mktemp("trained")
    job = merge(TINY, {"epochs": 1, "checkpoint": {"path": str(path), "everySeconds": 0}})
    assert trainer_ranks.run(path, job) == [0]
    return path / "checkpoints" / "final.pt"


def job(path: Path, weights: Path, **changes) -> dict:
    return merge(
        {"mode": "Export", "model": {"weights": str(weights)}, "output": {"path": str(path)}},
        changes,
    )


@pytest.fixture(scope="module")
def exported(weights, tmp_path_factory) -> Path:
    """All forms, for any batch."""
    path = tmp_path_factory.mktemp("exported")
    gang = trainer_ranks.start(path, job(path, weights, export={"formats": list(SUFFIX)}))
    assert gang.wait() == [0], gang.output()
    assert gang.progress()["metrics"]["progress"] == 1.0
    return path / "export"


@pytest.fixture(scope="module")
def expected(weights) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised validation images, and what the network says to them."""
    network = models.create("bninception", 4).eval()
    network.load_state_dict(torch.load(weights, weights_only=True)["model"])
    splits = open_splits(from_mapping(TINY))
    batch = splits.val.batch(np.arange(len(splits.val)), None)
    images = Normalise(splits.normalization, torch.device("cpu"))(batch.images).contiguous()
    with torch.no_grad():
        return images, network(images)


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def test_formats_are_those_of_the_configuration() -> None:
    choices = {field.name: field for field in schema.dataclasses.fields(schema.ExportConfig)}
    assert (
        tuple(exporters.EXPORTERS) == choices["formats"].metadata["limits"].choices == tuple(SUFFIX)
    )


def test_summary_names_files_that_are_there(exported) -> None:
    files = summary(exported)["exports"]
    assert [one["format"] for one in files] == list(SUFFIX)
    for one in files:
        path = Path(one["file"])
        assert path == exported / f"bninception.{SUFFIX[one['format']]}"
        assert (path.stat().st_size, file_sha256(path)) == (one["bytes"], one["sha256"])
        assert 0 <= one["largestDifference"] < 1e-3
    assert {path.name for path in exported.iterdir()} == {
        *(f"bninception.{suffix}" for suffix in SUFFIX.values()),
        *("export.json", "summary.json", "config.yaml", "metrics.prom"),
    }


def test_facts_for_users_are_beside_the_files_and_inside(exported, weights) -> None:
    facts = json.loads((exported / "export.json").read_text())
    assert facts.pop("files") == summary(exported)["exports"]
    assert facts["input"] == {"name": "images", "shape": ["batch", 3, 32, 32]}
    assert facts["output"] == {"name": "logits", "shape": ["batch", 4]}
    saved = torch.load(weights, weights_only=True)
    assert facts["preprocessing"] == saved["preprocessing"]
    assert (facts["classNames"], facts["model"], facts["step"]) == (
        saved["class_names"],
        "bninception",
        6,
    )
    for suffix in ("pt2", "onnx", "torchscript"):
        assert open_exported(exported / f"bninception.{suffix}").metadata == facts
    with safe_open(exported / "bninception.safetensors", "pt") as file:
        assert json.loads(file.metadata()["preprocessing"]) == facts["preprocessing"]


@pytest.mark.parametrize("count", [1, 2, 12])
def test_program_takes_any_batch(exported, expected, count) -> None:
    images, logits = expected
    program = torch.export.load(exported / "bninception.pt2").module()
    torch.testing.assert_close(program(images[:count]), logits[:count], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 12])
def test_onnx_is_valid_and_takes_any_batch(exported, expected, count) -> None:
    images, logits = expected
    path = exported / "bninception.onnx"
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [entry.name for entry in model.graph.input] == ["images"]
    assert [entry.name for entry in model.graph.output] == ["logits"]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {"images": images[:count].numpy()})
    np.testing.assert_allclose(found, logits[:count].numpy(), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("suffix", ["pt2", "onnx", "torchscript"])
def test_exported_files_are_evaluated_like_weights(exported, weights, tmp_path, suffix) -> None:
    results = []
    for path in (weights, exported / f"bninception.{suffix}"):
        folder = tmp_path / path.suffix[1:]
        change = {
            "mode": "Evaluate",
            "model": {"weights": str(path)},
            "output": {"path": str(folder)},
        }
        gang = trainer_ranks.start(folder, merge(TINY, change), 2)
        assert gang.wait() == [0, 0], gang.output()
        results.append(summary(folder / "evaluate"))
    one, other = results
    assert (one["accuracyTop1"], one["samples"]) == (other["accuracyTop1"], other["samples"])
    assert other["loss"] == pytest.approx(one["loss"], abs=1e-4)


def test_files_that_are_not_checked_yet_stay_out_of_a_store(weights, tmp_path, monkeypatch) -> None:
    """Where output.path is a URL, a thread stores what lies in the folder every 30 s."""
    export, seen = tmp_path / "export", []

    def load(_exporter, draft, network):
        assert draft.is_file()
        seen.extend(Mirror(Remote("memory://nowhere"), export)._states())
        return network

    monkeypatch.setattr(exporters.Pt2Exporter, "load", load)
    from inception_trainer import modes
    from inception_trainer.config.settings import Settings

    modes.run(from_mapping(job(tmp_path, weights)), Settings())
    assert (export / "bninception.pt2").is_file()
    assert not [path for path in seen if "pt2" in path.name]


def test_safetensors_bring_their_inputs_along(tmp_path) -> None:
    network, path = models.create("bninception", 2), tmp_path / "x.safetensors"
    described = {"trainer": "1", "model": "bninception", "step": 7, "classNames": ["a", "b"]}
    described["preprocessing"] = {**CIFAR10.as_dict(), "imageSize": 32}
    exporters.SafetensorsExporter().write(
        exporters.ExportRequest(network, torch.zeros(1), described), path, fixed=False
    )
    job = {
        "mode": "Infer",
        "model": {"weights": str(path)},
        "output": {"path": "/o"},
        "inference": {"path": "/p"},
    }
    known = trained_network._of_weight_file(from_mapping(job))
    assert (known.normalization, known.image_size, known.step) == (CIFAR10, 32, 7)
    assert (known.classes, known.class_names) == (2, ("a", "b"))


@pytest.mark.parametrize(("asked", "epsilon"), [({}, 0.5), ({"batchNormEpsilon": "0.25"}, 0.25)])
def test_exported_weights_keep_the_epsilon_of_the_batch_norms(tmp_path, asked, epsilon) -> None:
    with torch.device("meta"):
        network = models.create("bninception", 3)
    described = {**CIFAR10.as_dict(), "imageSize": 32}
    state = {key: torch.zeros(value.shape) for key, value in network.state_dict().items()}
    metadata = safetensors_file.metadata(
        model="bninception", step=3, preprocessing=described, batch_norm_epsilon=0.5
    )
    (tmp_path / "one.safetensors").write_bytes(safetensors_file.encode(state, metadata))

    def opened_as(mode: str, name: str, **model) -> tuple:
        model = {"weights": str(tmp_path / name), **model}
        place = {"output": {"path": "/out"}, "data": {"kind": "Digits"}}
        config = from_mapping({"mode": mode, "model": model, **place})
        found = trained_network.open_trained(config, Comm(0, 1, "gloo"), torch.device("cpu"))
        return (config, *found)

    config, network, known = opened_as("Export", "one.safetensors", **asked)
    described = describe(with_preprocessing(config, known), known, CIFAR10, "FP32")
    request = exporters.ExportRequest(network, torch.zeros(1), described)
    exporters.SafetensorsExporter().write(request, tmp_path / "two.safetensors", fixed=False)
    _, network, _ = opened_as("Evaluate", "two.safetensors")
    norms = [each for each in network.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    assert {each.eps for each in norms} == {epsilon}


@pytest.mark.parametrize("precision", but_nightly(("FP32", "FP16", "BF16"), ()))
def test_one_batch_size_and_other_precisions(weights, tmp_path, precision) -> None:
    formats = ["PT2", "TorchScript"] + ([] if precision == "BF16" else ["ONNX"])
    change = {"precision": precision, "export": {"formats": formats, "batchSize": 2}}
    gang = trainer_ranks.start(tmp_path, job(tmp_path, weights, **change))
    assert gang.wait() == [0], gang.output()
    found = summary(tmp_path / "export")
    assert found["precision"] == precision
    file = open_exported(tmp_path / "export" / "bninception.pt2")
    assert file.metadata["input"]["shape"] == [2, 3, 32, 32]
    with pytest.raises((RuntimeError, AssertionError)):
        file.compute(torch.zeros(3, 3, 32, 32, dtype=exporters.DTYPES[precision]))
    assert ExportedNetwork(file)(torch.zeros(5, 3, 32, 32)).shape == (5, 4), (
        "filled up to whole batches"
    )


@pytest.mark.parametrize(
    ("name", "size"),
    but_nightly(
        [("inception_v3", 75), ("inception_v4", 75), ("inceptionv3_cifar", 32), ("resnet50", 32)],
        [("resnet50", 32)],
    ),
)
def test_every_network_as_onnx(tmp_path, name, size) -> None:
    network = models.create(name, 7).eval()
    images = torch.randn(2, 3, size, size)
    exporter = exporters.OnnxExporter()
    path = tmp_path / "x.onnx"
    exporter.require("FP32")
    with torch.no_grad():
        exporter.write(exporters.ExportRequest(network, images, {"model": name}), path, fixed=False)
        wanted = network(images[:1])
        found = exporter.load(path, network)(images[:1])
    torch.testing.assert_close(
        found, wanted, atol=1e-3 * float(wanted.abs().max().clamp(min=1)), rtol=0
    )


def test_two_ranks_export_once(weights, tmp_path) -> None:
    assert trainer_ranks.run(tmp_path, job(tmp_path, weights), 2) == [0, 0]
    assert summary(tmp_path / "export")["worldSize"] == 2
    assert [path.name for path in (tmp_path / "export").glob("*.pt2")] == ["bninception.pt2"]


def test_a_file_that_computes_something_else_is_refused(weights, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(
        exporters.Pt2Exporter, "load", lambda *_: lambda images: torch.zeros(len(images), 4)
    )
    from inception_trainer import modes
    from inception_trainer.config.settings import Settings

    with pytest.raises(ExportDiffers, match=r"bninception\.pt2 gives other logits"):
        modes.run(from_mapping(job(tmp_path, weights)), Settings())
    assert not list((tmp_path / "export").glob("*.pt2")), "it must not be taken for a good one"


def test_onnx_without_its_packages_names_them(monkeypatch) -> None:
    monkeypatch.setattr(
        exporters.importlib.util, "find_spec", lambda name: None if "onnx" in name else object()
    )
    with pytest.raises(
        ConfigError, match="onnx, onnxscript, onnxruntime, which are not here; build an image"
    ):
        exporters.OnnxExporter().require("FP32")


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"model": {"weights": "/nowhere/w.pt"}}, 66, "/nowhere/w.pt"),
        ({"precision": "BF16", "export": {"formats": ["ONNX"]}}, 78, "BF16 does not go with"),
        ({"data": {"imageSize": 50}}, 78, "data.imageSize: 50"),
        ({"inference": {"classNames": "/nowhere"}}, 66, "inference.classNames"),
    ],
    ids=["missing", "bf16", "size", "names"],
)
def test_what_is_refused(weights, tmp_path, change, code, words) -> None:
    gang = trainer_ranks.start(tmp_path, job(tmp_path, weights, **change))
    assert gang.wait() == [code], gang.output()
    assert words in json.loads((tmp_path / "error-0.json").read_text())["message"]["message"]


@pytest.mark.parametrize("suffix", ["pt2", "onnx", "torchscript"])
def test_broken_files_are_data_errors(tmp_path, suffix) -> None:
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read"):
        open_exported(path)


def means(images: torch.Tensor) -> torch.Tensor:
    return images.mean((2, 3))


def opened(
    monkeypatch, tmp_path: Path, described: dict, compute=means, **data
) -> trained_network.TrainedModel:
    """What is known of an ONNX file whose logits are the means of the three colours."""
    path = tmp_path / "x.onnx"
    path.touch()
    file = ExportedFile(path, compute, described)
    monkeypatch.setattr(trained_network, "open_exported", lambda _path: file)
    job = {"mode": "Infer", "model": {"weights": str(path)}, "output": {"path": "/o"}, "data": data}
    config = from_mapping({**job, "inference": {"path": "/p"}})
    network, known = trained_network.open_trained(config, Comm(0, 1, "gloo"), torch.device("cpu"))
    assert network(torch.ones(5, 3, 32, 32)).shape == (5, 3)
    return known


def test_a_file_of_others_may_say_nothing_of_itself(monkeypatch, tmp_path) -> None:
    known = opened(monkeypatch, tmp_path, {})
    assert (known.model, known.classes, known.class_names, known.normalization) == (
        "bninception",
        3,
        (),
        None,
    )


def test_a_file_that_takes_images_of_one_size_refuses_others(monkeypatch, tmp_path) -> None:
    described = {"preprocessing": {"mean": [0, 0, 0], "std": [1, 1, 1], "imageSize": 32}}
    assert opened(monkeypatch, tmp_path, described, imageSize=32).image_size == 32
    assert opened(monkeypatch, tmp_path, described).image_size == 32
    with pytest.raises(ConfigError, match="takes images of 32 pixels, not 64; set it to 32"):
        opened(monkeypatch, tmp_path, described, imageSize=64)


def of_others(path: Path, batch: int | str, *sizes: int | str, kind: int = onnx.TensorProto.FLOAT):
    """An ONNX file whose logits are the means of the colours, for one size of input."""
    nodes = [
        onnx.helper.make_node("GlobalAveragePool", ["pixels"], ["pooled"]),
        onnx.helper.make_node("Flatten", ["pooled"], ["out"]),
    ]
    if kind == onnx.TensorProto.UINT8:
        # There is no mean of such numbers.
        nodes = [onnx.helper.make_node("Flatten", ["pixels"], ["out"])]
    given = onnx.helper.make_tensor_value_info("pixels", kind, [batch, *sizes])
    out = onnx.helper.make_tensor_value_info("out", kind, [batch, sizes[0]])
    graph = onnx.helper.make_graph(nodes, "g", [given], [out])
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


def program_of_others(path: Path) -> Path:
    """What torch.export writes by default: for one size of everything."""
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    torch.export.save(torch.export.export(network, (torch.zeros(2, 3, 40, 40),)), path)
    return path


@pytest.mark.parametrize("form", ["one", "free", "half", "program"])
def test_files_of_others_take_any_number_of_images(tmp_path, form) -> None:
    path = tmp_path / "x.onnx"
    if form == "program":
        path = program_of_others(tmp_path / "x.pt2")
    elif form == "half":
        of_others(path, 1, 3, 40, 40, kind=onnx.TensorProto.FLOAT16)
    else:
        of_others(path, 1 if form == "one" else "n", 3, *([40, 40] if form == "one" else "hw"))
    data = {"kind": "ImageFolder", "path": "/data"}
    config = from_mapping({"mode": "Evaluate", "model": {"weights": str(path)}, "data": data})
    network, known = trained_network.open_trained(config, Comm(0, 1, "gloo"), torch.device("cpu"))
    side = 224 if form == "free" else 40
    assert (known.classes, with_preprocessing(config, known).data.image_size) == (3, side)
    images = torch.randn(5, 3, side, side)
    tolerance = 1e-2 if form == "half" else 1e-5
    torch.testing.assert_close(network(images), means(images), atol=tolerance, rtol=0)
    data["imageSize"] = 64
    config = from_mapping({"mode": "Evaluate", "model": {"weights": str(path)}, "data": data})
    if form != "free":
        with pytest.raises(ConfigError, match="takes images of 40 pixels, not 64; set it to 40"):
            trained_network.open_trained(config, Comm(0, 1, "gloo"), torch.device("cpu"))


@pytest.mark.parametrize(
    ("sizes", "kind", "words"),
    [
        ((40, 40, 3), onnx.TensorProto.FLOAT, r"takes float32 \[any, 40, 40, 3\], and not images"),
        ((3, 40, 50), onnx.TensorProto.FLOAT, "takes float32"),
        ((1, 40, 40), onnx.TensorProto.FLOAT, "takes float32"),
        ((3, 40, 40), onnx.TensorProto.UINT8, "takes uint8"),
    ],
)
def test_files_of_others_that_take_no_images_say_what_they_take(
    tmp_path, sizes, kind, words
) -> None:
    path = of_others(tmp_path / "x.onnx", "n", *sizes, kind=kind)
    with pytest.raises(ConfigError, match=words):
        open_exported(path)


def test_files_of_others_that_give_no_logits_are_refused(monkeypatch, tmp_path) -> None:
    def broken(_images: torch.Tensor) -> torch.Tensor:
        raise OSError("no room")

    with pytest.raises(ConfigError, match=r"does not give logits for images of 224 pixels"):
        opened(monkeypatch, tmp_path, {}, compute=lambda images: images)
    with pytest.raises(ConfigError, match=r"224 pixels \(data.imageSize\): no room"):
        opened(monkeypatch, tmp_path, {}, compute=broken)


def test_stops_between_forms(weights, tmp_path) -> None:
    (tmp_path / "stop").touch()
    gang = trainer_ranks.start(tmp_path, job(tmp_path, weights, export={"formats": list(SUFFIX)}))
    assert gang.wait() == [75], gang.output()
    assert gang.processes[0].exitcode != -signal.SIGTERM
    assert not (tmp_path / "export" / "summary.json").exists()
