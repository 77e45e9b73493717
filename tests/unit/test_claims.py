"""Devices by Dynamic Resource Allocation: what is refused, how many ranks there are, what pods and
templates say.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from kubernetes_validate import validate

from cluster_sim import Sim
from cluster_sim import job as simulated
from inception_operator.accelerators.resolve import Devices, load_profiles, parse_profile, resolve
from inception_operator.contract.errors import SpecError
from inception_operator.contract.types import Json
from inception_operator.pod.build import build_pod
from inception_operator.pod.resource_claims import build_templates, template_name
from inception_operator.spec.claims import Claim
from inception_operator.spec.job import Job, parse

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
PAIRS = parse_profile(
    {
        "name": "pairs",
        "resource": "example.com/card",
        "unit": 2,
        "torch": {"device": "cuda", "backend": "nccl"},
    },
    "p",
)
PROFILES = {**TABLE, "free": FREE, "pairs": PAIRS}
GPUS = {"name": "gpus", "deviceClassName": "gpu.nvidia.com", "count": 4}
OWN = {"name": "mine", "resourceClaimTemplateName": "big-gpus"}


def parsed(wanted: list[Json], uid: str = "u-1", **spec: Any) -> Job:
    accelerator = {
        "profile": spec.pop("profile", "nvidia"),
        "claims": wanted,
        **spec.pop("accelerator", {}),
    }
    metadata = {"name": "digits", "namespace": "team", "uid": uid, "generation": 1}
    return parse(
        {"metadata": metadata, "spec": {"training": {}, "accelerator": accelerator, **spec}}
    )


def devices(wanted: list[Json], **spec: Any) -> Devices:
    return resolve(parsed(wanted, **spec), PROFILES)


def built(wanted: list[Json], **spec: Any) -> Json:
    job = parsed(wanted, **spec)
    return build_pod(
        job, resolve(job, PROFILES), 0, 1, image="trainer:1", launcher_image="launcher:1"
    )


def template(container: Json | None = None, **pod: Any) -> Json:
    return {"spec": {"containers": [{"name": "trainer", **(container or {})}], **pod}}


RANKS = [
    pytest.param([GPUS], {}, 4, "gpu.nvidia.com x4", id="one rank per device"),
    pytest.param(
        [{**GPUS, "count": None}], {}, 1, "gpu.nvidia.com x1", id="one device unless said otherwise"
    ),
    pytest.param([GPUS], {"numProcPerNode": 2}, 2, "gpu.nvidia.com x4", id="fewer ranks"),
    pytest.param([GPUS], {"profile": "pairs"}, 8, "gpu.nvidia.com x4", id="cards of two devices"),
    pytest.param(
        [GPUS],
        {"profile": "free", "numProcPerNode": 16},
        16,
        "gpu.nvidia.com x4",
        id="cards of who knows",
    ),
    pytest.param(
        [OWN], {"numProcPerNode": 3}, 3, "claims from big-gpus", id="a template of the user's"
    ),
    pytest.param(
        [GPUS, {"name": "nic", "deviceClassName": "rdma"}],
        {"numProcPerNode": 4},
        4,
        "gpu.nvidia.com x4, rdma x1",
        id="devices and a network card",
    ),
]


@pytest.mark.parametrize(("wanted", "spec", "ranks", "text"), RANKS)
def test_ranks(wanted: list[Json], spec: Json, ranks: int, text: str) -> None:
    found = devices(wanted, **spec)
    assert (found.resource, found.nproc, found.summary) == (None, ranks, text)


ALONE = "spec.accelerator.claims: cannot be set beside resourceName and devicesPerNode"
AUTO = "spec.numProcPerNode: auto needs exactly one claim with a deviceClassName"
MANY = "5 ranks cannot share 4 devices; lower it or raise accelerator.claims.count"
REFUSED = [
    pytest.param([OWN], {}, AUTO, id="nobody knows what the template asks for"),
    pytest.param(
        [GPUS, {"name": "nic", "deviceClassName": "rdma"}],
        {},
        AUTO,
        id="which of them is to train on",
    ),
    pytest.param([GPUS], {"numProcPerNode": 5}, MANY, id="more ranks than devices"),
    pytest.param(
        [GPUS],
        {"profile": "free"},
        "spec.numProcPerNode: auto is unknown for profile free",
        id="unit",
    ),
    pytest.param(
        [GPUS],
        {"profile": "cpu"},
        "spec.accelerator.claims: profile cpu requests no device",
        id="cpu",
    ),
    pytest.param([GPUS], {"accelerator": {"devicesPerNode": 4}}, ALONE, id="and devicesPerNode"),
    pytest.param(
        [GPUS], {"accelerator": {"resourceName": "nvidia.com/gpu"}}, ALONE, id="and resourceName"
    ),
    pytest.param(
        [GPUS],
        {"template": template({"resources": {"limits": {"nvidia.com/gpu": 1}}})},
        "spec.accelerator.claims: the template requests nvidia.com/gpu too",
        id="and an extended resource",
    ),
    pytest.param(
        [GPUS],
        {"template": template(resourceClaims=[{"name": "gpus", "resourceClaimName": "shared"}])},
        "spec.template.spec.resourceClaims: gpus is in spec.accelerator.claims too; rename one",
        id="name taken by the template",
    ),
    pytest.param(
        [GPUS, GPUS], {}, "spec.accelerator.claims: two claims have the same name", id="twice"
    ),
    pytest.param(
        [{"name": "a"}],
        {},
        "claims[0]: needs exactly one of resourceClaimTemplateName",
        id="nothing",
    ),
    pytest.param([{**GPUS, **OWN}], {}, "claims[0]: needs exactly one of", id="both forms"),
    pytest.param(
        [{**OWN, "count": 2}],
        {},
        "claims[0].count: belongs to deviceClassName",
        id="count of a template",
    ),
    pytest.param(
        [{**GPUS, "count": 65}],
        {},
        "claims[0].count: 65 is not a number from 1 to 64",
        id="too many",
    ),
    pytest.param(
        [{**GPUS, "name": "A_b"}], {}, "claims[0].name: must be at most 63", id="no label"
    ),
    pytest.param([{"deviceClassName": "x"}], {}, "claims[0].name: must be", id="without name"),
]


@pytest.mark.parametrize(("wanted", "spec", "message"), REFUSED)
def test_refused(wanted: list[Json], spec: Json, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        devices(wanted, **spec)


@pytest.mark.parametrize(
    ("source", "message"), [("gpus", "must be a list"), ([1], "must be a list"), ([{}] * 9, "9")]
)
def test_shapes_that_the_schema_refuses_are_refused_here_too(source: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parsed(source)


@pytest.mark.parametrize("source", [None, []])
def test_no_claims(source: Any) -> None:
    assert parsed(source).accelerator.claims == ()
    assert built(source, numProcPerNode=1)["spec"]["containers"][0]["resources"]["limits"] == {
        "nvidia.com/gpu": "1"
    }


def test_a_pod_claims_devices_for_its_trainer_and_asks_for_no_extended_resource() -> None:
    pod = built(
        [GPUS, OWN], numProcPerNode=4, template=template({"resources": {"limits": {"cpu": "8"}}})
    )
    spec, resources = pod["spec"], pod["spec"]["containers"][0]["resources"]
    job = parsed([GPUS])
    assert spec["resourceClaims"] == [
        {
            "name": "gpus",
            "resourceClaimTemplateName": template_name(job, job.accelerator.claims[0]),
        },
        {"name": "mine", "resourceClaimTemplateName": "big-gpus"},
    ]
    assert resources == {
        "limits": {"cpu": "8"},
        "requests": {"memory": "430Mi"},
        "claims": [{"name": "gpus"}, {"name": "mine"}],
    }
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in spec[
        "tolerations"
    ]
    validate(pod, "1.33", strict=True)


def test_claims_of_the_template_stay() -> None:
    shared = {"name": "shared", "resourceClaimName": "channel"}
    pod = built(
        [GPUS],
        template=template({"resources": {"claims": [{"name": "shared"}]}}, resourceClaims=[shared]),
    )
    assert shared in pod["spec"]["resourceClaims"]
    assert pod["spec"]["containers"][0]["resources"]["claims"] == [
        {"name": "gpus"},
        {"name": "shared"},
    ]


def test_only_the_trainer_gets_devices() -> None:
    side = {"name": "side", "image": "side:1"}
    container = {"name": "trainer", "image": "mine:1", "command": ["train"]}
    spec = built([GPUS], template={"spec": {"containers": [container, side]}})["spec"]
    others = [c for c in (*spec["containers"], *spec["initContainers"]) if c["name"] != "trainer"]
    assert len(others) == 2
    assert all("resources" not in c or "claims" not in c["resources"] for c in others)


def test_templates_are_made_for_classes_alone_and_belong_to_the_job() -> None:
    job = parsed([GPUS, OWN], numProcPerNode=4)
    (made,) = build_templates(job)
    assert (made["apiVersion"], made["kind"]) == ("resource.k8s.io/v1", "ResourceClaimTemplate")
    assert made["metadata"]["namespace"] == "team"
    assert made["metadata"]["ownerReferences"][0]["uid"] == "u-1"
    assert made["metadata"]["labels"]["training.inception.dev/job"] == "digits"
    assert made["spec"]["metadata"]["labels"] == made["metadata"]["labels"], (
        "claims are found by the job's labels"
    )
    exactly = {"deviceClassName": "gpu.nvidia.com", "allocationMode": "ExactCount", "count": 4}
    assert made["spec"]["spec"]["devices"]["requests"] == [{"name": "gpus", "exactly": exactly}]


def test_the_name_of_a_template_changes_with_its_content_and_with_the_job() -> None:
    claim = Claim(name="gpus", device_class="gpu.nvidia.com", count=4)
    others = [
        (parsed([], uid="u-2"), claim),
        (parsed([]), Claim(name="gpus", device_class="gpu.nvidia.com", count=5)),
        (parsed([]), Claim(name="gpus", device_class="gpu.amd.com", count=4)),
    ]
    names = {template_name(job, one) for job, one in [(parsed([]), claim), *others]}
    assert len(names) == 4
    assert all(re.fullmatch(r"digits-gpus-[0-9a-f]{10}", name) for name in names)
    assert template_name(parsed([]), claim) == template_name(parsed([]), claim)


def test_the_text_for_people_fits_into_the_status() -> None:
    classes = [{"name": f"c{index}", "deviceClassName": "x" * 253} for index in range(8)]
    assert len(devices(classes, numProcPerNode=1).summary) == 384


def test_templates_come_with_every_pod_that_is_made_and_never_without() -> None:
    sim = Sim(simulated(2, accelerator={"profile": "nvidia", "claims": [{**GPUS, "count": 1}]}))
    plans = [sim.operate() for _ in range(2)]
    sim.run_until("Running")
    sim.remove(sim.pod(1))
    plans += [sim.operate() for _ in range(3)]
    assert [len(plan.claim_templates) for plan in plans if plan.create] == [1, 1]
    assert all(plan.claim_templates == () for plan in plans if not plan.create)
    assert sim.status["accelerator"] == "gpu.nvidia.com x1"


def test_a_pod_that_the_taint_of_a_device_evicts_costs_nothing() -> None:
    sim = Sim(simulated(1, accelerator={"profile": "nvidia", "claims": [GPUS]}))
    sim.run_until("Running")
    sim.disrupt(sim.pod(0), "DeletionByDeviceTaintManager")
    sim.operate()
    cause = sim.status["rootCause"]
    assert (cause["reason"], cause["message"]) == ("Disrupted", "DeletionByDeviceTaintManager")
    assert sim.counters == (2, 1, 0)
