"""Freed memory stays with the process: what a step frees, the next one takes without the kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import inception_trainer

PAGES = 64 * 2**20 // 4096
CODE = """
import resource, sys, torch
from inception_trainer.device.hostmemory import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():
    one, other = torch.ones(2 ** 24), torch.ones(2 ** 20)

if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(4):
    step()
before = faults()
step()
print(faults() - before)
"""


def faults_of_a_later_step(how: str) -> int:
    environment = {**os.environ, "PYTHONPATH": str(Path(inception_trainer.__file__).parents[1])}
    command = [sys.executable, "-c", CODE, how]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return int(done.stdout)


def test_a_later_step_takes_the_pages_of_the_first() -> None:
    assert faults_of_a_later_step("keep") < PAGES // 1000
    # Each page, or each of 2 MiB where the kernel has huge ones.
    assert faults_of_a_later_step("as it comes") >= PAGES // 512
