"""Which of several operators a job belongs to, by a hash of its name (docs/scale.md, decision 32).

The rule is the same in every release: two releases that disagreed about a job would both run it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

MOST_SHARDS: Final = 32
"""Each shard decodes every change of every job and pod, so more of them would do little else."""
OF_SHARD: Final = "-shard-"
"""Between the name of the Lease of the whole and the number of a shard, in the name of its own."""
_SHARD: Final = re.compile(r"([0-9]{1,2})/([0-9]{1,2})")


@dataclass(frozen=True)
class Shard:
    """The ``index``-th of ``count`` operators, counted from 0."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count <= MOST_SHARDS:
            raise ValueError(
                f"{self} is none of the shards 0/n to n-1/n, with n from 1 to {MOST_SHARDS}"
            )

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def alone(self) -> bool:
        """Whether all jobs are its own."""
        return self.count == 1

    def owns(self, key: tuple[str, str]) -> bool:
        """Whether a job, by its namespace and name, is this shard's."""
        return self.count == 1 or shard_of(key, self.count) == self.index


ALL_JOBS: Final = Shard()


def shard_of(key: tuple[str, str], count: int) -> int:
    """The shard of a job among ``count`` of them."""
    namespace, name = key
    # Neither part can have a slash. A weak hash would put the jobs a-0, a-1, a-2, … side by side.
    digest = hashlib.sha256(f"{namespace}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % count


def parse_shard(text: str) -> Shard:
    """``0/3`` as `Shard`; raises ValueError."""
    found = _SHARD.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not written as 0/3, the first of three")
    return Shard(int(found.group(1)), int(found.group(2)))
