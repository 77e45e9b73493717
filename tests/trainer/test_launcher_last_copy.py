"""Ranks of the bundled trainer keep what they know before they are killed."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from launchers import Gang, wait_for
from programs import installed

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def gang(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Gang]:
    """A launcher whose bundled trainer is ``copying_program``."""
    bundled = tmp_path / "bundled" / "inception_trainer"
    bundled.mkdir(parents=True)
    (bundled / "__init__.py").touch()
    (bundled / "entry.py").write_text("from copying_program import train\n", encoding="utf-8")
    support = Path(__file__).resolve().parents[1] / "support"
    options = {"program": (), "PYTHONPATH": f"{bundled.parent}:{support}", **request.param}
    launcher = installed(tmp_path / "launcher")
    with Gang(tmp_path, entry=(str(launcher),), **options) as gang:
        yield gang
    assert wait_for("an empty process table", lambda: not gang.processes())


def with_ranks_that(**options: object) -> pytest.MarkDecorator:
    name = ", ".join(map(str, options.values()))
    return pytest.mark.parametrize("gang", [options], indirect=True, ids=[name])


def copies(gang: Gang) -> set[str]:
    return {path.name for path in gang.folder.glob("copy-*")}


def fail_rank_1(gang: Gang) -> None:
    """One of two ranks fails, which is told as the failure of the attempt."""
    (launcher,) = gang.launchers
    gang.assign(1, nproc=2)
    launcher.wait_state("Running", 1)
    gang.first_steps(1, 2)
    gang.do(1, 1, "exit-7")
    report = launcher.wait_state("Failed", 1)
    assert (report["reason"], report["exitCode"], report["rank"]) == ("Error", 7, 1)


@with_ranks_that(TINY_COPY="take")
def test_a_rank_that_lives_when_another_fails_keeps_what_it_knows(gang: Gang) -> None:
    fail_rank_1(gang)
    assert copies(gang) == {"copy-1-0"}


@with_ranks_that(TINY_COPY="take")
def test_ranks_that_are_superseded_or_put_on_standby_keep_what_they_know(gang: Gang) -> None:
    (launcher,) = gang.launchers
    gang.assign(1, nproc=2)
    gang.first_steps(1, 2)
    gang.assign(2, nproc=2)
    gang.first_steps(2, 2)
    assert copies(gang) == {"copy-1-0", "copy-1-1"}
    gang.stand_by(3)
    launcher.wait_state("Idle", 3)
    assert copies(gang) == {"copy-1-0", "copy-1-1", "copy-2-0", "copy-2-1"}


@with_ranks_that(TINY_COPY="take", INCEPTION_HANG_FLOOR_SECONDS="4")
def test_a_rank_that_lives_when_another_hangs_keeps_what_it_knows(gang: Gang) -> None:
    (launcher,) = gang.launchers
    gang.assign(1, nproc=2)
    launcher.wait_state("Running", 1)
    pids = gang.first_steps(1, 2)
    os.kill(pids[1], signal.SIGSTOP)
    report = launcher.wait_state("Failed", 1)
    assert (report["reason"], report["exitCode"], report["rank"]) == ("Hang", 70, 1)
    gang.assign(2, nproc=2)
    gang.first_steps(2, 2)
    assert copies(gang) == {"copy-1-0"}


@with_ranks_that(TINY_COPY="deaf")
def test_ranks_that_do_not_answer_are_killed(gang: Gang) -> None:
    (launcher,) = gang.launchers
    gang.assign(1, nproc=2)
    launcher.wait_state("Running", 1)
    gang.first_steps(1, 2)
    gang.assign(2, nproc=2)
    gang.first_steps(2, 2)
    gang.do(2, 0, "exit-7")
    report = launcher.wait_state("Failed", 2)
    assert (report["reason"], report["exitCode"], report["rank"]) == ("Error", 7, 0)


@with_ranks_that(TINY_COPY="unaware")
def test_the_request_itself_is_not_told_as_a_failure(gang: Gang) -> None:
    fail_rank_1(gang)


@with_ranks_that(program=["copying_program:train"])
def test_programs_of_others_are_not_asked(gang: Gang) -> None:
    gang.assign(1, nproc=2)
    gang.first_steps(1, 2)
    gang.assign(2, nproc=2)
    gang.first_steps(2, 2)
    assert not copies(gang)
