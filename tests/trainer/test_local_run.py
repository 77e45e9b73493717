"""``inceptionctl local run``: jobs on this machine by the real launcher."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import os, pathlib, sys, time
folder = pathlib.Path(os.environ["INCEPTION_CHECKPOINT_PATH"])
folder.mkdir(parents=True, exist_ok=True)
rank, world = os.environ["RANK"], os.environ["WORLD_SIZE"]
print(f"rank {rank} of {world}", flush=True)
"""
pytestmark = [pytest.mark.nightly, pytest.mark.timeout(300)]


def write_job(folder: Path, program: str, nodes: int = 2, **spec: Any) -> Path:
    """The file of a job whose ranks run a program of one's own."""
    script = folder / "program.py"
    script.write_text(PROGRAM + textwrap.dedent(program), encoding="utf-8")
    container = {"name": "trainer", "command": ["python3", str(script)]}
    job = {
        "apiVersion": "training.inception.dev/v1alpha1",
        "kind": "InceptionTraining",
        "metadata": {"name": "job"},
        "spec": {
            "numNodes": nodes,
            "checkpoint": {"volumeClaimName": "claim"},
            "template": {"spec": {"containers": [container]}},
            **spec,
        },
    }
    path = folder / "job.yaml"
    path.write_text(json.dumps(job), encoding="utf-8")
    return path


def start(path: Path, output: Path | None = None, *options: str) -> subprocess.Popen[str]:
    """Begin a local run of the job."""
    # Under nohup it would go on when its terminal is closed.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        return _started(path, output, *options)
    finally:
        signal.signal(signal.SIGHUP, before)


def _started(path: Path, output: Path | None, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "inception_operator.plugin.entry", "local", "run", str(path)]
    paths = os.pathsep.join((str(ROOT / "operator"), str(ROOT / "trainer")))
    return subprocess.Popen(
        [*command, f"--output={output or path.parent / 'out'}", *options],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(run: subprocess.Popen[str]) -> str:
    """All that it has said."""
    try:
        output, _ = run.communicate(timeout=250)
    except subprocess.TimeoutExpired:
        # Twice: the second time it kills, so that nothing is left of it.
        for _ in range(2):
            run.send_signal(signal.SIGINT)
            time.sleep(0.5)
        output, _ = run.communicate(timeout=30)
    return output


def test_ranks_that_fail_are_started_again_in_the_same_launchers(tmp_path: Path) -> None:
    program = """
    mark = folder / f"began-{rank}"
    if not mark.exists():
        mark.touch()
        while rank == "0" or not (folder / "began-0").exists():
            time.sleep(0.1)
        sys.exit("rank 1 breaks once")
    """
    run = start(write_job(tmp_path, program, numProcPerNode=1))
    output = finish(run)
    assert run.returncode == 0, output
    assert "[job-0-1] rank 0 of 2" in output
    assert "job: Succeeded" in output
    assert "attempt     2 (1 restarts after failures" in output
    assert "rank 1, pod job-1-1" in output


def test_a_failure_that_no_restart_mends_ends_the_run_with_its_code(tmp_path: Path) -> None:
    run = start(write_job(tmp_path, "sys.exit(66)", nodes=1))
    output = finish(run)
    assert run.returncode == 66, output
    assert "job: Failed" in output
    assert "attempt     1 (0 restarts" in output


def test_a_program_that_always_fails_ends_when_the_restarts_are_used_up(tmp_path: Path) -> None:
    job = write_job(tmp_path, "sys.exit(9)", nodes=1, failurePolicy={"maxRestarts": 1})
    run = start(job)
    output = finish(run)
    assert run.returncode == 9, output
    assert "MaxRestartsExceeded" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_stops_the_ranks_and_is_no_failure(number: int, tmp_path: Path) -> None:
    program = """
    (folder / "running").touch()
    time.sleep(600)
    """
    run = start(write_job(tmp_path, program, nodes=1))
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("out/**/running")):
        assert time.monotonic() < deadline, finish(run)
        assert run.poll() is None, finish(run)
        time.sleep(0.1)
    run.send_signal(number)
    output = finish(run)
    assert run.returncode == 75, output
    assert "the same command goes on from there" in output


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_reader_that_has_seen_enough_stops_the_run(nodes: int, tmp_path: Path) -> None:
    program = """
    while True:
        print("on", flush=True)
        time.sleep(0.1)
    """
    run = start(write_job(tmp_path, program, nodes=nodes))
    assert run.stdout is not None
    assert run.stdout.readline()
    run.stdout.close()
    try:
        assert run.wait(timeout=200) == 75
    finally:
        for _ in range(2):
            if run.poll() is None:
                run.send_signal(signal.SIGINT)
                time.sleep(0.5)


def test_the_bundled_trainer_trains_a_sample(tmp_path: Path) -> None:
    sample = ROOT / "manifests" / "samples" / "bninception-digits.yaml"
    run = start(sample, tmp_path / "out", "--set=epochs=1", "--set=evaluation.maxSamples=64")
    output = finish(run)
    assert run.returncode == 0, output
    assert "progress    [########################] 100 %" in output
    assert list(tmp_path.glob("out/**/final.safetensors")), output


def test_a_preflight_tries_this_machine(tmp_path: Path) -> None:
    job = {
        "apiVersion": "training.inception.dev/v1alpha1",
        "kind": "InceptionTraining",
        "metadata": {"name": "job"},
        "spec": {
            "numNodes": 2,
            "checkpoint": {"volumeClaimName": "claim"},
            "training": {
                "mode": "Preflight",
                "recipe": "bninception-digits",
                "preflight": {"samples": 8, "exchangeMebibytes": 1, "writeMebibytes": 1},
            },
        },
    }
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(job), encoding="utf-8")
    run = start(path)
    output = finish(run)
    assert run.returncode == 0, output
    assert output.count('"check": "link", "ok": true') == 2
    assert "all 2 ranks are fit for the job" in output
    assert not [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
