"""What of a job can be changed, and when: immutability on the real API server."""

from __future__ import annotations

from typing import Any

import pytest

from crd_api import BEFORE, RECIPE, Spec, rejection, write
from localcluster.cluster import Cluster
from localcluster.errors import CommandError

UNTIL_SUSPENDED = (
    "cannot change while the job is not suspended; set spec.runPolicy.suspend to true first"
)

CHANGES: dict[str, Any] = {
    "training": {"recipe": "bninception-imagenet"},
    "image": "other:1",
    "accelerator": {"profile": "nvidia"},
    "numNodes": 2,
    "numProcPerNode": 2,
    "template": {"spec": {"nodeSelector": {"disk": "slow"}}},
    "checkpoint": {"path": "/other"},
    "successPolicy": "Chief",
}


@pytest.mark.parametrize("field", CHANGES)
def test_a_running_job_keeps_its_spec(training_api: Cluster, namespace: str, field: str) -> None:
    write(training_api, namespace, BEFORE)
    words = rejection(training_api, {**BEFORE, field: CHANGES[field]}, namespace=namespace)
    assert f"spec.{field}: Forbidden: spec.{field} {UNTIL_SUSPENDED}" in words


def test_a_job_cannot_become_elastic_or_cease_to_be_while_it_runs(
    training_api: Cluster, namespace: str
) -> None:
    words = "spec.elasticPolicy cannot be added or removed while the job is not suspended"
    write(training_api, namespace, BEFORE)
    assert words in rejection(
        training_api, {**BEFORE, "elasticPolicy": {}, "numNodes": 2}, namespace=namespace
    )
    write(training_api, namespace, {**BEFORE, "elasticPolicy": {}}, name="elastic")
    assert words in rejection(training_api, BEFORE, namespace=namespace, name="elastic")


def test_the_size_of_an_elastic_job_changes_at_any_time_within_its_limits(
    training_api: Cluster, namespace: str
) -> None:
    spec = {**BEFORE, "numNodes": 2, "elasticPolicy": {"minNodes": 2, "maxNodes": 3}}
    write(training_api, namespace, spec)
    target = (f"--namespace={namespace}", "itrain/job")
    training_api.kubectl("scale", *target, "--replicas=3")
    for replicas, words in (
        (4, "spec.elasticPolicy.maxNodes must not be below"),
        (1, "minNodes must not exceed"),
    ):
        with pytest.raises(CommandError, match=words):
            training_api.kubectl("scale", *target, f"--replicas={replicas}")
    stored = write(
        training_api,
        namespace,
        {**spec, "numNodes": 3, "elasticPolicy": {"minNodes": 1, "spareNodes": 2}},
    )
    assert (stored["spec"]["numNodes"], stored["metadata"]["generation"]) == (3, 3)


@pytest.mark.parametrize(
    "template",
    [
        {"spec": {"hostname": "new"}},
        {"spec": {"tolerations": [{"operator": "Exists"}]}},
        {"spec": {"nodeSelector": {"disk": "fast"}, "hostname": "new"}},
        {"metadata": {"labels": {"a": "b"}}},
    ],
    ids=[
        "an undescribed field for another",
        "a described field for another",
        "undescribed field added",
        "labels for spec",
    ],
)
def test_a_running_job_keeps_every_part_of_its_template(
    training_api: Cluster, namespace: str, template: Spec
) -> None:
    write(training_api, namespace, BEFORE)
    assert f"spec.template {UNTIL_SUSPENDED}" in rejection(
        training_api, {**BEFORE, "template": template}, namespace=namespace
    )


PROGRAM: Spec = {
    "template": {"spec": {"containers": [{"name": "trainer", "command": ["python3", "train.py"]}]}}
}


def test_a_program_takes_the_place_of_training(training_api: Cluster, namespace: str) -> None:
    env = [
        {"name": "INCEPTION_PRELOAD", "value": "transformers"},
        {"name": "PYTHONPATH", "value": "/workspace"},
    ]
    container = {**PROGRAM["template"]["spec"]["containers"][0], "args": ["--lr", "1"], "env": env}
    stored = write(
        training_api,
        namespace,
        {"template": {"spec": {"containers": [container]}}, "successPolicy": "Chief"},
    )
    assert stored["spec"]["template"]["spec"]["containers"] == [container]
    assert (stored["spec"]["successPolicy"], "training" in stored["spec"]) == ("Chief", False)


def test_a_running_job_cannot_change_between_program_and_training(
    training_api: Cluster, namespace: str
) -> None:
    write(training_api, namespace, PROGRAM)
    words = rejection(training_api, {"training": RECIPE}, namespace=namespace)
    assert f"spec.training {UNTIL_SUSPENDED}" in words
    assert f"spec.template {UNTIL_SUSPENDED}" in words
    write(training_api, namespace, {**PROGRAM, "runPolicy": {"suspend": True}})
    stored = write(training_api, namespace, {"training": RECIPE})
    assert stored["spec"]["training"] == RECIPE


def test_a_field_that_was_absent_cannot_appear_while_the_job_runs(
    training_api: Cluster, namespace: str
) -> None:
    write(training_api, namespace, {"training": RECIPE})
    words = rejection(training_api, BEFORE, namespace=namespace)
    assert all(
        f"spec.{field} {UNTIL_SUSPENDED}" in words for field in ("image", "template", "checkpoint")
    )


def test_life_cycle_and_limits_change_at_any_time(training_api: Cluster, namespace: str) -> None:
    write(training_api, namespace, BEFORE)
    stored = write(
        training_api,
        namespace,
        {**BEFORE, "failurePolicy": {"maxRestarts": 3}, "runPolicy": {"suspend": True}},
    )
    assert stored["spec"]["failurePolicy"] == {"maxRestarts": 3, "resetAfterSeconds": 600}
    assert stored["metadata"]["generation"] == 2


def test_deadlines_and_clean_up_change_at_any_time(training_api: Cluster, namespace: str) -> None:
    limits = {
        "activeDeadlineSeconds": 60,
        "preRunningDeadlineSeconds": 30,
        "ttlSecondsAfterFinished": 10,
    }
    write(training_api, namespace, {**BEFORE, "runPolicy": limits})
    later = {key: 2 * value for key, value in limits.items()} | {"cleanPodPolicy": "All"}
    stored = write(training_api, namespace, {**BEFORE, "runPolicy": later})
    assert stored["spec"]["runPolicy"] == {"suspend": False, **later}
    stored = write(training_api, namespace, BEFORE)
    assert stored["spec"]["runPolicy"] == {"suspend": False, "cleanPodPolicy": "None"}


MANAGERS: dict[str, tuple[Spec, Spec]] = {
    "given away": ({}, {"managedBy": "kueue.x-k8s.io/multikueue"}),
    "taken back": ({"managedBy": "kueue.x-k8s.io/multikueue"}, {}),
    "given on": ({"managedBy": "example.com/a"}, {"managedBy": "example.com/b"}),
    "while suspended": ({"suspend": True}, {"suspend": True, "managedBy": "example.com/a"}),
}


@pytest.mark.parametrize("case", MANAGERS)
def test_the_manager_of_a_job_never_changes(
    training_api: Cluster, namespace: str, case: str
) -> None:
    before, after = MANAGERS[case]
    write(training_api, namespace, {**BEFORE, "runPolicy": before})
    words = rejection(training_api, {**BEFORE, "runPolicy": after}, namespace=namespace)
    assert "spec.runPolicy.managedBy: Forbidden: spec.runPolicy.managedBy cannot change" in words
    write(
        training_api, namespace, {**BEFORE, "runPolicy": {**before, "ttlSecondsAfterFinished": 1}}
    )


@pytest.mark.parametrize("before", [{}, {"progressDeadlineSeconds": 60}], ids=["absent", "given"])
def test_deadline_for_progress_changes_only_while_suspended(
    training_api: Cluster, namespace: str, before: Spec
) -> None:
    old, new = {"maxRestarts": 1, **before}, {"maxRestarts": 2, "progressDeadlineSeconds": 90}
    write(training_api, namespace, {**BEFORE, "failurePolicy": old})
    words = rejection(training_api, {**BEFORE, "failurePolicy": new}, namespace=namespace)
    assert f"spec.failurePolicy.progressDeadlineSeconds {UNTIL_SUSPENDED}" in words
    suspended = {**BEFORE, "runPolicy": {"suspend": True}}
    write(training_api, namespace, {**suspended, "failurePolicy": old})
    stored = write(training_api, namespace, {**suspended, "failurePolicy": new})
    assert stored["spec"]["failurePolicy"] == {"resetAfterSeconds": 600, **new}


def test_suspending_and_changing_at_once_is_rejected(training_api: Cluster, namespace: str) -> None:
    write(training_api, namespace, BEFORE)
    words = rejection(
        training_api, {**BEFORE, "numNodes": 2, "runPolicy": {"suspend": True}}, namespace=namespace
    )
    assert f"spec.numNodes {UNTIL_SUSPENDED}" in words


def test_a_suspended_job_can_change_in_every_field_and_resume_with_it(
    training_api: Cluster, namespace: str
) -> None:
    write(training_api, namespace, {**BEFORE, "runPolicy": {"suspend": True}})
    stored = write(training_api, namespace, {**CHANGES, "runPolicy": {"suspend": False}})
    assert {field: stored["spec"][field] for field in CHANGES if field != "checkpoint"} == {
        field: value for field, value in CHANGES.items() if field != "checkpoint"
    }
    assert f"spec.image {UNTIL_SUSPENDED}" in rejection(
        training_api, {**CHANGES, "image": "third:1"}, namespace=namespace
    )
