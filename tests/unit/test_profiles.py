"""The table of accelerators, and what a job gets from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inception_operator.fields import SpecError
from inception_operator.model import Json
from inception_operator.profiles import (
    Devices,
    Profile,
    ProfileError,
    check_disjoint,
    load_profiles,
    parse_profile,
    resolve,
)
from inception_operator.spec import parse

TABLE = load_profiles()
FREE = parse_profile(
    {"name": "free", "resource": None, "unit": None, "torch": {"device": "sdaa", "backend": "tccl"}}, "free"
)


def devices(accelerator: Json, resources: Json | None = None, profiles: Any = None, **spec: Any) -> Devices:
    template = {"spec": {"containers": [{"name": "trainer", "resources": resources or {}}]}}
    job = {
        "metadata": {"name": "j", "namespace": "n", "uid": "u"},
        "spec": {"accelerator": accelerator, "template": template, **spec},
    }
    return resolve(parse(job), profiles or TABLE)


def test_shipped_table() -> None:
    assert {"cpu", "nvidia", "cambricon"} <= TABLE.keys()
    assert TABLE["cambricon"].module == "torch_mlu"
    assert TABLE["cpu"].backend == "gloo"


COUNTED = [
    ("cambricon", "cambricon.com/mlu"),
    ("cambricon", "cambricon.com/mlu370"),
    ("cambricon", "cambricon.com/mlu590.share"),
    ("cambricon", "cambricon.com/mlu370.mim-2m.8gb"),
    ("cambricon", "cambricon.com/vmlu"),
    ("nvidia", "nvidia.com/gpu"),
    ("nvidia", "nvidia.com/gpu.shared"),
    ("nvidia", "nvidia.com/mig-1g.10gb"),
]
NOT_COUNTED = [
    ("nvidia", "nvidia.com/gpumem"),
    ("nvidia", "nvidia.com/gpucores"),
    ("nvidia", "nvidia.com/mig-1g.10gb/x"),
    ("cambricon", "cambricon.com/mlu.smlu.vmemory"),
    ("cambricon", "cambricon.com/real-mlu-counts"),
    ("cpu", "cpu"),
    ("cpu", "none"),
]


@pytest.mark.parametrize(("profile", "resource"), COUNTED)
def test_counts_devices(profile: str, resource: str) -> None:
    assert TABLE[profile].counts(resource)
    assert devices({"profile": profile, "resourceName": resource}).resource == resource


@pytest.mark.parametrize(("profile", "resource"), NOT_COUNTED)
def test_counts_no_devices(profile: str, resource: str) -> None:
    assert not TABLE[profile].counts(resource)


RESOLVED = [
    pytest.param({}, {}, {}, (None, 0, 1), id="cpu"),
    pytest.param({}, {}, {"numProcPerNode": 3}, (None, 0, 3), id="cpu with three ranks"),
    pytest.param({"profile": "nvidia"}, {}, {}, ("nvidia.com/gpu", 1, 1), id="one device"),
    pytest.param({"profile": "nvidia", "devicesPerNode": 8}, {}, {}, ("nvidia.com/gpu", 8, 8), id="all devices"),
    pytest.param(
        {"profile": "nvidia", "devicesPerNode": 8},
        {},
        {"numProcPerNode": 4},
        ("nvidia.com/gpu", 8, 4),
        id="fewer ranks",
    ),
    pytest.param(
        {"profile": "cambricon"},
        {"limits": {"cambricon.com/mlu370": 2}},
        {},
        ("cambricon.com/mlu370", 2, 2),
        id="limits only",
    ),
    pytest.param(
        {"profile": "nvidia"},
        {"requests": {"nvidia.com/gpu": "4", "cpu": "8"}},
        {},
        ("nvidia.com/gpu", 4, 4),
        id="requests only",
    ),
    pytest.param(
        {"profile": "nvidia"},
        {"limits": {"nvidia.com/gpu": 1, "nvidia.com/gpumem": 3000, "nvidia.com/gpucores": 30}},
        {},
        ("nvidia.com/gpu", 1, 1),
        id="companions of a shared device",
    ),
    pytest.param(
        {"profile": "nvidia", "resourceName": "example.com/gpu", "devicesPerNode": 2},
        {},
        {},
        ("example.com/gpu", 2, 2),
        id="renamed by an administrator",
    ),
]


@pytest.mark.parametrize(("accelerator", "resources", "spec", "expected"), RESOLVED)
def test_resolution(accelerator: Json, resources: Json, spec: Json, expected: tuple[str | None, int, int]) -> None:
    found = devices(accelerator, resources, **spec)
    assert (found.resource, found.count, found.nproc) == expected


REFUSED = [
    pytest.param({"profile": "abacus"}, {}, {}, "profile: abacus is unknown; choose one of", id="unknown profile"),
    pytest.param({}, {"limits": {"nvidia.com/gpu": 1}}, {}, "set the profile to nvidia", id="forgotten profile"),
    pytest.param(
        {"profile": "cambricon"}, {"limits": {"nvidia.com/gpu": 1}}, {}, "a device of profile nvidia", id="two vendors"
    ),
    pytest.param(
        {"profile": "nvidia"},
        {"limits": {"nvidia.com/gpu": 1, "nvidia.com/mig-1g.10gb": 1}},
        {},
        "nvidia.com/gpu and nvidia.com/mig-1g.10gb both count devices",
        id="ambiguous",
    ),
    pytest.param(
        {"profile": "nvidia", "resourceName": "nvidia.com/gpu.shared"},
        {"limits": {"nvidia.com/gpu": 1}},
        {},
        "but the template requests nvidia.com/gpu",
        id="two names",
    ),
    pytest.param({"devicesPerNode": 2}, {}, {}, "profile cpu requests no device", id="devices of a CPU"),
    pytest.param({"profile": "nvidia"}, {"limits": {"nvidia.com/gpu": "0.5"}}, {}, "whole number", id="half a device"),
    pytest.param({"profile": "nvidia"}, {"limits": {"nvidia.com/gpu": 0}}, {}, "whole number", id="no device"),
    pytest.param(
        {"profile": "nvidia", "devicesPerNode": 2}, {"limits": {"nvidia.com/gpu": 4}}, {}, "is 2 but", id="two counts"
    ),
    pytest.param(
        {"profile": "nvidia"}, {}, {"numProcPerNode": 2}, "2 ranks cannot share 1 devices", id="too many ranks"
    ),
    pytest.param(
        {"profile": "nvidia", "resourceName": "nvidia.com/gpumem"}, {}, {}, "does not count devices", id="memory"
    ),
]


@pytest.mark.parametrize(("accelerator", "resources", "spec", "words"), REFUSED)
def test_refusal_names_field_and_remedy(accelerator: Json, resources: Json, spec: Json, words: str) -> None:
    with pytest.raises(SpecError) as refused:
        devices(accelerator, resources, **spec)
    assert words in str(refused.value)
    assert str(refused.value).startswith("spec.")


def test_vendor_without_a_known_name_needs_one() -> None:
    table = {**TABLE, "free": FREE}
    with pytest.raises(SpecError, match="resourceName: profile free has no known resource name"):
        devices({"profile": "free"}, profiles=table)
    with pytest.raises(SpecError, match="numProcPerNode: auto is unknown for profile free"):
        devices({"profile": "free", "resourceName": "a.b/card"}, profiles=table)
    found = devices({"profile": "free", "resourceName": "a.b/card"}, profiles=table, numProcPerNode=4)
    assert (found.count, found.nproc) == (1, 4)


@pytest.mark.parametrize(
    ("accelerator", "column"),
    [({}, "cpu"), ({"profile": "cambricon", "devicesPerNode": 2}, "cambricon.com/mlu x2")],
    ids=["cpu", "cambricon"],
)
def test_column(accelerator: Json, column: str) -> None:
    assert devices(accelerator).summary == column


ROW = {"name": "x", "resource": "x.y/z", "torch": {"device": "x", "backend": "y"}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"patterns": ["x.y/z.*"]}, "is not anchored"),
        ({"patterns": ["^(x$"]}, "patterns"),
        ({"colour": "red"}, "colour: unknown key"),
        ({"torch": {"device": "x"}}, "needs device and backend"),
        ({"torch": None}, "needs device and backend"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_rows_are_refused(change: Json, words: str) -> None:
    with pytest.raises(ProfileError) as refused:
        parse_profile(ROW | change, "file")
    assert words in str(refused.value)


def test_missing_key_and_wrong_shape() -> None:
    with pytest.raises(ProfileError, match="torch: missing"):
        parse_profile({"name": "x", "resource": None}, "file")
    with pytest.raises(ProfileError, match="must be a mapping"):
        parse_profile([], "file")


def test_two_vendors_may_not_claim_one_name() -> None:
    other = Profile("other", "a.b/c", "d", "e", exact=("nvidia.com/gpu",))
    with pytest.raises(ProfileError, match=r"nvidia\.com/gpu is claimed by"):
        check_disjoint([*TABLE.values(), other])


def test_two_files_of_one_name(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("{name: x, resource: none, torch: {device: cpu, backend: gloo}}")
    with pytest.raises(ProfileError, match="there are two profiles x"):
        load_profiles(tmp_path)
