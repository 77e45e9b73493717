"""A real Prometheus beside a node cluster, scraping what the chart's PodMonitors would select."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from localcluster.cluster import Cluster
from localcluster.components import build

ADDRESS = "127.0.0.1:19090"


def scrape_config(
    kubeconfig: Path, application: str, port: int, *, honor_labels: bool
) -> dict[str, Any]:
    """One scrape job for the running pods of one application, labelled as the chart's PodMonitors
    label them.
    """
    meta = "__meta_kubernetes_"

    def copy(source: str, target: str) -> dict[str, Any]:
        return {"source_labels": [meta + source], "target_label": target}

    return {
        "job_name": application,
        "honor_labels": honor_labels,
        "kubernetes_sd_configs": [{"role": "pod", "kubeconfig_file": str(kubeconfig)}],
        "relabel_configs": [
            {
                "source_labels": [f"{meta}pod_label_app_kubernetes_io_name"],
                "regex": application,
                "action": "keep",
            },
            {
                "source_labels": [f"{meta}pod_container_port_number"],
                "regex": str(port),
                "action": "keep",
            },
            copy("namespace", "namespace"),
            copy("pod_name", "pod"),
            copy("pod_label_training_inception_dev_job", "training"),
            copy("pod_label_training_inception_dev_slot", "slot"),
        ],
    }


def lint(exposition: str) -> str:
    """What promtool complains about in an exposition; empty when it is clean."""
    argv = [str(build(["promtool"])["promtool"]), "check", "metrics"]
    done = subprocess.run(argv, input=exposition, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


class Prometheus:
    """Runs inside the cluster's network namespace, where pods have addresses; ends with the
    block.
    """

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.tools = build(["prometheus", "promtool"])

    def __enter__(self) -> Prometheus:
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [
                scrape_config(
                    self.cluster.kubeconfig, "inception-training", 8081, honor_labels=False
                ),
                scrape_config(
                    self.cluster.kubeconfig, "inception-operator", 8080, honor_labels=True
                ),
            ],
        }
        (self.folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        argv = self.cluster.enter_argv(
            [
                str(self.tools["prometheus"]),
                f"--config.file={self.folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={self.folder / 'data'}",
                f"--web.listen-address={ADDRESS}",
            ]
        )
        self.log = (self.folder / "prometheus.log").open("w")
        self.process = subprocess.Popen(argv, stdout=self.log, stderr=subprocess.STDOUT)
        self._wait_until_ready()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # nsenter forks to enter the process namespace and passes no signal on.
        subprocess.run(["pkill", "-TERM", "-f", f"storage.tsdb.path={self.folder}"], check=False)
        try:
            self.process.wait(timeout=30)
        finally:
            self.process.kill()
            self.log.close()

    def query(self, expression: str) -> list[Any]:
        """The result vector of an instant query; raises CalledProcessError for invalid PromQL."""
        tool = str(self.tools["promtool"])
        argv = self.cluster.enter_argv(
            [tool, "query", "instant", "-o", "json", f"http://{ADDRESS}", expression]
        )
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        return list(json.loads(done.stdout))

    def lint(self, exposition: str) -> str:
        """What promtool complains about in an exposition; empty when it is clean."""
        return lint(exposition)

    def _wait_until_ready(self, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                self.query("vector(1)")
            except subprocess.CalledProcessError:
                time.sleep(0.5)
            else:
                return
        raise AssertionError(
            f"prometheus is not ready\n{(self.folder / 'prometheus.log').read_text()[-3000:]}"
        )
