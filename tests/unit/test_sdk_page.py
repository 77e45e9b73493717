"""docs/sdk.md: its examples run, one after the other, as a reader would type them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from inception_operator.sdk import Job
from job_api import JobApi

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "sdk.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
LINE = (
    "2026-01-01T00:00:01Z 00:00:01 [flowers attempt 1 rank 0] epoch 1/2 step 10/20 50 % "
    "loss 1.5000 top-1 25.0 % lr 0.01000 800 img/s 10 ms/step data 1 % left 0:00:09"
)
DONE: dict[str, Any] = {
    "state": "Succeeded",
    "conditions": [{"type": "Succeeded", "status": "True", "reason": "Completed", "message": ""}],
    "trainerStatus": {"step": 20, "accuracyTop1": "0.9100"},
}


class Quick(JobApi):
    """Jobs succeed as soon as they are made."""

    async def _create(self, request: Any) -> Any:
        answer = await super()._create(request)
        self._put((await request.json())["metadata"]["name"], DONE)
        return answer


def test_the_examples_of_the_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with Quick() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path)))
        api.put("flowers", **DONE)
        api.add_pods("flowers", ["Succeeded"])
        api.logs["flowers-0-1"] = [LINE]
        names: dict[str, Any] = {}
        shown = []
        for example in EXAMPLES:
            exec(compile(example, "docs/sdk.md", "exec"), names)  # noqa: S102 - our own page
            shown.append(capsys.readouterr().out)
        for found in names.values():
            if isinstance(found, Job):
                found.close()
    first, training, result, figures, sweep = shown
    assert "Succeeded" in first
    assert "accuracy_top1=0.91" in first
    assert "learningRate: '0.05'" in training
    assert result.startswith("0.91 ")
    assert "10 1.5 None" in figures
    assert len(names["frame"]) == 1
    assert sweep == "[0.91, 0.91, 0.91]\n"
