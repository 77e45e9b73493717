"""A rank that is stopped three quarters of the time: its own time shows it, the step does not."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

import trainer_ranks
from inception_trainer.launcher import rank_times
from trainer_ranks import TINY

STOPPED_SECONDS, RUNNING_SECONDS = 0.3, 0.1


@pytest.mark.nightly
@pytest.mark.timeout(300)
def test_the_own_time_of_a_stopped_rank_stands_out_and_its_steps_do_not(tmp_path: Path) -> None:
    config = {**TINY, "data": {**TINY["data"], "samples": 4096}, "epochs": 1000}
    gang = trainer_ranks.start(tmp_path, config, world=2, pause=0.05)
    over = threading.Event()

    def steps() -> int:
        return min((times.steps for times in rank_times.read(tmp_path, 0)), default=0)

    def stop_and_go() -> None:
        victim = gang.processes[1].pid
        while not over.wait(RUNNING_SECONDS):
            os.kill(victim, signal.SIGSTOP)
            over.wait(STOPPED_SECONDS)
            os.kill(victim, signal.SIGCONT)

    gang.until(lambda: steps() > 10)
    before = rank_times.read(tmp_path, 0)
    began = steps()
    stopping = threading.Thread(target=stop_and_go)
    stopping.start()
    try:
        gang.until(lambda: steps() > began + 80)
        after = rank_times.read(tmp_path, 0)
    finally:
        over.set()
        stopping.join()
        gang.signal(signal.SIGKILL)
        gang.wait()
    (own0, step0), (own1, step1) = (
        (
            (late.own_seconds - early.own_seconds) / (late.steps - early.steps),
            (late.step_seconds - early.step_seconds) / (late.steps - early.steps),
        )
        for early, late in zip(before, after, strict=True)
    )
    print(f"own {own0:.4f} {own1:.4f} step {step0:.4f} {step1:.4f}")
    assert own1 / own0 > 1.5
    # Alike but for stops between meeting the other rank and the end of the step.
    assert own1 / own0 > 1.5 * step1 / step0
