"""Recorded steps: what the trace holds, that nothing else changes, and what becomes of it when a
run ends early.
"""

import gzip
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import stub_plugin
import trainer_ranks
from inception_trainer.comm import Comm
from inception_trainer.config.continuation import fingerprint
from inception_trainer.config.training import ProfilerConfig, from_mapping, merge
from inception_trainer.device import Accelerator
from inception_trainer.errors import ConfigError
from inception_trainer.heartbeat import Heartbeat
from inception_trainer.train.profiler import Trace
from nightly import but_nightly
from stub_plugin import Stub
from trainer_ranks import TINY

pytestmark = pytest.mark.timeout(900)  # one of the tests compiles the stub of a device


def config(path: Path, **changes: Any) -> dict[str, Any]:
    """Twelve steps."""
    return merge(TINY, {"checkpoint": {"path": str(path), "everySeconds": 0}, **changes})


def trace(output: Path) -> tuple[list[str], set[str]]:
    """The recorded steps in the order of time, and the names of everything else."""
    with gzip.open(output / "trace.json.gz", "rt", encoding="utf-8") as file:
        events = [event for event in json.load(file)["traceEvents"] if event.get("ph") == "X"]
    steps = [event for event in events if event["name"].startswith("ProfilerStep#")]
    steps.sort(key=lambda event: event["ts"])
    return [step["name"] for step in steps], {event["name"] for event in events} - {
        step["name"] for step in steps
    }


def drafts(output: Path) -> list[Path]:
    return [path for path in output.rglob("*") if path.name.endswith(".tmp")]


@pytest.mark.parametrize("world", but_nightly((1, 2), (2,)))
def test_trace_holds_the_steps_and_training_is_the_same(tmp_path, world) -> None:
    plain, recorded = tmp_path / "plain", tmp_path / "recorded"
    without = trainer_ranks.start(plain, config(plain), world)
    assert without.wait() == [0] * world, without.output()
    job = config(recorded, profiler={"steps": 2, "afterSteps": 3})
    gang = trainer_ranks.start(recorded, job, world)
    assert gang.wait() == [0] * world, gang.output()
    steps, names = trace(recorded / "output")
    assert steps == ["ProfilerStep#4", "ProfilerStep#5"]
    assert {"aten::convolution", "aten::native_batch_norm_backward"} <= names
    assert "aten::convolution_backward" in (recorded / "output" / "trace.txt").read_text()
    assert f"2 recorded steps: {recorded}/output/trace.json.gz" in gang.output()
    assert not drafts(recorded)
    assert not list((plain / "output").glob("trace*"))
    one, other = (
        torch.load(run / "checkpoints" / "final.pt", weights_only=True) for run in (plain, recorded)
    )
    assert all(torch.equal(value, other["model"][name]) for name, value in one["model"].items())
    assert one["progress"]["history"]["evaluations"] == other["progress"]["history"]["evaluations"]


def test_table_lists_what_took_longest_first(tmp_path) -> None:
    job = config(tmp_path, profiler={"steps": 1, "afterSteps": 1})
    gang = trainer_ranks.start(tmp_path, job)
    assert gang.wait() == [0], gang.output()
    lines = (tmp_path / "output" / "trace.txt").read_text().splitlines()
    heads = re.split(r" {2,}", lines[1].strip())
    rows = [
        re.split(r" {2,}", line.strip())
        for line in lines[3:]
        if line.strip() and not line.startswith("-")
    ]
    shares = [
        float(row[heads.index("Self CPU %")].rstrip("%")) for row in rows if len(row) == len(heads)
    ]
    assert len(shares) == 30
    assert shares == sorted(shares, reverse=True)


def test_speed_of_a_training_leaves_recorded_steps_out(tmp_path) -> None:
    """All that is counted here is recorded: nothing is left to tell a speed from."""
    job = config(tmp_path, profiler={"steps": 10, "afterSteps": 2}, logEverySteps=12)
    gang = trainer_ranks.start(tmp_path, job)
    assert gang.wait() == [0], gang.output()
    assert json.loads((tmp_path / "output" / "summary.json").read_text())["imagesPerSecond"] == 0


@pytest.mark.parametrize("after", [1, 100_000], ids=["recording", "before"])
def test_graceful_stop_writes_what_there_is(tmp_path, after) -> None:
    job = config(tmp_path, profiler={"steps": 1000, "afterSteps": after}, epochs=100_000)
    gang = trainer_ranks.start(tmp_path, job, 2)
    gang.until(lambda: gang.progress()["step"] >= 4)
    (tmp_path / "stop").touch()
    assert gang.wait() == [75, 75], gang.output()
    if after == 1:
        steps, _ = trace(tmp_path / "output")
        assert len(steps) >= 3
        assert steps == [f"ProfilerStep#{2 + number}" for number in range(len(steps))]
    else:
        assert not (tmp_path / "output" / "trace.json.gz").exists()
        assert re.search(
            r"no step was recorded: the end came after \d+, recording begins after 100000",
            gang.output(),
        )


def test_a_resumed_job_records_again(tmp_path) -> None:
    profiler = {"steps": 1, "afterSteps": 2}
    for attempt, steps in ((1, 6), (2, 12)):
        job = config(tmp_path, profiler=profiler, maxSteps=steps, epochs=2)
        gang = trainer_ranks.start(tmp_path, job, attempt=attempt)
        assert gang.wait() == [0], gang.output()
        assert trace(tmp_path / "output")[0] == [f"ProfilerStep#{steps - 3}"]


def test_benchmark_measures_no_recorded_step(tmp_path) -> None:
    job = config(
        tmp_path, mode="Benchmark", benchmark={"warmupSteps": 1, "steps": 5}, profiler={"steps": 2}
    )
    gang = trainer_ranks.start(tmp_path, job, 2)
    assert gang.wait() == [0, 0], gang.output()
    output = tmp_path / "output" / "benchmark"
    steps, names = trace(output)
    assert steps == ["ProfilerStep#7", "ProfilerStep#8"]
    assert "aten::convolution" in names
    assert (output / "trace.txt").exists()
    summary = json.loads((output / "summary.json").read_text())
    assert (summary["measuredSteps"], summary["steps"], len(summary["imagesPerSecondWindows"])) == (
        5,
        8,
        5,
    )
    assert gang.progress()["metrics"]["progress"] == 1


def test_device_without_a_profiler_of_its_own_trains_on(tmp_path) -> None:
    plugins, log = tmp_path / "plugins", tmp_path / "log"
    log.mkdir()
    stub_plugin.write(plugins, "torch_musa", Stub("musa", "mccl"))
    environment = {
        "PYTHONPATH": f"{plugins}:{Path(stub_plugin.__file__).parent}",
        "STUB_LIBRARY": str(stub_plugin.library()),
        "STUB_LOG": str(log),
    }
    row = {"profile": "mthreads", "module": "torch_musa", "device": "musa", "backend": "mccl"}
    job = config(
        tmp_path,
        profiler={"steps": 1, "afterSteps": 1},
        accelerator=row,
        data={"samples": 24},
        epochs=1,
    )
    gang = trainer_ranks.start(tmp_path, job, environment=environment)
    assert gang.wait() == [0], gang.output()
    assert "torch's profiler saw no work of device musa: only the CPU is recorded" in gang.output()
    assert trace(tmp_path / "output")[0] == ["ProfilerStep#2"]


def test_a_trace_that_cannot_be_written_fails_no_training(tmp_path) -> None:
    (tmp_path / "output" / "trace.json.gz").mkdir(parents=True)
    job = config(tmp_path, profiler={"steps": 1, "afterSteps": 1})
    gang = trainer_ranks.start(tmp_path, job)
    assert gang.wait() == [0], gang.output()
    assert "the recorded steps could not be written: IsADirectoryError" in gang.output()
    assert not drafts(tmp_path)


def in_process(output: Path, device: str = "cpu", **keys: int) -> Trace:
    accelerator = Accelerator(device, torch.device(device), "gloo", "FP32", device)
    return Trace(ProfilerConfig(**keys), accelerator, Comm(0, 1, "gloo"), Heartbeat(None), output)


def test_profiler_that_does_not_start_is_followed_by_one_of_the_cpu(
    tmp_path, monkeypatch, caplog
) -> None:
    import torch.profiler as torch_profiler

    activities, original = torch_profiler.ProfilerActivity, torch_profiler.profile
    asked = []

    def profile(**given: Any) -> Any:
        asked.append(given["activities"])
        if activities.XPU in given["activities"]:
            raise RuntimeError("no driver")
        return original(**given)

    monkeypatch.setattr(torch_profiler, "profile", profile)
    monkeypatch.setattr(
        torch_profiler, "supported_activities", lambda: set(activities.__members__.values())
    )
    with in_process(tmp_path, "xpu", steps=1, after_steps=0) as running, running.step(1):
        torch.ones(4).add(1)
    assert asked == [[activities.CPU, activities.XPU], [activities.CPU]]
    assert "CPU and XPU cannot be recorded: RuntimeError: no driver" in caplog.text
    steps, names = trace(tmp_path)
    assert (steps, "aten::add" in names) == (["ProfilerStep#1"], True)


def test_no_profiler_at_all_is_a_warning(tmp_path, monkeypatch, caplog) -> None:
    import torch.profiler as torch_profiler

    def profile(**_given: Any) -> Any:
        raise RuntimeError("not built in")

    monkeypatch.setattr(torch_profiler, "profile", profile)
    with in_process(tmp_path, steps=1, after_steps=0) as running, running.step(1) as recorded:
        assert recorded
    assert "CPU cannot be recorded: RuntimeError: not built in" in caplog.text
    assert not list(tmp_path.iterdir())


def test_after_a_failure_nothing_is_asked_of_the_profiler(tmp_path) -> None:
    running = in_process(tmp_path, steps=2, after_steps=0)

    def lose() -> None:
        with running:
            with running.step(1):
                pass
            raise RuntimeError("device lost")

    with pytest.raises(RuntimeError, match="device lost"):
        lose()
    running._profiler.stop()
    assert not list(tmp_path.iterdir())


def test_nothing_is_made_or_asked_when_nothing_is_recorded(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.profiler", None)  # an import of it would fail
    running = in_process(tmp_path)
    with running:
        contexts = {id(running.step(number)) for number in range(20)}
        with running.step(20) as recorded:
            assert not recorded
    assert len(contexts) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"profiler": {"steps": 0}}, r"profiler\.steps: 0 is out of range; it must be at least 1"),
        (
            {"profiler": {"steps": 1001}},
            r"profiler\.steps: 1001 is out of range; it must be at most 1000",
        ),
        (
            {"profiler": {"afterSteps": -1}},
            r"profiler\.afterSteps: -1 is out of range; it must be at least 0",
        ),
        (
            {"profiler": {"steps": 2}, "mode": "Evaluate"},
            r"profiler\.steps: mode Evaluate has no steps to record",
        ),
        (
            {"profiler": {"steps": 2}, "mode": "Infer"},
            r"profiler\.steps: mode Infer has no steps to record",
        ),
        (
            {"profiler": {"steps": 2}, "checkpoint": {}},
            r"output\.path: missing; the steps that profiler\.steps records",
        ),
    ],
)
def test_mistakes(change, words) -> None:
    with pytest.raises(ConfigError, match=words):
        from_mapping({**TINY, "checkpoint": {"path": "/out"}, **change})


def test_what_is_recorded_decides_no_result() -> None:
    plain = {**TINY, "output": {"path": "/out"}}
    assert fingerprint(from_mapping(plain)) == fingerprint(
        from_mapping({**plain, "profiler": {"steps": 5}})
    )
