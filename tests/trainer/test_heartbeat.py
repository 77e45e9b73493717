"""Signs of life of a rank, as the launcher's watchdog reads them."""

from pathlib import Path

import pytest

import trainer_ranks
from inception_trainer.heartbeat import LINE_BYTES, Heartbeat
from inception_trainer.launcher import hang_detector
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
