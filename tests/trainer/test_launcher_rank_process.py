"""The end of a forked process, told apart from the end of what it has forked."""

import errno
import os
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import wait

import pytest

from inception_trainer.launcher.rank_process import RankProcess

LIMIT_SECONDS = 30


def _refuse(_: int) -> int:
    raise OSError(errno.ENOSYS, "not implemented")


@pytest.fixture(params=["pidfd", "refused by the kernel", "missing in Python"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    match request.param:
        case "refused by the kernel":
            monkeypatch.setattr(os, "pidfd_open", _refuse)
        case "missing in Python":
            monkeypatch.delattr(os, "pidfd_open")
    return str(request.param)


def leave_a_child(pid_to: int) -> None:
    """Fork a process that lives on, and tell its number."""
    pid = os.fork()
    if pid:
        os.write(pid_to, str(pid).encode())
    time.sleep(600)


@pytest.fixture
def family(system: str) -> Iterator[tuple[RankProcess, int]]:
    reader, writer = os.pipe()
    process = RankProcess(target=leave_a_child, args=(writer,))
    process.start()
    child = int(os.read(reader, 20))
    yield process, child
    process.kill()
    os.kill(child, signal.SIGKILL)
    os.close(reader)
    os.close(writer)


def test_an_end_is_noticed_while_a_child_lives(family: tuple[RankProcess, int]) -> None:
    process, child = family
    assert not wait([process.sentinel], 0), "it lives"
    process.kill()
    assert wait([process.sentinel], LIMIT_SECONDS) == [process.sentinel]
    process.join(LIMIT_SECONDS)
    assert process.exitcode == -signal.SIGKILL
    os.kill(child, 0)
    assert wait([process.sentinel], 0), "an end stays an end"


def test_the_end_of_one_is_not_that_of_another(system: str) -> None:
    lasting = RankProcess(target=time.sleep, args=(600,))
    short = RankProcess(target=os.getpid)
    lasting.start()
    short.start()
    assert wait([lasting.sentinel, short.sentinel], LIMIT_SECONDS) == [short.sentinel]
    short.join(LIMIT_SECONDS)
    assert short.exitcode == 0
    lasting.kill()
    lasting.join()
