"""The CRD, the trainer's schema, the operator's parser and the samples say the same."""

from __future__ import annotations

import dataclasses
import re
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml

from inception_operator.accelerators import resolve
from inception_operator.contract import names
from inception_operator.pod import build
from inception_operator.spec import job as spec
from inception_trainer import models, recipes
from inception_trainer.config import training as config
from inception_trainer.config.declare import camel

ROOT = Path(__file__).resolve().parents[2]
CRD: dict[str, Any] = yaml.safe_load((ROOT / "manifests" / "crd.yaml").read_text(encoding="utf-8"))
SPEC: dict[str, Any] = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][
    "spec"
]["properties"]
FOLDER = ROOT / "manifests" / "samples"
SAMPLES = {
    path.stem: path
    for path in sorted((*FOLDER.glob("*.yaml"), *FOLDER.glob("accelerators/*.yaml")))
}
LOCAL = sorted((ROOT / "manifests" / "samples" / "local").glob("*.yaml"))
# The operator adds these from elsewhere in the spec.
OPERATORS = {"checkpoint", "output", "accelerator"}


def objects(path: Path, kind: str) -> list[dict[str, Any]]:
    documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    return [document for document in documents if document["kind"] == kind]


def jobs(path: Path) -> list[dict[str, Any]]:
    return objects(path, "InceptionTraining")


def trainer_keys(kind: Any, prefix: str = "") -> dict[str, Any]:
    """The trainer's keys by path, with the limits of each."""
    found: dict[str, Any] = {}
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if not field.metadata.get("in_file", True):
            continue
        path = prefix + camel(field.name)
        if dataclasses.is_dataclass(hints[field.name]):
            found |= trainer_keys(hints[field.name], f"{path}.")
        else:
            found[path] = field.metadata["limits"]
    return found


def crd_keys(schema: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, child in schema["properties"].items():
        if "properties" in child:
            found |= crd_keys(child, f"{prefix}{name}.")
        else:
            found[prefix + name] = child
    return found


TRAINER = {
    path: node
    for path, node in trainer_keys(config.TrainingConfig).items()
    if path.split(".")[0] not in OPERATORS
}
TYPED = crd_keys(SPEC["training"])


def test_the_api_has_exactly_the_keys_of_the_trainer() -> None:
    assert set(TYPED) == set(TRAINER)


@pytest.mark.parametrize("path", TYPED)
def test_the_api_allows_no_value_that_the_trainer_refuses(path: str) -> None:
    limits, node = TRAINER[path], TYPED[path]
    if limits.choices is not None:
        assert node.get("items", node)["enum"] == list(limits.choices)
    if node["type"] == "integer":
        if limits.at_least is not None:
            assert node["minimum"] >= limits.at_least
        if limits.at_most is not None:
            assert node["maximum"] <= limits.at_most


# The network knows its own dropout, and the code of the schedule the rest.
ELSEWHERE = {
    "evaluation.rawWeights",
    "augmentation.rotation",
    "augmentation.trivialAugment",
    "loss.name",
    "model.batchNormMomentum",
    "model.dropout",
    "optimizer.trustCoefficient",
    "schedule.stepEpochs",
    "schedule.initialLearningRate",
    "schedule.finalLearningRate",
}
FILLED_IN = {
    "model": {"name": "inception_v3"},
    "data": {"kind": "ImageFolder", "path": "/d"},
    "optimizer": {"name": "RMSProp"},
}


def test_the_descriptions_of_the_keys_tell_their_defaults() -> None:
    declared = config.flat(config.TrainingConfig().as_dict())
    filled_in = config.flat(config.from_mapping(FILLED_IN).as_dict())
    said = {}
    for path, node in TYPED.items():
        text = node["description"]
        match = re.search(r'default is "?(false|[A-Z]\w+|bn\w+|[\d.]*\d)', text)
        match = match or re.search(r"(\w+)(?:,| is) the default", text)
        if match and path not in ELSEWHERE:
            said[path] = yaml.safe_load(match[1])
    assert len(said) > 40
    for path, default in said.items():
        choice = [default] if TYPED[path]["type"] == "array" else default
        assert choice in (declared.get(path), filled_in.get(path)), path


def test_the_api_knows_the_networks_of_the_trainer() -> None:
    pattern = re.compile(TYPED["model.name"]["pattern"])
    for name in (*models.names(), "timm/resnet18", "timm/vit_tiny_patch16_224.augreg_in21k"):
        assert pattern.fullmatch(name), name
    for name in ("", "resnet", "resnet50x", "timm/", "timm/../x", "Timm/resnet18", "a/resnet50"):
        assert not pattern.fullmatch(name), name


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_are_understood_by_operator_and_trainer(name: str) -> None:
    (sample,) = jobs(SAMPLES[name])
    assert sample["metadata"]["name"] == name
    sample["metadata"] |= {"namespace": "default", "uid": "1"}
    job = spec.parse(sample)
    devices = resolve.resolve(job, resolve.load_profiles())
    assert devices.nproc == (job.num_proc_per_node or max(devices.count, 1))
    if job.program:
        (program,) = objects(SAMPLES[name], "ConfigMap")[0]["data"].items()
        compile(program[1], program[0], "exec")
        return
    training = config.from_mapping(build.configuration(job, devices))
    assert training.batch.global_ % (job.num_nodes * devices.nproc) == 0


def test_the_sample_of_a_data_set_runs_the_script_of_the_benchmarks() -> None:
    (program,) = objects(SAMPLES["digits-folder"], "ConfigMap")
    script = ROOT / "benchmarks" / "data" / "digits_folder.py"
    assert program["data"] == {script.name: script.read_text(encoding="utf-8")}


def test_there_is_a_sample_of_every_vendor() -> None:
    wanted = {row.name for row in resolve.load_profiles().values() if row.has_devices}
    found = {path.stem for path in FOLDER.glob("accelerators/*.yaml")}
    assert wanted <= found
    for name in wanted:
        (sample,) = jobs(SAMPLES[name])
        assert sample["spec"]["accelerator"]["profile"] == name


@pytest.mark.parametrize("path", LOCAL, ids=lambda path: str(path.stem))
def test_local_files_are_understood_by_the_trainer(path: Path) -> None:
    config.load_file(path)


def test_the_main_sample_fits_a_machine_with_two_cores() -> None:
    (sample,) = jobs(SAMPLES["bninception-digits"])
    (container,) = sample["spec"]["template"]["spec"]["containers"]
    assert (sample["spec"]["numNodes"], sample["spec"]["accelerator"]) == (2, {"profile": "cpu"})
    assert container["resources"]["requests"] == {"cpu": "250m", "memory": "1Gi"}
    assert sample["spec"]["training"]["recipe"] in recipes.names()


@pytest.mark.parametrize(
    "path",
    [
        "accelerator.profile",
        "numNodes",
        "failurePolicy.maxRestarts",
        "failurePolicy.resetAfterSeconds",
        "runPolicy.suspend",
        "successPolicy",
    ],
)
def test_defaults_of_the_api_are_those_of_the_operator(path: str) -> None:
    node: Any = {"properties": SPEC}
    for key in path.split("."):
        node = node["properties"][key]
    job = spec.parse({"metadata": {"name": "j", "namespace": "n", "uid": "1"}, "spec": {}})
    assert (
        node["default"]
        == {
            "accelerator.profile": job.accelerator.profile,
            "numNodes": job.num_nodes,
            "failurePolicy.maxRestarts": job.max_restarts,
            "failurePolicy.resetAfterSeconds": job.reset_after,
            "runPolicy.suspend": job.suspend,
            "successPolicy": job.success_policy,
        }[path]
    )


@pytest.mark.parametrize(
    "kind", [names.ConditionType, names.Reason, names.State], ids=lambda kind: str(kind.__name__)
)
def test_every_word_of_the_life_cycle_is_documented(kind: type) -> None:
    page = (ROOT / "docs" / "architecture" / "life-cycle.md").read_text(encoding="utf-8")
    section = page.split("\n## Conditions\n")[1].split("\n## ")[0]
    words = [value for name, value in vars(kind).items() if name.isupper()]
    assert [word for word in words if f"`{word}`" not in section] == []


def test_the_api_has_the_success_policies_of_the_operator() -> None:
    assert tuple(SPEC["successPolicy"]["enum"]) == spec.SUCCESS_POLICIES


def test_checkpoint_defaults_are_those_of_the_trainer() -> None:
    node = SPEC["checkpoint"]["properties"]
    defaults = config.CheckpointConfig()
    assert (node["everySeconds"]["default"], node["keep"]["default"]) == (
        defaults.every_seconds,
        defaults.keep,
    )
    assert "default" not in node["everySteps"]
