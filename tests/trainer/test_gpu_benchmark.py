"""`make bench-gpu` on the CPU: its parts give their figures, in time, and say what they could not
measure.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import time
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import gpu, gpu_report, gpu_steps, gpu_timeline
from benchmarks.gpu_parts import Options
from benchmarks.throughput_contestants import Case
from launchers import all_processes

pytestmark = pytest.mark.timeout(600)
Json = dict[str, Any]
SPANS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)).map(lambda s: (s[0], sum(s))))


def options(folder: Path, seconds: float = 400.0) -> Options:
    return Options("cpu", True, folder, seconds, ("bninception",), ("FP32",), ("Eager",))


@given(spans=SPANS)
def test_joined_spans_cover_the_same_moments_once(spans) -> None:
    joined = gpu_timeline.joined(spans)
    covered = {at for start, stop in spans for at in range(2 * start, 2 * stop + 1)}
    assert {at for a, b in joined for at in range(2 * int(a), 2 * int(b) + 1)} == covered
    assert all(one[1] < other[0] for one, other in itertools.pairwise(joined))


def event(category: str, name: str, start: float, duration: float) -> Json:
    return {"ph": "X", "cat": category, "name": name, "ts": start, "dur": duration}


def test_the_share_of_an_idle_device_is_read_from_the_trace() -> None:
    events = [
        event("user_annotation", "ProfilerStep#5", 1000, 500),
        event("user_annotation", "ProfilerStep#6", 1500, 500),
        event("gpu_user_annotation", "ProfilerStep#5", 1100, 700),
        event("cpu_op", "aten::conv2d", 1000, 100),
        event("cpu_op", "aten::convolution", 1010, 80),
        event("kernel", "conv", 900, 300),  # 200 of them inside
        event("kernel", "conv", 1100, 300),
        event("kernel", "norm", 1900, 300),  # 100 of them inside
        event("gpu_memcpy", "HtoD", 1000, 50),
    ]
    figures = gpu_timeline.timeline(events).figures()
    assert figures["recordedSteps"] == 2
    assert figures["recordedStepMilliseconds"] == 0.5
    assert figures["busyShares"] == {"host": 0.1, "copies": 0.05, "device": 0.5}
    assert figures["longestOperationsMilliseconds"] == {"conv": 0.6, "norm": 0.3}


def test_a_trace_without_steps_is_no_time_line() -> None:
    with pytest.raises(ValueError, match="no step was recorded"):
        gpu_timeline.timeline([event("cpu_op", "aten::add", 0, 1)])


def test_the_cases_that_people_ask_for_come_first() -> None:
    cases = list(gpu_steps.Plan("cuda").cases())
    assert len(cases) == 5 * 4 * 2
    assert {case.network for case in cases[:5]} == set(gpu_steps.NETWORKS)
    assert {(case.precision, case.execution) for case in cases[:5]} == {("BF16", "Eager")}
    assert {case.execution for case in cases[20:]} == {"Compiled"}


class Scripted:
    """A contestant that has memory for ``fits`` images."""

    def __init__(self, fits: int) -> None:
        self.fits = fits
        self.batches: list[int] = []
        self._answers: deque[Json] = deque()

    def tell(self, **command: Any) -> None:
        if command["do"] == "prepare":
            batch = command["case"]["batch"]
            self.batches.append(batch)
            full = {"error": "OutOfMemoryError", "outOfMemory": True}
            self._answers.append({"firstStepSeconds": 1.0} if batch <= self.fits else full)
        else:
            self._answers.append({"peakMemoryBytes": None})

    def answer(self, _deadline: float) -> Json:
        return self._answers.popleft()


def test_a_batch_that_one_has_no_memory_for_is_halved_for_all() -> None:
    large, small = Scripted(1000), Scripted(70)
    case = Case("resnet50", 224, 256, "BF16", "cuda")
    running: Any = {"trainer": large, "plain": small}
    found, case = gpu_steps._prepare(case, running, 0.0)
    assert case.batch == 64
    assert large.batches == small.batches == [256, 128, 64]
    assert not any("error" in one for one in found.values())


@pytest.mark.nightly
def test_steps_of_all_loops_in_processes_of_their_own(tmp_path) -> None:
    found = gpu.run_part("steps", options(tmp_path))
    assert "error" not in found, found
    rows = {row["contestant"]: row for row in found["rows"]}
    assert list(rows) == ["trainer", "timm", "plain"]
    for name, row in rows.items():
        assert (row["network"], row["precision"], row["batch"]) == ("bninception", "FP32", 4)
        assert row["imagesPerSecond"] > 0, row
        assert row["firstStepSeconds"] > 0
        assert ("trainerIsTimesAsFast" in row) == (name != "trainer")


@pytest.mark.nightly
def test_a_loop_that_fails_says_why_and_the_others_go_on(tmp_path) -> None:
    plan = gpu_steps.Plan("cpu", ("bninception",), ("FP32",), ("Eager",), 0.01, 1, True)
    running: Any = {name: gpu_steps.Contestant(name) for name in ("trainer", "no such loop")}
    case = Case("no such network", 32, 2, "FP32")
    try:
        deadline = time.monotonic() + 400
        rows = list(gpu_steps._race(plan, case, running, deadline))
        assert [row["contestant"] for row in rows] == ["trainer", "no such loop"]
        assert all("no such network" in row["error"] for row in rows)
        # The same processes make the next case.
        rows = list(gpu_steps._race(plan, next(iter(plan.cases())), running, deadline))
        assert all(row["imagesPerSecond"] > 0 for row in rows)
    finally:
        gpu_steps._close(running)


def test_without_timm_its_loop_is_left_out_and_that_is_said(monkeypatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "timm" else find(name)
    )
    assert gpu_steps.contestants() == ["trainer", "plain"]
    rows = list(gpu_steps.measure(gpu_steps.Plan("cpu", ("resnet50",)), deadline=0.0))
    assert "timm is not installed" in rows[0]["note"]
    assert {row["error"] for row in rows[1:]} >= {"no time was left"}


def test_a_part_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path) -> None:
    before = set(all_processes())
    found = gpu.run_part("recovery", options(tmp_path, seconds=6.0))
    assert found["error"] == "took longer than the 6 s that it had"
    assert found["rows"] == []
    end = time.monotonic() + 30
    mark = str(tmp_path).encode()
    while left := [pid for pid in set(all_processes()) - before if mark in _command_line(pid)]:
        assert time.monotonic() < end, left
        time.sleep(0.05)


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.nightly
def test_checkpoints_and_the_files_that_are_left(tmp_path) -> None:
    results = gpu.run(["checkpoints"], options(tmp_path), 400.0)
    (row,) = results["parts"]["checkpoints"]["rows"]
    assert row["bytes"] > 50 * 2**20
    assert row["saveSeconds"] > row["stallSeconds"] > 0
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert "| bninception | 8" in (tmp_path / "results.md").read_text()


def test_parts_without_time_are_named_in_the_table(tmp_path) -> None:
    results = gpu.run(["pipeline", "steps"], options(tmp_path), 0.5)
    text = (tmp_path / "results.md").read_text()
    assert [part["error"] for part in results["parts"].values()] == ["no time was left"] * 2
    assert "**pipeline: no time was left**" in text
    assert "**steps: no time was left**" in text


def test_a_case_that_failed_stands_in_the_table_with_its_error() -> None:
    row = {"network": "resnet50", "precision": "TF32", "execution": "Eager", "batch": 4}
    own = row | {"contestant": "trainer", "imageSize": 32, "error": "precision: 'TF32' | unknown"}
    other = row | {"contestant": "plain", "imagesPerSecond": 12.34}
    lines = "\n".join(gpu_report._steps([own, other]))
    assert "| resnet50 | TF32 | Eager | 32 px, 4 | precision: 'TF32' / unknown | " in lines
    assert " | 12.3 | " in lines


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_the_whole_on_the_cpu(tmp_path) -> None:
    # What it does, not how fast a machine is on which other tests run beside it.
    status = gpu.main(["--device", "cpu", "--output", str(tmp_path), "--budget", "1700"])
    results = json.loads((tmp_path / "results.json").read_text())
    assert status == 0, results
    steps = [row for row in results["parts"]["steps"]["rows"] if "imagesPerSecond" in row]
    assert {row["network"] for row in steps} == set(gpu_steps.NETWORKS)
    pipeline = results["parts"]["pipeline"]["rows"]
    assert [row["recordedSteps"] for row in pipeline if "source" in row] == [10, 10]
    (recovery,) = results["parts"]["recovery"]["rows"]
    assert all(trial["first new step"] > 0 for trial in recovery["trials"])
    assert len(results["parts"]["checkpoints"]["rows"]) == 5
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".md", ".png", ".gz"}
