"""The rules for Prometheus, and staged faults that promtool plays against them.

All faults of a file are played in one Prometheus, each in namespaces of its own: promtool evaluates
every rule for every minute of every group of tests, so that a group for each takes minutes.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from localcluster.components import build

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "monitoring" / "rules"
CASES = ROOT / "tests" / "chart" / "rules"
RUNBOOKS = ROOT / "docs" / "runbooks"

Rule = dict[str, Any]
Labels = dict[str, str]
_SERIES = re.compile(r"^(\w+)(?:\{(.*)\})?$")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
# Series whose labels namespace and pod come from the page itself and mean the pod of a job, not the
# one that was scraped.
_OF_OTHERS = re.compile(r"^(inception_operator_job_(?!tr)|kubelet_|DCGM_|mlu_|npu_|gpu_)")


def paths() -> list[Path]:
    """The files of rules."""
    return sorted(RULES.glob("*.yaml"))


def groups_of_rules() -> list[str]:
    """Names of the groups of all files, in their order."""
    return [
        group["name"]
        for path in paths()
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    ]


def rules() -> list[Rule]:
    """All rules of all files, in their order."""
    return [
        rule
        for path in paths()
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
    ]


def alerts() -> dict[str, Rule]:
    """The alerts by name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def cases(name: str) -> list[dict[str, Any]]:
    """The staged faults of a file in tests/chart/rules."""
    text = (CASES / f"{name}.yaml").read_text(encoding="utf-8")
    found: list[dict[str, Any]] = yaml.safe_load(text)
    return found


def split(series: str) -> tuple[str, Labels]:
    """Name and labels of a series as Prometheus writes it; raises ValueError for another text."""
    match = _SERIES.match(series)
    if match is None:
        raise ValueError(f"not a series: {series}")
    return match[1], dict(_LABEL.findall(match[2] or ""))


def join(name: str, labels: Mapping[str, str]) -> str:
    """A series as Prometheus writes it."""
    return name + "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}"


Change = Callable[[str, Labels], Labels]


def honoured(_name: str, labels: Labels) -> Labels:
    """The labels that the page has, as with honor_labels."""
    return labels


def not_honoured(name: str, labels: Labels) -> Labels:
    """The labels of a Prometheus without honor_labels: those of the target win."""
    if not _OF_OTHERS.match(name):
        return labels
    target = {"namespace": "monitoring", "pod": "exporter-x"}
    renamed = {f"exported_{key}" if key in target else key: value for key, value in labels.items()}
    return renamed | target


def in_cluster(labels_of_cluster: Labels) -> Change:
    """The labels of a cluster beside those of the series."""
    return lambda _name, labels: labels | labels_of_cluster


def apart(number: int) -> Change:
    """The labels of a case that has its namespaces for itself, beside others in one Prometheus."""

    def change(_name: str, labels: Labels) -> Labels:
        own = {key: f"{value}-{number}" for key, value in labels.items() if "namespace" in key}
        return labels | own

    return change


def input_series(series: Mapping[str, str], *changes: Change) -> list[Labels]:
    """Series as promtool takes them, with their labels changed one way after the other."""
    result = []
    for text, values in series.items():
        # YAML takes 0x10 for a number.
        if not isinstance(values, str):
            raise TypeError(f"{text}: write {values!r} in quotation marks")
        name, labels = split(text)
        for change in changes:
            labels = change(name, labels)
        result.append({"series": join(name, labels), "values": values})
    return result


def check(groups: list[dict[str, Any]], folder: Path) -> str:
    """What promtool complains about in test groups; empty when all hold."""
    file = folder / "tests.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "rule_files": [str(path) for path in paths()],
                "evaluation_interval": "1m",
                # In any other order an alert sees what was recorded a minute ago.
                "group_eval_order": groups_of_rules(),
                "tests": groups,
            }
        ),
        encoding="utf-8",
    )
    done = promtool("test", "rules", str(file))
    return "" if done.returncode == 0 else done.stdout + done.stderr


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run promtool; the finished process, whatever came of it."""
    argv = [str(build(["promtool"])["promtool"]), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False)
