"""What a local run makes of a job's file; tests/trainer/test_local_run.py runs it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from inception_operator.accelerators.resolve import load_profiles, resolve
from inception_operator.plugin import local_job
from inception_operator.pod.build import build_pod
from inception_operator.spec.job import parse
from inception_trainer.config.training import from_mapping
from plugin_commands import Commands

SAMPLES = Path(__file__).resolve().parents[2] / "manifests" / "samples"
PROFILES = load_profiles()
OUTPUT = Path("/somewhere/out")


def localized(spec: dict[str, Any], **options: Any) -> dict[str, Any]:
    resource = {"kind": "InceptionTraining", "metadata": {"name": "job"}, "spec": spec}
    return dict(local_job.localize(resource, OUTPUT, **options)["spec"])


@pytest.mark.parametrize(
    ("checkpoint", "here"),
    [
        (None, {"path": str(OUTPUT)}),
        ({"volumeClaimName": "claim", "keep": 3}, {"path": str(OUTPUT), "keep": 3}),
        ({"path": "/data/out"}, {"path": "/data/out"}),
        ({"uri": "s3://bucket/runs"}, {"uri": "s3://bucket/runs"}),
    ],
)
def test_checkpoints_go_to_a_folder_where_the_cluster_has_a_claim(
    checkpoint: dict[str, Any] | None, here: dict[str, Any]
) -> None:
    assert localized({"checkpoint": checkpoint} if checkpoint else {})["checkpoint"] == here


def test_pods_that_share_a_machine_keep_no_copies_in_memory() -> None:
    assert localized({"numNodes": 2})["checkpoint"]["memory"] == "Never"
    assert localized({"numNodes": 2}, nodes=1)["checkpoint"].get("memory") is None


def test_options_replace_what_the_file_says() -> None:
    spec = localized(
        {"training": {"recipe": "r"}, "accelerator": {"profile": "nvidia", "devicesPerNode": 8}},
        settings=["epochs=1", "spec.failurePolicy.maxRestarts=2"],
        profile="cpu",
        nodes=2,
        processes=3,
    )
    assert spec["training"] == {"recipe": "r", "epochs": 1}
    assert spec["accelerator"] == {"profile": "cpu"}
    assert (spec["numNodes"], spec["numProcPerNode"]) == (2, 3)
    assert spec["failurePolicy"] == {"maxRestarts": 2}


def test_a_job_that_is_held_on_the_cluster_runs_here() -> None:
    policy = {
        "suspend": True,
        "managedBy": "kueue.x-k8s.io/multikueue",
        "ttlSecondsAfterFinished": 9,
    }
    assert localized({"runPolicy": policy})["runPolicy"] == {
        "suspend": False,
        "ttlSecondsAfterFinished": 9,
    }


def test_the_trainers_own_file_is_a_job_of_one_pod(tmp_path: Path) -> None:
    file = tmp_path / "digits.yaml"
    file.write_text("recipe: r\ncheckpoint: {path: out, keep: 2}\noutput: {path: x}\n")
    job = local_job.read(file)
    assert job["metadata"]["name"] == "digits"
    assert job["spec"] == {
        "training": {"recipe": "r"},
        "checkpoint": {"path": str(Path("out").absolute()), "keep": 2},
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: Pod\napiVersion: v1\n", "no InceptionTraining in it"),
        ("{kind: InceptionTraining, spec: 5}", "spec must be a section"),
        ("{kind: InceptionTraining, spec: {checkpoint: a}}", "spec.checkpoint must be a section"),
        ("{kind: InceptionTraining}\n---\n{kind: InceptionTraining}\n", "2 jobs"),
        ("a: [", "no YAML"),
        ("", "no InceptionTraining in it"),
        ("- 1\n", "no InceptionTraining in it"),
        (None, "No such file"),
    ],
)
def test_a_file_without_a_job_is_named(
    text: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "job.yaml"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    result = Commands(capsys).run("local", "run", str(file), "--dry-run")
    assert result.code == 2
    assert str(file) in result.err
    assert said in result.err


def test_a_job_comes_by_the_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = "{kind: InceptionTraining, metadata: {name: é}, spec: {numNodes: two}}"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(job.encode()), "ascii"))
    made = yaml.safe_load(Commands(capsys)("local", "run", "-", "--dry-run").out)
    assert (made["metadata"]["name"], made["spec"]["numNodes"]) == ("é", "two")


def test_the_environment_is_that_of_the_pod_without_its_places() -> None:
    variables = [{"name": "MINE", "value": "$(INCEPTION_JOB)/x"}, {"name": "HOME", "value": "/h"}]
    container = {"name": "trainer", "command": ["python3", "a.py"], "env": variables}
    spec = {"template": {"spec": {"containers": [container]}}}
    job = {"metadata": {"name": "job"}, "spec": spec}
    resource = local_job.localize(job, Path("/tmp/out"))
    parsed = parse(resource)
    pod = build_pod(parsed, resolve(parsed, PROFILES), 0, 1, image="i", launcher_image="i")
    found = local_job.environment(
        pod["spec"]["containers"][0], {"metadata.name": "job-0-1", "status.podIP": "127.0.0.1"}, {}
    )
    assert found["INCEPTION_CHECKPOINT_PATH"].startswith("/tmp/out/")
    assert found["MINE"] == "local/job/x"
    assert found["POD_NAME"] == "job-0-1"
    assert found["POD_IP"] == "127.0.0.1"
    assert "HOME" not in found
    assert "TRITON_CACHE_DIR" not in found


def test_a_variable_of_a_secret_is_that_of_this_machine_and_said_to_be() -> None:
    def of(name: str, source: dict[str, Any]) -> dict[str, Any]:
        return {"name": name, "valueFrom": source}

    container = {
        "name": "trainer",
        "env": [
            of("TOKEN", {"secretKeyRef": {"name": "hub", "key": "token"}}),
            of("OTHER", {"configMapKeyRef": {"name": "map", "key": "x"}}),
            of("CPUS", {"resourceFieldRef": {"resource": "limits.cpu"}}),
            {"name": "URL", "value": "https://$(TOKEN)@hub"},
        ],
        "envFrom": [{"secretRef": {"name": "store"}}],
    }
    own = {"TOKEN": "mine"}
    found = local_job.environment(container, {}, own)
    assert found == {"TOKEN": "mine", "URL": "https://mine@hub"}
    job = {"spec": {"template": {"spec": {"containers": [container]}}}}
    token, other, store = local_job.foreign_variables(job, own)
    assert token == (
        "TOKEN is of the Secret hub, which is on the cluster: that of your environment is taken"
    )
    assert "export OTHER=…" in other
    assert "of the Secret store" in store


def jobs_of_samples() -> list[Path]:
    """Every sample of a job."""
    paths = sorted([*SAMPLES.glob("*.yaml"), *SAMPLES.glob("local/*.yaml")])
    assert paths
    return paths


@pytest.mark.parametrize("path", jobs_of_samples(), ids=lambda path: path.stem)
def test_every_sample_becomes_pods_here_whose_configuration_the_trainer_takes(path: Path) -> None:
    job_of_file = local_job.read(path)
    resource = local_job.localize(job_of_file, OUTPUT, profile="cpu", nodes=2, processes=1)
    job = parse(resource)
    devices = resolve(job, PROFILES)
    pod = build_pod(job, devices, 0, 1, image="i", launcher_image="i")
    assert devices.count == 0
    assert job.host_network
    variables = local_job.environment(pod["spec"]["containers"][0], {}, {})
    if not job.program:
        from_mapping(json.loads(variables["INCEPTION_CONFIG"]))
    assert "persistentVolumeClaim" not in str(
        [each for each in pod["spec"]["volumes"] if each["name"] == "checkpoint"]
    )
