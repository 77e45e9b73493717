"""Programs of others under an installed launcher: stock DDP and FSDP, modules, shell scripts, what
they may expect.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from launchers import Gang, environment, wait_for
from programs import installed, script, words

pytestmark = pytest.mark.timeout(180)


@contextmanager
def gang(folder: Path, program: list[str], size: int = 1, **options: Any) -> Iterator[Gang]:
    """Launchers that know nothing but their own copy."""
    entry = [str(installed(folder / "launcher"))]
    with Gang(folder, size, program, entry=entry, **{"PYTHONPATH": "", **options}) as found:
        yield found
    assert wait_for("an empty process table", lambda: not found.processes())


def sample(name: str, folder: Path, *extra: str) -> list[str]:
    return [*words(name, script(name, folder), folder / "checkpoint"), *extra]


def test_stock_ddp_trains_and_goes_on_from_its_snapshot(tmp_path: Path) -> None:
    snapshot = tmp_path / "checkpoint" / "snapshot.pt"
    with gang(tmp_path, sample("custom-ddp", tmp_path, "--epochs", "4000"), 2) as found:
        first, second = found.launchers
        found.assign(1)
        wait_for("a snapshot", snapshot.exists, explain=found.read_logs)
        assert "--nproc_per_node=2" not in first.read_log()
        assert (
            "torchrun's option --nproc-per-node=2 is ignored: spec.numProcPerNode says"
            in first.read_log()
        )
        os.kill(_ranks(found, 1), signal.SIGKILL)
        assert first.wait_state("Failed", 1)["reason"] in ("Signal", "PeerLost")
        second.wait_state("Failed", 1)
    # What the killed rank printed last may be ahead of what it saved, and of what reached the log.
    done = torch.load(snapshot, weights_only=True)["epoch"]
    with gang(tmp_path, sample("custom-ddp", tmp_path, "--epochs", str(done + 3)), 2) as found:
        found.assign(2)
        assert [launcher.wait_exit() for launcher in found.launchers] == [0, 0], found.read_logs()
        log = found.launchers[0].read_log()
        assert re.findall(r"^rank 0 of 2: epoch (\d+),", log, re.MULTILINE) == [
            str(done + n) for n in (1, 2, 3)
        ]


def _ranks(found: Gang, attempt: int) -> int:
    """The process of local rank 0 of the first launcher."""

    def look() -> list[int]:
        paths = found.folder.glob(f"inception-*/attempt-{attempt}-*/pid-0")
        pids = [int(path.read_text() or 0) for path in paths]
        return [pid for pid in pids if pid and b"POD_NAME=job-0-1" in environment(pid)]

    return wait_for("a rank", look)[0]


@pytest.mark.nightly
def test_fsdp_reports_its_progress_and_stops_gracefully(tmp_path: Path) -> None:
    latest = tmp_path / "checkpoint" / "latest"
    with gang(
        tmp_path, sample("custom-fsdp", tmp_path, "--steps", "100000", "--every", "100000"), 2
    ) as found:
        first, second = found.launchers
        found.assign(1)
        report = wait_for(
            "progress", lambda: (r := first.status()).get("step") and r, explain=found.read_logs
        )
        assert set(report["metrics"]) == {"progress", "loss", "samplesPerSecond"}
        assert 0 < report["metrics"]["progress"] < 1

        found.assign(2, graceful=True)
        wait_for(
            "attempt 2",
            lambda: first.status()["attempt"] == 2 and first.status()["step"],
            explain=found.read_logs,
        )
        assert latest.exists()
        assert first.status()["step"] > report["step"], "it went on from where it was stopped"

        for launcher in found.launchers:
            launcher.terminate()
        assert [launcher.wait_exit() for launcher in found.launchers] == [75, 75], found.read_logs()
        word = first.last_word()
        assert (word["state"], word["reason"], word["attempt"]) == ("Stopped", "Stopped", 2)
        assert latest.resolve().name == f"step-{word['step']}"
        assert second.last_word()["state"] == "Stopped"
    more = str(word["step"] + 5)
    with gang(tmp_path, sample("custom-fsdp", tmp_path, "--steps", more)) as found:
        found.assign(3, nproc=2)
        assert found.launchers[0].wait_exit() == 0, found.read_logs()
        assert found.launchers[0].last_word()["step"] == int(more)
        assert latest.resolve().name == f"step-{more}"


SEEN = """
import json, os, pathlib, sys
import inception_trainer, state, torch
seen = {
    "argv": sys.argv, "path": sys.path, "name": __name__, "cwd": os.getcwd(),
    "dynamo": "torch._dynamo" in sys.modules,
    "modules": [inception_trainer.MINE, state.MINE], "python": os.environ.get("PYTHONPATH"),
    "foreign": [name for name in sys.modules if name.startswith("inception_trainer.")],
    "world": [
        os.environ[key]
        for key in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT")
    ][:4],
}
pathlib.Path(os.environ["TINY_FOLDER"], "seen-" + os.environ["RANK"]).write_text(json.dumps(seen))
"""


@pytest.mark.parametrize(
    "form", ["script", "module", "torchrun script", "torchrun module", "old module"]
)
def test_a_program_meets_its_own_modules_and_nothing_of_the_launcher(
    tmp_path: Path, form: str
) -> None:
    """Its modules may be called as ours are: path and variables are those of its own image."""
    for name in ("inception_trainer", "state"):
        (tmp_path / f"{name}.py").write_text("MINE = True", encoding="utf-8")
    (tmp_path / "seen.py").write_text(SEEN, encoding="utf-8")
    program = {
        "script": [sys.executable, "seen.py"],
        "module": [sys.executable, "-m", "seen"],
        "torchrun script": ["torchrun", "--nproc-per-node", "gpu", "seen.py"],
        "torchrun module": ["/venv/bin/torchrun", "--standalone", "-m", "seen"],
        "old module": ["python3", "-m", "torch.distributed.launch", "--use_env", "seen.py"],
    }[form]
    preload = None if form == "script" else ""
    with gang(
        tmp_path, [*program, "--lr", "3"], preload=preload, PYTHONPATH=str(tmp_path / "users")
    ) as found:
        found.assign(1, nproc=2)
        assert found.launchers[0].wait_exit() == 0, found.read_logs()
    first, second = (json.loads((tmp_path / f"seen-{rank}").read_text()) for rank in range(2))
    assert [*first["world"], *second["world"]] == ["0", "0", "2", "2", "1", "1", "2", "2"]
    assert first["modules"] == [True, True]
    assert first["foreign"] == []
    assert (first["python"], first["path"].count(str(tmp_path))) == (str(tmp_path / "users"), 1)
    assert first["path"][:2] == [str(tmp_path), str(tmp_path / "users")]
    assert str(tmp_path / "launcher") not in first["path"]
    assert (first["cwd"], first["name"]) == (str(tmp_path), "__main__")
    assert (Path(first["argv"][0]).name, first["argv"][1:]) == ("seen.py", ["--lr", "3"])
    if form == "script":
        assert first["dynamo"], "what torch imports at its first step is there already"


SHELL = """
echo "$RANK/$WORLD_SIZE" > "$TINY_FOLDER/rank-$RANK"
if [ "$RANK" = 0 ]; then exec sleep 600; fi
until [ -s "$TINY_FOLDER/rank-0" ]; do sleep 0.05; done
exit 65
"""


def test_a_shell_script_is_run_by_every_rank_and_its_code_is_told(tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text(SHELL, encoding="utf-8")
    with gang(tmp_path, ["sh", "run.sh"]) as found:
        found.assign(1, nproc=2)
        assert found.launchers[0].wait_exit() == 65
        word = found.launchers[0].last_word()
    assert [(tmp_path / f"rank-{rank}").read_text() for rank in range(2)] == ["0/2\n", "1/2\n"]
    assert (word["reason"], word["rank"]) == ("DataError", 1)


@pytest.mark.parametrize("code", [0, 75])
def test_a_program_that_stops_on_request_ends_with_0_or_75(tmp_path: Path, code: int) -> None:
    program = (
        "import os, pathlib, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "pathlib.Path(os.environ['TINY_FOLDER'], 'step-1-0').write_text(str(os.getpid()))\n"
        "while not os.path.exists(os.environ['INCEPTION_STOP_FILE']):\n    time.sleep(0.01)\n"
        f"raise SystemExit({code})\n"
    )
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    with gang(tmp_path, ["python3", "program.py"]) as found:
        found.assign(1)
        found.first_steps(1, 1)
        found.launchers[0].terminate()
        assert found.launchers[0].wait_exit() == 75
        assert found.launchers[0].last_word()["state"] == "Stopped"


def test_a_torchrun_that_cannot_be_understood_is_a_usage_error(tmp_path: Path) -> None:
    with gang(tmp_path, ["torchrun", "--nprocs", "2", "train.py"]) as found:
        assert found.launchers[0].wait_exit() == 64
        assert "torchrun: unrecognized arguments: --nprocs" in found.read_logs()
