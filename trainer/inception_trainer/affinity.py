"""How many CPUs a rank may use, and how each rank of a pod is pinned to a part of them
(``cpuAffinity: PerRank``).

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
QUOTA = Path("/sys/fs/cgroup/cpu.max")


def cpus_of_rank(settings: Settings, quota_file: Path = QUOTA) -> float:
    """The CPU limit of this pod, or what the process may run on if that is less, divided by its
    ranks.
    """
    # What a pinned process may run on is its rank's alone, and so not divided.
    ranks = max(1, settings.local_world_size)
    cpus = len(os.sched_getaffinity(0)) / (1 if settings.pinned else ranks)
    # A container's CPU limit is a quota of cgroup v2, which the affinity does not show: threads
    # beyond it only use it up sooner, and then all of them stand still until the next period.
    try:
        quota, period = quota_file.read_text(encoding="ascii").split()
        return cpus if quota == "max" else min(cpus, int(quota) / int(period) / ranks)
    except (OSError, ValueError):
        return cpus


def by_core(cpus: Collection[int], topology: Path = TOPOLOGY) -> list[int]:
    """The CPUs sorted by package and core, so that neighbours share caches."""
    # Linux numbers the threads of a core far apart: 0 and 64 may be one core.
    return sorted(cpus, key=lambda cpu: (*_core(topology / f"cpu{cpu}" / "topology"), cpu))


def _core(folder: Path) -> tuple[int, int]:
    try:
        package = int((folder / "physical_package_id").read_text())
        return package, int((folder / "core_id").read_text())
    except (OSError, ValueError):
        # Some sandboxes hide it; the order is then that of the numbers.
        return 0, 0


def part(cpus: list[int], rank: int, ranks: int) -> list[int]:
    """The contiguous part of ``cpus`` for a rank; the sizes of the parts differ by at most one.

    Raises ConfigError when there are fewer CPUs than ranks.
    """
    if len(cpus) < ranks:
        raise ConfigError(
            f"cpuAffinity: PerRank needs a CPU for each of the {ranks} ranks of this pod, "
            f"which may use {len(cpus)}; give the pod more CPUs, lower numProcPerNode, "
            "or choose Shared"
        )
    return cpus[rank * len(cpus) // ranks : (rank + 1) * len(cpus) // ranks]


def pin_rank(affinity: str, settings: Settings) -> Settings:
    """Pin this rank if ``affinity`` is ``PerRank``; the settings that are returned then say so.

    Raises ConfigError when there are fewer CPUs than ranks.
    """
    if affinity != "PerRank":
        return settings
    # What the pod may use, not what the node has: a cpuset leaves out the others.
    cpus = by_core(os.sched_getaffinity(0))
    pin(part(cpus, settings.local_rank, settings.local_world_size))
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
