"""What a real API server makes of the CRD: defaults, status, columns, explanations, samples."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from crd_api import BEFORE, RECIPE, Spec, manifest, rules, write
from localcluster.cluster import Cluster

MANIFESTS = Path(__file__).resolve().parents[2] / "manifests"
CRD = "inceptiontrainings.training.inception.dev"


def test_defaults_are_stored(training_api: Cluster) -> None:
    stored = write(
        training_api,
        "default",
        {"training": RECIPE, "checkpoint": {"path": "/x"}},
        dry_run=True,
    )
    assert stored["spec"] == {
        "training": RECIPE,
        "accelerator": {"profile": "cpu"},
        "numNodes": 1,
        "numProcPerNode": "auto",
        "checkpoint": {"path": "/x", "everySeconds": 60, "keep": 3, "memory": "Auto"},
        "runPolicy": {"suspend": False, "cleanPodPolicy": "None"},
        "failurePolicy": {"maxRestarts": 10, "resetAfterSeconds": 600},
        "successPolicy": "All",
    }


def test_rules_are_stored_in_their_order(training_api: Cluster) -> None:
    entries = [
        {"name": "b", "action": "Fail", "onPodConditions": [{"type": "DisruptionTarget"}]},
        {
            "name": "a",
            "action": "Restart",
            "onReasons": ["Hang"],
            "onExitCodes": {"operator": "NotIn", "values": [1]},
        },
    ]
    stored = write(training_api, "default", rules(*entries), dry_run=True)["spec"]["failurePolicy"][
        "rules"
    ]
    assert [rule["name"] for rule in stored] == ["b", "a"]
    assert stored[0]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]


def test_pod_fields_without_a_description_are_kept(training_api: Cluster) -> None:
    template = {
        "spec": {
            "hostname": "x",
            "volumes": [{"name": "v", "emptyDir": {}}],
            "affinity": {"nodeAffinity": {}},
        }
    }
    stored = write(
        training_api, "default", {"training": RECIPE, "template": template}, dry_run=True
    )
    assert stored["spec"]["template"] == template


STATUS: dict[str, Any] = {
    "observedGeneration": 1,
    "state": "Running",
    "attempt": 2,
    "restarts": 1,
    "restartsCountTowardsMax": 1,
    "progressSeconds": 90,
    "nonFiniteStep": 100,
    "failuresInARow": 1,
    "furthest": {"attempt": 2, "step": 120},
    "nextAttemptTime": "2026-01-01T00:00:00Z",
    "nextMoveTime": "2026-01-01T00:00:00Z",
    "nodes": {
        "desired": 2,
        "ready": 2,
        "summary": "2/2",
        "members": "0,2",
        "desiredAtStart": 2,
        "spareReady": 1,
    },
    "selector": "training.inception.dev/job=job",
    "accelerator": "cambricon.com/mlu x2",
    "model": "bninception",
    "checkpointPath": "s3://runs/default/job",
    "startTime": "2026-01-01T00:00:00Z",
    "conditions": [
        {
            "type": "Running",
            "status": "True",
            "reason": "AttemptRunning",
            "message": "attempt 2 runs",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": 1,
        }
    ],
    "trainerStatus": {
        "progressPercentage": 50,
        "estimatedRemainingSeconds": 90,
        "epoch": 3,
        "step": 120,
        "samplesPerSecond": "812.5",
        "accuracyTop1": "0.9712",
        "accuracyTop5": "0.999",
        "loss": "0.101",
        "samplesSeen": 7680,
        "repeatedSteps": 0,
        "lastCheckpointTime": "2026-01-01T00:00:00Z",
        "lastUpdatedTime": "2026-01-01T00:00:00.123456Z",
    },
    "rootCause": {
        "attempt": 1,
        "step": 120,
        "pod": "job-1-1",
        "node": "node-a",
        "rank": 1,
        "exitCode": 137,
        "reason": "OOMKilled",
        "message": "killed",
        "time": "2026-01-01T00:00:00Z",
    },
}


def patch_status(training_api: Cluster, namespace: str, patch: Spec) -> dict[str, Any]:
    target = (f"--namespace={namespace}", "inceptiontraining/job")
    options = (
        "--subresource=status",
        "--type=merge",
        f"--patch={json.dumps(patch)}",
        "--output=json",
    )
    result: dict[str, Any] = json.loads(training_api.kubectl("patch", *target, *options))
    return result


def test_status_and_spec_are_written_apart(training_api: Cluster, namespace: str) -> None:
    job = manifest(BEFORE)
    job["status"] = STATUS
    training_api.kubectl(
        "create", f"--namespace={namespace}", "--filename=-", input=json.dumps(job)
    )
    stored = json.loads(
        training_api.kubectl("get", f"--namespace={namespace}", "itrain", "job", "--output=json")
    )
    assert "status" not in stored

    stored = patch_status(
        training_api, namespace, {"status": STATUS, "spec": {"failurePolicy": {"maxRestarts": 0}}}
    )
    assert stored["status"] == STATUS, "every field that the operator writes has a place"
    assert stored["spec"]["failurePolicy"] == {"maxRestarts": 10, "resetAfterSeconds": 600}
    assert stored["metadata"]["generation"] == 1


def test_status_of_an_old_object_that_breaks_a_rule_can_still_be_written(
    training_api: Cluster, namespace: str
) -> None:
    """Rules of the spec never stand between the operator and the status."""
    write(training_api, namespace, BEFORE)
    assert patch_status(training_api, namespace, {"status": {"state": "Failed"}})["status"] == {
        "state": "Failed"
    }


def test_kubectl_get_shows_what_people_ask_for(training_api: Cluster, namespace: str) -> None:
    write(training_api, namespace, BEFORE)
    patch_status(training_api, namespace, {"status": STATUS})
    header, row = training_api.kubectl("get", f"--namespace={namespace}", "itrain").splitlines()
    assert header.split() == [
        "NAME",
        "STATE",
        "NODES",
        "ACCELERATOR",
        "PROGRESS",
        "TOP1",
        "IMG/S",
        "RESTARTS",
        "AGE",
    ]
    assert row.split()[:-1] == [
        "job",
        "Running",
        "2/2",
        "cambricon.com/mlu",
        "x2",
        "50",
        "0.9712",
        "812.5",
        "1",
    ]
    header, row = training_api.kubectl(
        "get", f"--namespace={namespace}", "training", "--output=wide"
    ).splitlines()
    assert header.split()[-3:] == ["MODEL", "ETA", "REASON"]
    assert row.split()[-3:] == ["bninception", "90", "OOMKilled"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("itrain.spec.training", "Training is what the bundled trainer does"),
        ("itrain.spec.training.optimizer.learningRate", "highest learning rate"),
        ("itrain.spec.template.spec.containers.env", "reserved"),
        ("itrain.spec.runPolicy.activeDeadlineSeconds", "a resume sets startTime anew"),
        (
            "itrain.spec.runPolicy.preRunningDeadlineSeconds",
            "the words of the scheduler or the kubelet",
        ),
        ("itrain.spec.runPolicy.ttlSecondsAfterFinished", "The checkpoints stay"),
        ("itrain.spec.runPolicy.cleanPodPolicy", "deletes at once the pods that still run"),
        ("itrain.spec.runPolicy.managedBy", "leaves the job alone"),
        ("itrain.status.rootCause", "naming the first failure"),
    ],
)
def test_kubectl_explain_documents_the_fields(training_api: Cluster, path: str, words: str) -> None:
    assert words in re.sub(r"\s+", " ", training_api.kubectl("explain", path))


SAMPLES = sorted(
    (
        *(MANIFESTS / "samples").glob("*.yaml"),
        *(MANIFESTS / "samples" / "accelerators").glob("*.yaml"),
    )
)


@pytest.fixture(scope="module")
def applied_samples(training_api: Cluster) -> str:
    """What kubectl says of all samples together; it goes on after one that is refused."""
    files = (f"--filename={path}" for path in SAMPLES)
    return training_api.kubectl("apply", "--server-side", "--dry-run=server", *files, check=False)


@pytest.mark.parametrize("name", [path.stem for path in SAMPLES])
def test_samples_are_accepted(applied_samples: str, name: str) -> None:
    said = applied_samples.splitlines()
    assert (
        f"inceptiontraining.training.inception.dev/{name} serverside-applied (server dry run)"
        in said
    )


def test_the_crd_is_structurally_sound(training_api: Cluster) -> None:
    crd = json.loads(training_api.kubectl("get", "crd", CRD, "--output=json"))
    conditions = {
        condition["type"]: condition["status"] for condition in crd["status"]["conditions"]
    }
    assert conditions.get("NonStructuralSchema", "False") == "False"
    assert conditions["NamesAccepted"] == conditions["Established"] == "True"
