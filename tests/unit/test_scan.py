"""What `make scan` makes of the scanners' findings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import scan
from scan import Finding, judge

RULES: dict[str, Any] = {
    "renderings": {"default": {"checkov": 2}, "all": {"checkov": 1}},
    "exceptions": {
        "checkov": {"CKV_1": "why", "CKV_2": "why"},
        "kube-linter": {},
        "kube-score": {},
    },
}


def finding(check: str, rendering: str, subject: str = "Deployment a") -> Finding:
    return Finding("checkov", check, subject, "is bad", rendering)


ALLOWED = [finding("CKV_1", "default"), finding("CKV_2", "default"), finding("CKV_1", "all")]


def test_findings_with_a_reason_are_accepted() -> None:
    assert judge(ALLOWED, RULES) == []


def test_a_finding_without_a_reason_is_named_with_its_object() -> None:
    other = Finding("kube-score", "pod-probes", "v1/Pod b", "no probe", "all")
    assert judge([*ALLOWED, other], RULES) == ["kube-score pod-probes (all): v1/Pod b: no probe"]


def test_a_reason_that_nothing_needs_any_more_is_an_error() -> None:
    found = [finding("CKV_1", "default")]
    assert judge(found, RULES) == ["checkov CKV_2: the exception is not needed any more"]


def test_a_reason_does_not_lift_the_limit_of_a_rendering() -> None:
    found = [*ALLOWED, finding("CKV_2", "all")]
    assert judge(found, RULES) == ["checkov (all): 2 findings, 1 allowed"]
    assert judge([*ALLOWED, finding("CKV_1", "default", "Role c")], RULES) == [
        "checkov (default): 3 findings, 2 allowed"
    ]


def test_every_exception_has_a_reason_in_a_sentence() -> None:
    rules = yaml.safe_load(scan.RULES.read_text())
    assert set(rules["exceptions"]) == set(scan.SCANNERS)
    limits = {name: rendering["checkov"] for name, rendering in rules["renderings"].items()}
    assert limits == {"default": 2, "all": 1}
    for checks in rules["exceptions"].values():
        for check, reason in checks.items():
            assert reason[0].isupper(), check
            assert reason.endswith("."), check


def program(folder: Path, output: str, code: int = 1) -> str:
    """A scanner that prints something."""
    file = folder / "scanner"
    file.write_text(f"#!/bin/sh\ncat <<'END'\n{output}\nEND\nexit {code}\n")
    file.chmod(0o755)
    return str(file)


def test_a_scanner_that_says_nothing_ends_the_scan(tmp_path: Path) -> None:
    silent = program(tmp_path, "", code=2)
    for run in scan.SCANNERS.values():
        with pytest.raises(SystemExit, match="says nothing"):
            run(silent, tmp_path / "manifest.yaml")


def test_kube_score_counts_warnings_and_leaves_out_what_is_skipped(tmp_path: Path) -> None:
    def check(name: str, grade: int, skipped: bool = False) -> dict[str, Any]:
        comments = [{"summary": "a"}, {"summary": "b"}]
        return {"check": {"id": name}, "grade": grade, "skipped": skipped, "comments": comments}

    checks = [check("bad", 1), check("warned", 5), check("nearly", 7), check("not", 1, True)]
    report = json.dumps(
        [{"object_name": "a", "checks": checks}, {"object_name": "b", "checks": []}]
    )
    found = scan.kube_score(program(tmp_path, report), tmp_path)
    assert [(each.check, each.message) for each in found] == [("bad", "a; b"), ("warned", "a; b")]
