"""A Prometheus that has every series that the dashboards read, of three clusters.

The series are made from what the operator and a trainer export, and from the recorded pages of the
vendors' exporters; promtool makes blocks of them, and a real Prometheus evaluates the rules.
"""

from __future__ import annotations

import itertools
import json
import re
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

import alert_rules
from exported_series import labels
from inception_operator.contract.names import State
from inception_operator.decide.goodput import CAUSES
from localcluster.components import build

MINUTES = 20
STEP = 15
CLUSTERS: tuple[Mapping[str, str], ...] = ({}, {"cluster": "a"}, {"cluster": "b"})
# Values of the labels that the pages give; a label that is not here has one value, its own name.
VALUES: Mapping[str, tuple[str, ...]] = {
    "namespace": ("team",),
    "name": ("digits",),
    "state": (State.RUNNING,),
    "cause": CAUSES,
    "k": ("1", "5"),
    "split": ("train", "val"),
    "part": ("data", "compute"),
    "phase": ("train", "val", "infer"),
    "counted": ("true", "false"),
    "le": ("0.1", "1.0", "+Inf"),
    "pod": ("digits-0-1", "digits-1-1"),
}
PODS = ("digits-0-1", "digits-1-1")
# Values of gauges that matter to an alert or a comparison; every other one is 1.
LEVELS = {"inception_operator_job_restarts": 4.0, "inception_operator_watch_age_seconds": 200.0}
# What the groups of rules end with, and the alerts that these levels must make.
_LAST = (
    "namespace_pod_accelerator:healthy:bool",
    'ALERTS{alertname="InceptionJobRestartsBurnBudget", alertstate="firing"}',
    'ALERTS{alertname="InceptionOperatorDeaf", alertstate="firing"}',
)
_OF_RULES = re.compile(r"ALERTS|namespace_\w+:")
_COUNTERS = ("_total", "_bucket", "_sum", "_count")


class StagedPrometheus:
    """Runs on a port of its own; ends with the block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tools = build(["prometheus", "promtool"])

    def __enter__(self) -> StagedPrometheus:
        page, data = self.folder / "page.txt", self.folder / "data"
        self.end = time.time()
        """When the last samples were taken, in seconds since 1970."""
        page.write_text("".join(_page(self.end)) + "# EOF\n", encoding="utf-8")
        argv = [str(self.tools["promtool"]), "tsdb", "create-blocks-from", "openmetrics"]
        subprocess.run([*argv, str(page), str(data)], capture_output=True, check=True)
        config = {
            "global": {"evaluation_interval": "1s"},
            "rule_files": [str(path) for path in alert_rules.paths()],
        }
        (self.folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.log = (self.folder / "prometheus.log").open("w")
        self.process = subprocess.Popen(
            [
                str(self.tools["prometheus"]),
                f"--config.file={self.folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={data}",
                f"--web.listen-address={self.address}",
                # Blocks of another program are older than what this one would keep by default.
                "--storage.tsdb.retention.time=1y",
                # The rules see the last samples however long this took to start.
                "--query.lookback-delta=30m",
            ],
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        self._wait_until_rules_have_run()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=30)
        finally:
            self.process.kill()
            self.log.close()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query; raises HTTPError for invalid PromQL.

        It is about the time of the last samples, or of now where rules make the series.
        """
        fields = {"query": expression}
        if not _OF_RULES.search(expression):
            fields["time"] = f"{self.end:.0f}"
        data = urllib.parse.urlencode(fields).encode()
        url = f"http://{self.address}/api/v1/query"
        with urllib.request.urlopen(url, data, timeout=30) as answer:
            return list(json.load(answer)["data"]["result"])

    def _wait_until_rules_have_run(self, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if all(self.query(expression) for expression in _LAST):
                    return
            except (urllib.error.URLError, ConnectionError):
                pass
            time.sleep(0.2)
        log = (self.folder / "prometheus.log").read_text()
        raise AssertionError(f"prometheus has no results of its rules\n{log[-3000:]}")


def _page(now: float) -> Iterator[str]:
    times = range(int(now) - 60 * MINUTES, int(now) + 1, STEP)
    for name, of_series in _series():
        growing = name.endswith(_COUNTERS)
        for cluster in CLUSTERS:
            text = alert_rules.join(name, dict(of_series) | cluster)
            for count, at in enumerate(times):
                value = float(count) if growing else _level(name, at)
                yield f"{text} {value} {at}\n"


def _level(name: str, now: int) -> float:
    if name.endswith("_timestamp_seconds"):
        return now - 5.0
    return LEVELS.get(name, 1.0)


def _series() -> Iterator[tuple[str, dict[str, str]]]:
    for name, of_page in sorted(labels().items()):
        names = sorted(of_page | ({"le"} if name.endswith("_bucket") else set()))
        choices = [VALUES.get(label, (label,)) for label in names]
        for values in itertools.product(*choices):
            page = dict(zip(names, values, strict=True))
            if name.startswith("trainer_"):
                for pod in PODS:
                    yield name, page | {"namespace": "team", "training": "digits", "pod": pod}
            else:
                yield name, page | {"job": "inception-operator", "instance": "10.0.0.1:8080"}
    for case in alert_rules.cases("accelerators"):
        for text in case["series"]:
            name, of_series = alert_rules.split(text)
            yield name, of_series | {"vendor": case["accelerator"]}
