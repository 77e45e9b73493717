"""Copies in shared memory, file by file: what is whole is read bit by bit, all else is refused."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from inception_trainer.checkpoint import memory, memory_file
from inception_trainer.checkpoint.memory import MemoryFolder, lack_of_room, open_folder
from inception_trainer.checkpoint.memory_file import CopyFile, Layout, copy_to_view, read_copy
from inception_trainer.checkpoint.memory_statistics import StatisticsFile, read_statistics
from inception_trainer.errors import Fenced
from inception_trainer.launcher import linux
from inception_trainer.train import intervals

UID = "0f7e2b1c-5a53-4c55-9b57-2f6f0b0c7a11"
TENSORS = {
    "model/weight": torch.arange(2 * 3 * 4 * 5.0)
    .view(2, 3, 4, 5)
    .contiguous(memory_format=torch.channels_last),
    "model/scalar": torch.tensor(7),
    "momentum/weight": torch.full((3, 2), -0.0).T,
    "model/empty": torch.zeros(0, 4),
    "model/half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
}


def folder(root: Path, attempt: int = 2, uid: str = UID) -> MemoryFolder:
    made = MemoryFolder(root, uid, attempt)
    made.create()
    return made


def write(to: MemoryFolder, step: int, tensors: dict[str, Tensor] = TENSORS, **more: Any) -> Path:
    with to.locked(1):
        file = to.oldest()
        layout = Layout.of(tensors)
        to.allocate([file], layout)
        views = file.begin(layout)
        for name, tensor in tensors.items():
            copy_to_view(views[name], tensor)
        file.commit({"uid": to.uid, "progress": {"step": step}, **more}, to.attempt, step)
    return file.path


def test_a_copy_is_read_bit_by_bit_with_its_layout_in_memory(tmp_path) -> None:
    path = write(folder(tmp_path), 5, note="ä")
    found = folder(tmp_path, 3).newest()
    assert found is not None
    assert (found.step, found.path, found.header["note"]) == (5, path, "ä")
    for name, tensor in found.tensors().items():
        assert torch.equal(tensor, TENSORS[name]), name
        assert (tensor.dtype, tensor.stride()) == (TENSORS[name].dtype, TENSORS[name].stride())
        tensor.zero_()
    assert torch.equal(found.tensors()["model/weight"], TENSORS["model/weight"])


def test_tensors_with_gaps_are_kept_without_them(tmp_path) -> None:
    gaps = {"model/x": torch.arange(12.0).view(3, 4)[:, ::2], "model/y": torch.zeros(1).expand(4)}
    write(folder(tmp_path), 5, gaps)
    found = folder(tmp_path, 3).newest()
    assert found is not None
    assert all(torch.equal(tensor, gaps[name]) for name, tensor in found.tensors().items())


def test_two_buffers_take_turns_and_the_newest_is_found(tmp_path) -> None:
    writer = folder(tmp_path)
    paths = [write(writer, step) for step in (1, 2, 3, 4)]
    assert paths[0] == paths[2] != paths[1] == paths[3]
    assert writer.newest_step() == 4
    newest = folder(tmp_path, 3).newest()
    assert newest is not None
    assert newest.step == 4


def test_while_a_buffer_is_written_the_other_one_stays_whole(tmp_path) -> None:
    writer = folder(tmp_path)
    write(writer, 1)
    write(writer, 2)
    writer.oldest().begin(Layout.of(TENSORS))
    newest = folder(tmp_path, 3).newest()
    assert newest is not None
    assert newest.step == 2


@pytest.fixture(scope="module")
def whole_copy(tmp_path_factory) -> tuple[Path, bytes]:
    """A copy of an attempt 2, and what is in its file."""
    path = write(folder(tmp_path_factory.mktemp("whole")), 5)
    return path, path.read_bytes()


@settings(max_examples=100, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_flipped_bit_passes(whole_copy, where: float, bit: int) -> None:
    path, whole = whole_copy
    # Between the prefix and the tensors is nothing; gaps between tensors are part of the checksum.
    hole = memory_file.DATA_START - memory_file.PREFIX.size
    at = int(where * (len(whole) - hole))
    damaged = bytearray(whole)
    damaged[at if at < memory_file.PREFIX.size else at + hole] ^= 1 << bit
    path.write_bytes(damaged)
    with pytest.raises((ValueError, KeyError)):
        read_copy(path)
    assert folder(path.parents[1], 3).newest() is None
    path.write_bytes(whole)
    assert read_copy(path).step == 5


@pytest.mark.parametrize("length", [0, 10, 64, 4096, 4500, -1])
def test_a_file_that_was_cut_off_is_refused(tmp_path, length: int) -> None:
    path = write(folder(tmp_path), 5)
    os.truncate(path, length % path.stat().st_size)
    with pytest.raises(ValueError, match=r"finished|shorter"):
        read_copy(path)


def test_a_header_that_leads_out_of_the_file_is_refused() -> None:
    for place in (
        ["x", "torch.float32", [4], [1], 64],
        ["x", "torch.float32", [4], [10**9], 0],
        ["x", "torch.float32", [-4], [1], 0],
        ["x", "torch.float32", [4], [1, 1], 0],
        ["x", "torch.float32", [4], [1], 3],
    ):
        with pytest.raises(ValueError, match=r"outside|sense"):
            memory_file.decode_layout([place], 64)
    with pytest.raises(KeyError):
        memory_file.decode_layout([["x", "os.system", [4], [1], 0]], 64)


@pytest.mark.parametrize(
    ("attempt", "uid", "found"),
    [(3, UID, 5), (2, UID, None), (1, UID, None), (3, "another-job", None)],
    ids=["later attempt", "the same attempt", "an older attempt", "another job"],
)
def test_only_copies_of_this_job_and_of_earlier_attempts_are_read(
    tmp_path, attempt: int, uid: str, found: int | None
) -> None:
    written = write(folder(tmp_path), 5)
    reader = folder(tmp_path, attempt, uid)
    if uid != UID:
        # Somebody has put it where that job looks.
        (reader.path / written.name).write_bytes(written.read_bytes())
    newest = reader.newest()
    assert (None if newest is None else newest.step) == found


def test_an_older_attempt_does_not_write_once_a_newer_one_has_taken_over(tmp_path) -> None:
    old = folder(tmp_path, 2)
    write(old, 5)
    new = folder(tmp_path, 3)
    new.take_over(5, new.newest(), 1)
    with pytest.raises(Fenced, match="attempt 3 owns"):
        old.check_owner()
    with pytest.raises(Fenced):
        old.take_over(5, None, 1)


@pytest.mark.parametrize("torn", ["", "{", "[" * 60_000, '{"attempt": []}'])
def test_a_torn_owner_file_is_none(tmp_path, torn) -> None:
    mine = folder(tmp_path, 2)
    (mine.path / "owner.json").write_text(torn, encoding="ascii")
    mine.check_owner()


def test_taking_over_leaves_nothing_that_could_pass_for_newer_than_the_start(tmp_path) -> None:
    old = folder(tmp_path, 2)
    write(old, 7)
    write(old, 8)
    for rank in (0, 1):
        old.statistics(rank).write_bytes(b"x")
    new = folder(tmp_path, 3)
    kept = new.newest()
    new.take_over(7, kept, 1)
    assert new.newest_step() == -1
    assert (old.statistics(0).exists(), old.statistics(1).exists()) == (True, False)
    write(new, 7)
    assert new.newest_step() == 7


def test_a_lock_of_a_process_that_was_killed_is_free(tmp_path) -> None:
    shared = folder(tmp_path)
    child = os.fork()
    if child == 0:
        with shared.locked(1):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with shared.locked(1), pytest.raises(TimeoutError), shared.locked(0):
        pass


def test_weights_that_are_not_finite_are_seen(tmp_path) -> None:
    file = CopyFile(tmp_path / "copy")
    for value, is_finite in ((1.0, True), (float("nan"), False), (float("-inf"), False)):
        tensors = {"n": torch.tensor([2**62]), "x": torch.tensor([1.0, value]), "y": torch.ones(9)}
        views = file.begin(Layout.of(tensors))
        for name, tensor in tensors.items():
            copy_to_view(views[name], tensor)
        assert file.is_finite() is is_finite


def test_memory_that_is_too_small_is_told_before_it_is_taken(tmp_path, monkeypatch) -> None:
    small = folder(tmp_path)
    status = os.statvfs(tmp_path)
    assert lack_of_room(tmp_path, 2**10) is None
    assert "MiB left" in (lack_of_room(tmp_path, status.f_bavail * status.f_frsize) or "")
    monkeypatch.setattr(memory, "left_in_cgroup", lambda: 70 * 2**20)
    assert lack_of_room(tmp_path, 2**20) is None
    with pytest.raises(MemoryError, match="the container's memory limit leaves 70 MiB"):
        small.allocate(small.files, Layout.of({"x": torch.zeros(4 * 2**20)}))
    assert not any(file.path.exists() for file in small.files)


def test_what_a_memory_limit_leaves_counts_files_that_the_kernel_can_drop(tmp_path) -> None:
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 300\n")
    assert linux.left_in_cgroup(tmp_path) == 400
    (tmp_path / "memory.max").write_text("max\n")
    assert linux.left_in_cgroup(tmp_path) is None


@pytest.mark.parametrize("uid", ["", "../../etc", "a/b", "x" * 64, "."])
def test_a_uid_that_is_no_name_of_a_folder_gets_none(uid: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(memory, "ROOT", tmp_path)
    assert open_folder(uid, 1) is None
    assert list(tmp_path.iterdir()) == []


LIKE = [torch.tensor(3), torch.tensor([1.0, 2.0]), torch.zeros(2, 2)]


def moments(path: Path, *steps: int, pinned: int = -1) -> StatisticsFile:
    file = StatisticsFile(path, 4, 1, 2, LIKE)
    for step in steps:
        for view, value in zip(file.begin(), LIKE, strict=True):
            view.copy_(value + step)
        file.finish(step)
        if step == pinned:
            file.pin(step)
    return file


def test_statistics_of_the_last_two_steps_and_of_the_copies_are_kept(tmp_path) -> None:
    path = tmp_path / "rank-0"
    file = moments(path, 5, 6, 7, 8, pinned=6)
    assert read_statistics(path) == []
    file.publish()
    found = {(moment.step, moment.is_live): moment for moment in read_statistics(path)}
    assert set(found) == {(7, True), (8, True), (6, False)}
    one = found[8, True]
    assert (one.attempt, one.rank, one.world_size) == (4, 1, 2)
    assert one.values.tolist() == [9.0, 10.0, 8.0, 8.0, 8.0, 8.0]
    assert found[6, False].values.tolist() == [7.0, 8.0, 6.0, 6.0, 6.0, 6.0]


def test_statistics_that_were_just_being_written_are_not_read(tmp_path) -> None:
    path = tmp_path / "rank-0"
    file = moments(path, 5, 6)
    file.publish()
    file.begin()[1].fill_(99)
    assert [moment.step for moment in read_statistics(path)] == [6]


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"INCEPTION-RANK-1" * 64])
def test_damaged_statistics_count_as_none(tmp_path, content: bytes) -> None:
    path = tmp_path / "rank-0"
    path.write_bytes(content)
    assert [moment for moment in read_statistics(path) if moment.values.numel()] == []


def test_an_owner_file_that_somebody_damaged_keeps_nobody_out(tmp_path) -> None:
    mine = folder(tmp_path)
    for content in ("", "[]", json.dumps({"attempt": None})):
        (mine.path / "owner.json").write_text(content)
        mine.check_owner()


@pytest.mark.parametrize(
    ("cost", "seconds"),
    [(0.0, 1.0), (0.02, 2.0), (0.05, 5.0), (0.1, 10.0), (3.0, 10.0)],
)
def test_copies_take_one_hundredth_of_the_time_and_come_at_least_every_ten_seconds(
    cost: float, seconds: float, monkeypatch
) -> None:
    now = 100.0
    monkeypatch.setattr(intervals.time, "monotonic", lambda: now)
    clock = intervals.CopyClock()
    clock.restart()
    clock.add_cost(cost / 2)
    clock.add_cost(cost / 2)
    now = 100.0 + seconds - 0.01
    assert not clock.is_due()
    now = 100.0 + seconds + 0.01
    assert clock.is_due()
