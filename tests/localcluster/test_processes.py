"""Supervision of single processes, with a shell in place of Kubernetes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localcluster.errors import ComponentError
from localcluster.linux import ProcessIdentity
from localcluster.model import Layout, ProcessSpec
from localcluster.processes import ProcessGroup
from localcluster.supervisor import Parent, Stopped


def _shell(
    name: str, script: str, ready: Callable[[], bool] | None = None, timeout: float = 60.0
) -> ProcessSpec:
    return ProcessSpec(name, ("/bin/sh", "-c", script), ready=ready, ready_timeout=timeout)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[ProcessGroup]:
    group = ProcessGroup(Layout(tmp_path, tmp_path, 1), lambda: None)
    yield group
    group.kill()


def test_a_process_is_awaited_until_it_is_ready(group: ProcessGroup, tmp_path: Path) -> None:
    group.start([_shell("a", "touch ready; sleep 60", ready=(tmp_path / "ready").exists)])
    assert group.poll() == []


def test_one_that_ends_early_is_reported_with_its_last_lines(group: ProcessGroup) -> None:
    script = "for i in $(seq 30); do echo line $i; done; echo cannot bind >&2; exit 3"
    with pytest.raises(ComponentError, match="etcd: exited with code 3") as caught:
        group.start([_shell("etcd", script, ready=lambda: False)])
    lines = caught.value.tail.splitlines()
    assert (len(lines), lines[0], lines[-1]) == (20, "line 12", "cannot bind")


def test_one_that_never_gets_ready_is_reported(group: ProcessGroup) -> None:
    with pytest.raises(
        ComponentError, match=r"(?s)slow: not ready after 0 s; its log ends with:\nhello"
    ):
        group.start([_shell("slow", "echo hello; sleep 60", ready=lambda: False, timeout=0.4)])


def test_an_earlier_process_that_ends_stops_the_start(group: ProcessGroup, tmp_path: Path) -> None:
    group.start([_shell("first", "while [ ! -e go ]; do sleep 0.01; done; exit 1")])
    (tmp_path / "go").touch()
    with pytest.raises(ComponentError, match="first: exited with code 1"):
        group.start([_shell("second", "sleep 60", ready=lambda: False)])


def test_a_program_that_is_missing_is_reported(group: ProcessGroup) -> None:
    with pytest.raises(ComponentError, match=r"ghost: cannot be started: .*No such file"):
        group.start([ProcessSpec("ghost", ("/nonexistent/ghost",))])


def test_a_death_is_noticed_once(group: ProcessGroup) -> None:
    group.start([_shell("victim", "kill -9 $$")])
    deadline = time.monotonic() + 10
    while not (news := group.poll()):
        assert time.monotonic() < deadline
    assert (news, group.poll(), group.ended) == (["victim"], [], {"victim": "killed by signal 9"})


def test_killing_leaves_nobody(group: ProcessGroup, tmp_path: Path) -> None:
    group.start(
        [_shell("a", "echo $$ > pid; exec sleep 60", ready=lambda: bool(_text(tmp_path / "pid")))]
    )
    identity = ProcessIdentity.of(int(_text(tmp_path / "pid")))
    group.kill()
    assert not identity.is_alive()


def _text(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def test_a_start_can_be_given_up(tmp_path: Path) -> None:
    def check() -> None:
        raise Stopped("the parent is gone")

    group = ProcessGroup(Layout(tmp_path, tmp_path, 1), check)
    with pytest.raises(Stopped):
        group.start([_shell("a", "sleep 60", ready=lambda: False)])
    group.kill()


@pytest.mark.parametrize("tied", [True, False])
def test_the_parent_is_needed_for_the_start_and_if_tied_for_good(tied: bool) -> None:
    mine = ProcessIdentity.of(os.getpid())
    gone = ProcessIdentity(mine.pid, mine.start_time - 1)
    Parent(mine, tied=True).check()
    parent = Parent(gone, tied=tied)
    with pytest.raises(Stopped, match="to which the cluster belongs, has ended"):
        parent.check()
    parent.started()
    if tied:
        with pytest.raises(Stopped):
            parent.check()
    else:
        parent.check()
