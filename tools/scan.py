"""Have three scanners look at what the chart renders to: Checkov, kube-linter and kube-score.

`python tools/scan.py` prints each finding that scan.yaml does not explain and each explanation that
nothing needs any more; it ends with 1 when there is one. `make scan` installs the scanners.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parent.parent
RULES: Final = Path(__file__).with_suffix(".yaml")
# The grade with which kube-score warns; below it is what it calls critical, above it what passed.
WARNING: Final = 5


@dataclass(frozen=True, order=True)
class Finding:
    """What one scanner has against one object of a rendering."""

    scanner: str
    check: str
    subject: str
    message: str
    rendering: str = ""

    def __str__(self) -> str:
        return f"{self.scanner} {self.check} ({self.rendering}): {self.subject}: {self.message}"


def judge(findings: Iterable[Finding], rules: Mapping[str, Any]) -> list[str]:
    """What is wrong: findings without a reason, reasons without a finding, and too many of them."""
    found = sorted(set(findings))
    exceptions: Mapping[str, Mapping[str, str]] = rules["exceptions"]
    complaints = [str(f) for f in found if f.check not in exceptions[f.scanner]]
    known = {(finding.scanner, finding.check) for finding in found}
    complaints += [
        f"{scanner} {check}: the exception is not needed any more"
        for scanner, checks in exceptions.items()
        for check in checks
        if (scanner, check) not in known
    ]
    for name, rendering in rules["renderings"].items():
        count = sum(f.scanner == "checkov" and f.rendering == name for f in found)
        if count > rendering["checkov"]:
            complaints.append(f"checkov ({name}): {count} findings, {rendering['checkov']} allowed")
    return complaints


def run(*command: str) -> str:
    """What a scanner printed, whatever its exit code says about what it found."""
    # Checkov would else ask its makers' server for a table, and wait minutes where there is none.
    environment = {**os.environ, "BC_SKIP_MAPPING": "TRUE"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if not done.stdout.strip():
        raise SystemExit(f"{command[0]} says nothing: {done.stderr.strip()[-2000:]}")
    return done.stdout


def checkov(program: str, manifest: Path) -> list[Finding]:
    """Failed checks of Checkov; it is not asked for anything from its makers' servers."""
    output = run(
        program,
        "--framework=kubernetes",
        f"--file={manifest}",
        "--output=json",
        "--quiet",
        "--compact",
        "--skip-download",
    )
    report = json.loads(output)
    return [
        Finding("checkov", check["check_id"], check["resource"], check["check_name"])
        for check in report["results"]["failed_checks"]
    ]


def kube_linter(program: str, manifest: Path) -> list[Finding]:
    """Findings of kube-linter's default checks."""
    report = json.loads(run(program, "lint", "--format=json", str(manifest)))
    return [
        Finding(
            "kube-linter",
            each["Check"],
            _subject(each["Object"]["K8sObject"]),
            each["Diagnostic"]["Message"],
        )
        for each in report["Reports"] or []
    ]


def _subject(reference: Mapping[str, Any]) -> str:
    kind = reference["GroupVersionKind"]
    return f"{kind['Kind']} {reference['Name']}"


def kube_score(program: str, manifest: Path) -> list[Finding]:
    """Findings of kube-score, critical ones and warnings."""
    report = json.loads(run(program, "score", "--output-format=json", str(manifest)))
    return [
        Finding(
            "kube-score",
            check["check"]["id"],
            item["object_name"],
            "; ".join(comment["summary"] for comment in check["comments"] or []),
        )
        for item in report
        for check in item["checks"] or []
        if not check["skipped"] and check["grade"] <= WARNING
    ]


SCANNERS: Final[Mapping[str, Callable[[str, Path], list[Finding]]]] = {
    "checkov": checkov,
    "kube-linter": kube_linter,
    "kube-score": kube_score,
}


def render(helm: str, values: Mapping[str, Any], manifest: Path) -> None:
    """Write what the chart renders to."""
    file = manifest.with_suffix(".values.json")
    file.write_text(json.dumps(values), encoding="utf-8")
    chart = str(ROOT / "charts/inception-operator")
    # What is installed: the pod of `helm test` lives for a minute, when somebody asks for it.
    command = [helm, "template", "release", chart, "--namespace=system", "--skip-tests"]
    command.append(f"--values={file}")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    manifest.write_text(done.stdout, encoding="utf-8")


def main() -> int:
    """Scan every rendering with every scanner; 1 when something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--helm", default=os.environ.get("HELM", "helm"))
    for name in SCANNERS:
        parser.add_argument(f"--{name}", default=name, help="the program")
    options = vars(parser.parse_args())
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    findings = []
    with tempfile.TemporaryDirectory() as folder:
        for name, rendering in rules["renderings"].items():
            manifest = Path(folder, f"{name}.yaml")
            render(options["helm"], rendering["values"], manifest)
            for scanner, scan in SCANNERS.items():
                found = scan(options[scanner.replace("-", "_")], manifest)
                findings += [Finding(f.scanner, f.check, f.subject, f.message, name) for f in found]
                print(f"{scanner} ({name}): {len(found)} findings")
    complaints = judge(findings, rules)
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
