"""What survives in the memory of pods when ranks die: real ranks over gloo, killed anywhere, and
held against a run that nobody disturbed.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import trainer_ranks
from inception_trainer.checkpoint.memory import BUFFERS
from inception_trainer.checkpoint.memory_file import MemoryCopy, read_copy
from inception_trainer.config.training import merge
from nightly import but_nightly
from trainer_ranks import TINY, UID

pytestmark = pytest.mark.timeout(600)
PEER_LOST = 1
STEPS = 12
LONG = 20
"""Epochs."""
CONFIG: dict[str, Any] = merge(
    TINY,
    {
        "optimizer": {"name": "RMSProp"},
        "weightAverage": {"decay": 0.9},
        "augmentation": {"mixup": 0.2},
    },
)


class Pods:
    """Pods as folders in shared memory, and attempts of one job in them."""

    def __init__(self, root: Path, epochs: int = 2) -> None:
        self.root = root
        self.epochs = epochs
        self.attempt = 0

    def pod(self, number: int) -> Path:
        """The shared memory of a pod."""
        return self.root / f"pod-{number}"

    def lose(self, number: int) -> None:
        """A pod is gone, with all that it had in memory."""
        shutil.rmtree(self.pod(number), ignore_errors=True)

    def start(self, *pods: int, saves: bool = True, **faults: str) -> trainer_ranks.Gang:
        """The next attempt; ``rank1="forward 3"`` makes rank 1 die there."""
        self.attempt += 1
        # No checkpoint but the last: what goes on, goes on from memory.
        checkpoint = {"path": str(self.root / "job"), "everySeconds": 0} if saves else {}
        config = merge(CONFIG, {"checkpoint": checkpoint, "epochs": self.epochs})
        if self.epochs == LONG:
            # An evaluation saves the best network, which would be newer than a copy.
            config = merge(config, {"evaluation": {"everyEpochs": LONG}})
        if not saves:
            config = merge(config, {"output": {"path": str(self.root / "job" / "output")}})
        return trainer_ranks.start(
            self.root / f"attempt-{self.attempt}",
            config,
            len(pods),
            self.attempt,
            pods=[self.pod(number) for number in pods],
            faults={int(name.removeprefix("rank")): fault for name, fault in faults.items()},
        )

    def copies(self, number: int) -> list[MemoryCopy]:
        """The whole copies in a pod, the newest last."""
        found = []
        for name in BUFFERS:
            with contextlib.suppress(OSError, ValueError):
                found.append(read_copy(self.pod(number) / UID / name))
        return sorted(found, key=lambda copy: copy.step)

    def copy_steps(self, number: int) -> list[int]:
        """Their steps."""
        return [copy.step for copy in self.copies(number)]

    def final(self) -> dict[str, Any]:
        """The final checkpoint."""
        path = self.root / "job" / "checkpoints" / "final.pt"
        content: dict[str, Any] = torch.load(path, weights_only=True)
        return content

    def summary(self) -> dict[str, Any]:
        """The result of the job."""
        content: dict[str, Any] = json.loads(
            (self.root / "job" / "output" / "summary.json").read_text()
        )
        return content


@pytest.fixture
def pods(tmp_path) -> Iterator[Pods]:
    # Where copies lie in a pod, too: memory.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Pods(Path(folder))


@pytest.fixture
def long_lived(pods) -> Pods:
    """Pods of a job that is long enough for periodic copies."""
    pods.epochs = LONG
    return pods


Whole = Callable[..., Pods]


@pytest.fixture(scope="module")
def undisturbed() -> Iterator[Whole]:
    """A finished job of so many ranks and epochs."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:

        @functools.cache
        def run(ranks: int, epochs: int = 2) -> Pods:
            pods = Pods(Path(folder) / f"{ranks}-{epochs}", epochs)
            gang = pods.start(*range(ranks))
            assert gang.wait() == [0] * ranks, gang.output()
            return pods

        yield run


def assert_same_training(pods: Pods, whole: Pods, *, statistics: bool = False) -> None:
    """Parameters, optimizer and average bit by bit; the statistics too where they are to be."""
    found, expected = pods.final(), whole.final()
    pairs = [
        (found["model"], expected["model"]),
        (found["average"]["model"], expected["average"]["model"]),
        (found["optimizer"]["momentum"], expected["optimizer"]["momentum"]),
        (found["optimizer"]["squares"], expected["optimizer"]["squares"]),
    ]
    for tensors, others in pairs:
        assert tensors.keys() == others.keys()
        for name, tensor in tensors.items():
            if statistics or "running" not in name:
                assert torch.equal(tensor, others[name]), name
    for figure in ("samplesSeen", "steps"):
        assert pods.summary()[figure] == whole.summary()[figure]


# A rank dies, and its peer leaves what it knows.

DEATHS = {
    "forward": "forward 6",
    "exchange": "exchange 6",
    "optimizer": "optimizer 6",
    "boundary": "boundary 6",
    "statistics": "statistics 7",
    "agreement": "agreement 6",
}


@pytest.mark.parametrize(
    "death", but_nightly(DEATHS.values(), (DEATHS["forward"], DEATHS["optimizer"]))
)
def test_a_rank_that_is_killed_anywhere_in_a_step_costs_no_finished_step(
    pods, undisturbed, death: str
) -> None:
    gang = pods.start(0, 1, rank1=death)
    assert gang.wait() == [PEER_LOST, -signal.SIGKILL], gang.output()
    (left,) = pods.copy_steps(0)[-1:]
    assert left in (5, 6)
    gang = pods.start(0, 1)
    assert gang.wait() == [0, 0], gang.output()
    assert f"continuing at step {left} " in gang.output()
    assert "mean of the other" not in gang.output()
    assert pods.summary()["repeatedSteps"] in (0, 1)
    # What a rank was killed before it could note is the one thing that is lost.
    noted = death.split(maxsplit=1)[0] in ("forward", "exchange", "agreement")
    assert_same_training(pods, undisturbed(2), statistics=noted)


def test_rank_0_that_is_killed_finds_the_state_at_its_peer(pods, undisturbed) -> None:
    gang = pods.start(0, 1, rank0="exchange 6")
    assert gang.wait() == [-signal.SIGKILL, PEER_LOST], gang.output()
    assert pods.copy_steps(1)[-1] == 5
    gang = pods.start(0, 1)
    assert gang.wait() == [0, 0], gang.output()
    assert "continuing at step 5 " in gang.output()
    assert "memory of rank 1's pod" in gang.output()
    assert pods.summary()["repeatedSteps"] == 0
    assert_same_training(pods, undisturbed(2), statistics=True)


def test_killing_again_and_again_repeats_nothing(pods, undisturbed) -> None:
    for step in range(3):
        gang = pods.start(0, 1, **{f"rank{step % 2}": f"forward {step + 2}"})
        assert -signal.SIGKILL in gang.wait(), gang.output()
    gang = pods.start(0, 1)
    assert gang.wait() == [0, 0], gang.output()
    # 1, then 2, then 3 steps per attempt.
    assert "continuing at step 6 " in gang.output()
    assert pods.summary()["repeatedSteps"] == 0
    assert_same_training(pods, undisturbed(2), statistics=True)


def test_a_pod_that_is_lost_gets_the_state_and_the_mean_of_the_others_statistics(
    pods, undisturbed
) -> None:
    gang = pods.start(0, 1, rank0="forward 6")
    gang.wait()
    pods.lose(0)
    gang = pods.start(2, 1)
    assert gang.wait() == [0, 0], gang.output()
    assert "continuing at step 5 " in gang.output()
    assert "1 ranks begin with the mean of the other ranks' batch norm statistics" in gang.output()
    assert pods.summary()["repeatedSteps"] == 0
    assert_same_training(pods, undisturbed(2))


@pytest.mark.parametrize("ranks", [1, 4])
def test_an_attempt_of_another_size_goes_on_at_the_same_step(pods, ranks: int) -> None:
    pods.start(0, 1, rank0="forward 6").wait()
    gang = pods.start(*range(1, ranks + 1))
    assert gang.wait() == [0] * ranks, gang.output()
    assert "continuing at step 5 " in gang.output()
    summary = pods.summary()
    assert (summary["steps"], summary["samplesSeen"], summary["repeatedSteps"]) == (STEPS, 96, 0)


def test_without_a_checkpoint_folder_the_job_goes_on_from_memory(pods, undisturbed) -> None:
    pods.start(0, 1, rank0="forward 6", saves=False).wait()
    gang = pods.start(0, 1, saves=False)
    assert gang.wait() == [0, 0], gang.output()
    assert "continuing at step 5 " in gang.output()
    whole = undisturbed(2).summary()
    for figure in ("samplesSeen", "steps", "loss", "accuracyTop1"):
        assert pods.summary()[figure] == whole[figure]


# The launcher asks.


def test_a_rank_that_is_asked_leaves_the_last_finished_step_and_ends_by_the_signal(
    pods, undisturbed
) -> None:
    gang = pods.start(0, 1)
    gang.until(lambda: gang.progress()["step"] >= 2)
    # One stands still, so the other is in a collective that does not end.
    os.kill(gang.processes[1].pid, signal.SIGSTOP)
    os.kill(gang.processes[0].pid, signal.SIGUSR2)
    gang.processes[0].join(60)
    os.kill(gang.processes[1].pid, signal.SIGKILL)
    assert gang.wait() == [-signal.SIGUSR2, -signal.SIGKILL], gang.output()
    (left,) = pods.copy_steps(0)[-1:]
    assert f"left step {left} in the pod's memory" in gang.output()
    gang = pods.start(0, 1)
    assert gang.wait() == [0, 0], gang.output()
    assert f"continuing at step {left} " in gang.output()
    assert pods.summary()["repeatedSteps"] <= 1
    assert_same_training(pods, undisturbed(2))


def test_an_error_in_the_middle_of_the_optimizer_leaves_no_copy_of_it(pods, undisturbed) -> None:
    gang = pods.start(0, rank0="optimizer! 6")
    assert gang.wait() == [1]
    assert "no last copy: the weights are just being changed" in gang.output()
    assert all(step < 6 for step in pods.copy_steps(0))
    gang = pods.start(0)
    assert gang.wait() == [0], gang.output()
    assert_same_training(pods, undisturbed(1))


# All die at once.


def periodic(pods: Pods, *numbers: int) -> trainer_ranks.Gang:
    """An attempt that has gone a few steps beyond a periodic copy."""
    gang = pods.start(*numbers, **{f"rank{rank}": "living 1" for rank in range(len(numbers))})
    gang.until(lambda: bool(pods.copy_steps(numbers[0])) and gang.progress()["step"] >= 4)
    gang.signal(signal.SIGKILL)
    assert gang.wait() == [-signal.SIGKILL] * len(numbers)
    return gang


def test_when_all_ranks_are_killed_the_periodic_copy_is_used(long_lived, undisturbed) -> None:
    pods = long_lived
    periodic(pods, 0, 1)
    newest = max(*pods.copy_steps(0), *pods.copy_steps(1))
    gang = pods.start(0, 1)
    assert gang.wait() == [0, 0], gang.output()
    assert f"continuing at step {newest} " in gang.output()
    # Each rank had kept its own for this very copy.
    assert "mean of the other" not in gang.output()
    assert_same_training(pods, undisturbed(2, LONG), statistics=True)


@pytest.mark.parametrize(
    "death", but_nightly(("copying 5", "committing 2", "copying 150"), ("committing 2",))
)
def test_a_rank_that_is_killed_while_it_copies_leaves_the_copy_before(
    long_lived, undisturbed, death: str
) -> None:
    pods = long_lived
    gang = pods.start(0, rank0=death)
    assert gang.wait() == [-signal.SIGKILL], gang.output()
    steps = pods.copy_steps(0)
    gang = pods.start(0)
    assert gang.wait() == [0], gang.output()
    if steps:
        assert f"continuing at step {steps[-1]} " in gang.output()
    assert_same_training(pods, undisturbed(1, LONG), statistics=True)


# Taking over.


MOMENTS = ("reading 1", "sending 1", "sending 3", "taking over 1", "beginning 1")


@pytest.mark.parametrize(
    ("death", "rank"),
    but_nightly(
        itertools.product(MOMENTS, (0, 1)),
        (("reading 1", 1), ("sending 3", 0), ("beginning 1", 0)),
    ),
)
def test_a_death_while_the_state_is_taken_over_costs_another_attempt_and_no_step(
    pods, undisturbed, death: str, rank: int
) -> None:
    pods.start(0, 1, rank0="forward 6").wait()
    gang = pods.start(0, 1, **{f"rank{rank}": death})
    codes = gang.wait()
    if death == "reading 1" and rank == 0:
        # It reads nothing: rank 1 has the copy.
        assert codes == [0, 0], gang.output()
    else:
        assert codes[rank] == -signal.SIGKILL, gang.output()
        gang = pods.start(0, 1)
        assert gang.wait() == [0, 0], gang.output()
        assert "continuing at step 5 " in gang.output()
    assert pods.summary()["repeatedSteps"] == 0
    assert_same_training(pods, undisturbed(2))


def test_a_damaged_copy_is_passed_over_for_the_next_one(pods, undisturbed) -> None:
    pods.start(0, 1, rank0="forward 6").wait()
    newest = pods.copies(1)[-1].path
    content = bytearray(newest.read_bytes())
    content[5000] ^= 1
    newest.write_bytes(content)
    gang = pods.start(0, 1)
    assert gang.wait() == [0, 0], gang.output()
    assert "is not used: its tensors are damaged" in gang.output()
    assert "continuing at step 5 " not in gang.output()
    assert_same_training(pods, undisturbed(2))


def test_a_checkpoint_that_is_newer_than_all_memory_is_read(pods) -> None:
    pods.start(0, 1, rank0="forward 3").wait()
    whole = pods.start(0, 1)
    assert whole.wait() == [0, 0]
    for number in (0, 1):
        for path in (pods.pod(number) / UID).glob("copy-*"):
            path.unlink()
    again = pods.start(0, 1)
    assert again.wait() == [0, 0]
    assert f"finished before, at step {STEPS}: nothing to do" in again.output()


def test_memory_that_is_too_small_is_told_and_training_goes_on(long_lived, undisturbed) -> None:
    pods = long_lived
    gang = pods.start(0, rank0="room! 1")
    assert gang.wait() == [0], gang.output()
    assert "no more periodic memory copies: bad luck" in gang.output()
    assert_same_training(pods, undisturbed(1, LONG), statistics=True)


@pytest.mark.nightly
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    deaths=st.lists(
        st.tuples(
            st.sampled_from(sorted({*DEATHS, "copying", "committing", "sending", "beginning"})),
            st.integers(1, 9),
            st.integers(0, 1),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_row_of_deaths_ends_with_the_same_bits(undisturbed, deaths) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        pods = Pods(Path(folder))
        for point, count, rank in deaths:
            gang = pods.start(0, 1, **{f"rank{rank}": f"{point} {count}"})
            if gang.wait() == [0, 0]:
                break
        else:
            gang = pods.start(0, 1)
            assert gang.wait() == [0, 0], gang.output()
        assert pods.summary()["repeatedSteps"] <= len(deaths)
        assert_same_training(pods, undisturbed(2))
