"""How long the demo will take and how far it is: printed before every line of a cold start."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from demo.images import IMAGES

# What each part is expected to add to a cold start on two cores: the programs of a Go module, an
# image, and what comes after both. The first one waits for the base images and downloads that are
# made beside it. Estimates, which only the lines on the screen use.
SECONDS = {
    "containerd": 190,
    "buildkit": 65,
    "runc": 15,
    "cni": 5,
    "etcd": 22,
    "kubernetes": 350,
    "pause": 1,
    "operator": 5,
    "trainer": 20,
    "cluster and job": 165,
}


@dataclass(frozen=True)
class Part:
    """Something the demo has to make: about how long it takes, and whether it is done."""

    seconds: float
    is_done: Callable[[], bool]


def local_parts(programs: Sequence[str], built_images: set[str]) -> Iterator[Part]:
    """The parts of a demo on this machine, in the order in which they are made."""
    from localcluster.components import select
    from localcluster.node import IMAGE_BUILDERS

    ordered = [*select(IMAGE_BUILDERS), *select(programs)]
    for module in dict.fromkeys(component.module for component in ordered):
        names = [component.name for component in ordered if component.module == module]
        yield Part(SECONDS[module], partial(_are_built, names))
    for image in IMAGES:
        yield Part(SECONDS[image], partial(built_images.__contains__, image))
    yield Part(SECONDS["cluster and job"], lambda: False)


def _are_built(programs: Sequence[str]) -> bool:
    from localcluster.components import not_built

    return not not_built(programs)


class Outlook:
    """Knows from its parts, given in order, how far the whole is."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self._parts = [part for part in parts if not part.is_done()]
        self.seconds = sum(part.seconds for part in self._parts)
        self._done = 0.0
        self._last_news = time.monotonic()
        self._shown = 0

    def percent(self) -> int:
        """About how much of the work is done; it never goes back."""
        now = time.monotonic()
        rest = [part.seconds for part in self._parts if not part.is_done()]
        done = self.seconds - sum(rest)
        if done != self._done:
            self._done, self._last_news = done, now
        # Between two ends the work goes on as expected, but not beyond the next end.
        under_way = min(now - self._last_news, 0.9 * rest[0]) if rest else 0
        self._shown = max(self._shown, int(100 * (done + under_way) / self.seconds))
        return self._shown

    def announcement(self, programs: int) -> str:
        """What to expect, said at the start."""
        text = f"about {max(1, round(self.seconds / 60))} minutes on two cores"
        return f"{text}: {programs} programs are built first, once" if programs else text


class Say:
    """Progress lines: seconds since the start and, once there is an outlook, how far it is."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self.outlook: Outlook | None = None

    def __call__(self, message: str) -> None:
        """Print one line."""
        far = f", about {self.outlook.percent()} %" if self.outlook else ""
        print(f"[{time.monotonic() - self._started:5.0f} s{far}] {message}", flush=True)
