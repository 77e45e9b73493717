"""Which versions of Kubernetes take what chart and operator write.

No API server that old is built here: objects are held against the schemas of each version, and the
CRD's rules against the version that brought what they use.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from chart_values import VALUES, Render
from inception_operator.accelerators.resolve import load_profiles, resolve
from inception_operator.pod.build import build_pod
from inception_operator.spec.job import parse

ROOT = Path(__file__).resolve().parents[2]
FIRST, LAST = 29, 37
VERSIONS = [f"1.{minor}" for minor in range(FIRST, LAST + 1)]
FOREIGN_GROUPS = ("cert-manager.io", "monitoring.coreos.com")
SAMPLES = sorted((ROOT / "manifests" / "samples").rglob("*.yaml"))
# Claims of devices are said to need a newer version.
CLAIMS_FROM = 34

# The minor version from which a CRD may use them: one after the version that brought them, because
# a server must be able to go back by one. k8s.io/apiserver/pkg/cel/environment/base.go
_STANDARD = "has size double startsWith exists exists_one all matches type"
FUNCTIONS = {
    **dict.fromkeys(_STANDARD.split(), 25),
    **dict.fromkeys(("orValue", "hasValue"), 29),
}
# k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1/types.go
RULE_KEYS = {"rule": 25, "message": 25, "reason": 28, "fieldPath": 28}
VERSION_KEYS = {
    **dict.fromkeys(("name", "served", "storage", "subresources", "schema"), 16),
    "additionalPrinterColumns": 16,
}


@pytest.mark.parametrize("name", VALUES)
def test_every_object_of_the_chart_is_valid(render: Render, name: str) -> None:
    objects = render(VALUES[name], f"--kube-version={VERSIONS[0]}")
    assert objects == render(VALUES[name], f"--kube-version={VERSIONS[-1]}")
    for version in VERSIONS:
        for item in objects:
            if not item["apiVersion"].startswith(FOREIGN_GROUPS):
                kubernetes_validate.validate(item, version, strict=True)


def test_the_guard_of_creations_needs_a_version_with_policies(
    render: Render, template: Callable[..., Any]
) -> None:
    guarded = {"leaderElection": {"guardCreations": True}}
    done = template(guarded, "--kube-version=1.29.9")
    assert done.returncode != 0
    assert "leaderElection.guardCreations: a ValidatingAdmissionPolicy needs" in done.stderr
    for version in VERSIONS[1:]:
        kinds = set()
        for item in render(guarded, f"--kube-version={version}"):
            if item["apiVersion"].startswith("admissionregistration.k8s.io"):
                kubernetes_validate.validate(item, version, strict=True)
                kinds.add(item["kind"])
        assert kinds == {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}


def test_an_older_cluster_is_refused(template: Callable[..., Any]) -> None:
    done = template({}, f"--kube-version=1.{FIRST - 1}.9")
    assert done.returncode != 0
    assert VERSIONS[0] in done.stderr


def sample_pods() -> Iterator[dict[str, Any]]:
    table = load_profiles()
    for path in SAMPLES:
        for item in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if item.get("kind") == "InceptionTraining":
                metadata = {**item["metadata"], "namespace": "team", "uid": "u"}
                job = parse({**item, "metadata": metadata})
                images = {"image": "trainer:1", "launcher_image": "trainer:1"}
                yield build_pod(job, resolve(job, table), 0, 1, **images)


def fields(node: Any, path: str = "") -> Iterator[str]:
    """The paths of all fields of an object."""
    if isinstance(node, dict):
        for key, child in node.items():
            yield f"{path}.{key}"
            yield from fields(child, f"{path}.{key}")
    elif isinstance(node, list):
        for child in node:
            yield from fields(child, path)


def test_the_fields_of_all_samples_pods_are_known() -> None:
    seen: set[str] = set()
    for pod in sample_pods():
        paths = set(fields(pod["spec"], "spec"))
        if not paths <= seen:
            seen |= paths
            claims = "spec.resourceClaims" in paths
            for version in (f"1.{CLAIMS_FROM}" if claims else VERSIONS[0], VERSIONS[-1]):
                kubernetes_validate.validate(pod, version, strict=True)
    assert "spec.resourceClaims" in seen
    assert "spec.initContainers.command" in seen, "a program of one's own"


def rules(node: Any) -> Iterator[dict[str, str]]:
    if isinstance(node, dict):
        yield from node.get("x-kubernetes-validations", ())
        for child in node.values():
            yield from rules(child)
    elif isinstance(node, list):
        for child in node:
            yield from rules(child)


def test_the_definition_needs_no_newer_version() -> None:
    text = (ROOT / "manifests" / "crd.yaml").read_text(encoding="utf-8")
    (version,) = yaml.safe_load(text)["spec"]["versions"]
    needed = {key: VERSION_KEYS[key] for key in version}
    for rule in rules(version):
        needed |= {key: RULE_KEYS[key] for key in rule}
        needed |= {name: FUNCTIONS[name] for name in re.findall(r"(\w+)\(", rule["rule"])}
    assert max(needed.values()) == FIRST, "docs/install.md says which version the CRD needs"


def test_the_versions_agree_with_what_the_chart_and_the_page_say() -> None:
    chart = yaml.safe_load((ROOT / "charts/inception-operator/Chart.yaml").read_text("utf-8"))
    assert chart["kubeVersion"] == f">=1.{FIRST}.0-0"
    page = (ROOT / "docs" / "install.md").read_text("utf-8")
    table = page.partition("## Versions of Kubernetes")[2].partition("## A first job")[0]
    versions = [int(minor) for minor in re.findall(r"^\| 1\.(\d+) \|", table, re.MULTILINE)]
    assert versions == sorted(versions)
    assert versions[0] == FIRST
    assert CLAIMS_FROM in versions
    assert f"schemas of 1.{FIRST} to 1.{LAST}" in table
    assert kubernetes_validate.latest_version() == f"1.{LAST}.0"
