"""Renders the chart with the pinned Helm 4, and where asked with Helm 3."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import helm_versions
from localcluster import components
from localcluster.progress import to_stderr
from staged_series import StagedPrometheus

ROOT = Path(__file__).resolve().parents[2]
# The pure Python loader takes a second for the CRD.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
CHART = ROOT / "charts" / "inception-operator"

Objects = list[dict[str, Any]]
Render = Callable[..., Objects]
Template = Callable[..., subprocess.CompletedProcess[str]]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build Helm before the clock of the first test starts."""
    if session.config.option.collectonly:
        return
    wanted = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    if "helm" in wanted:
        components.build(["helm"], to_stderr)
    if "staged" in wanted:
        components.build(["prometheus", "promtool"], to_stderr)
    if "render3" in wanted or "template3" in wanted:
        helm_versions.build(3)


@pytest.fixture(scope="session")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StagedPrometheus]:
    """A Prometheus that has every series that dashboards and report read."""
    with StagedPrometheus(tmp_path_factory.mktemp("staged")) as prometheus:
        yield prometheus


@pytest.fixture(scope="session")
def helm() -> str:
    """Path of Helm."""
    return str(components.build(["helm"], to_stderr)["helm"])


def _template(helm: str, folder: Path) -> Template:
    """Runs ``helm template`` with values; the finished process, whatever came of it."""

    def run(
        values: dict[str, Any] | None = None, *arguments: str
    ) -> subprocess.CompletedProcess[str]:
        file = folder / "values.json"
        file.write_text(json.dumps(values or {}))
        command = [
            helm,
            "template",
            *(() if any(a.startswith("--name-template") for a in arguments) else ("release",)),
            str(CHART),
            "--namespace=system",
            f"--values={file}",
            *arguments,
        ]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="session")
def template(helm: str, tmp_path_factory: pytest.TempPathFactory) -> Template:
    return _template(helm, tmp_path_factory.mktemp("values"))


@pytest.fixture(scope="session")
def template3(tmp_path_factory: pytest.TempPathFactory) -> Template:
    return _template(str(helm_versions.build(3)), tmp_path_factory.mktemp("values3"))


@pytest.fixture(scope="session")
def render(template: Template) -> Render:
    """The objects that the chart renders to with values; tests share them and leave them as they
    are.
    """
    return _render(template)


@pytest.fixture(scope="session")
def render3(template3: Template) -> Render:
    """The same by Helm 3."""
    return _render(template3)


def _render(template: Template) -> Render:
    known: dict[str, Objects] = {}

    def run(
        values: dict[str, Any] | None = None, *arguments: str, of_test: bool = False
    ) -> Objects:
        """``of_test``: the objects of ``helm test`` instead of those of the release."""
        chosen = "--show-only=templates/tests/job.yaml" if of_test else "--skip-tests"
        key = json.dumps([values, chosen, *arguments])
        if key not in known:
            done = template(values, chosen, *arguments)
            assert done.returncode == 0, done.stderr
            known[key] = [
                document for document in yaml.load_all(done.stdout, Loader=LOADER) if document
            ]
        return known[key]

    return run
