"""How `make demo` ends: the job as the commands show it, and its page, on a real API server."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from demo import run
from demo.clusters import Ready
from demo.kube import DemoError, Kube
from localcluster import components
from localcluster.progress import to_stderr
from operator_process import ROOT
from trainings import Trainings

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def ready(trainings: Trainings, monkeypatch: pytest.MonkeyPatch) -> Ready:
    """The test's own namespace in the place of the demo's."""
    monkeypatch.setattr(run, "JOB_NAMESPACE", trainings.namespace)
    kubectl = components.build(["kubectl"], to_stderr)["kubectl"]
    kube = Kube(trainings.cluster.kubeconfig, str(kubectl))
    return Ready(kube, "operator:1", "trainer:1", "fake nodes", "Go on.")


@pytest.mark.usefixtures("operator")
def test_the_demo_ends_with_the_page_of_its_job(
    trainings: Trainings, ready: Ready, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainings.create(run.JOB, annotations={"kwok.localcluster/succeed-after": "1ms"})
    trainings.wait_state(run.JOB, "Succeeded")
    files = tmp_path / "demo"
    shutil.copytree(ROOT / "tests" / "support" / "recorded_run", files)

    page = run.make_page(ready, files, print)
    text = page.read_text(encoding="utf-8")
    # From the cluster, and from the files of the run.
    for words in (f"{trainings.namespace}/{run.JOB}", "Succeeded", "kind: Synthetic", "Loss"):
        assert words in text, words

    run.report(ready, trainings.get(run.JOB), files, 1.0)
    printed = capsys.readouterr().out
    for words in ("PROGRESS", "Succeeded", "goodput", "images/s", "report.html"):
        assert words in printed, words
    assert "nan" not in printed


def test_a_page_that_cannot_be_made_is_said(ready: Ready, tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="404 Not Found"):
        run.make_page(ready, tmp_path, print)
