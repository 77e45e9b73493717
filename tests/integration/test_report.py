"""The report of a job on a real API server: its states, its restart with the cause, its spec."""

from __future__ import annotations

from pathlib import Path

import pytest

from inception_operator.plugin.cli import main
from trainings import Trainings, wait_for

pytestmark = pytest.mark.timeout(300)


def place(trainings: Trainings) -> tuple[str, ...]:
    """Options of a command for the namespace of the test."""
    return ("--kubeconfig", str(trainings.cluster.kubeconfig), "-n", trainings.namespace)


@pytest.mark.usefixtures("operator")
def test_a_job_that_was_restarted_is_reported(trainings: Trainings, tmp_path: Path) -> None:
    trainings.create("job", nodes=1)
    trainings.wait_state("job", "Running", attempt=1)
    trainings.annotate("job-0-1", fail_after="1ms")
    trainings.wait_state("job", "Running", attempt=2)
    wait_for("the event is written", lambda: "Restarting" in trainings.reasons("job"))
    target = tmp_path / "report.html"
    assert main(["report", "job", *place(trainings), "--output", str(target)]) == 0

    text = target.read_text(encoding="utf-8")
    cause = trainings.status("job")["rootCause"]
    assert f"<h1>{trainings.namespace}/job</h1>" in text
    for words in ("Restarting", cause["reason"], cause["pod"], "kind: Digits"):
        assert words in text, words


def test_a_job_that_is_not_there_is_said(
    trainings: Trainings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "none", *place(trainings)]) == 3
    assert capsys.readouterr().err.startswith("error: there is no InceptionTraining none in")
