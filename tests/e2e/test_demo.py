"""The demo job, followed as `make demo` follows it, while a real Prometheus scrapes it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dashboard
from demo import run
from demo.clusters import Ready
from demo.follow import follow
from localcluster.cluster import Cluster
from node_jobs import condition
from prometheus import Prometheus

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def demo_run(
    node_cluster: Cluster, installed: Ready, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Demo]:
    """The demo's job from apply to the copied files, with every dashboard query tried while it
    ran.
    """
    folder = tmp_path_factory.mktemp("demo")
    (folder / "prometheus").mkdir()
    (folder / "files").mkdir()
    with Prometheus(node_cluster, folder / "prometheus") as prometheus:
        watch = QueryWatch(prometheus)
        watch.thread.start()
        try:
            run.apply_job(installed, print)
            job = follow(
                installed.kube, run.JOB_NAMESPACE, run.JOB, folder / "files" / "metrics.prom", 900
            )
            time.sleep(3)
        finally:
            watch.stop()
        run.collect_files(installed, folder / "files", print)
        yield Demo(job, folder / "files", prometheus, watch)
    node_cluster.kubectl("delete", "namespace", run.JOB_NAMESPACE, "--wait=false")


class Demo:
    """What one run of the demo left."""

    def __init__(
        self, job: dict[str, Any], files: Path, prometheus: Prometheus, watch: QueryWatch
    ) -> None:
        self.job, self.files, self.prometheus, self.watch = job, files, prometheus, watch


class QueryWatch:
    """Tries every query of the dashboards until each has returned data once."""

    def __init__(self, prometheus: Prometheus) -> None:
        self.prometheus = prometheus
        wanted = dashboard.of_a_healthy_run()
        self.unanswered = {query.expression: query.panel for query in wanted}
        self.asked = len(self.unanswered)
        self.errors: list[Exception] = []
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.watch, name="dashboard-queries")

    def watch(self) -> None:
        try:
            while not self.ending.wait(1):
                self.ask()
            # What is there only once the job has ended.
            self.ask()
        except Exception as error:
            self.errors.append(error)

    def ask(self) -> None:
        for expression in list(self.unanswered):
            if self.prometheus.query(expression):
                del self.unanswered[expression]

    def stop(self) -> None:
        self.ending.set()
        self.thread.join()


def test_demo_job_succeeds(demo_run: Demo) -> None:
    status = demo_run.job["status"]
    assert condition(status, "Succeeded") == "True"
    assert (status["attempt"], status["restarts"]) == (1, 0)
    assert status["trainerStatus"]["progressPercentage"] == 100
    assert float(status["trainerStatus"]["accuracyTop1"]) >= 0.97


def test_demo_leaves_its_artefacts(demo_run: Demo) -> None:
    summary = json.loads((demo_run.files / "output" / "summary.json").read_text())
    assert summary["accuracyTop1"] >= 0.97
    assert summary["worldSize"] == 2
    assert summary["imagesPerSecond"] > 0
    assert (demo_run.files / "output" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((demo_run.files / "output" / "tensorboard").rglob("events.out.tfevents.*"))
    latest = json.loads((demo_run.files / "latest.json").read_text())
    assert list(demo_run.files.rglob(Path(latest["file"]).name))


def test_report_names_every_artefact(
    demo_run: Demo, installed: Ready, capsys: pytest.CaptureFixture[str]
) -> None:
    page = run.make_page(installed, demo_run.files, print)
    assert "Where the time went" in page.read_text(encoding="utf-8")
    run.report(installed, demo_run.job, demo_run.files, 1.0)
    text = capsys.readouterr().out
    for word in (
        "PROGRESS",
        "Succeeded",
        "goodput",
        "report.html",
        "curves.png",
        "tensorboard",
        "metrics.prom",
        ".pt",
        "make demo-down",
    ):
        assert word in text
    assert "nan" not in text


def test_every_dashboard_query_returns_data(demo_run: Demo) -> None:
    assert demo_run.watch.errors == []
    assert demo_run.watch.asked > 60
    assert demo_run.watch.unanswered == {}


def test_trainer_metrics_pass_promtool(demo_run: Demo) -> None:
    exposition = (demo_run.files / "metrics.prom").read_text()
    assert "trainer_progress_ratio" in exposition
    assert demo_run.prometheus.lint(exposition) == ""
