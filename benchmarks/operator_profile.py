"""Where the operator's processor time goes: samples of what it does, by part.

    python benchmarks/operator_scale.py --profile shares.txt --rows 200x2 --churn 0 --ended 0

There the operator is run by this program instead of its own command. The kernel's timer of
processor time interrupts it every 4 ms, and each time the Python stack is counted for the innermost
function that belongs to a part. At its end the shares are written to the file. Left out: the
imports and other threads (pages of metrics, long lists). C code counts for the Python function that
calls it, and so does a garbage collection. Each sample costs some 0.05 ms itself.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Final

SECONDS: Final = 0.004
START: Final = "start"
LOOP: Final = "event loop"
# Parts by what the path of a file contains; the first that fits counts.
PARTS: Final = {
    "importlib": START,
    "/pod/view.py": "views of pods",
    "/contract/assignment.py": "views of pods",
    "/runtime/observer.py": "views of pods",
    "/contract/decoding.py": "JSON",
    "/json/": "JSON",
    "/pod/": "building pods",
    "/decide/": "decisions",
    "/spec/": "decisions",
    "/accelerators/": "decisions",
    "/runtime/probe.py": "probes and scrapes",
    "/runtime/scraper.py": "probes and scrapes",
    "/runtime/rank_watch.py": "probes and scrapes",
    "/runtime/reflector.py": "watch of pods",
    "/runtime/list_watch.py": "watch of pods",
    "/runtime/kopf_session.py": "kopf",
    "/kopf/": "kopf",
    "/runtime/events.py": "events",
    "/prometheus_client/": "metrics",
    "metrics.py": "metrics",
    "/logging/": "logs",
    "/kubernetes/": "client stack",
    "/runtime/client.py": "client stack",
    "/runtime/apply.py": "caches, queue, the rest",
    "/inception_operator/runtime/": "caches, queue, the rest",
}
# What others use: it counts for the first of these parts above it in the stack.
SHARED: Final = ("/aiohttp/", "/yarl/", "/multidict/", "/aiohappyeyeballs/", "/ssl.py")
USERS: Final = ("probes and scrapes", "kopf")


def part_of(files: list[str]) -> str:
    """The part that a stack counts for, from the files of its functions, innermost first."""
    if any("importlib" in file for file in files):
        return START
    for depth, file in enumerate(files):
        if any(shared in file for shared in SHARED):
            above = {_own_part(each) for each in files[depth:]}
            return next((user for user in USERS if user in above), "client stack")
        part = _own_part(file)
        if part is not None:
            return part
    return LOOP if any("/asyncio/" in file for file in files) else START


def _own_part(file: str) -> str | None:
    return next((part for pattern, part in PARTS.items() if pattern in file), None)


def main() -> int:
    """Run the operator, and write the shares when it ends."""
    samples: Counter[str] = Counter()

    def sample(_number: int, frame: FrameType | None) -> None:
        files = []
        while frame is not None:
            files.append(frame.f_code.co_filename)
            frame = frame.f_back
        samples[part_of(files)] += 1

    def write() -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        samples.pop(START, None)
        total = max(1, samples.total())
        lines = [f"{100 * found / total:5.1f} % {part}\n" for part, found in samples.most_common()]
        Path(os.environ["OPERATOR_PROFILE"]).write_text("".join(lines), encoding="utf-8")

    atexit.register(write)
    signal.signal(signal.SIGPROF, sample)
    signal.setitimer(signal.ITIMER_PROF, SECONDS, SECONDS)
    from inception_operator.__main__ import main as operate

    return operate()


if __name__ == "__main__":
    sys.exit(main())
