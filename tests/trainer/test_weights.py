"""Weight files of every publisher: recognised by their names, mapped, and refused with names when
they do not fit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from inception_trainer import models
from inception_trainer.checkpoint.base import FORMAT
from inception_trainer.checkpoint.safetensors_file import encode_weights
from inception_trainer.comm import Comm
from inception_trainer.config.normalization import (
    CAFFE_BGR,
    IMAGENET,
    INCEPTION,
    Normalization,
    choose,
)
from inception_trainer.config.training import from_mapping
from inception_trainer.data import Splits
from inception_trainer.errors import ConfigError, DataError, InputMissing
from inception_trainer.modes.common import with_preprocessing
from inception_trainer.weights import layouts
from inception_trainer.weights.load import WeightsSource, load_weights
from inception_trainer.weights.trained_network import TrainedModel, open_trained

State = dict[str, Tensor]
ALONE = (Comm(0, 1, "gloo"), torch.device("cpu"))


def rename(state: State, old: str, new: str) -> State:
    return {
        key.replace(old, new, 1) if key.startswith(old) else key: value
        for key, value in state.items()
    }


def nvidia(state: State) -> State:
    for number in range(4):
        state = rename(state, f"layer{number + 1}.", f"layers.{number}.")
    return state


# Network, auxiliary head in the file, from our names to the file's, publisher, inputs.
FILES: dict[str, tuple[str, bool, Any, str, str]] = {
    "bninception-cadene": ("bninception", False, dict, "Cadene", "CaffeBGR"),
    "inception_v3-torchvision": ("inception_v3", True, dict, "torchvision", "Inception"),
    "inception_v3-timm": ("inception_v3", False, dict, "timm", "Inception"),
    "inception_v3-cadene": (
        "inception_v3",
        True,
        lambda s: rename(s, "fc.", "last_linear."),
        "Cadene",
        "Inception",
    ),
    "inception_v4-timm": ("inception_v4", False, dict, "timm", "Inception"),
    "inceptionv3_cifar": ("inceptionv3_cifar", False, dict, "weiaicunzai", "CIFAR100"),
    "resnet50-torchvision": ("resnet50", False, dict, "torchvision", "ImageNet"),
    "resnet50-cadene": (
        "resnet50",
        False,
        lambda s: rename(s, "fc.", "last_linear."),
        "Cadene",
        "ImageNet",
    ),
    "resnet50-nvidia": ("resnet50", False, nvidia, "NVIDIA", "ImageNet"),
}


def values_of(network: nn.Module) -> State:
    return {
        key: value
        for key, value in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }


@pytest.fixture(scope="module")
def donors() -> dict[tuple[str, bool], State]:
    """One set of weights for each network, made once."""
    made: dict[tuple[str, bool], State] = {}
    for name, auxiliary, *_ in FILES.values():
        if (name, auxiliary) not in made:
            torch.manual_seed(1)
            made[name, auxiliary] = values_of(models.create(name, 7, auxiliary=auxiliary))
    return made


@pytest.mark.parametrize("case", FILES)
def test_files_of_every_publisher(
    tmp_path: Path, donors: dict[tuple[str, bool], State], case: str
) -> None:
    name, auxiliary, to_file, publisher, inputs = FILES[case]
    donor = donors[name, auxiliary]
    torch.save(to_file(donor), tmp_path / "weights.pth")
    heir = models.create(name, 7)
    loaded = load_weights(heir, name, tmp_path / "weights.pth")
    assert (loaded.layout, loaded.normalization.name) == (publisher, inputs)
    for key, value in values_of(heir).items():
        assert torch.equal(value, donor[key]), key


def test_every_layout_has_a_file_here() -> None:
    assert {(layout.model, layout.publisher) for layout in layouts.LAYOUTS} == {
        (name, publisher) for name, _, _, publisher, _ in FILES.values()
    }


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_wrapped_in_data_parallel_and_a_checkpoint(tmp_path: Path, wrapper: str) -> None:
    donor, heir = models.create("resnet50", 3), models.create("resnet50", 3)
    state = {f"module.{key}": value for key, value in donor.state_dict().items()}
    torch.save({wrapper: state, "epoch": 3, "arch": "resnet50"}, tmp_path / "weights.pth.tar")
    load_weights(heir, "resnet50", tmp_path / "weights.pth.tar")
    assert torch.equal(heir.layer4[2].conv3.weight, donor.layer4[2].conv3.weight)


def test_safetensors(tmp_path: Path) -> None:
    donor, heir = models.create("resnet50", 3), models.create("resnet50", 3)
    save_file(donor.state_dict(), tmp_path / "model.safetensors")
    assert load_weights(heir, "resnet50", tmp_path / "model.safetensors").layout == "torchvision"
    assert torch.equal(heir.fc.weight, donor.fc.weight)


def test_our_own_checkpoint_brings_its_inputs_along(tmp_path: Path) -> None:
    donor, heir = models.create("resnet50", 3), models.create("resnet50", 3)
    content = {
        "format": 1,
        "model": donor.state_dict(),
        "preprocessing": {**CAFFE_BGR.as_dict(), "imageSize": 64},
    }
    torch.save(content, tmp_path / "final.pt")
    assert load_weights(heir, "resnet50", tmp_path / "final.pt") == WeightsSource(
        "this trainer", CAFFE_BGR
    )


def test_older_checkpoints_know_mean_and_std_only() -> None:
    old = Normalization.from_dict({"mean": [0.1, 0.2, 0.3], "std": [1, 2, 3], "imageSize": 32})
    assert old == Normalization("Data", (0.1, 0.2, 0.3), (1.0, 2.0, 3.0), "RGB", 1.0)


def test_the_background_class_of_tensorflow_is_dropped(tmp_path: Path) -> None:
    donor, heir = models.create("inception_v4", 1001), models.create("inception_v4", 1000)
    torch.save(donor.state_dict(), tmp_path / "inceptionv4.pth")
    load_weights(heir, "inception_v4", tmp_path / "inceptionv4.pth")
    assert torch.equal(heir.last_linear.weight, donor.last_linear.weight[1:])
    assert torch.equal(heir.last_linear.bias, donor.last_linear.bias[1:])


def test_another_class_count_is_refused_unless_a_new_classifier_is_wanted(tmp_path: Path) -> None:
    donor, heir = models.create("bninception", 7), models.create("bninception", 5)
    torch.save(donor.state_dict(), tmp_path / "weights.pt")
    head = heir.last_linear.weight.clone()
    with pytest.raises(
        ConfigError, match=r"is for 7 classes and this network for 5; set model\.classifier to New"
    ):
        load_weights(heir, "bninception", tmp_path / "weights.pt")
    load_weights(heir, "bninception", tmp_path / "weights.pt", new_classifier=True)
    assert torch.equal(heir.conv1_7x7_s2.weight, donor.conv1_7x7_s2.weight)
    assert torch.equal(heir.last_linear.weight, head)


def test_a_new_classifier_is_new_at_the_same_class_count_too(tmp_path: Path) -> None:
    donor, heir = models.create("bninception", 7), models.create("bninception", 7)
    torch.save(donor.state_dict(), tmp_path / "weights.pt")
    head = heir.last_linear.weight.clone()
    load_weights(heir, "bninception", tmp_path / "weights.pt", new_classifier=True)
    assert torch.equal(heir.last_linear.weight, head)


def test_auxiliary_head_loads_starts_afresh_or_is_ignored(
    tmp_path: Path, donors: dict[tuple[str, bool], State]
) -> None:
    torch.save(donors["inception_v3", True], tmp_path / "with.pth")
    torch.save(donors["inception_v3", False], tmp_path / "without.pth")
    heir = models.create("inception_v3", 7, auxiliary=True)
    begin = heir.AuxLogits.conv1.conv.weight.clone()
    load_weights(heir, "inception_v3", tmp_path / "without.pth")
    assert torch.equal(heir.AuxLogits.conv1.conv.weight, begin)
    assert torch.equal(heir.fc.weight, donors["inception_v3", False]["fc.weight"])
    load_weights(heir, "inception_v3", tmp_path / "with.pth")
    assert torch.equal(
        heir.AuxLogits.fc.weight, donors["inception_v3", True]["AuxLogits.fc.weight"]
    )
    other = models.create("inception_v3", 4, auxiliary=True)
    fresh = other.AuxLogits.fc.weight.clone()
    load_weights(other, "inception_v3", tmp_path / "with.pth", new_classifier=True)
    assert torch.equal(other.AuxLogits.fc.weight, fresh)
    assert torch.equal(
        other.AuxLogits.conv0.conv.weight,
        donors["inception_v3", True]["AuxLogits.conv0.conv.weight"],
    )


def test_names_and_shapes_that_do_not_fit_are_named(tmp_path: Path) -> None:
    network = models.create("bninception", 5)
    state = network.state_dict()
    state["conv9.weight"] = state.pop("conv2_3x3.weight")
    state["conv2_3x3.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "weights.pt")
    words = r"missing: conv2_3x3\.weight; unknown: conv9\.weight; another shape: conv2_3x3\.bias"
    with pytest.raises(ConfigError, match=words):
        load_weights(network, "bninception", tmp_path / "weights.pt")


def test_weights_of_another_network_are_recognised(
    tmp_path: Path, donors: dict[tuple[str, bool], State]
) -> None:
    torch.save(donors["inception_v4", False], tmp_path / "v4.pth")
    with pytest.raises(ConfigError, match=r"v4\.pth holds inception_v4; set model\.name"):
        load_weights(models.create("inception_v3", 7), "inception_v3", tmp_path / "v4.pth")


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (
            {"features.weight": torch.zeros(1)},
            ConfigError,
            "no known layout; its keys begin with features.weight",
        ),
        ({"a": 1}, DataError, "holds no state_dict"),
        ([1, 2], DataError, "holds no state_dict"),
    ],
    ids=["unknown", "numbers", "list"],
)
def test_files_that_are_no_weights(
    tmp_path: Path, content: Any, error: type[Exception], words: str
) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(error, match=words):
        load_weights(models.create("bninception", 5), "bninception", tmp_path / "weights.pt")


@pytest.mark.parametrize("name", ["text.pt", "text.safetensors"])
def test_missing_and_unreadable_weights(tmp_path: Path, name: str) -> None:
    network = models.create("bninception", 5)
    with pytest.raises(InputMissing, match=name):
        load_weights(network, "bninception", tmp_path / name)
    (tmp_path / name).write_text("no weights")
    with pytest.raises(DataError, match=name):
        load_weights(network, "bninception", tmp_path / name)


def test_code_in_a_weight_file_does_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"state_dict": Evil()}, tmp_path / "weights.pt")
    with pytest.raises(DataError):
        load_weights(models.create("bninception", 5), "bninception", tmp_path / "weights.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("wanted", "of_weights", "chosen"),
    [
        ("Auto", None, IMAGENET),
        ("Auto", CAFFE_BGR, CAFFE_BGR),
        ("Data", CAFFE_BGR, IMAGENET),
        ("Inception", CAFFE_BGR, INCEPTION),
    ],
)
def test_choice_of_the_inputs(
    wanted: str, of_weights: Normalization | None, chosen: Normalization
) -> None:
    assert choose(wanted, IMAGENET, of_weights) == chosen


def zeros(model: str) -> State:
    with torch.device("meta"):
        network = models.create(model, 3)
    return {
        key: torch.zeros_like(value, device="cpu") for key, value in network.state_dict().items()
    }


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_modes_take_the_network_that_the_weights_are_of(tmp_path: Path, suffix: str) -> None:
    """As docs/own-data.md has it: best.pt of any network, and nothing said of its name."""
    state = zeros("resnet50")
    checkpoint = {
        "format": FORMAT,
        "model": state,
        "preprocessing": {**IMAGENET.as_dict(), "imageSize": 32},
        "class_names": ["a", "b", "c"],
        "progress": {"step": 3},
    }
    path = tmp_path / f"best.{suffix}"
    if suffix == "safetensors":
        content = encode_weights(checkpoint)
        assert content is not None
        path.write_bytes(content)
    else:
        torch.save(state, path)
    job: dict[str, Any] = {
        "mode": "Infer",
        "model": {"weights": str(path), "foreignPickle": "Allow"},
        "inference": {"path": "/photos"},
        "output": {"path": "/out"},
    }
    network, trained = open_trained(from_mapping(job), *ALONE)
    assert (trained.model, type(network).__name__) == ("resnet50", "ResNet50")
    # What somebody wrote does not give way.
    job["model"] |= {"name": "bninception"}
    with pytest.raises(ConfigError, match=r"holds resnet50; set model\.name to it"):
        open_trained(from_mapping(job), *ALONE)


@pytest.mark.parametrize(("written", "side"), [({}, 299), ({"imageSize": 128}, 128)])
def test_the_image_size_is_that_of_the_network_that_the_weights_are_of(
    written: dict[str, Any], side: int
) -> None:
    data = {"kind": "ImageFolder", "path": "/data", **written}
    config = from_mapping({"mode": "Evaluate", "data": data})
    trained = TrainedModel(Path("w.pt"), "inception_v3", 3)
    assert with_preprocessing(config, trained).data.image_size == side


def data_of(*names: str) -> Splits:
    nothing: Any = None
    return Splits(nothing, nothing, len(names), names)


NUMBERS = tuple(f"class-{number}" for number in range(3))


@pytest.mark.parametrize(
    ("trained", "here"),
    [
        ((), ("cat", "dog", "elk")),
        # Mode Export numbers the classes of weights that do not name them.
        (NUMBERS, ("cat", "dog", "elk")),
        # Shards and lists without classes.txt.
        (("cat", "dog", "elk"), NUMBERS),
        (("cat", "dog", "elk"), ("class-0", "class-1")),
        (("cat", "dog", "elk"), ("cat", "dog")),
        (("cat", "dog", "class-2"), ("cat", "dog")),
    ],
)
def test_classes_that_nobody_has_named_are_no_other_classes(
    trained: tuple[str, ...], here: tuple[str, ...]
) -> None:
    TrainedModel(Path("w.pt"), "resnet50", 3, trained).check(data_of(*here))


@pytest.mark.parametrize("here", [("dog", "cat", "elk"), ("cat", "elk")])
def test_classes_of_other_names_are_refused(here: tuple[str, ...]) -> None:
    trained = TrainedModel(Path("w.pt"), "resnet50", 3, ("cat", "dog", "elk"))
    with pytest.raises(ConfigError, match="use the data it was trained on"):
        trained.check(data_of(*here))


def test_names_of_classes_are_those_of_whoever_knows_them() -> None:
    named = TrainedModel(Path("w.pt"), "resnet50", 3, ("cat", "dog", "elk"))
    assert named.names(data_of("cat", "dog")) == ("cat", "dog", "elk")
    assert named.names(data_of(*NUMBERS)) == ("cat", "dog", "elk")
    assert named.names(None) == ("cat", "dog", "elk")
    for numbered in (NUMBERS, ()):
        nameless = TrainedModel(Path("w.pt"), "resnet50", 3, numbered)
        assert nameless.names(data_of("cat", "dog", "elk")) == ("cat", "dog", "elk")
        assert nameless.names(None) == numbered


def test_a_part_of_the_classes_of_a_network_that_does_not_name_them_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Imagenette's ten classes are not the first ten of ImageNet."""
    published = TrainedModel(Path("resnet50.pth"), "resnet50", 1000)
    published.check(data_of(*(str(number) for number in range(1000))))
    assert not caplog.text
    published.check(data_of("n01440764", "n02102040"))
    assert "resnet50.pth knows 1000 classes and does not say what they are called" in caplog.text
