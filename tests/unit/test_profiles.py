"""The table of accelerators, and what a job gets from it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from inception_operator.accelerators.resolve import (
    Devices,
    check_disjoint,
    load_profiles,
    parse_profile,
    resolve,
)
from inception_operator.contract.errors import ProfileError, SpecError
from inception_operator.contract.types import Json
from inception_operator.spec.job import parse

TABLE = load_profiles()
FREE = parse_profile(
    {
        "name": "free",
        "resource": None,
        "unit": None,
        "torch": {"device": "sdaa", "backend": "tccl"},
    },
    "free",
)


def devices(
    accelerator: Json, resources: Json | None = None, profiles: Any = None, **spec: Any
) -> Devices:
    containers = [
        {"name": "logs", "image": "l:1"},
        {"name": "trainer", "resources": resources or {}},
    ]
    template = {"spec": {"containers": containers}}
    job = {
        "metadata": {"name": "j", "namespace": "n", "uid": "u"},
        "spec": {"accelerator": accelerator, "template": template, **spec},
    }
    return resolve(parse(job), profiles or TABLE)


VENDORS = {
    "amd",
    "ascend",
    "aws-neuron",
    "cambricon",
    "enflame",
    "gaudi",
    "hygon",
    "iluvatar",
    "intel-gpu",
    "kunlunxin",
    "metax",
    "mthreads",
    "nvidia",
    "tecorigin",
}


def test_shipped_table() -> None:
    assert set(TABLE) == {"cpu", *VENDORS}


# As the vendors' plug-ins, HAMi and Volcano advertise them.
COUNTED = {
    "nvidia": [
        *(
            "nvidia.com/gpu",
            "nvidia.com/gpu.shared",
            "nvidia.com/mig-1g.10gb",
            "nvidia.com/mig-1g.10gb.me",
            "nvidia.com/mig-1g.24gb-me",
            "nvidia.com/mig-1g.24gb.me.all",
            "nvidia.com/mig-1g.24gb.gfx.shared",
            "nvidia.com/mig-1c.3g.40gb",
        ),
        *("volcano.sh/vgpu-number", "volcano.sh/gpu-number"),
    ],
    "amd": [
        "amd.com/gpu",
        *(f"amd.com/{kind}_nps1" for kind in ("spx", "dpx", "tpx", "qpx", "cpx")),
        "amd.com/cpx_nps4",
    ],
    "intel-gpu": ["gpu.intel.com/xe", "gpu.intel.com/i915"],
    "gaudi": ["habana.ai/gaudi"],
    "cambricon": [
        *(
            "cambricon.com/mlu",
            "cambricon.com/mlu370",
            "cambricon.com/mlu270-x5k",
            "cambricon.com/mlu.share",
        ),
        *(
            "cambricon.com/mlu590.share",
            "cambricon.com/mlu370.mim-2m.8gb",
            "cambricon.com/mlu.smlu.one",
        ),
        "cambricon.com/vmlu",
    ],
    "ascend": [
        *(
            "huawei.com/Ascend910",
            "huawei.com/npu",
            "huawei.com/Ascend310P",
            "huawei.com/Ascend310",
        ),
        *(
            "huawei.com/Ascend910A",
            "huawei.com/Ascend910B2",
            "huawei.com/Ascend910B3",
            "huawei.com/Ascend910B4",
        ),
        *("huawei.com/Ascend910B4-1", "huawei.com/Ascend910C"),
        *(
            f"huawei.com/Ascend910-{part}"
            for part in ("2c", "16c", "5c.1cpu.8g", "12c.3cpu.32g", "10c.3cpu.16g.ndvpp")
        ),
        *(
            f"huawei.com/Ascend310P-{part}"
            for part in ("1c", "4c.3cpu", "4c.3cpu.ndvpp", "4c.4cpu.dvpp", "V", "VPro", "IPro")
        ),
    ],
    "mthreads": ["mthreads.com/gpu", "mthreads.com/vgpu"],
    "hygon": [
        "hygon.com/dcu",
        "hygon.com/dcunum",
        "hygon.com/dcu-share-8c-4g",
        "hygon.com/dcu-mig-1g.8gb",
    ],
    "iluvatar": [
        "iluvatar.com/gpu",
        *(f"iluvatar.ai/{chip}-vgpu" for chip in ("BI-V150", "BI-V100", "MR-V100", "MR-V50")),
    ],
    "metax": ["metax-tech.com/gpu", "metax-tech.com/sgpu"],
    "enflame": [
        "enflame.com/gcu",
        "enflame.com/drs-gcu",
        "enflame.com/shared-gcu",
        "enflame.com/vgcu",
    ],
    "kunlunxin": ["kunlunxin.com/xpu", "kunlunxin.com/vxpu", "baidu.com/xpu"],
    "aws-neuron": [
        "aws.amazon.com/neuroncore",
        "aws.amazon.com/neuron",
        "aws.amazon.com/neurondevice",
    ],
}
# Memory, cores and book-keeping beside them.
COMPANIONS = {
    "nvidia": [
        *(
            "nvidia.com/gpumem",
            "nvidia.com/gpumem-percentage",
            "nvidia.com/gpucores",
            "nvidia.com/priority",
        ),
        *(
            "nvidia.com/hostdev",
            "volcano.sh/vgpu-memory",
            "volcano.sh/vgpu-memory-percentage",
            "volcano.sh/vgpu-cores",
            "volcano.sh/gpu-memory",
        ),
    ],
    "amd": ["amd.com/gpucores", "amd.com/gpumem"],
    "intel-gpu": [
        "gpu.intel.com/monitoring",
        "gpu.intel.com/xe_monitoring",
        "gpu.intel.com/i915_monitoring",
    ],
    "cambricon": [
        *(
            "cambricon.com/mlu.smlu.vmemory",
            "cambricon.com/mlu.smlu.vcore",
            "cambricon.com/real-mlu-counts",
        ),
    ],
    "ascend": [
        f"huawei.com/Ascend{chip}-{part}"
        for chip in ("310P", "910A", "910B2", "910B3", "910B4", "910B4-1", "910C")
        for part in ("memory", "core")
    ],
    "mthreads": ["mthreads.com/sgpu-memory", "mthreads.com/sgpu-core"],
    "hygon": ["hygon.com/dcumem", "hygon.com/dcucores"],
    "iluvatar": [
        f"iluvatar.ai/{chip}.{part}"
        for chip in ("BI-V150", "BI-V100", "MR-V100", "MR-V50")
        for part in ("vMem", "vCore")
    ],
    "metax": ["metax-tech.com/vcore", "metax-tech.com/vmemory"],
    "enflame": [
        "enflame.com/gcu-memory",
        "enflame.com/gcu-core",
        "enflame.com/vgcu-percentage",
        "enflame.com/gcu-count",
    ],
    "kunlunxin": ["kunlunxin.com/vxpu-memory"],
}
NOT_COUNTED = [
    ("nvidia", "nvidia.com/mig-1g.10gb/x"),
    ("nvidia", "nvidia.com/mig-1g.10gb."),
    ("ascend", "huawei.com/Ascend910-2"),
    ("ascend", "huawei.com/Ascend910-Unhealthy"),
    ("ascend", "huawei.com/npu-core"),
    ("nvidia", "example.com/nvidia.com-gpu"),
    ("nvidia", "nvidia.com/gpus"),
    ("amd", "amd.com/spx_nps9"),
    ("cambricon", "cambricon.com/mlux"),
    ("hygon", "hygon.com/dcu-share"),
    ("iluvatar", "iluvatar.ai/BI-V150"),
    ("cpu", "cpu"),
    ("cpu", "none"),
    *((profile, name) for profile, names in COMPANIONS.items() for name in names),
]


def test_every_vendor_with_a_known_name_is_here() -> None:
    assert {*COUNTED, "tecorigin"} == VENDORS


@pytest.mark.parametrize(
    ("profile", "resource"), [(row, name) for row, names in COUNTED.items() for name in names]
)
def test_counts_devices(profile: str, resource: str) -> None:
    assert [row.name for row in TABLE.values() if row.counts(resource)] == [profile]
    known_unit = TABLE[profile].unit_of(resource) is not None
    spec = {} if known_unit else {"numProcPerNode": 2}
    named = devices({"profile": profile, "resourceName": resource, "devicesPerNode": 2}, **spec)
    asked = devices({"profile": profile}, {"limits": {resource: "2"}}, **spec)
    assert (
        (named.resource, named.count, named.nproc)
        == (asked.resource, asked.count, asked.nproc)
        == (resource, 2, 2)
    )


@pytest.mark.parametrize("profile", COMPANIONS)
def test_companions_pass_through_beside_any_device(profile: str) -> None:
    device = COUNTED[profile][0]
    found = devices(
        {"profile": profile}, {"limits": {device: 1, **dict.fromkeys(COMPANIONS[profile], 3000)}}
    )
    assert (found.resource, found.count) == (device, 1)
    with pytest.raises(SpecError, match="does not count devices"):
        devices({"profile": profile, "resourceName": COMPANIONS[profile][0]})


@pytest.mark.parametrize("profile", COUNTED)
def test_every_vendor_is_refused_under_the_name_of_another(profile: str) -> None:
    device = COUNTED[profile][-1]
    other = "amd" if profile == "nvidia" else "nvidia"
    with pytest.raises(
        SpecError,
        match=f"accelerator.profile: .*{re.escape(device)}, a device of profile {profile}",
    ):
        devices({"profile": other}, {"limits": {device: 1}})
    with pytest.raises(
        SpecError, match=f"resourceName: {re.escape(device)} is a device of profile {profile}"
    ):
        devices({"profile": other, "resourceName": device})


@pytest.mark.parametrize(("profile", "resource"), NOT_COUNTED)
def test_counts_no_devices(profile: str, resource: str) -> None:
    assert not TABLE[profile].counts(resource)


RESOLVED = [
    pytest.param({}, {}, {}, (None, 0, 1), id="cpu"),
    pytest.param({}, {}, {"numProcPerNode": 3}, (None, 0, 3), id="cpu with three ranks"),
    pytest.param({"profile": "nvidia"}, {}, {}, ("nvidia.com/gpu", 1, 1), id="one device"),
    pytest.param(
        {"profile": "nvidia", "devicesPerNode": 8},
        {},
        {},
        ("nvidia.com/gpu", 8, 8),
        id="all devices",
    ),
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
    pytest.param(
        {"profile": "nvidia", "resourceName": "nvidia.com/gpu-big"},
        {"limits": {"nvidia.com/gpu-big": 4}},
        {},
        ("nvidia.com/gpu-big", 4, 4),
        id="renamed within the vendor's domain",
    ),
    pytest.param(
        {"profile": "nvidia"},
        {
            "limits": {
                "rdma/hca": 1,
                "vpc.amazonaws.com/efa": 4,
                "hugepages-2Mi": "4Gi",
                "example.com/fast": 1,
            }
        },
        {},
        ("nvidia.com/gpu", 1, 1),
        id="networks and huge pages",
    ),
    pytest.param(
        {}, {"limits": {"rdma/hca": 1, "cpu": 2}}, {}, (None, 0, 1), id="cpu with a network"
    ),
    pytest.param(
        {"profile": "tecorigin", "resourceName": "a.b/card", "devicesPerNode": 2},
        {},
        {"numProcPerNode": 8},
        ("a.b/card", 2, 8),
        id="cards of several devices",
    ),
    pytest.param(
        {"profile": "aws-neuron", "resourceName": "aws.amazon.com/neuron"},
        {},
        {"numProcPerNode": 2},
        ("aws.amazon.com/neuron", 1, 2),
        id="devices of several cores",
    ),
]


@pytest.mark.parametrize(("accelerator", "resources", "spec", "expected"), RESOLVED)
def test_resolution(
    accelerator: Json, resources: Json, spec: Json, expected: tuple[str | None, int, int]
) -> None:
    found = devices(accelerator, resources, **spec)
    assert (found.resource, found.count, found.nproc) == expected


REFUSED = [
    pytest.param(
        {"profile": "abacus"},
        {},
        {},
        "profile: abacus is unknown; choose one of",
        id="unknown profile",
    ),
    pytest.param(
        {},
        {"limits": {"nvidia.com/gpu": 1}},
        {},
        "set the profile to nvidia",
        id="forgotten profile",
    ),
    pytest.param(
        {"profile": "cambricon"},
        {"limits": {"nvidia.com/gpu": 1}},
        {},
        "a device of profile nvidia",
        id="two vendors",
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
    pytest.param(
        {"devicesPerNode": 2}, {}, {}, "profile cpu requests no device", id="devices of a CPU"
    ),
    pytest.param(
        {"profile": "nvidia"},
        {"limits": {"nvidia.com/gpu": "0.5"}},
        {},
        "whole number",
        id="half a device",
    ),
    pytest.param(
        {"profile": "nvidia"}, {"limits": {"nvidia.com/gpu": 0}}, {}, "whole number", id="no device"
    ),
    pytest.param(
        {"profile": "nvidia", "devicesPerNode": 2},
        {"limits": {"nvidia.com/gpu": 4}},
        {},
        "is 2 but",
        id="two counts",
    ),
    pytest.param(
        {"profile": "nvidia"},
        {},
        {"numProcPerNode": 2},
        "2 ranks cannot share 1 devices",
        id="too many ranks",
    ),
    pytest.param(
        {"profile": "nvidia", "resourceName": "nvidia.com/gpumem"},
        {},
        {},
        "does not count devices",
        id="memory",
    ),
    pytest.param(
        {"profile": "nvidia"},
        {"requests": {"nvidia.com/gpu": 1}, "limits": {"nvidia.com/gpu": 2}},
        {},
        "containers[1].resources: nvidia.com/gpu: the request 1 and the limit 2 must be equal",
        id="unequal",
    ),
    pytest.param(
        {"profile": "nvidia"},
        {"limits": {"nvidia.com/gpus": 1}},
        {},
        "containers[1].resources: nvidia.com/gpus is unknown: "
        "devices of profile nvidia are nvidia.com/gpu, ",
        id="misspelt device",
    ),
    pytest.param(
        {"profile": "amd"},
        {"limits": {"metax-tech.com/gpux": 1}},
        {},
        "devices of profile metax are metax-tech.com/gpu, metax-tech.com/sgpu; "
        "if it counts devices too, set",
        id="misspelt device of another vendor",
    ),
    pytest.param(
        {},
        {"limits": {"birentech.com/gpu": 1}},
        {},
        "birentech.com/gpu is unknown: "
        "if it counts devices, set spec.accelerator.profile to that of its vendor",
        id="vendor without a profile",
    ),
    pytest.param(
        {"profile": "tecorigin"},
        {},
        {},
        "resourceName: profile tecorigin has no known",
        id="no known name",
    ),
    pytest.param(
        {"profile": "tecorigin", "resourceName": "a.b/card"},
        {},
        {},
        "numProcPerNode: auto is unknown for profile tecorigin;",
        id="unknown unit",
    ),
    pytest.param(
        {"profile": "aws-neuron", "resourceName": "aws.amazon.com/neuron"},
        {},
        {},
        "auto is unknown for profile aws-neuron and aws.amazon.com/neuron; set",
        id="unknown unit of one resource",
    ),
]


@pytest.mark.parametrize(("accelerator", "resources", "spec", "words"), REFUSED)
def test_refusal_names_field_and_remedy(
    accelerator: Json, resources: Json, spec: Json, words: str
) -> None:
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
    found = devices(
        {"profile": "free", "resourceName": "a.b/card"}, profiles=table, numProcPerNode=4
    )
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
        ({"patterns": ["x.y/z.*"]}, "file: patterns[0]: 'x.y/z.*' does not match"),
        ({"patterns": ["^(x$"]}, "file: patterns: ^(x$: missing )"),
        ({"colour": "red"}, "file: colour: unknown key"),
        ({"torch": {"device": "x"}}, "file: torch.backend: missing"),
        ({"torch": None}, "file: torch: must be a mapping"),
        ({"torch": {"device": "x", "backend": "y", "speed": 1}}, "file: torch.speed: unknown key"),
        ({"mounts": [{"hostPath": "/a"}]}, "file: mounts[0].reason: missing"),
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
    other = parse_profile(
        {
            "name": "other",
            "resource": "a.b/c",
            "torch": {"device": "d", "backend": "e"},
            "exact": ["nvidia.com/gpu"],
        },
        "other",
    )
    with pytest.raises(ProfileError, match=r"nvidia\.com/gpu is claimed by"):
        check_disjoint([*TABLE.values(), other])


def test_two_files_of_one_name(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(
            "{name: x, resource: none, torch: {device: cpu, backend: gloo}}", encoding="utf-8"
        )
    with pytest.raises(ProfileError, match="there are two profiles x"):
        load_profiles(tmp_path)
