"""Signs of life of a rank, as the launcher's watchdog reads them."""

from pathlib import Path

import pytest

import trainer_ranks
from inception_trainer.heartbeat import LINE_BYTES, Heartbeat
from inception_trainer.launcher import hang_detector, rank_times
from inception_trainer.launcher.rank_times import RankTimes
from trainer_ranks import TINY

STEPS = 6
ROUNDS_OF_EVALUATION = 4
"""64 samples, of which each of two ranks takes 8 at a time."""


def read(path: Path) -> hang_detector.Heartbeat:
    text = path.read_text(encoding="ascii")
    assert len(text) == LINE_BYTES
    return hang_detector.parse_heartbeat(text, "")


def test_start_and_first_step_may_take_long(tmp_path: Path) -> None:
    path = tmp_path / "beat"
    heart = Heartbeat(path)
    assert (read(path).step, read(path).count, read(path).patient) == (0, 0, True)
    assert list(heart.over("ab")) == ["a", "b"]
    assert (read(path).step, read(path).count, read(path).patient) == (0, 2, True)
    heart.step(31)
    assert (read(path).step, read(path).count, read(path).patient) == (31, 3, True), (
        "sinks start now"
    )
    heart.beat()
    assert read(path).patient, "ranks wait in the second step for rank 0's sinks"
    heart.step(32)
    assert (read(path).step, read(path).count, read(path).patient) == (32, 5, False)


@pytest.mark.parametrize(
    ("calls", "patient"),
    [
        ("ss", False),
        ("ssb", False),
        ("ssp", True),
        ("sspb", True),
        ("sspbb", False),
        ("ssps", False),
        ("sspsb", False),
    ],
    ids=[
        "step",
        "batch",
        "pause",
        "first batch after it",
        "second batch",
        "step after it",
        "batch after that",
    ],
)
def test_a_pause_lasts_until_something_is_computed(
    tmp_path: Path, calls: str, patient: bool
) -> None:
    heart = Heartbeat(tmp_path / "beat")
    for call in calls:
        {"s": lambda: heart.step(1), "b": heart.beat, "p": heart.pause}[call]()
    assert read(tmp_path / "beat").patient is patient
    assert read(tmp_path / "beat").count == len(calls)


def test_times_of_steps_add_up_and_come_with_the_next_sign_of_life(tmp_path: Path) -> None:
    path = tmp_path / "heartbeat-1"
    heart = Heartbeat(path)
    heart.step(7)
    assert rank_times.read(tmp_path, 4) == ()
    heart.add_times(1.0, 0.25, 0.5)
    heart.add_times(2.0, 0.5, 1.25)
    heart.beat()
    (times,) = rank_times.read(tmp_path, 4)
    assert times == RankTimes(5, 2, 3.0, 0.75, 1.75)
    assert (read(path).step, read(path).count, read(path).paced) == (7, 2, True)


def test_the_line_has_room_for_years_of_steps(tmp_path: Path) -> None:
    heart = Heartbeat(tmp_path / "heartbeat-0")
    heart.add_times(1e10, 1e10, 1e10)
    heart.step(10**15)
    heart.pause()
    assert read(tmp_path / "heartbeat-0").step == 10**15
    assert rank_times.read(tmp_path, 0) == (RankTimes(0, 1, 1e10, 1e10, 1e10),)


@pytest.mark.timeout(300)
def test_a_rank_is_ready_before_it_waits_for_one_that_is_not(tmp_path: Path) -> None:
    """Rank 1 computes no step before rank 0 is ready in it: if a rank counted as ready only once it
    has met the others, both would wait for ever.
    """
    signs = tmp_path / "signs"
    signs.mkdir()
    config = {**TINY, "maxSteps": STEPS, "batch": {"global": 16, "perDevice": 4}}
    waiting = {"RANK_1_WAITS_FOR_0": str(signs)}
    gang = trainer_ranks.start(tmp_path / "gang", config, world=2, environment=waiting)
    assert gang.wait() == [0, 0], gang.output()
    assert len(list(signs.iterdir())) == STEPS
    for times in rank_times.read(tmp_path / "gang", 0):
        # The last step's times are known after the last sign of life.
        assert times.steps >= STEPS - 1
        assert times.own_seconds > 0
        assert times.wait_seconds > 0
        assert times.own_seconds + times.wait_seconds <= times.step_seconds


def test_without_a_launcher_nothing_is_written() -> None:
    heart = Heartbeat(None)
    heart.step(1)
    assert list(heart.over([1])) == [1]


@pytest.mark.timeout(300)
def test_steps_evaluation_and_saves_of_both_ranks_are_signs_of_life(tmp_path: Path) -> None:
    data = {**TINY["data"], "samples": 256}
    saving = {"path": str(tmp_path / "run"), "everySteps": 2, "everySeconds": 0}
    config = {**TINY, "data": data, "epochs": 1, "maxSteps": STEPS, "checkpoint": saving}
    gang = trainer_ranks.start(tmp_path / "gang", config, world=2)
    assert gang.wait() == [0, 0], gang.output()
    first, second = (read(tmp_path / "gang" / f"heartbeat-{rank}") for rank in range(2))
    assert first.count == second.count, "counts are equal at the same place of the program"
    assert (first.step, second.step) == (STEPS, STEPS)
    epoch, batches, saves, evaluation, end = 1, STEPS, 2, 1 + ROUNDS_OF_EVALUATION + 1, 2
    assert first.count == epoch + batches + STEPS + saves + evaluation + end
    assert first.patient, "the end may take long"
