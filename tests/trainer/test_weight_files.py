"""What people save beside the weights, around them, and twice: read as they mean it, and never
run.
"""

from __future__ import annotations

import argparse
import enum
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from inception_trainer.errors import ConfigError, DataError
from inception_trainer.weights import layouts, left_out
from inception_trainer.weights.load import AVERAGES, RAW, WeightFile, load_weights, open_weights

State = dict[str, Tensor]


class Schedule(enum.Enum):
    """A class that only the script which saved a file has."""

    COSINE = 1


class Runs:
    """Makes a file when it is unpickled as pickle means it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.fixture
def donor() -> State:
    """As much of a network as makes its layout known: nothing here depends on its size."""
    torch.manual_seed(1)
    return {
        "conv1_7x7_s2.weight": torch.rand(4, 3, 7, 7),
        "conv1_7x7_s2_bn.num_batches_tracked": torch.tensor(3),
        "last_linear.weight": torch.rand(3, 4),
        "last_linear.bias": torch.rand(3),
    }


@pytest.fixture
def other(donor: State) -> State:
    """Weights that differ from the donor's everywhere."""
    return {key: value + 1 for key, value in donor.items()}


def opened(path: Path, **options: Any) -> WeightFile:
    return open_weights("bninception", path, **options)


def loaded(path: Path, **options: Any) -> State:
    return opened(path, **options).state


def assert_equal(one: State, two: State) -> None:
    assert one.keys() == two.keys()
    for key, value in one.items():
        assert torch.equal(value, two[key]), key


@pytest.mark.parametrize("modern", [True, False], ids=["zip", "before torch 1.6"])
def test_objects_beside_the_weights_are_left_out_and_never_run(
    tmp_path: Path, donor: State, modern: bool
) -> None:
    content = {
        "state_dict": OrderedDict(donor),
        "args": argparse.Namespace(lr=0.1, resume=Path("/x")),
        "best": np.float64(0.7),
        "schedules": [Schedule.COSINE],
        "runs": Runs(tmp_path / "ran"),
        Schedule.COSINE: 1,
    }
    path = tmp_path / "weights.pth.tar"
    torch.save(content, path, _use_new_zipfile_serialization=modern)
    file = opened(path)
    assert_equal(file.state, donor)
    (remark,) = file.remarks
    assert "argparse.Namespace" in remark.partition("left out, and not run: ")[2]
    assert not (tmp_path / "ran").exists()


def test_parameters_among_foreign_objects_are_weights(tmp_path: Path, donor: State) -> None:
    state = {
        key: nn.Parameter(value) if value.is_floating_point() else value
        for key, value in donor.items()
    }
    torch.save({"model": state, "args": argparse.Namespace()}, tmp_path / "w.pt")
    assert_equal(loaded(tmp_path / "w.pt"), donor)


def test_a_whole_network_as_an_object_is_refused_with_the_remedy(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "w.pt")
    with pytest.raises(
        DataError, match=r"holds a whole object \(.*save its state_dict\(\) instead"
    ):
        loaded(tmp_path / "w.pt")


def hostile(marker: Path) -> dict[str, bytes]:
    """Pickles by hand, each of which would run something or change something of this process."""
    text = str(marker).encode()
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n"
    return {
        "system": b"cposix\nsystem\n(S'touch " + text + b"'\ntR.",
        "eval": b"cbuiltins\neval\n(S'open(%r, \"w\")'\ntR." % str(marker),
        "instance": b"(S'" + text + b"'\nipathlib\nPath.touch\n.",
        "attribute of a known function": b"cbuiltins\ngetattr\n("
        + rebuild
        + b"S'__globals__'\ntR.",
        "name with a dot": b"\x80\x04\x8c\x0ctorch._utils"
        b"\x8c\x1e_rebuild_tensor_v2.__globals__\x93.",
        "module of torch": b"ctorch\n_dynamo\n.",
        "defaults of a function": rebuild + b"(N}S'__defaults__'\n(NtstbR.",
        "state of a known class": b"ccollections\nOrderedDict\n}S'__setitem__'\nNsb.",
        "state of a tensor builder": rebuild + b"}S'x'\nI1\nsb.",
        "no storage": rebuild + b"(S'storage'\nI0\n(I2\nt(I1\ntI00\nNtR.",
        "code of torch": b"ctorch.storage\n_load_from_bytes\n(S'x'\ntR.",
        "item of a foreign object": b"cos\nenviron\nS'INCEPTION'\nS'x'\ns.",
    }


@pytest.mark.parametrize("attack", hostile(Path("x")))
def test_no_pickle_runs_anything_or_changes_this_process(tmp_path: Path, attack: str) -> None:
    path, marker = tmp_path / "w.pt", tmp_path / "ran"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", hostile(marker)[attack])
        archive.writestr("archive/version", "3\n")
    before = torch._utils._rebuild_tensor_v2.__defaults__
    with pytest.raises(DataError):
        loaded(path)
    assert not marker.exists()
    assert torch._utils._rebuild_tensor_v2.__defaults__ == before
    assert "INCEPTION" not in os.environ


def test_every_class_that_a_file_can_name_is_known_here() -> None:
    """Whoever adds one must think of what a pickle can do with it."""
    assert sorted(left_out.KNOWN) == [
        ("collections", "OrderedDict"),
        ("torch._utils", "_rebuild_parameter"),
        ("torch._utils", "_rebuild_tensor"),
        ("torch._utils", "_rebuild_tensor_v2"),
    ]


def test_damage_is_still_a_data_error(tmp_path: Path, donor: State) -> None:
    path = tmp_path / "w.pt"
    torch.save({"state_dict": donor, "args": argparse.Namespace()}, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"w\.pt"):
        loaded(path)
    path.write_bytes(pickle.dumps({"state_dict": argparse.Namespace()}))
    with pytest.raises(DataError, match=r"w\.pt"):
        loaded(path)


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "module.module.",
        "_fsdp_wrapped_module._orig_mod.",
    ],
)
def test_the_prefixes_of_wrappers_are_taken_off_in_any_order(
    tmp_path: Path, donor: State, prefix: str
) -> None:
    torch.save({f"{prefix}{key}": value for key, value in donor.items()}, tmp_path / "w.pt")
    assert_equal(loaded(tmp_path / "w.pt"), donor)


def test_compiled_parts_of_a_network_load_too(tmp_path: Path, donor: State) -> None:
    renamed = {
        key.replace("last_linear.", "last_linear._orig_mod."): value for key, value in donor.items()
    }
    assert renamed.keys() != donor.keys()
    torch.save(renamed, tmp_path / "w.pt")
    assert_equal(loaded(tmp_path / "w.pt"), donor)


def test_only_wrappers_are_taken_off() -> None:
    assert layouts.bare("module.features.module.weight") == "features.module.weight"
    assert layouts.bare("modules.weight") == "modules.weight"


def test_a_weight_with_and_without_its_prefix_is_refused(tmp_path: Path, donor: State) -> None:
    name = next(iter(donor))
    torch.save({**donor, f"module.{name}": donor[name]}, tmp_path / "w.pt")
    with pytest.raises(DataError, match="holds some weights twice"):
        loaded(tmp_path / "w.pt")


def test_the_average_of_torch_loads_without_its_counter(tmp_path: Path) -> None:
    network = nn.ModuleDict({"conv1_7x7_s2": nn.Conv2d(3, 4, 7), "last_linear": nn.Linear(4, 3)})
    averaged = torch.optim.swa_utils.AveragedModel(network)
    assert "n_averaged" in averaged.state_dict()
    torch.save({"model_ema": averaged.state_dict()}, tmp_path / "w.pt")
    assert_equal(loaded(tmp_path / "w.pt"), dict(network.state_dict()))


@pytest.mark.parametrize(
    ("average", "raw"), [(name, RAW[at % len(RAW)]) for at, name in enumerate(AVERAGES)]
)
def test_of_two_sets_of_weights_the_average_is_taken_unless_a_key_says_otherwise(
    tmp_path: Path,
    donor: State,
    other: State,
    average: str,
    raw: str,
) -> None:
    torch.save({raw: donor, average: other, "epoch": 3}, tmp_path / "w.pt")
    file = opened(tmp_path / "w.pt")
    assert_equal(file.state, other)
    (remark,) = file.remarks
    assert f"taken are the running average ({average}); model.weightsKind Raw" in remark
    file = opened(tmp_path / "w.pt", kind="Raw")
    assert_equal(file.state, donor)
    (remark,) = file.remarks
    assert f"taken are the raw ({raw}) as model.weightsKind says" in remark


def test_raw_weights_that_a_file_lacks_are_not_replaced_by_the_average(
    tmp_path: Path, donor: State
) -> None:
    torch.save({"state_dict_ema": donor}, tmp_path / "w.pt")
    assert_equal(loaded(tmp_path / "w.pt"), donor)
    with pytest.raises(ConfigError, match=r"model\.weightsKind: .* holds an average only"):
        loaded(tmp_path / "w.pt", kind="Raw")


@pytest.mark.parametrize("empty", [None, {}, 0.9999])
def test_a_key_of_the_average_without_weights_is_passed_over(
    tmp_path: Path, donor: State, empty: Any
) -> None:
    torch.save({"state_dict": donor, "state_dict_ema": empty}, tmp_path / "w.pt")
    assert_equal(loaded(tmp_path / "w.pt"), donor)


def test_the_log_says_what_was_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = nn.ModuleDict({"conv1_7x7_s2": nn.Conv2d(3, 4, 7), "last_linear": nn.Linear(4, 3)})
    state = dict(network.state_dict())
    content = {"state_dict": state, "state_dict_ema": state, "args": argparse.Namespace()}
    torch.save(content, tmp_path / "w.pt")
    with caplog.at_level("INFO", "inception_trainer"):
        load_weights(network, "bninception", tmp_path / "w.pt")
    assert "left out, and not run: argparse.Namespace" in caplog.text
    assert "holds two sets of weights; taken are the running average" in caplog.text


def test_our_own_checkpoint_has_both(tmp_path: Path, donor: State, other: State) -> None:
    content = {
        "model": donor,
        "average": {"model": other, "rank_statistics": torch.zeros(1, 2)},
        "preprocessing": {"mean": [0.5] * 3, "std": [0.5] * 3, "imageSize": 32},
    }
    torch.save(content, tmp_path / "final.pt")
    assert_equal(loaded(tmp_path / "final.pt"), other)
    assert_equal(loaded(tmp_path / "final.pt", kind="Raw"), donor)
