"""A data-parallel program small enough for tests of the launcher: steps of an all-reduce, with
deaths on request.

Its folder, TINY_FOLDER, holds what the test says (``do-<attempt>-<rank>``, ``finish``) and what the
ranks say (``step-<attempt>-<rank>`` at the first step, with the process number).
"""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

BEATS = itertools.count(1)


class MissingError(Exception):
    """Ends its process with the code of a missing input."""

    exit_code = 66


def note(path: Path, text: str) -> None:
    """Write a file in one go."""
    draft = path.with_name(f".{path.name}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def detach() -> None:
    """Leave a grandchild in a session of its own, and one that ends as an orphan."""
    code = (
        "import subprocess, sys; "
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(%s)'])"
    )
    for seconds in ("600", "0.2"):
        subprocess.run([sys.executable, "-c", code % seconds], check=True, start_new_session=True)


def beat(step: int) -> None:
    """Leave a sign of life for the hang monitor."""
    Path(os.environ["INCEPTION_HEARTBEAT_FILE"]).write_text(
        f"{step} {next(BEATS)}", encoding="ascii"
    )


def sleep_for_ever() -> None:
    """Hang where a stack shows it."""
    while True:
        time.sleep(600)


def evaluate() -> None:
    """Take longer than the deadline, with signs of life but without a step."""
    end = time.monotonic() + float(os.environ["TINY_EVALUATION_SECONDS"])
    while time.monotonic() < end:
        time.sleep(0.05)
        beat(0)


def act(action: str) -> None:
    """Do what the test asks this rank to do."""
    match action:
        case "raise":
            raise ValueError("bad luck\nsecond line")
        case "missing":
            raise MissingError("/data/train: no such folder")
        case "exit-7":
            sys.exit(7)
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "detach":
            detach()
        case "sleep":
            sleep_for_ever()
        case "evaluate":
            evaluate()


def train() -> None:
    """Step until told otherwise."""
    import torch
    import torch.distributed as dist

    # It obeys the stop file, so it must not die of the SIGTERM that programs of others get.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    folder, attempt, rank = (
        Path(os.environ["TINY_FOLDER"]),
        os.environ["INCEPTION_ATTEMPT"],
        os.environ["RANK"],
    )
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    step = 0
    while True:
        step += 1
        flags = torch.tensor(
            [Path(os.environ["INCEPTION_STOP_FILE"]).exists(), (folder / "finish").exists()],
            dtype=torch.float32,
        )
        dist.all_reduce(flags)
        if step == 1:
            note(folder / f"step-{attempt}-{rank}", str(os.getpid()))
        beat(step)
        if os.environ["LOCAL_RANK"] == "0":
            note(
                Path(os.environ["INCEPTION_PROGRESS_FILE"]),
                json.dumps({"step": step, "metrics": {"loss": 1 / step}}),
            )
        if flags.any():
            # A thread of gloo that outlives the interpreter would end it with SIGABRT.
            dist.destroy_process_group()
        if flags[0] > 0:
            sys.exit(75)
        if flags[1] > 0:
            return
        order = folder / f"do-{attempt}-{rank}"
        if order.exists():
            action = order.read_text(encoding="utf-8")
            order.unlink()
            act(action)
        time.sleep(0.01)


if __name__ == "__main__":
    train()
