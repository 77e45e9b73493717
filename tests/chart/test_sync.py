"""Generated files are what their sources make of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from charts import sync
from docs import generate_api


def test_copies_readme_and_install_manifest_are_up_to_date(helm: str) -> None:
    assert sync.sync(helm, write=False) == [], "run charts/sync.py"


def test_the_api_reference_is_up_to_date() -> None:
    assert generate_api.main(["--check"]) == 0, "run docs/generate_api.py"


def test_drift_is_found_and_repaired(helm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy, readme = tmp_path / "install.yaml", tmp_path / "README.md"
    copy.write_text("old")
    readme.write_text(f"head\n{sync.TABLE_START}\n{sync.TABLE_END}\ntail\n")
    for name, value in {"ROOT": tmp_path, "INSTALL": copy, "README": readme, "copies": dict}.items():
        monkeypatch.setattr(sync, name, value)
    assert sync.main(["--check", "--helm", helm]) == 1
    assert copy.read_text() == "old"
    assert sync.main(["--helm", helm]) == 0
    assert "| `crds.keep` | `true` |" in readme.read_text()
    assert sync.main(["--check", "--helm", helm]) == 0


def test_a_missing_helm_is_an_error_with_a_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    assert sync.main(["--check", "--helm", ""]) == 2
    assert "--helm" in capsys.readouterr().err


def test_the_install_manifest_holds_all_that_is_needed_and_nothing_of_helm() -> None:
    text = sync.INSTALL.read_text(encoding="utf-8")
    objects = list(yaml.safe_load_all(text))
    kinds = [item["kind"] for item in objects]
    # In the order in which kubectl must create them.
    assert kinds[:3] == ["Namespace", "CustomResourceDefinition", "ServiceAccount"]
    assert kinds[-1] == "Deployment"
    assert objects[0]["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    assert objects[1] == yaml.safe_load(sync.CRD.read_text(encoding="utf-8"))
    assert "helm.sh/" not in text
    assert "managed-by" not in text
    assert {item["metadata"].get("namespace", sync.NAMESPACE) for item in objects} == {sync.NAMESPACE}


def test_the_kustomization_installs_the_same() -> None:
    kustomization = yaml.safe_load((sync.INSTALL.parent / "kustomization.yaml").read_text(encoding="utf-8"))
    assert kustomization["resources"] == ["install.yaml"]
