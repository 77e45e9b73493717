"""CPUs of a rank's own: each rank of a pod is pinned to a part of those that the pod may use.

Threads and processes inherit the CPUs of the thread that starts them, so this is done before torch
computes anything and before loader processes are made. Threads that run already are pinned one by
one: Linux knows no other way.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from .config.settings import Settings
from .errors import ConfigError

TOPOLOGY = Path("/sys/devices/system/cpu")


def by_core(cpus: Collection[int], topology: Path = TOPOLOGY) -> list[int]:
    """The CPUs by package and core, so that neighbours share caches: Linux numbers the threads of a
    core far apart.
    """
    return sorted(cpus, key=lambda cpu: (*_core(topology / f"cpu{cpu}" / "topology"), cpu))


def _core(folder: Path) -> tuple[int, int]:
    try:
        return int((folder / "physical_package_id").read_text()), int(
            (folder / "core_id").read_text()
        )
    except (OSError, ValueError):  # not told here; the order is that of the numbers
        return 0, 0


def part(cpus: list[int], rank: int, ranks: int) -> list[int]:
    """The contiguous part of ``cpus`` for a rank; the sizes of the parts differ by at most one.

    Raises ConfigError when there are fewer CPUs than ranks.
    """
    if len(cpus) < ranks:
        raise ConfigError(
            f"cpuAffinity: PerRank needs a CPU for each of the {ranks} ranks of this pod, which may use {len(cpus)}; "
            "give the pod more CPUs, lower numProcPerNode, or choose Shared"
        )
    return cpus[rank * len(cpus) // ranks : (rank + 1) * len(cpus) // ranks]


def placed(affinity: str, settings: Settings) -> Settings:
    """Pin this rank if ``affinity`` is ``PerRank``; the settings then say so. Raises ConfigError."""
    if affinity != "PerRank":
        return settings
    pin(part(by_core(os.sched_getaffinity(0)), settings.local_rank, settings.local_world_size))
    return dataclasses.replace(settings, pinned=True)


def pin(cpus: Collection[int]) -> None:
    """Let every thread of this process run on these CPUs only."""
    done: set[int] = set()
    # Until no thread is new: one that was not pinned yet may have started it meanwhile.
    while left := {int(task.name) for task in Path("/proc/self/task").iterdir()} - done:
        for thread in left:
            with suppress(ProcessLookupError):  # it has ended
                os.sched_setaffinity(thread, cpus)
        done |= left
