"""Shows where the ranks of this pod are now: run beside the launcher, by `kubectl inception debug`.

``python3 -m inception_trainer.launcher.show_stacks [FIRST_RANK]``. The ranks go on: each of them
writes its stacks from within a signal handler (see ``stacks``).
"""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from . import rank, stacks

SECONDS = 2.0
"""How long ranks may take to show their stacks; one in a system call that does not return never
does.
"""
_PAUSE = 0.05
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108


def places() -> list[Path]:
    """List where the launcher may have its files: see `main`, of which this is a neighbour."""
    with contextlib.suppress(FileNotFoundError):
        return [Path(tempfile.gettempdir()), _SHARED_MEMORY]
    return [_SHARED_MEMORY]


def newest_attempt(folders: Sequence[Path]) -> Path | None:
    """Find the files of the attempt that began last and whose ranks have started."""
    for place in folders:
        found = [each for each in place.glob("inception-*/attempt-*") if any(each.glob("pid-*"))]
        if found:
            return max(found, key=lambda folder: folder.stat().st_mtime)
    return None


def answers(pid: int) -> bool:
    """Tell whether a process has a handler for the signal, which would end any other process."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    caught = next((line for line in text.splitlines() if line.startswith("SigCgt:")), "SigCgt: 0")
    return bool(int(caught.split()[1], 16) >> (stacks.SIGNAL - 1) & 1)


def collect(folder: Path, ranks: dict[int, int], seconds: float = SECONDS) -> dict[int, str]:
    """Ask the ranks, given by local rank and process number, and read what they show."""
    asked = [local for local, pid in ranks.items() if answers(pid)]
    for local in asked:
        stacks.ask(ranks[local])
    end = time.monotonic() + seconds
    before: dict[int, str] = {}
    while True:
        texts = {local: stacks.read(folder, local) for local in ranks}
        # Written frame by frame: complete when it grows no more.
        if (all(texts[local] for local in asked) and texts == before) or time.monotonic() > end:
            break
        before = texts
        time.sleep(_PAUSE)
    for local in ranks:
        # The hang monitor takes what it finds in the file for the answer to its own question.
        with contextlib.suppress(OSError):
            os.truncate(stacks.path(folder, local), 0)
    return texts


def show(folder: Path, first_rank: int, say: Callable[[str], object] = print) -> None:
    """Print the stacks of all ranks that an attempt has on this node."""
    ranks = rank.processes(folder)
    texts = collect(folder, ranks)
    for local, pid in sorted(ranks.items()):
        state = stacks.state_of(pid) or "gone"
        shown = texts[local].rstrip() or "(it cannot show its stacks)"
        say(f"rank {first_rank + local}, process {pid} in state {state}:\n{shown}\n")


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    folder = newest_attempt(places())
    if folder is None:
        print("no ranks run in this pod", file=sys.stderr)
        return 1
    show(folder, int(argv[0]) if argv else 0)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
