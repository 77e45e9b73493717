"""Renders the chart with the pinned Helm."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from localcluster import components
from localcluster.progress import to_stderr

ROOT = Path(__file__).resolve().parents[2]
# The pure Python loader takes a second for the CRD.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
CHART = ROOT / "charts" / "inception-operator"

Objects = list[dict[str, Any]]
Render = Callable[..., Objects]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build Helm before the clock of the first test starts."""
    if (
        any("helm" in getattr(item, "fixturenames", ()) for item in session.items)
        and not session.config.option.collectonly
    ):
        components.build(["helm"], to_stderr)


@pytest.fixture(scope="session")
def helm() -> str:
    """Path of Helm."""
    return str(components.build(["helm"], to_stderr)["helm"])


@pytest.fixture(scope="session")
def template(
    helm: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs ``helm template`` with values; the finished process, whatever came of it."""
    folder = tmp_path_factory.mktemp("values")

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
def render(template: Callable[..., subprocess.CompletedProcess[str]]) -> Render:
    """The objects that the chart renders to with values; tests share them and leave them as they
    are.
    """
    known: dict[str, Objects] = {}

    def run(values: dict[str, Any] | None = None, *arguments: str) -> Objects:
        key = json.dumps([values, *arguments])
        if key not in known:
            done = template(values, *arguments)
            assert done.returncode == 0, done.stderr
            known[key] = [
                document for document in yaml.load_all(done.stdout, Loader=LOADER) if document
            ]
        return known[key]

    return run
