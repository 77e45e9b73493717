"""The report of a job on a real API server: its states, its restart with the cause, its spec."""

from __future__ import annotations

from pathlib import Path

import pytest

from inception_operator.report.__main__ import main
from trainings import Trainings

pytestmark = pytest.mark.timeout(120)


@pytest.mark.usefixtures("operator")
def test_a_job_that_was_restarted_is_reported(trainings: Trainings, tmp_path: Path) -> None:
    trainings.create("job", nodes=1)
    trainings.wait_state("job", "Running", attempt=1)
    trainings.annotate("job-0-1", fail_after="1ms")
    trainings.wait_state("job", "Running", attempt=2)
    target = tmp_path / "report.html"
    kubeconfig = str(trainings.cluster.kubeconfig)
    job = f"{trainings.namespace}/job"
    assert main([job, "--kubeconfig", kubeconfig, "--output", str(target)]) == 0

    text = target.read_text(encoding="utf-8")
    cause = trainings.status("job")["rootCause"]
    assert f"<h1>{job}</h1>" in text
    for words in ("AttemptEnded", cause["reason"], cause["pod"], "kind: Digits", "recovery"):
        assert words in text, words


def test_a_job_that_is_not_there_is_said(
    trainings: Trainings, capsys: pytest.CaptureFixture[str]
) -> None:
    kubeconfig = str(trainings.cluster.kubeconfig)
    assert main([f"{trainings.namespace}/none", "--kubeconfig", kubeconfig]) == 1
    assert capsys.readouterr().err == f"error: {trainings.namespace}/none: 404 Not Found\n"
