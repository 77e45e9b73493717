"""The annotations by which Artifact Hub shows the chart say what is true.

Their forms: https://artifacthub.io/docs/topics/annotations/helm/
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from chart_values import Render, container_of, only, settings_of
from inception_operator.accelerators.resolve import load_profiles, resolve
from inception_operator.spec.job import parse

ROOT = Path(__file__).resolve().parents[2]
CHART: dict[str, Any] = yaml.safe_load(
    (ROOT / "charts" / "inception-operator" / "Chart.yaml").read_text("utf-8")
)
PREFIX = "artifacthub.io/"
KEYS = {
    "category",
    "license",
    "operator",
    "operatorCapabilities",
    "prerelease",
    "images",
    "links",
    "changes",
    "crds",
    "crdsExamples",
}


def annotation(key: str) -> Any:
    return yaml.safe_load(CHART["annotations"][PREFIX + key])


def test_each_annotation_is_one_that_the_hub_knows() -> None:
    assert {key.removeprefix(PREFIX) for key in CHART["annotations"]} == KEYS
    assert all(isinstance(value, str) for value in CHART["annotations"].values())
    assert annotation("operator") is True
    assert annotation("prerelease") == CHART["version"].startswith("0.")


def test_the_images_are_those_that_the_chart_runs(render: Render) -> None:
    container = container_of(render())
    images = [image["image"] for image in annotation("images")]
    assert images == [container["image"], settings_of(container).trainer_image]


def test_the_kinds_are_those_that_the_chart_installs(render: Render) -> None:
    crd = only(render(), "CustomResourceDefinition")
    (shown,) = annotation("crds")
    assert shown["name"] == crd["metadata"]["name"]
    assert shown["kind"] == crd["spec"]["names"]["kind"]
    assert shown["version"] in [version["name"] for version in crd["spec"]["versions"]]
    assert shown.keys() == {"kind", "version", "name", "displayName", "description"}


@pytest.mark.parametrize(
    "example", annotation("crdsExamples"), ids=lambda example: example["metadata"]["name"]
)
def test_the_examples_are_jobs_that_the_operator_accepts(example: dict[str, Any]) -> None:
    """tests/integration/test_install.py shows them to the API server."""
    metadata = {**example["metadata"], "namespace": "team", "uid": "u"}
    assert resolve(parse({**example, "metadata": metadata}), load_profiles()).profile


def test_changes_and_links_have_the_form_of_the_hub() -> None:
    kinds = {"added", "changed", "deprecated", "removed", "fixed", "security"}
    for change in annotation("changes"):
        assert change.keys() == {"kind", "description"}
        assert change["kind"] in kinds
    for link in annotation("links"):
        assert link.keys() == {"name", "url"}
        assert urlsplit(link["url"]).scheme == "https"
