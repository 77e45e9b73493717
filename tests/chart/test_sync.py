"""Generated files are what their sources make of them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts import kustomize, plain, sync
from docs import (
    generate_accelerators,
    generate_alerts,
    generate_api,
    generate_lifecycle,
    generate_operator_metrics,
    generate_recipes,
)
from localcluster import components
from localcluster.progress import to_stderr
from manifests import generate_crd, generate_sdk_fields

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def test_copies_readme_and_install_manifest_are_up_to_date(helm: str) -> None:
    assert sync.sync(helm, write=False) == [], "run charts/sync.py"


def test_the_training_of_the_api_is_what_the_trainer_makes_of_it() -> None:
    assert generate_crd.main(["--check"]) == 0, "run manifests/generate_crd.py"


def test_the_fields_of_the_python_sdk_are_those_of_the_api() -> None:
    assert generate_sdk_fields.main(["--check"]) == 0, "run manifests/generate_sdk_fields.py"


def test_the_api_reference_is_up_to_date() -> None:
    assert generate_api.main(["--check"]) == 0, "run docs/generate_api.py"


def test_the_proof_table_is_up_to_date_and_names_only_tests_that_exist() -> None:
    assert generate_lifecycle.main(["--check"]) == 0, "run docs/generate_lifecycle.py"


def test_the_page_of_the_four_systems_is_up_to_date_and_names_only_what_exists() -> None:
    assert generate_recipes.main(["--check"]) == 0, "run docs/generate_recipes.py"


def test_the_page_of_the_series_is_up_to_date() -> None:
    assert generate_operator_metrics.main(["--check"]) == 0, "run docs/generate_operator_metrics.py"


RECIPE_ROW = {
    "row": "A1",
    "there": "x",
    "here": "y",
    "tests": ["tests/chart/test_sync.py::test_drift_is_found_and_repaired"],
}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({**RECIPE_ROW, "tests": []}, "row A1 names no test"),
        (
            {**RECIPE_ROW, "tests": ["tests/chart/test_sync.py::test_x"]},
            "names tests/chart/test_sync.py::test_x",
        ),
        ({**RECIPE_ROW, "samples": ["absent"]}, "names the sample absent"),
        ({**RECIPE_ROW, "note": "x"}, "row A1 needs"),
        ({key: value for key, value in RECIPE_ROW.items() if key != "there"}, "row A1 needs"),
    ],
    ids=["unproved", "no test", "no sample", "unknown key", "missing key"],
)
def test_a_row_of_a_system_without_proof_is_refused(row: dict[str, Any], words: str) -> None:
    with pytest.raises(generate_lifecycle.ProofError, match=words):
        generate_recipes.check(row)


def test_a_command_is_proved_by_running_it() -> None:
    generate_recipes.check({**RECIPE_ROW, "tests": [], "command": "inception-trainer recipes"})


def test_the_tables_of_accelerators_are_up_to_date_and_name_only_tests_that_exist() -> None:
    assert generate_accelerators.main(["--check"]) == 0, "run docs/generate_accelerators.py"


def test_the_table_of_alerts_is_up_to_date() -> None:
    assert generate_alerts.main(["--check"]) == 0, "run docs/generate_alerts.py"


def test_an_alert_without_a_runbook_and_a_page_without_its_place_are_refused() -> None:
    texts = {"summary": "x", "description": "x"}
    lost = {"alert": "InceptionNothing", "labels": {"severity": "info"}, "annotations": texts}
    page = f"{generate_alerts.START}\n{generate_alerts.END}\n"
    with pytest.raises(generate_lifecycle.ProofError, match="InceptionNothing has no page"):
        generate_alerts.document(page, [lost])
    with pytest.raises(generate_lifecycle.ProofError, match="must hold the lines"):
        generate_alerts.document("# A page", [])


def test_a_proof_without_its_test_and_a_page_without_its_place_are_refused() -> None:
    lost = generate_accelerators.Proof("x", "tests/chart/test_sync.py::test_x", bool)
    with pytest.raises(generate_lifecycle.ProofError, match="x: there is no test"):
        generate_accelerators.check((lost,))
    with pytest.raises(generate_lifecycle.ProofError, match="must hold the lines"):
        generate_accelerators.document("# A page", [])


TEST = "tests/chart/test_sync.py::test_drift_is_found_and_repaired"
ROW = {"number": 1, "failure": "It breaks.", "action": "It heals.", "tests": [TEST]}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({**ROW, "tests": []}, "row 1 has neither tests nor missing"),
        ({**ROW, "tests": ["tests/absent.py::test_x"]}, "tests/absent.py, which does not exist"),
        ({**ROW, "tests": ["tests/chart/test_sync.py::test_x"]}, "the file has no such test"),
        ({**ROW, "tests": ["tests/chart/test_sync.py"]}, "the file has no such test"),
        ({**ROW, "number": 2}, "row 2 stands where 1 is expected"),
        ({**ROW, "note": "x"}, "row 1 needs the keys"),
        ({key: value for key, value in ROW.items() if key != "action"}, "row 1 needs the keys"),
    ],
    ids=["unproved", "no file", "no test", "no name", "number", "unknown key", "missing key"],
)
def test_a_row_without_proof_is_refused(row: dict[str, Any], words: str) -> None:
    with pytest.raises(generate_lifecycle.ProofError, match=words):
        generate_lifecycle.check([row])


def test_what_is_not_proved_yet_is_said() -> None:
    rows = [{**ROW, "missing": "a run on two nodes."}, {**ROW, "number": 2, "failure": "a | b"}]
    generate_lifecycle.check(rows)
    first, second = generate_lifecycle.document({"introduction": "x", "rows": rows}).splitlines()[
        -2:
    ]
    proof = "[1 test](lifecycle-proofs.md#row-{})"
    assert first.endswith(f"{proof.format(1)}<br>**not yet:** a run on two nodes. |")
    assert second.endswith(f"| a \\| b | It heals. | {proof.format(2)} |")
    assert generate_lifecycle.proofs(rows).splitlines()[-4:] == [
        "## Row 2",
        "a \\| b",
        "",
        "- [drift is found and repaired](../tests/chart/test_sync.py)",
    ]


def test_drift_is_found_and_repaired(
    helm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, readme = tmp_path / "install.yaml", tmp_path / "README.md"
    copy.write_text("old")
    readme.write_text(f"head\n{sync.TABLE_START}\n{sync.TABLE_END}\ntail\n")
    for name, value in {
        "ROOT": tmp_path,
        "INSTALL": copy,
        "KUSTOMIZE": tmp_path / "kustomize",
        "README": readme,
        "copies": dict,
    }.items():
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
    assert objects[1] == yaml.safe_load(plain.CRD.read_text(encoding="utf-8"))
    assert "helm.sh/" not in text
    assert "managed-by" not in text
    assert {item["metadata"].get("namespace", plain.NAMESPACE) for item in objects} == {
        plain.NAMESPACE
    }


def built(folder: Path) -> list[dict[str, Any]]:
    """What kubectl makes of a kustomization, sorted."""
    kubectl = components.build(["kubectl"], to_stderr)["kubectl"]
    done = subprocess.run(
        [str(kubectl), "kustomize", str(folder)], capture_output=True, text=True, check=True
    )
    return in_order(yaml.load_all(done.stdout, Loader=LOADER))


def in_order(objects: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(
        objects,
        key=lambda item: (
            item["kind"],
            item["metadata"].get("namespace", ""),
            item["metadata"]["name"],
        ),
    )


@pytest.mark.parametrize("folder", [".", "kustomize/overlays/cluster-wide"])
def test_kustomize_installs_the_same_as_the_chart(folder: str) -> None:
    """By way of install.yaml, which is the chart's rendering."""
    installed = yaml.load_all(sync.INSTALL.read_text(encoding="utf-8"), Loader=LOADER)
    assert built(sync.INSTALL.parent / folder) == in_order(installed)


def test_the_namespaced_overlay_is_the_chart_for_a_list_of_namespaces(helm: str) -> None:
    wanted = [
        plain.namespace_object(),
        *yaml.load_all(plain.crd_text(), Loader=LOADER),
        *plain.plain_objects(helm, *kustomize.NAMESPACED),
    ]
    made = built(sync.KUSTOMIZE / "overlays" / "namespaced")
    assert made == in_order(wanted)
    (deployment,) = (item for item in made if item["kind"] == "Deployment")
    arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments[-2:] == ["--namespaces", kustomize.EXAMPLE]
