"""The program of ``helm test`` against a real API server, with the rights of its own account."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

import helm_versions
from localcluster.cluster import Cluster
from nightly import but_nightly
from operator_process import OperatorProcess

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "inception-operator"
PROGRAM = CHART / "files" / "helm_test.py"
ACCOUNT = "trainings-inception-operator-test"
RIGHTS = ("ServiceAccount", "Role", "RoleBinding")
pytestmark = pytest.mark.timeout(180)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build Helm before the clock of the first test starts."""
    if not session.config.option.collectonly:
        for major in helm_versions.MAJORS:
            helm_versions.build(major)


@pytest.fixture(scope="module", params=but_nightly(helm_versions.MAJORS, [4]))
def helm(request: pytest.FixtureRequest) -> str:
    """Path of Helm 3 or 4."""
    return str(helm_versions.build(request.param))


def objects_of_the_test(helm: str, namespace: str) -> list[dict[str, object]]:
    command = [helm, "template", "trainings", str(CHART), f"--namespace={namespace}"]
    command += ["--show-only=templates/tests/job.yaml", "--kube-version=1.36"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [item for item in yaml.safe_load_all(done.stdout) if item]


def run_program(
    cluster: Cluster, namespace: str, job: dict[str, object], folder: Path, seconds: str
) -> subprocess.CompletedProcess[str]:
    """The program as in its pod: its address from the environment, its credentials from files."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    server = config["clusters"][0]["cluster"]
    (folder / "ca.crt").write_bytes(base64.b64decode(server["certificate-authority-data"]))
    token = cluster.kubectl("create", "token", ACCOUNT, f"--namespace={namespace}")
    (folder / "token").write_text(token)
    (folder / "job.json").write_text(json.dumps(job))
    address = urlsplit(server["server"])
    environment = {
        **os.environ,
        "KUBERNETES_SERVICE_HOST": str(address.hostname),
        "KUBERNETES_SERVICE_PORT": str(address.port),
    }
    command = [sys.executable, str(PROGRAM), namespace, str(folder / "job.json"), seconds]
    command.append(str(folder))
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def grant_rights(api: Cluster, helm: str, namespace: str) -> dict[str, Any]:
    """Give the namespace the rights of the test, as the hook does; returns its job."""
    objects = objects_of_the_test(helm, namespace)
    api.apply(*(item for item in objects if item["kind"] in RIGHTS))
    (config,) = (item for item in objects if item["kind"] == "ConfigMap")
    job: dict[str, Any] = json.loads(config["data"]["job.json"])  # type: ignore[index]
    return job


def test_a_job_runs_to_its_end_with_these_rights_and_is_gone(
    training_api: Cluster, namespace: str, helm: str, tmp_path: Path
) -> None:
    job = grant_rights(training_api, helm, namespace)
    # The fake node ends the pod, where a real one would train.
    metadata = {"annotations": {"kwok.localcluster/succeed-after": "100ms"}}
    job["spec"]["template"]["metadata"] = metadata
    with OperatorProcess(training_api.kubeconfig, tmp_path / "log"):
        done = run_program(training_api, namespace, job, tmp_path, "60")
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.splitlines()[-1] == "the operator works"
        scope = f"--namespace={namespace}"
        training_api.kubectl("wait", "itrain", "--all", "--for=delete", scope, "--timeout=30s")

        # The API server's own words, for what it refuses.
        job["spec"]["numNodes"] = 0
        done = run_program(training_api, namespace, job, tmp_path, "60")
        assert done.returncode == 1
        assert "the test failed: POST of the job: 422" in done.stdout


def test_without_an_operator_it_says_so(
    training_api: Cluster, namespace: str, helm: str, tmp_path: Path
) -> None:
    job = grant_rights(training_api, helm, namespace)
    done = run_program(training_api, namespace, job, tmp_path, "2")
    assert done.returncode == 1
    assert "no operator has looked at the job" in done.stdout
    left = training_api.kubectl("get", "itrain", f"--namespace={namespace}", "--output=name")
    assert left == ""
