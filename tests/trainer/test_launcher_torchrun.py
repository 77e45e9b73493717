"""What is left of a torchrun command line, what is said about its options, and the copy of the
launcher.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from inception_trainer.launcher import install, settings, torchrun

PYTHON = sys.executable


@pytest.mark.parametrize(
    ("command", "program"),
    [
        pytest.param([], (), id="bundled trainer"),
        pytest.param(
            ["python", "train.py", "--nnodes", "2"],
            ("python", "train.py", "--nnodes", "2"),
            id="python",
        ),
        pytest.param(["python", "-m"], ("python", "-m"), id="half a command"),
        pytest.param(["python", "-m", "pkg"], ("python", "-m", "pkg"), id="module"),
        pytest.param(["bash", "torchrun"], ("bash", "torchrun"), id="torchrun as an argument"),
        pytest.param(
            ["torchrun", "t.py", "-m", "--x=1"],
            (PYTHON, "t.py", "-m", "--x=1"),
            id="arguments stay",
        ),
        pytest.param(["torchrun", "train"], (PYTHON, "train"), id="script without suffix"),
        pytest.param(
            ["torchrun", "-m", "pkg.train", "a"],
            (PYTHON, "-m", "pkg.train", "a"),
            id="torchrun module",
        ),
        pytest.param(["torchrun", "--no-python", "./a.out", "-x"], ("./a.out", "-x"), id="binary"),
        pytest.param(
            ["/opt/bin/torchrun", "--standalone", "--run_path", "/t.py"],
            (PYTHON, "/t.py"),
            id="run path",
        ),
        pytest.param(
            ["python3.12", "-u", "-m", "torch.distributed.run", "t.py"],
            (PYTHON, "t.py"),
            id="module form",
        ),
    ],
)
def test_program(command: list[str], program: tuple[str, ...]) -> None:
    assert torchrun.unwrap(command) == torchrun.Command(program)


def test_options_of_torchrun_are_dropped_with_a_note() -> None:
    options = [
        "--nnodes=2",
        "--nproc_per_node",
        "8",
        "--rdzv-backend=c10d",
        "--rdzv_conf",
        "a=1",
        "-t",
        "3",
    ]
    found = torchrun.unwrap(["torchrun", *options, "--max_restarts=3", "train.py"])
    assert found.program == (PYTHON, "train.py")
    assert found.notes == (
        "torchrun's option --nnodes=2 is ignored: spec.numNodes says how many nodes there are",
        "torchrun's option --nproc-per-node=8 is ignored: "
        "spec.numProcPerNode says how many ranks a node has",
        "torchrun's option --rdzv-backend=c10d is ignored: "
        "the operator and the launcher see to that",
        "torchrun's option --rdzv-conf=a=1 is ignored: the operator and the launcher see to that",
        "torchrun's option --max-restarts=3 is ignored: "
        "spec.failurePolicy.maxRestarts says how often the job restarts",
        "torchrun's option --tee=3 is ignored: the operator and the launcher see to that",
    )


@pytest.mark.parametrize(
    ("command", "words"),
    [
        pytest.param(["torchrun"], "required: program", id="nothing"),
        pytest.param(["torchrun", "--nnodes=2"], "required: program", id="options only"),
        pytest.param(["torchrun", "--gpus", "2", "t.py"], "--gpus", id="unknown"),
        pytest.param(
            ["torchrun", "--virtual-local-rank", "t.py"], "--virtual-local-rank", id="not supported"
        ),
        pytest.param(
            ["python", "-m", "torch.distributed.launch", "t.py"],
            "LOCAL_RANK",
            id="local rank as argument",
        ),
    ],
)
def test_refused(command: list[str], words: str) -> None:
    with pytest.raises(settings.SettingsError, match=words):
        settings.read(["--", *command], {})


def test_settings_carry_program_and_notes() -> None:
    found = settings.read(["--port", "1", "--", "torchrun", "--role=x", "t.py"], {})
    assert (found.program, len(found.notes)) == ((PYTHON, "t.py"), 1)


def test_installed_copy_starts_without_the_trainer(tmp_path: Path) -> None:
    """Twice, because an init container may run twice, into a folder that exists, as a volume."""
    for _ in range(2):
        assert install.main([str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"__main__.py", "inception_launcher"}
    command = [sys.executable, "-I", str(tmp_path), "--help"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "--termination-log" in answer.stdout


def test_install_wants_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert install.main([]) == 64
    assert "DIR" in capsys.readouterr().err
