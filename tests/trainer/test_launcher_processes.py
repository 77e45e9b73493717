"""Launchers as real processes: attempts, root causes, recovery, endings."""

import hashlib
import json
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from launchers import Gang, all_processes, free_port, wait_for

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def gang(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Gang]:
    options = getattr(request, "param", {})
    with Gang(tmp_path, **options) as gang:
        yield gang
    assert wait_for("an empty process table", lambda: not gang.processes())


def of(size: int = 1, **options: object) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "gang", [{"size": size, **options}], indirect=True, ids=[f"{size} launchers"]
    )


@of(2)
def test_two_nodes_recover_from_every_kind_of_death(gang: Gang) -> None:
    first, second = gang.launchers
    for launcher in gang.launchers:
        assert launcher.wait_state("Idle")["attempt"] == 0
        assert launcher.ready()

    gang.assign(1, nproc=2)
    pids = gang.first_steps(1, 4)
    wait_for("steps in the report", lambda: (first.status()["step"] or 0) > 1)
    os.kill(pids[1], signal.SIGKILL)
    report = first.wait_state("Failed", 1)
    assert (report["reason"], report["exitCode"], report["rank"]) == ("Signal", 137, 1)
    assert (report["message"], report["host"]) == ("SIGKILL", "job-0-1")
    assert report["step"] >= 1
    assert not first.ready()
    consequence = second.wait_state("Failed", 1)
    assert consequence["reason"] == "PeerLost"
    assert consequence["rank"] in (2, 3)

    gang.assign(2, nproc=2)
    gang.first_steps(2, 4)
    gang.do(2, 3, "raise")
    report = second.wait_state("Failed", 2)
    assert (report["reason"], report["exitCode"], report["rank"]) == ("Error", 1, 3)
    assert report["message"].startswith("ValueError: bad luck")
    # By this line the plug-in knows whose the lines of the program are.
    assert " inception-launcher: attempt 2: Running ranks 2 to 3 of 4" in second.read_log()

    gang.assign(3)
    gang.first_steps(3, 2)
    gang.do(3, 1, "stop")
    # The same in a cluster whose pods have IPv6 addresses.
    gang.assign(4, master="::1")
    gang.first_steps(4, 2)

    gang.assign(5, graceful=True)
    gang.first_steps(5, 2)

    gang.stand_by(6, graceful=True)
    for launcher in gang.launchers:
        assert launcher.wait_state("Idle", 6)["exitCode"] is None
    gang.assign(6)
    gang.first_steps(6, 2)
    (gang.folder / "finish").touch()
    for launcher in gang.launchers:
        assert launcher.wait_exit() == 0
        assert launcher.last_word()["state"] == "Succeeded"


@of(1)
def test_a_coded_error_ends_the_launcher_when_nobody_listens(gang: Gang) -> None:
    (launcher,) = gang.launchers
    gang.assign(1)
    gang.first_steps(1, 1)
    gang.do(1, 0, "missing")
    assert launcher.wait_exit() == 66
    word = launcher.last_word()
    assert (word["state"], word["reason"], word["exitCode"]) == ("Failed", "InputMissing", 66)
    assert (word["rank"], word["message"]) == (0, "/data/train: no such folder")
    assert "Traceback" not in launcher.read_log()


RECORDED = """
import json, os
with open(os.environ["TORCHELASTIC_ERROR_FILE"], "w") as file:
    json.dump({"message": {"message": "DataError: label 12 of 10", "extraInfo": {}}}, file)
raise SystemExit(65)
"""


@of(1, program=[sys.executable, "-c", RECORDED])
def test_the_error_file_gives_the_message(gang: Gang) -> None:
    gang.assign(1)
    assert gang.launchers[0].wait_exit() == 65
    assert gang.launchers[0].last_word()["message"] == "DataError: label 12 of 10"


@of(1)
def test_ends_in_one_warm_pod(gang: Gang) -> None:
    (launcher,) = gang.launchers
    launcher.wait_state("Idle")
    for attempt, action, reason, code, head, last in (
        (1, "exit-7", "Error", 7, "exit code 7", "exit code 7"),
        (2, "segfault", "Signal", 139, "SIGSEGV", "in train"),
        (3, "raise", "Error", 1, "ValueError: bad luck", "in act"),
    ):
        gang.assign(attempt, nproc=2)
        gang.first_steps(attempt, 2)
        gang.do(attempt, 1, action)
        report = launcher.wait_state("Failed", attempt)
        assert (report["reason"], report["exitCode"], report["rank"]) == (reason, code, 1)
        lines = report["message"].splitlines()
        assert lines[0] == head
        assert last in "".join(lines[-2:]), report["message"]

    gang.assign(4)
    (rank,) = gang.first_steps(4, 1)
    os.kill(int(_stat(rank)[1]), signal.SIGKILL)
    report = launcher.wait_state("Failed", 4)
    assert (report["reason"], report["message"]) == ("Signal", "the agent ended: SIGKILL")

    launcher.assignment.write_text('{"attempt": 9, "nno', encoding="utf-8")
    wait_for("a complaint", lambda: "assignment ignored: not JSON" in launcher.read_log())
    gang.assign(1)
    assert launcher.status()["attempt"] == 4

    gang.assign(5)
    (rank,) = gang.first_steps(5, 1)
    gang.do(5, 0, "detach")
    strays = wait_for("strays", lambda: [pid for pid in gang.processes() if _is_sleep(pid)])
    launcher.terminate()
    assert launcher.wait_exit() == 75
    word = launcher.last_word()
    assert (word["state"], word["reason"], word["exitCode"], word["attempt"]) == (
        "Stopped",
        "Stopped",
        75,
        5,
    )
    assert not set(gang.processes()) & {rank, *strays}


def _is_sleep(pid: int) -> bool:
    try:
        return b"time.sleep(600)" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@of(1)
def test_orphans_are_reaped(gang: Gang) -> None:
    (launcher,) = gang.launchers
    gang.assign(1)
    gang.first_steps(1, 1)
    gang.do(1, 0, "detach")
    wait_for("the lasting stray", lambda: any(map(_is_sleep, gang.processes())))
    # The short-lived one is adopted by the launcher and must not stay a zombie.
    wait_for(
        "no zombie",
        lambda: len(_children(launcher.process.pid)) == 2 and not _zombies(launcher.process.pid),
    )
    launcher.terminate()
    assert launcher.wait_exit() == 75


SHARED = """
import os, time
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
memory = SharedMemory(f"launcher-{os.stat('.').st_ino}", create=True, size=4096)
Path(f"step-{os.environ['INCEPTION_ATTEMPT']}-0").write_text(str(os.getpid()))
time.sleep(600)
"""


@of(1, program=[sys.executable, "shared.py"])
def test_the_shared_memory_of_a_killed_program_is_not_in_the_way_of_the_next(gang: Gang) -> None:
    (gang.folder / "shared.py").write_text(SHARED, encoding="utf-8")
    for attempt in (1, 2):
        gang.assign(attempt)
        gang.first_steps(attempt, 1)
    gang.launchers[0].terminate()
    assert gang.launchers[0].wait_exit() == 75
    assert not Path(f"/dev/shm/launcher-{gang.folder.stat().st_ino}").exists()


def _children(parent: int) -> list[list[str]]:
    return [fields for fields in map(_stat, all_processes()) if fields[1:2] == [str(parent)]]


def _zombies(parent: int) -> list[list[str]]:
    return [fields for fields in _children(parent) if fields[0] == "Z"]


def _stat(pid: int) -> list[str]:
    try:
        return (
            Path(f"/proc/{pid}/stat")
            .read_text(encoding="utf-8", errors="replace")
            .rpartition(") ")[2]
            .split()
        )
    except OSError:
        return []


@of(1)
def test_what_is_delivered_begins_at_once_and_a_file_that_is_behind_changes_nothing(
    gang: Gang,
) -> None:
    (launcher,) = gang.launchers
    key = "the operator's"
    one_rank = {"nodeRank": 0, "nnodes": 1, "nprocPerNode": 1, "masterAddr": "127.0.0.1"}
    launcher.assign(
        1, **one_rank, masterPort=free_port(), nextKey=hashlib.sha256(key.encode()).hexdigest()
    )
    gang.first_steps(1, 1)
    following = {"attempt": 2, **one_rank, "masterPort": free_port()}
    request = urllib.request.Request(
        f"http://127.0.0.1:{launcher.port}/assignment",
        data=json.dumps(following).encode(),
        headers={"Inception-Key": key},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 202
    gang.first_steps(2, 1)
    launcher.wait_state("Running", 2)
    running = set(gang.processes())
    for behind in ({"nnodes": 0}, one_rank | {"masterPort": free_port()}):
        launcher.assign(2, **behind)
        time.sleep(0.5)
        report = launcher.status()
        assert (report["attempt"], report["state"]) == (2, "Running")
        assert set(gang.processes()) == running
    launcher.assign(3, nnodes=0)
    launcher.wait_state("Idle", 3)


@of(1)
def test_death_of_the_fork_server(gang: Gang) -> None:
    (launcher,) = gang.launchers
    launcher.wait_state("Idle")
    gang.assign(1)
    gang.first_steps(1, 1)
    (server,) = (pid for pid in gang.processes() if _stat(pid)[1:2] == [str(launcher.process.pid)])
    os.kill(server, signal.SIGKILL)
    report = launcher.wait_state("Failed", 1)
    assert (report["reason"], report["exitCode"]) == ("Signal", 137)
    assert "fork server" in report["message"]
    gang.assign(2)
    gang.first_steps(2, 1)
    assert launcher.get("/healthz") == (200, b"ok\n")


@of(1)
def test_death_of_the_launcher_takes_everything_along(gang: Gang) -> None:
    gang.assign(1)
    gang.first_steps(1, 1)
    gang.launchers[0].close()


@of(1, program=["no_such_module:train"])
def test_a_program_that_cannot_run(gang: Gang) -> None:
    gang.assign(1)
    assert gang.launchers[0].wait_exit() == 127
    assert gang.launchers[0].last_word()["reason"] == "CannotRun"


@of(1, program=[sys.executable, "-c", "import tiny_program; tiny_program.train()"])
def test_a_command_of_the_user(gang: Gang) -> None:
    gang.assign(1)
    gang.first_steps(1, 1)
    (gang.folder / "finish").touch()
    assert gang.launchers[0].wait_exit() == 0


COMPLAINS = "echo first; seq 30 >&2; echo the disk is full >&2; exit 7"


@of(1, program=["sh", "-c", COMPLAINS])
def test_the_last_words_of_a_command_are_told(gang: Gang) -> None:
    (launcher,) = gang.launchers
    gang.assign(1)
    assert launcher.wait_exit() == 7
    lines = launcher.last_word()["message"].splitlines()
    assert (lines[0], lines[1], lines[-1]) == ("exit code 7", "12", "the disk is full")
    assert "\n29\n30\nthe disk is full\n" in launcher.read_log(), "unchanged in the log"


SAVER = """
import os, pathlib, signal, sys, time
folder, rank = pathlib.Path(os.environ["TINY_FOLDER"]), os.environ["RANK"]
def save(*_):
    (folder / f"saved-{rank}").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
(folder / f"draft-{rank}").write_text(str(os.getpid()))
(folder / f"draft-{rank}").rename(folder / f"step-1-{rank}")
time.sleep(600)
"""


@of(1, program=[sys.executable, "-c", SAVER])
def test_a_foreign_program_saves_on_sigterm(gang: Gang) -> None:
    (launcher,) = gang.launchers
    gang.assign(1, nproc=2)
    gang.first_steps(1, 2)
    launcher.terminate()
    assert launcher.wait_exit() == 75
    assert all((gang.folder / f"saved-{rank}").exists() for rank in range(2))


@of(2)
def test_a_launcher_that_was_told_to_end_says_so_and_the_other_stays(gang: Gang) -> None:
    first, second = gang.launchers
    gang.assign(1)
    for launcher in gang.launchers:
        launcher.wait_state("Running", 1)
    gang.first_steps(1, 2)
    first.terminate()
    report = second.wait_state("Stopped", 1)
    assert (report["exitCode"], report["leaving"]) == (75, False)
    assert first.wait_exit() == 75
    word = first.last_word()
    assert (word["state"], word["attempt"], word["leaving"]) == ("Stopped", 1, True)


DEAF = """
import os, pathlib, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
folder = pathlib.Path(os.environ["TINY_FOLDER"])
(folder / "draft").write_text(str(os.getpid()))
(folder / "draft").rename(folder / "step-1-0")
time.sleep(600)
"""


@of(1, program=[sys.executable, "-c", DEAF], INCEPTION_SHUTDOWN_SECONDS="0.5")
def test_ranks_that_do_not_stop_are_killed(gang: Gang) -> None:
    (launcher,) = gang.launchers
    gang.assign(1)
    gang.first_steps(1, 1)
    launcher.terminate()
    assert launcher.wait_exit() == 75
    assert launcher.last_word()["message"] == "the ranks did not stop in time and were killed"


@pytest.mark.parametrize("node_rank", [0, 1], ids=["hosts the store", "waits for the store"])
@pytest.mark.parametrize(
    "gang",
    [{"size": 1}, {"size": 1, "program": (), "INCEPTION_CONFIG": "unread.yaml"}],
    indirect=True,
    ids=["any program", "bundled trainer"],
)
def test_a_stop_does_not_wait_for_peers_that_never_came(gang: Gang, node_rank: int) -> None:
    (launcher,) = gang.launchers
    launcher.assign(
        1,
        nodeRank=node_rank,
        nnodes=2,
        nprocPerNode=1,
        masterAddr="127.0.0.1",
        masterPort=free_port(),
    )
    launcher.wait_state("Running")
    launcher.terminate()
    assert launcher.wait_exit() == 75
    assert launcher.last_word()["message"] == "stopped before the ranks had begun"


@of(1, INCEPTION_WARM_HOLD_SECONDS="0")
def test_a_failed_slot_stays_warm_for_a_limited_time(gang: Gang) -> None:
    (launcher,) = gang.launchers
    launcher.wait_state("Idle")
    gang.assign(1)
    gang.first_steps(1, 1)
    gang.do(1, 0, "exit-7")
    assert launcher.wait_exit() == 7


@of(1)
def test_sigterm_before_any_attempt(gang: Gang) -> None:
    (launcher,) = gang.launchers
    wait_for("an answer", lambda: launcher.get("/healthz"))
    launcher.terminate()
    assert launcher.wait_exit() == 75
    assert launcher.last_word()["state"] == "Stopped"


@of(1, INCEPTION_SHUTDOWN_SECONDS="soon")
def test_malformed_setting(gang: Gang) -> None:
    assert gang.launchers[0].wait_exit() == 64
