"""Jobs that the API server rejects, with its words, and the nearest ones that it takes.

Rules over several keys of spec.training are in test_crd_rules.py.
"""

from __future__ import annotations

import pytest

from crd_api import RECIPE, Spec, rejection, rules, trainer, write
from localcluster.cluster import Cluster

REJECTED: dict[str, tuple[Spec, str]] = {
    "no training": (
        {},
        "spec.training: Required value: spec.training is required, unless the container trainer",
    ),
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
    "export twice": (
        {
            "training": {"mode": "Export", "export": {"formats": ["PT2", "PT2"]}},
            "checkpoint": {"path": "/c"},
        },
        "spec.training.export.formats: duplicate entries",
    ),
    "a tracker's run without a place": (
        {"training": {**RECIPE, "tracking": {"wandb": {"project": "p"}}}},
        "spec.checkpoint is required with spec.training.tracking.wandb",
    ),
    "credentials of a tracker": (
        {"training": {**RECIPE, "tracking": {"mlflow": {"uri": "https://me:secret@mlflow"}}}},
        "spec.training.tracking.mlflow.uri in body should match",
    ),
    "database of a tracker": (
        {"training": {**RECIPE, "tracking": {"mlflow": {"uri": "sqlite:///runs.db"}}}},
        "spec.training.tracking.mlflow.uri in body should match",
    ),
    "unknown network": (
        {"training": {**RECIPE, "model": {"name": "resnet51"}}},
        "spec.training.model.name in body should match",
    ),
    "unknown kind of data": (
        {"training": {"data": {"kind": "Pictures"}}},
        'spec.training.data.kind: Unsupported value: "P',
    ),
    "absolute shards": (
        {"training": {"data": {"kind": "WebDataset", "path": "/d", "valShards": "/d/val.tar"}}},
        "spec.training.data.valShards in body should match",
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
    "watchdog without patience": (
        {"training": RECIPE, "failurePolicy": {"progressDeadlineSeconds": -1}},
        "spec.failurePolicy.progressDeadlineSeconds in body should be greater than or equal to 0",
    ),
    "crop of more than the image": (
        {"training": {**RECIPE, "data": {"evaluationCropRatio": "1.1"}}},
        "spec.training.data.evaluationCropRatio in body should match",
    ),
    "jitter of more than all": (
        {"training": {**RECIPE, "augmentation": {"colorJitter": {"contrast": "1.4"}}}},
        "spec.training.augmentation.colorJitter.contrast in body should match",
    ),
    "unknown inputs": (
        {"training": {**RECIPE, "data": {"normalization": "BGR"}}},
        'spec.training.data.normalization: Unsupported value: "BGR"',
    ),
    "no nodes": (
        {"training": RECIPE, "numNodes": 0},
        "spec.numNodes in body should be greater than or equal to 1",
    ),
    "too many nodes": (
        {"training": RECIPE, "numNodes": 1001},
        "spec.numNodes in body should be less than or equal to 1000",
    ),
    "more nodes needed than wanted": (
        {"training": RECIPE, "numNodes": 2, "elasticPolicy": {"minNodes": 3}},
        "spec.elasticPolicy.minNodes must not exceed spec.numNodes; lower it, or raise "
        "spec.numNodes",
    ),
    "more nodes wanted than allowed": (
        {"training": RECIPE, "numNodes": 3, "elasticPolicy": {"maxNodes": 2}},
        "spec.elasticPolicy.maxNodes must not be below spec.numNodes; raise it, or lower "
        "spec.numNodes",
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
    "launcher's variable": (
        trainer(env=[{"name": "INCEPTION_JOB"}]),
        "spec.template may not set INCEPTION_*",
    ),
    "torchrun's variable": (
        trainer(env=[{"name": "PET_NNODES"}]),
        "spec.template may not set INCEPTION_*",
    ),
    "program and training": (
        trainer(command=["python", "t.py"]),
        "spec.training: Forbidden: spec.training configures the bundled trainer, which the "
        "command of",
    ),
    "arguments without command": (
        trainer(args=["t.py"]),
        "spec.template needs a command beside the args",
    ),
    "empty command": (
        {"template": {"spec": {"containers": [{"name": "trainer", "command": []}]}}},
        "spec.training is required, unless the container trainer of spec.template brings a "
        "command of its own",
    ),
    "command of another container": (
        {
            "template": {
                "spec": {"containers": [{"name": "side", "image": "s", "command": ["sleep"]}]}
            }
        },
        "spec.training is required, unless",
    ),
    "unknown success": (
        {"training": RECIPE, "successPolicy": "Any"},
        'spec.successPolicy: Unsupported value: "Any"',
    ),
    "launcher's volume": (
        {
            "training": RECIPE,
            "template": {"spec": {"volumes": [{"name": "inception-launcher", "emptyDir": {}}]}},
        },
        "spec.template may not replace the volume assignment or inception-launcher",
    ),
    "side container without image": (
        {"training": RECIPE, "template": {"spec": {"containers": [{"name": "side"}]}}},
        "spec.template needs an image for each container that is not called trainer",
    ),
    "operator's volume": (
        {
            "training": RECIPE,
            "template": {"spec": {"volumes": [{"name": "assignment", "emptyDir": {}}]}},
        },
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
        'spec.runPolicy.cleanPodPolicy: Unsupported value: "Failed": supported values: "None", '
        '"Running", "All"',
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
        "spec.failurePolicy.rules needs at least one of onExitCodes, onReasons, onPodConditions "
        "and onMessagePatterns in each rule",
    ),
    "no pattern": (
        rules({"name": "a", "action": "Fail", "onMessagePatterns": [""]}),
        "spec.failurePolicy.rules[0].onMessagePatterns[0] in body should be at least 1 chars long",
    ),
    "long pattern": (
        rules({"name": "a", "action": "Fail", "onMessagePatterns": ["a" * 257]}),
        "spec.failurePolicy.rules[0].onMessagePatterns[0]: Too long: may not be more than 256",
    ),
    "budget that is full again at once": (
        {"training": RECIPE, "failurePolicy": {"resetAfterSeconds": 0}},
        "spec.failurePolicy.resetAfterSeconds in body should be greater than or equal to 1",
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
        "spec.runPolicy.schedulingPolicy.priorityClassName and "
        "spec.template.spec.priorityClassName cannot both be set",
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
def test_a_job_that_can_never_run_is_rejected_with_the_field(
    training_api: Cluster, case: str
) -> None:
    spec, words = REJECTED[case]
    assert words in rejection(training_api, spec)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a" * 46, "metadata.name must have at most 45 characters"),
        ("a.b", "metadata.name must be an RFC 1035 label"),
        ("1a", "metadata.name must be an RFC 1035 label"),
    ],
    ids=["long", "dot", "digit"],
)
def test_a_name_that_pods_cannot_have_is_rejected(
    training_api: Cluster, name: str, words: str
) -> None:
    assert words in rejection(training_api, {"training": RECIPE}, name)


def test_the_longest_name_is_accepted(training_api: Cluster) -> None:
    write(training_api, "default", {"training": RECIPE}, dry_run=True, name="a" * 45)


@pytest.mark.parametrize(
    "training",
    [
        {
            "mode": "Infer",
            "model": {"weights": "s3://bucket/w.pt"},
            "inference": {"path": "s3://bucket/photos", "format": "None", "batchSizes": [1]},
        },
        {
            **RECIPE,
            "schedule": {"name": "Linear", "finalLearningRate": "0.001"},
            "evaluation": {"everySteps": 100},
        },
        {
            **RECIPE,
            "model": {"name": "timm/vit_tiny_patch16_224.augreg_in21k"},
            "schedule": {"name": "Polynomial", "power": "2", "finalLearningRate": "0.0001"},
            "tracking": {"mlflow": {"uri": "https://mlflow:5000/", "experiment": "digits"}},
        },
        # Nothing is tracked in other modes.
        {**RECIPE, "mode": "Benchmark", "tracking": {"wandb": {"project": "p"}}},
        {**RECIPE, "mode": "Benchmark", "benchmark": {"batch": "Largest"}},
        {
            **RECIPE,
            "model": {
                "weights": "/w.pt",
                "freeze": ["conv1", "layer1"],
                "batchNorm": "Frozen",
                "batchNormEpsilon": "1e-5",
                "initialization": "PyTorch",
            },
            "optimizer": {"name": "AdamW", "epsilon": "1e-8", "layerDecay": "0.75"},
            "schedule": {"startEpoch": 2},
            "loss": {"name": "BinaryCrossEntropy", "scale": "1024", "classWeights": ["1", "2.5"]},
            "augmentation": {"cutMix": "1", "mixOffEpochs": 3, "trivialAugment": True},
            "evaluation": {"target": "0.759", "patience": 5, "rawWeights": True},
        },
    ],
    ids=[
        "weights and images by URL",
        "linear",
        "of timm",
        "untracked",
        "largest batch",
        "fine-tuning",
    ],
)
def test_what_the_trainer_takes_is_accepted(training_api: Cluster, training: Spec) -> None:
    assert (
        write(training_api, "default", {"training": training}, dry_run=True)["spec"]["training"]
        == training
    )
