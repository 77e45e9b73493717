"""What a real API server makes of the CRD: rejections with their words, defaults, immutability, status, columns."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from localcluster.cluster import Cluster
from localcluster.errors import CommandError
from trainings import wait_served

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "manifests"
CRD = "inceptiontrainings.training.inception.dev"
RECIPE: dict[str, Any] = {"recipe": "bninception-digits"}
UNTIL_SUSPENDED = "cannot change while the job is not suspended; set spec.runPolicy.suspend to true first"

Spec = dict[str, Any]


@pytest.fixture(scope="module")
def api(control_plane: Cluster) -> Cluster:
    """The control plane, with our kind established."""
    control_plane.kubectl("apply", "--server-side", f"--filename={MANIFESTS / 'crd.yaml'}")
    wait_served(control_plane)
    return control_plane


def manifest(spec: Spec, name: str = "job") -> str:
    kind = {"apiVersion": "training.inception.dev/v1alpha1", "kind": "InceptionTraining"}
    return json.dumps({**kind, "metadata": {"name": name}, "spec": spec})


def write(api: Cluster, namespace: str, spec: Spec, *arguments: str, name: str = "job") -> dict[str, Any]:
    """Applies a job as a user would, and returns what is stored."""
    options = ("--server-side", f"--namespace={namespace}", "--filename=-", "--output=json")
    stored: dict[str, Any] = json.loads(api.kubectl("apply", *options, *arguments, input=manifest(spec, name)))
    return stored


def rejection(api: Cluster, spec: Spec, name: str = "job", namespace: str = "default") -> str:
    """The words with which the API server refuses a job."""
    with pytest.raises(CommandError) as caught:
        write(api, namespace, spec, "--dry-run=server", name=name)
    return re.sub(r"\s+", " ", str(caught.value))


def trainer(**fields: Any) -> Spec:
    return {"training": RECIPE, "template": {"spec": {"containers": [{"name": "trainer", **fields}]}}}


def rules(*entries: Spec) -> Spec:
    return {"training": RECIPE, "failurePolicy": {"rules": list(entries)}}


REJECTED: dict[str, tuple[Spec, str]] = {
    "no training": ({}, "spec.training: Required value: spec.training is required, unless the container trainer"),
    "nothing to train on": ({"training": {}}, "spec.training needs a recipe or data.kind"),
    "nothing to classify": (
        {"training": {"mode": "Infer"}},
        "mode Infer needs one of them or inference.path",
    ),
    "predictions without a place": (
        {"training": {**RECIPE, "mode": "Infer"}},
        "spec.checkpoint is required with spec.training.mode Infer and Export",
    ),
    "export without a place": (
        {"training": {"mode": "Export"}},
        "spec.checkpoint is required with spec.training.mode Infer and Export",
    ),
    "neither predictions nor latencies": (
        {"training": {"mode": "Infer", "inference": {"format": "None"}}},
        "spec.training.inference.batchSizes is required with format None",
    ),
    "export twice": (
        {"training": {"mode": "Export", "export": {"formats": ["PT2", "PT2"]}}, "checkpoint": {"path": "/c"}},
        "spec.training.export.formats: duplicate entries",
    ),
    "unknown kind of data": (
        {"training": {"data": {"kind": "Pictures"}}},
        'spec.training.data.kind: Unsupported value: "P',
    ),
    "folder without path": (
        {"training": {"data": {"kind": "ImageFolder"}}},
        "spec.training.data.path is required with the kinds ImageFolder, ImageList, WebDataset",
    ),
    "CIFAR-10 without path": (
        {"training": {"data": {"kind": "Cifar10"}}},
        "spec.training.data.path is required with the kinds ImageFolder, ImageList, WebDataset",
    ),
    "CIFAR-100 without path": (
        {"training": {"data": {"kind": "Cifar100"}}},
        "spec.training.data.path is required with the kinds ImageFolder, ImageList, WebDataset",
    ),
    "shards without path": (
        {"training": {"data": {"kind": "WebDataset"}}},
        "spec.training.data.path is required with the kinds ImageFolder, ImageList, WebDataset",
    ),
    "shards of another kind": (
        {"training": {"data": {"kind": "ImageFolder", "path": "/d", "trainShards": "a.tar"}}},
        "spec.training.data.trainShards, valShards and labelKey belong to kind WebDataset",
    ),
    "key of a label of another kind": (
        {"training": {"data": {"kind": "Digits", "labelKey": "label"}}},
        "spec.training.data.trainShards, valShards and labelKey belong to kind WebDataset",
    ),
    "absolute shards": (
        {"training": {"data": {"kind": "WebDataset", "path": "/d", "valShards": "/d/val.tar"}}},
        "spec.training.data.valShards in body should match",
    ),
    "epsilon without RMSProp": (
        {"training": {"data": {"kind": "Digits"}, "optimizer": {"epsilon": "1.0"}}},
        "spec.training.optimizer.squareDecay and epsilon belong to RMSProp",
    ),
    "RMSProp with nesterov": (
        {"training": {**RECIPE, "optimizer": {"name": "RMSProp", "nesterov": True}}},
        "spec.training.optimizer.nesterov does not go with name RMSProp",
    ),
    "clipping to nothing": (
        {"training": {**RECIPE, "optimizer": {"clipNorm": "0.0"}}},
        "spec.training.optimizer.clipNorm must be greater than 0",
    ),
    "average that keeps everything": (
        {"training": {**RECIPE, "weightAverage": {"decay": "1"}}},
        "spec.training.weightAverage.decay in body should match",
    ),
    "relative path": (
        {"training": {"data": {"kind": "ImageFolder", "path": "data"}}},
        "spec.training.data.path in body should match",
    ),
    "empty batch": (
        {"training": {**RECIPE, "batch": {"global": 0}}},
        "spec.training.batch.global in body should be greater than or equal to 1",
    ),
    "unquoted decimal": (
        {"training": {**RECIPE, "optimizer": {"learningRate": 0.1}}},
        "spec.training.optimizer.learningRate: expected string",
    ),
    "no learning": (
        {"training": {**RECIPE, "optimizer": {"learningRate": "0"}}},
        "spec.training.optimizer.learningRate must be greater than 0",
    ),
    "momentum of 1": (
        {"training": {**RECIPE, "optimizer": {"momentum": "1"}}},
        "spec.training.optimizer.momentum in body should match",
    ),
    "steps without epochs": (
        {"training": {**RECIPE, "schedule": {"name": "Step"}}},
        "spec.training.schedule needs milestones or stepEpochs with name Step",
    ),
    "two kinds of steps": (
        {"training": {**RECIPE, "schedule": {"name": "Step", "milestones": [3], "stepEpochs": 3}}},
        "spec.training.schedule takes milestones or stepEpochs, not both",
    ),
    "hasty watchdog": (
        {"training": RECIPE, "failurePolicy": {"progressDeadlineSeconds": 9}},
        "spec.failurePolicy.progressDeadlineSeconds in body should be greater than or equal to 10",
    ),
    "auxiliary weight without its network": (
        {"training": {**RECIPE, "model": {"name": "resnet50"}, "loss": {"auxiliaryWeight": "0.3"}}},
        "spec.training.loss.auxiliaryWeight needs model.name inception_v3",
    ),
    "dropout of a network without it": (
        {"training": {**RECIPE, "model": {"name": "resnet50", "dropout": "0.3"}}},
        "spec.training.model.dropout does not go with this name",
    ),
    "compiled with synchronized batch norm": (
        {"training": {**RECIPE, "model": {"batchNorm": "Synchronized"}, "execution": "Compiled"}},
        "spec.training.execution Compiled does not go with model.batchNorm Synchronized",
    ),
    "last rate of a schedule without one": (
        {"training": {**RECIPE, "schedule": {"name": "Constant", "finalLearningRate": "0.001"}}},
        "spec.training.schedule.finalLearningRate goes with name Cosine or Linear only",
    ),
    "two rhythms of evaluation": (
        {"training": {**RECIPE, "evaluation": {"everyEpochs": 2, "everySteps": 100}}},
        "spec.training.evaluation takes everyEpochs or everySteps, not both",
    ),
    "crop of more than the image": (
        {"training": {**RECIPE, "data": {"evaluationCropRatio": "1.1"}}},
        "spec.training.data.evaluationCropRatio in body should match",
    ),
    "scaling of what is never scaled": (
        {"training": {"data": {"kind": "Synthetic", "interpolation": "Nearest"}}},
        "spec.training.data.interpolation does not go with kind Synthetic",
    ),
    "jitter of more than all": (
        {"training": {**RECIPE, "augmentation": {"colorJitter": {"contrast": "1.4"}}}},
        "spec.training.augmentation.colorJitter.contrast in body should match",
    ),
    "new classifier without weights": (
        {"training": {**RECIPE, "model": {"classifier": "New"}}},
        "spec.training.model.classifier New needs weights",
    ),
    "unknown inputs": (
        {"training": {**RECIPE, "data": {"normalization": "BGR"}}},
        'spec.training.data.normalization: Unsupported value: "BGR"',
    ),
    "no nodes": ({"training": RECIPE, "numNodes": 0}, "spec.numNodes in body should be greater than or equal to 1"),
    "too many nodes": (
        {"training": RECIPE, "numNodes": 1001},
        "spec.numNodes in body should be less than or equal to 1000",
    ),
    "more nodes needed than wanted": (
        {"training": RECIPE, "numNodes": 2, "elasticPolicy": {"minNodes": 3}},
        "spec.elasticPolicy.minNodes must not exceed spec.numNodes; lower it, or raise spec.numNodes",
    ),
    "more nodes wanted than allowed": (
        {"training": RECIPE, "numNodes": 3, "elasticPolicy": {"maxNodes": 2}},
        "spec.elasticPolicy.maxNodes must not be below spec.numNodes; raise it, or lower spec.numNodes",
    ),
    "too many spares": (
        {"training": RECIPE, "elasticPolicy": {"spareNodes": 101}},
        "spec.elasticPolicy.spareNodes in body should be less than or equal to 100",
    ),
    "no ranks": (
        {"training": RECIPE, "numProcPerNode": 0},
        "spec.numProcPerNode must be a number from 1 to 64 or auto",
    ),
    "wordy ranks": (
        {"training": RECIPE, "numProcPerNode": "gpu"},
        "spec.numProcPerNode must be a number from 1 to 64 or auto",
    ),
    "checkpoint nowhere": (
        {"training": RECIPE, "checkpoint": {"keep": 2}},
        "spec.checkpoint needs exactly one of volumeClaimName, path and uri",
    ),
    "checkpoint in a volume and a store": (
        {"training": RECIPE, "checkpoint": {"volumeClaimName": "a", "uri": "s3://b/c"}},
        "spec.checkpoint needs exactly one of volumeClaimName, path and uri",
    ),
    "checkpoint nowhere in particular": (
        {"training": RECIPE, "checkpoint": {"uri": "bucket/runs"}},
        "spec.checkpoint.uri in body should match",
    ),
    "checkpoint in two places": (
        {"training": RECIPE, "checkpoint": {"volumeClaimName": "a", "path": "/b"}},
        "spec.checkpoint needs exactly one of volumeClaimName, path and uri",
    ),
    "devices of a CPU": (
        {"training": RECIPE, "accelerator": {"devicesPerNode": 2}},
        "spec.accelerator.resourceName and devicesPerNode need a profile other than cpu",
    ),
    "resource without domain": (
        {"training": RECIPE, "accelerator": {"profile": "nvidia", "resourceName": "gpu"}},
        "spec.accelerator.resourceName in body should match",
    ),
    "rank in the environment": (
        trainer(env=[{"name": "RANK", "value": "0"}]),
        "spec.template.spec.containers[0].env: Forbidden: spec.template may not set INCEPTION_*",
    ),
    "launcher's variable": (trainer(env=[{"name": "INCEPTION_JOB"}]), "spec.template may not set INCEPTION_*"),
    "torchrun's variable": (trainer(env=[{"name": "PET_NNODES"}]), "spec.template may not set INCEPTION_*"),
    "program and training": (
        trainer(command=["python", "t.py"]),
        "spec.training: Forbidden: spec.training configures the bundled trainer, which the command of",
    ),
    "arguments without command": (trainer(args=["t.py"]), "spec.template needs a command beside the args"),
    "empty command": (
        {"template": {"spec": {"containers": [{"name": "trainer", "command": []}]}}},
        "spec.training is required, unless the container trainer of spec.template brings a command of its own",
    ),
    "command of another container": (
        {"template": {"spec": {"containers": [{"name": "side", "image": "s", "command": ["sleep"]}]}}},
        "spec.training is required, unless",
    ),
    "unknown success": ({"training": RECIPE, "successPolicy": "Any"}, 'spec.successPolicy: Unsupported value: "Any"'),
    "launcher's volume": (
        {"training": RECIPE, "template": {"spec": {"volumes": [{"name": "inception-launcher", "emptyDir": {}}]}}},
        "spec.template may not replace the volume assignment or inception-launcher",
    ),
    "side container without image": (
        {"training": RECIPE, "template": {"spec": {"containers": [{"name": "side"}]}}},
        "spec.template needs an image for each container that is not called trainer",
    ),
    "operator's volume": (
        {"training": RECIPE, "template": {"spec": {"volumes": [{"name": "assignment", "emptyDir": {}}]}}},
        "spec.template may not replace the volume assignment",
    ),
    "restarting pods": (
        {"training": RECIPE, "template": {"spec": {"restartPolicy": "Always"}}},
        "spec.template.spec.restartPolicy: Unsupported value",
    ),
    "no time at all": (
        {"training": RECIPE, "runPolicy": {"activeDeadlineSeconds": 0}},
        "spec.runPolicy.activeDeadlineSeconds in body should be greater than or equal to 1",
    ),
    "no time for the pods": (
        {"training": RECIPE, "runPolicy": {"preRunningDeadlineSeconds": 0}},
        "spec.runPolicy.preRunningDeadlineSeconds in body should be greater than or equal to 1",
    ),
    "deleted before the end": (
        {"training": RECIPE, "runPolicy": {"ttlSecondsAfterFinished": -1}},
        "spec.runPolicy.ttlSecondsAfterFinished in body should be greater than or equal to 0",
    ),
    "seconds with a unit": (
        {"training": RECIPE, "runPolicy": {"activeDeadlineSeconds": "1h"}},
        "spec.runPolicy.activeDeadlineSeconds: expected numeric",
    ),
    "unknown way to clean": (
        {"training": RECIPE, "runPolicy": {"cleanPodPolicy": "Failed"}},
        'spec.runPolicy.cleanPodPolicy: Unsupported value: "Failed": supported values: "None", "Running", "All"',
    ),
    "manager without domain": (
        {"training": RECIPE, "runPolicy": {"managedBy": "kueue"}},
        "spec.runPolicy.managedBy in body should match",
    ),
    "manager with a long name": (
        {"training": RECIPE, "runPolicy": {"managedBy": f"example.com/{'a' * 60}"}},
        "spec.runPolicy.managedBy: Too long: may not be more than 63",
    ),
    "force without a time": (
        {"training": RECIPE, "failurePolicy": {"nodeLostPolicy": "ForceDeletePods"}},
        "spec.failurePolicy.nodeLostPolicy ForceDeletePods needs nodeLostSeconds",
    ),
    "rule without a criterion": (
        rules({"name": "a", "action": "Fail"}),
        "spec.failurePolicy.rules needs at least one of onExitCodes, onReasons and onPodConditions in each rule",
    ),
    "rules of one name": (
        rules(
            {"name": "a", "action": "Fail", "onReasons": ["Hang"]},
            {"name": "a", "action": "Restart", "onReasons": ["Hang"]},
        ),
        "spec.failurePolicy.rules needs a different name in each rule; rename one",
    ),
    "unknown action": (
        rules({"name": "a", "action": "Retry", "onReasons": ["Hang"]}),
        'spec.failurePolicy.rules[0].action: Unsupported value: "Retry"',
    ),
    "unknown reason": (
        rules({"name": "a", "action": "Fail", "onReasons": ["BadLuck"]}),
        'spec.failurePolicy.rules[0].onReasons[0]: Unsupported value: "BadLuck"',
    ),
    "exit code 0": (
        rules({"name": "a", "action": "Fail", "onExitCodes": {"operator": "In", "values": [0]}}),
        "spec.failurePolicy.rules[0].onExitCodes.values[0]: Invalid value: 0",
    ),
    "exit codes without operator": (
        rules({"name": "a", "action": "Fail", "onExitCodes": {"values": [1]}}),
        "spec.failurePolicy.rules[0].onExitCodes.operator: Required value",
    ),
    "too many rules": (
        rules(*({"name": f"r{n}", "action": "Fail", "onReasons": ["Hang"]} for n in range(21))),
        "spec.failurePolicy.rules: Too many: 21: must have at most 20 items",
    ),
    "two priority classes": (
        {
            "training": RECIPE,
            "runPolicy": {"schedulingPolicy": {"priorityClassName": "high"}},
            "template": {"spec": {"priorityClassName": "low"}},
        },
        "spec.runPolicy.schedulingPolicy.priorityClassName and spec.template.spec.priorityClassName cannot both be set",
    ),
    "topology key": (
        {"training": RECIPE, "runPolicy": {"schedulingPolicy": {"topologyKey": "not a label"}}},
        "spec.runPolicy.schedulingPolicy.topologyKey in body should match",
    ),
    "pod placement": (
        {"training": RECIPE, "runPolicy": {"schedulingPolicy": {"podPlacement": "Somewhere"}}},
        'spec.runPolicy.schedulingPolicy.podPlacement: Unsupported value: "Somewhere"',
    ),
    "unknown field": ({"training": {**RECIPE, "epoch": 3}}, "spec.training.epoch"),
}


@pytest.mark.parametrize("case", REJECTED)
def test_a_job_that_can_never_run_is_rejected_with_the_field(api: Cluster, case: str) -> None:
    spec, words = REJECTED[case]
    assert words in rejection(api, spec)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a" * 46, "metadata.name must have at most 45 characters"),
        ("a.b", "metadata.name must be an RFC 1035 label"),
        ("1a", "metadata.name must be an RFC 1035 label"),
    ],
    ids=["long", "dot", "digit"],
)
def test_a_name_that_pods_cannot_have_is_rejected(api: Cluster, name: str, words: str) -> None:
    assert words in rejection(api, {"training": RECIPE}, name)


def test_the_longest_name_is_accepted(api: Cluster) -> None:
    write(api, "default", {"training": RECIPE}, "--dry-run=server", name="a" * 45)


@pytest.mark.parametrize(
    "training",
    [
        {
            "mode": "Infer",
            "model": {"weights": "s3://bucket/w.pt"},
            "inference": {"path": "s3://bucket/photos", "format": "None", "batchSizes": [1]},
        },
        {**RECIPE, "schedule": {"name": "Linear", "finalLearningRate": "0.001"}, "evaluation": {"everySteps": 100}},
        {**RECIPE, "mode": "Benchmark", "benchmark": {"batch": "Largest"}},
    ],
    ids=["weights and images by URL", "linear", "largest batch"],
)
def test_what_the_trainer_takes_is_accepted(api: Cluster, training: Spec) -> None:
    assert write(api, "default", {"training": training}, "--dry-run=server")["spec"]["training"] == training


def test_defaults_are_stored(api: Cluster) -> None:
    stored = write(api, "default", {"training": RECIPE, "checkpoint": {"path": "/x"}}, "--dry-run=server")
    assert stored["spec"] == {
        "training": RECIPE,
        "accelerator": {"profile": "cpu"},
        "numNodes": 1,
        "numProcPerNode": "auto",
        "checkpoint": {"path": "/x", "everySeconds": 60, "keep": 3},
        "runPolicy": {"suspend": False, "cleanPodPolicy": "None"},
        "failurePolicy": {"maxRestarts": 10},
        "successPolicy": "All",
    }


def test_rules_are_stored_in_their_order(api: Cluster) -> None:
    entries = [
        {"name": "b", "action": "Fail", "onPodConditions": [{"type": "DisruptionTarget"}]},
        {"name": "a", "action": "Restart", "onReasons": ["Hang"], "onExitCodes": {"operator": "NotIn", "values": [1]}},
    ]
    stored = write(api, "default", rules(*entries), "--dry-run=server")["spec"]["failurePolicy"]["rules"]
    assert [rule["name"] for rule in stored] == ["b", "a"]
    assert stored[0]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]


def test_pod_fields_without_a_description_are_kept(api: Cluster) -> None:
    template = {"spec": {"hostname": "x", "volumes": [{"name": "v", "emptyDir": {}}], "affinity": {"nodeAffinity": {}}}}
    stored = write(api, "default", {"training": RECIPE, "template": template}, "--dry-run=server")
    assert stored["spec"]["template"] == template


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
BEFORE: Spec = {
    "training": RECIPE,
    "image": "trainer:1",
    "template": {"spec": {"nodeSelector": {"disk": "fast"}}},
    "checkpoint": {"path": "/x"},
}


@pytest.mark.parametrize("field", CHANGES)
def test_a_running_job_keeps_its_spec(api: Cluster, namespace: str, field: str) -> None:
    write(api, namespace, BEFORE)
    words = rejection(api, {**BEFORE, field: CHANGES[field]}, namespace=namespace)
    assert f"spec.{field}: Forbidden: spec.{field} {UNTIL_SUSPENDED}" in words


def test_a_job_cannot_become_elastic_or_cease_to_be_while_it_runs(api: Cluster, namespace: str) -> None:
    words = "spec.elasticPolicy cannot be added or removed while the job is not suspended"
    write(api, namespace, BEFORE)
    assert words in rejection(api, {**BEFORE, "elasticPolicy": {}, "numNodes": 2}, namespace=namespace)
    write(api, namespace, {**BEFORE, "elasticPolicy": {}}, name="elastic")
    assert words in rejection(api, BEFORE, namespace=namespace, name="elastic")


def test_the_size_of_an_elastic_job_changes_at_any_time_within_its_limits(api: Cluster, namespace: str) -> None:
    spec = {**BEFORE, "numNodes": 2, "elasticPolicy": {"minNodes": 2, "maxNodes": 3}}
    write(api, namespace, spec)
    target = (f"--namespace={namespace}", "itrain/job")
    api.kubectl("scale", *target, "--replicas=3")
    for replicas, words in ((4, "spec.elasticPolicy.maxNodes must not be below"), (1, "minNodes must not exceed")):
        with pytest.raises(CommandError, match=words):
            api.kubectl("scale", *target, f"--replicas={replicas}")
    stored = write(api, namespace, {**spec, "numNodes": 3, "elasticPolicy": {"minNodes": 1, "spareNodes": 2}})
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
def test_a_running_job_keeps_every_part_of_its_template(api: Cluster, namespace: str, template: Spec) -> None:
    write(api, namespace, BEFORE)
    assert f"spec.template {UNTIL_SUSPENDED}" in rejection(api, {**BEFORE, "template": template}, namespace=namespace)


PROGRAM: Spec = {"template": {"spec": {"containers": [{"name": "trainer", "command": ["python3", "train.py"]}]}}}


def test_a_program_takes_the_place_of_training(api: Cluster, namespace: str) -> None:
    env = [{"name": "INCEPTION_PRELOAD", "value": "transformers"}, {"name": "PYTHONPATH", "value": "/workspace"}]
    container = {**PROGRAM["template"]["spec"]["containers"][0], "args": ["--lr", "1"], "env": env}
    stored = write(api, namespace, {"template": {"spec": {"containers": [container]}}, "successPolicy": "Chief"})
    assert stored["spec"]["template"]["spec"]["containers"] == [container]
    assert (stored["spec"]["successPolicy"], "training" in stored["spec"]) == ("Chief", False)


def test_a_running_job_cannot_change_between_program_and_training(api: Cluster, namespace: str) -> None:
    write(api, namespace, PROGRAM)
    words = rejection(api, {"training": RECIPE}, namespace=namespace)
    assert f"spec.training {UNTIL_SUSPENDED}" in words
    assert f"spec.template {UNTIL_SUSPENDED}" in words
    write(api, namespace, {**PROGRAM, "runPolicy": {"suspend": True}})
    stored = write(api, namespace, {"training": RECIPE})
    assert stored["spec"]["training"] == RECIPE


def test_a_field_that_was_absent_cannot_appear_while_the_job_runs(api: Cluster, namespace: str) -> None:
    write(api, namespace, {"training": RECIPE})
    words = rejection(api, BEFORE, namespace=namespace)
    assert all(f"spec.{field} {UNTIL_SUSPENDED}" in words for field in ("image", "template", "checkpoint"))


def test_life_cycle_and_limits_change_at_any_time(api: Cluster, namespace: str) -> None:
    write(api, namespace, BEFORE)
    stored = write(api, namespace, {**BEFORE, "failurePolicy": {"maxRestarts": 3}, "runPolicy": {"suspend": True}})
    assert stored["spec"]["failurePolicy"] == {"maxRestarts": 3}
    assert stored["metadata"]["generation"] == 2


def test_deadlines_and_clean_up_change_at_any_time(api: Cluster, namespace: str) -> None:
    limits = {"activeDeadlineSeconds": 60, "preRunningDeadlineSeconds": 30, "ttlSecondsAfterFinished": 10}
    write(api, namespace, {**BEFORE, "runPolicy": limits})
    later = {key: 2 * value for key, value in limits.items()} | {"cleanPodPolicy": "All"}
    stored = write(api, namespace, {**BEFORE, "runPolicy": later})
    assert stored["spec"]["runPolicy"] == {"suspend": False, **later}
    stored = write(api, namespace, BEFORE)
    assert stored["spec"]["runPolicy"] == {"suspend": False, "cleanPodPolicy": "None"}


MANAGERS: dict[str, tuple[Spec, Spec]] = {
    "given away": ({}, {"managedBy": "kueue.x-k8s.io/multikueue"}),
    "taken back": ({"managedBy": "kueue.x-k8s.io/multikueue"}, {}),
    "given on": ({"managedBy": "example.com/a"}, {"managedBy": "example.com/b"}),
    "while suspended": ({"suspend": True}, {"suspend": True, "managedBy": "example.com/a"}),
}


@pytest.mark.parametrize("case", MANAGERS)
def test_the_manager_of_a_job_never_changes(api: Cluster, namespace: str, case: str) -> None:
    before, after = MANAGERS[case]
    write(api, namespace, {**BEFORE, "runPolicy": before})
    words = rejection(api, {**BEFORE, "runPolicy": after}, namespace=namespace)
    assert "spec.runPolicy.managedBy: Forbidden: spec.runPolicy.managedBy cannot change" in words
    write(api, namespace, {**BEFORE, "runPolicy": {**before, "ttlSecondsAfterFinished": 1}})


@pytest.mark.parametrize("before", [{}, {"progressDeadlineSeconds": 60}], ids=["absent", "given"])
def test_deadline_for_progress_changes_only_while_suspended(api: Cluster, namespace: str, before: Spec) -> None:
    old, new = {"maxRestarts": 1, **before}, {"maxRestarts": 2, "progressDeadlineSeconds": 90}
    write(api, namespace, {**BEFORE, "failurePolicy": old})
    words = rejection(api, {**BEFORE, "failurePolicy": new}, namespace=namespace)
    assert f"spec.failurePolicy.progressDeadlineSeconds {UNTIL_SUSPENDED}" in words
    suspended = {**BEFORE, "runPolicy": {"suspend": True}}
    write(api, namespace, {**suspended, "failurePolicy": old})
    stored = write(api, namespace, {**suspended, "failurePolicy": new})
    assert stored["spec"]["failurePolicy"] == new


def test_suspending_and_changing_at_once_is_rejected(api: Cluster, namespace: str) -> None:
    write(api, namespace, BEFORE)
    words = rejection(api, {**BEFORE, "numNodes": 2, "runPolicy": {"suspend": True}}, namespace=namespace)
    assert f"spec.numNodes {UNTIL_SUSPENDED}" in words


def test_a_suspended_job_can_change_in_every_field_and_resume_with_it(api: Cluster, namespace: str) -> None:
    write(api, namespace, {**BEFORE, "runPolicy": {"suspend": True}})
    stored = write(api, namespace, {**CHANGES, "runPolicy": {"suspend": False}})
    assert {field: stored["spec"][field] for field in CHANGES if field != "checkpoint"} == {
        field: value for field, value in CHANGES.items() if field != "checkpoint"
    }
    assert f"spec.image {UNTIL_SUSPENDED}" in rejection(api, {**CHANGES, "image": "third:1"}, namespace=namespace)


STATUS: dict[str, Any] = {
    "observedGeneration": 1,
    "state": "Running",
    "attempt": 2,
    "restarts": 1,
    "restartsCountTowardsMax": 1,
    "failuresInARow": 1,
    "furthest": {"attempt": 2, "step": 120},
    "nextAttemptTime": "2026-01-01T00:00:00Z",
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
        "lastCheckpointTime": "2026-01-01T00:00:00Z",
        "lastUpdatedTime": "2026-01-01T00:00:00.123456Z",
    },
    "rootCause": {
        "attempt": 1,
        "pod": "job-1-1",
        "node": "node-a",
        "rank": 1,
        "exitCode": 137,
        "reason": "OOMKilled",
        "message": "killed",
        "time": "2026-01-01T00:00:00Z",
    },
}


def patch_status(api: Cluster, namespace: str, patch: Spec) -> dict[str, Any]:
    target = (f"--namespace={namespace}", "inceptiontraining/job")
    options = ("--subresource=status", "--type=merge", f"--patch={json.dumps(patch)}", "--output=json")
    result: dict[str, Any] = json.loads(api.kubectl("patch", *target, *options))
    return result


def test_status_and_spec_are_written_apart(api: Cluster, namespace: str) -> None:
    job = json.loads(manifest(BEFORE))
    job["status"] = STATUS
    api.kubectl("create", f"--namespace={namespace}", "--filename=-", input=json.dumps(job))
    stored = json.loads(api.kubectl("get", f"--namespace={namespace}", "itrain", "job", "--output=json"))
    assert "status" not in stored

    stored = patch_status(api, namespace, {"status": STATUS, "spec": {"failurePolicy": {"maxRestarts": 0}}})
    assert stored["status"] == STATUS, "every field that the operator writes has a place"
    assert stored["spec"]["failurePolicy"] == {"maxRestarts": 10}
    assert stored["metadata"]["generation"] == 1


def test_status_of_an_old_object_that_breaks_a_rule_can_still_be_written(api: Cluster, namespace: str) -> None:
    """Rules of the spec never stand between the operator and the status."""
    write(api, namespace, BEFORE)
    assert patch_status(api, namespace, {"status": {"state": "Failed"}})["status"] == {"state": "Failed"}


def test_kubectl_get_shows_what_people_ask_for(api: Cluster, namespace: str) -> None:
    write(api, namespace, BEFORE)
    patch_status(api, namespace, {"status": STATUS})
    header, row = api.kubectl("get", f"--namespace={namespace}", "itrain").splitlines()
    assert header.split() == ["NAME", "STATE", "NODES", "ACCELERATOR", "PROGRESS", "TOP1", "IMG/S", "RESTARTS", "AGE"]
    assert row.split()[:-1] == ["job", "Running", "2/2", "cambricon.com/mlu", "x2", "50", "0.9712", "812.5", "1"]
    header, row = api.kubectl("get", f"--namespace={namespace}", "training", "--output=wide").splitlines()
    assert header.split()[-3:] == ["MODEL", "ETA", "REASON"]
    assert row.split()[-3:] == ["bninception", "90", "OOMKilled"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("itrain.spec.training", "Training is what the bundled trainer does"),
        ("itrain.spec.training.optimizer.learningRate", "highest learning rate"),
        ("itrain.spec.template.spec.containers.env", "reserved"),
        ("itrain.spec.runPolicy.activeDeadlineSeconds", "a resume sets startTime anew"),
        ("itrain.spec.runPolicy.preRunningDeadlineSeconds", "the words of the scheduler or the kubelet"),
        ("itrain.spec.runPolicy.ttlSecondsAfterFinished", "The checkpoints stay"),
        ("itrain.spec.runPolicy.cleanPodPolicy", "deletes at once the pods that still run"),
        ("itrain.spec.runPolicy.managedBy", "leaves the job alone"),
        ("itrain.status.rootCause", "naming the first failure"),
    ],
)
def test_kubectl_explain_documents_the_fields(api: Cluster, path: str, words: str) -> None:
    assert words in re.sub(r"\s+", " ", api.kubectl("explain", path))


SAMPLES = sorted((*(MANIFESTS / "samples").glob("*.yaml"), *(MANIFESTS / "samples" / "accelerators").glob("*.yaml")))


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: str(path.stem))
def test_samples_are_accepted(api: Cluster, path: Path) -> None:
    answer = api.kubectl("apply", "--server-side", "--dry-run=server", f"--filename={path}")
    assert f"inceptiontraining.training.inception.dev/{path.stem} serverside-applied" in answer


def test_the_crd_is_structurally_sound(api: Cluster) -> None:
    crd = json.loads(api.kubectl("get", "crd", CRD, "--output=json"))
    conditions = {condition["type"]: condition["status"] for condition in crd["status"]["conditions"]}
    assert conditions.get("NonStructuralSchema", "False") == "False"
    assert conditions["NamesAccepted"] == conditions["Established"] == "True"
