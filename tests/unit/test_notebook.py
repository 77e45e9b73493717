"""The example notebook, against an API server that tells of a short training."""

from __future__ import annotations

import threading
from pathlib import Path

import nbformat
import pytest

from job_api import JobApi
from notebooks import TRAIN, run
from trainings import wait_for

# A kernel with pandas takes its time where the machine is busy.
pytestmark = pytest.mark.timeout(900)


def play(api: JobApi) -> None:
    """Let the job of the notebook train and end."""
    (name,) = wait_for("the job", lambda: list(api.jobs), seconds=600)
    figures = {"step": 5, "loss": "0.5000", "lastUpdatedTime": "2026-01-01T00:01:00Z"}
    api.put(name, state="Running", attempt=1, trainerStatus=figures)
    api.watched.wait(600)
    done = {"type": "Succeeded", "status": "True", "reason": "Completed", "message": ""}
    last = {**figures, "step": 9, "accuracyTop1": "0.9100"}
    api.put(
        name,
        state="Succeeded",
        conditions=[done],
        startTime="2026-01-01T00:00:00Z",
        completionTime="2026-01-01T00:02:00Z",
        trainerStatus={**last, "lastUpdatedTime": "2026-01-01T00:02:00Z"},
    )


def test_the_notebook_runs_from_its_first_cell_to_its_last(tmp_path: Path) -> None:
    with JobApi() as api:
        playing = threading.Thread(target=play, args=(api,), daemon=True)
        playing.start()
        imports, described, watched, result, history, deleted = run(
            TRAIN, tmp_path, api.kubeconfig(tmp_path)
        )
        playing.join(60)
        assert api.jobs == {}
    assert imports == deleted == ""
    assert "recipe: bninception-digits" in described
    assert "learningRate: '0.05'" in described
    assert watched.splitlines()[-1].startswith("Succeeded")
    assert result == "91.0% after 0:02:00\n"
    assert "validation_top1" in history
    assert "0.91" in history


def test_the_notebook_is_kept_without_what_a_run_has_shown() -> None:
    notebook = nbformat.read(str(TRAIN), as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
