"""Reads Grafana dashboards: the PromQL of every panel, with Grafana's variables filled in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = ROOT / "monitoring" / "dashboards"

# What Grafana would fill in for "All" over a short range.
VARIABLES: Mapping[str, str] = {
    "cluster": ".*",
    "namespace": ".*",
    "job": ".*",
    "datasource": "prometheus",
    "__rate_interval": "1m",
    "__interval": "15s",
    "__range": "1h",
}
# What a healthy run on the processor cannot show, because it has neither devices nor faults. A
# Prometheus with series of all of them has data in these, too.
FAULTS = frozenset(
    {
        "Firing alerts",
        "Restarts by cause",
        "Restarts by profile",
        "Own errors",
        "Stragglers now",
        "Ratio of the named straggler",
    }
)
DEVICES = frozenset(
    {"Idle share of the devices", "Utilization of each device", "Memory of each device"}
)
OF_DEVICES = "inception-accelerators"
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::\w+)?\}|(\w+))")
_LABEL_VALUES = re.compile(r"^label_values\((?:(?P<selector>.+),\s*)?(?P<label>\w+)\)$")


@dataclass(frozen=True)
class Query:
    """One expression of a dashboard: where it stands, as written, and with variables filled in."""

    dashboard: str
    panel: str
    raw: str
    expression: str


def paths() -> list[Path]:
    """The source files of all dashboards."""
    return sorted(DASHBOARDS.glob("*.json"))


def load(path: Path) -> dict[str, Any]:
    """A dashboard as plain data."""
    dashboard: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return dashboard


def panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All panels but rows, those inside collapsed rows too."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panels(panel)
        else:
            yield panel


def substitute(expression: str, variables: Mapping[str, str] = VARIABLES) -> str:
    """An expression with Grafana's variables filled in; raises KeyError for an unknown variable."""
    return _VARIABLE.sub(lambda match: variables[match[1] or match[2]], expression)


def queries(path: Path, variables: Mapping[str, str] | None = None) -> list[Query]:
    """The queries of all panels; ``variables`` override those filled in by default, for example
    ``namespace``.
    """
    dashboard = load(path)
    values = {**VARIABLES, **(variables or {})}
    return [
        Query(
            dashboard["title"], panel["title"], target["expr"], substitute(target["expr"], values)
        )
        for panel in panels(dashboard)
        for target in panel["targets"]
    ]


def of_a_healthy_run() -> list[Query]:
    """The queries of all boards that a job without faults and devices has data for."""
    return [
        query
        for path in paths()
        if path.stem != OF_DEVICES
        for query in queries(path)
        if query.panel not in FAULTS | DEVICES
    ]


def variable_selectors(path: Path, variables: Mapping[str, str] | None = None) -> list[Query]:
    """The selectors that the choices of the dashboard's variables and its annotations come from."""
    dashboard = load(path)
    values = {**VARIABLES, **(variables or {})}
    annotations = dashboard["annotations"].get("list", [])
    found = [(annotation["name"], annotation["expr"]) for annotation in annotations]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            match = _LABEL_VALUES.match(variable["query"]["query"])
            if match and match["selector"]:
                found.append((variable["name"], match["selector"]))
    return [Query(dashboard["title"], name, raw, substitute(raw, values)) for name, raw in found]
