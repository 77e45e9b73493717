"""Whatever JSON stands in a custom resource, it becomes a job or is refused with its field.

The API server has checked a resource against the CRD, but perhaps an older one, and it takes most
of the template as it is. An exception of another kind would be retried for ever, and the user would
not be told.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inception_operator.accelerators.resolve import load_profiles, resolve
from inception_operator.contract.errors import SpecError
from inception_operator.pod.build import build_pod
from inception_operator.pod.resource_claims import build_templates
from inception_operator.spec.job import Job, parse, run_policy

TABLE = load_profiles()
METADATA = {"name": "digits", "namespace": "team", "uid": "u-1", "generation": 1}
CONTAINER: dict[str, Any] = {
    "name": "trainer",
    "image": "mine:1",
    "command": ["python3"],
    "args": ["train.py"],
    "env": [{"name": "A", "value": "b"}],
    "ports": [{"containerPort": 9000}],
    "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": 1, "nvidia.com/gpu": 2}},
    "securityContext": {"runAsUser": 1},
    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
}
POD: dict[str, Any] = {
    "affinity": {
        "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []},
        "podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []},
        "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": []},
    },
    "containers": [CONTAINER, {"name": "side", "image": "side:1"}],
    "hostNetwork": True,
    "imagePullSecrets": [{"name": "secret"}],
    "initContainers": [{"name": "first", "image": "first:1"}],
    "priorityClassName": "high",
    "resourceClaims": [{"name": "shared", "resourceClaimName": "channel"}],
    "restartPolicy": "Never",
    "securityContext": {"fsGroup": 1},
    "terminationGracePeriodSeconds": 30,
    "tolerations": [{"key": "a", "operator": "Exists"}],
    "volumes": [{"name": "data", "emptyDir": {}}],
}
SPEC: dict[str, Any] = {
    "image": "trainer:2",
    "accelerator": {"profile": "nvidia", "resourceName": "nvidia.com/gpu", "devicesPerNode": 2},
    "numNodes": 3,
    "numProcPerNode": 2,
    "template": {"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}, "spec": POD},
    "checkpoint": {"volumeClaimName": "runs", "everySteps": 5, "everySeconds": 60, "keep": 2},
    "runPolicy": {
        "suspend": False,
        "activeDeadlineSeconds": 100,
        "preRunningDeadlineSeconds": 100,
        "ttlSecondsAfterFinished": 100,
        "cleanPodPolicy": "All",
        "schedulingPolicy": {"topologyKey": "zone", "podPlacement": "OnePerNode"},
    },
    "failurePolicy": {
        "maxRestarts": 3,
        "progressDeadlineSeconds": 100,
        "nodeLostSeconds": 60,
        "nodeLostPolicy": "ForceDeletePods",
        "rules": [
            {
                "name": "codes",
                "action": "Fail",
                "onExitCodes": {"operator": "In", "values": [1, 2]},
                "onReasons": ["Hang"],
                "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
            }
        ],
    },
    "successPolicy": "Chief",
    "elasticPolicy": {"minNodes": 1, "maxNodes": 5, "spareNodes": 1},
}
BY_CLAIMS = {
    "training": {"model": {"name": "resnet50"}, "recipe": "r"},
    "accelerator": {
        "profile": "nvidia",
        "claims": [{"name": "gpus", "deviceClassName": "gpu.nvidia.com", "count": 2}],
    },
    "template": {"spec": {"resourceClaims": [{"name": "shared"}]}},
}
RESOURCES = [{"metadata": METADATA, "spec": SPEC}, {"metadata": METADATA, "spec": BY_CLAIMS}]
# Lone surrogates too: they can be written in JSON, but not in UTF-8.
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=5)
    | st.sampled_from(["", "auto", "trainer", "a" * 300, "{input}", "1", "0.5", 10**30])
)
KEYS = st.sampled_from(["name", "spec", "limits", "count", "containers"]) | st.text(max_size=3)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values of a resource."""
    children: Any = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    return [path, *(place for key, child in children for place in places(child, (*path, key)))]


def with_value(value: Any, path: tuple[Any, ...], news: Any) -> Any:
    if not path:
        return news
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = with_value(value[path[0]], path[1:], news)
    return copy


PLACES = [(resource, place) for resource in RESOURCES for place in places(resource) if place]


def refusal(resource: Any) -> SpecError | None:
    try:
        carry_out(parse(resource))
    except SpecError as error:
        return error
    return None


def carry_out(job: Job) -> None:
    """All that is made of a job before anything is written."""
    devices = resolve(job, TABLE)
    pod = build_pod(job, devices, 0, 1, image="i", launcher_image="l", avoid=("node-a",))
    json.dumps([pod, build_templates(job), job.model, devices.summary])


@pytest.mark.parametrize("resource", RESOURCES, ids=["program", "claims"])
def test_the_resources_that_are_changed_are_valid(resource: dict[str, Any]) -> None:
    carry_out(parse(resource))


@settings(max_examples=300, deadline=None)
@given(place=st.sampled_from(PLACES), value=ANYTHING)
def test_anything_anywhere_is_carried_out_or_refused(place: Any, value: Any) -> None:
    original, path = place
    resource = with_value(original, path, value)
    if refused := refusal(resource):
        assert refused.path.startswith(("metadata", "spec"))
        assert str(refused).startswith(f"{refused.path}: ")
    if isinstance(resource.get("spec"), dict | None):
        run_policy(resource)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("numNodes",), "3"),
        (("numNodes",), 3.0),
        (("numNodes",), True),
        (("runPolicy", "suspend"), "true"),
        (("runPolicy", "suspend"), 1),
        (("image",), 3),
        (("failurePolicy", "rules", 0, "onExitCodes", "values"), [True]),
        (("failurePolicy", "rules", 0, "onExitCodes", "values"), ["1"]),
    ],
    ids=str,
)
def test_no_value_is_turned_into_another_type(path: tuple[Any, ...], value: Any) -> None:
    with pytest.raises(SpecError) as refused:
        parse({"metadata": METADATA, "spec": with_value(SPEC, path, value)})
    assert refused.value.path.startswith(f"spec.{path[0]}")


def without(value: Any, path: tuple[Any, ...]) -> Any:
    copy = dict(value) if isinstance(value, dict) else list(value)
    if len(path) == 1:
        del copy[path[0]]
    else:
        copy[path[0]] = without(value[path[0]], path[1:])
    return copy


def outcome(spec: Any) -> Job | str:
    try:
        return parse({"metadata": METADATA, "spec": spec})
    except SpecError as error:
        return str(error)


# A null in a list is no absent field, and what the template says is not the operator's.
FIELDS = [
    path
    for path in places(SPEC)
    if path and path[0] != "template" and not isinstance(path[-1], int)
]


@pytest.mark.parametrize("path", FIELDS, ids=lambda path: ".".join(map(str, path)))
def test_null_says_the_same_as_nothing(path: tuple[Any, ...]) -> None:
    assert outcome(with_value(SPEC, path, None)) == outcome(without(SPEC, path))
