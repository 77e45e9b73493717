"""Device nodes in this container that its user may not open.

A vendor's library then says that there is no device, or some number. A container has no nodes but
the common ones and those that the device plug-in or driver gave it, so no vendor's names are needed
to find the reason.
"""

from __future__ import annotations

import grp
import os
import stat
from collections.abc import Iterator
from pathlib import Path

DEV = Path("/dev")
MOST_NAMED = 4
_DEPTH = 2
_KERNEL_LOG = "kmsg"
_COMMON = frozenset(("console", "full", "null", "ptmx", "random", "tty", "urandom", "zero"))
_NO_DEVICES = frozenset(("fd", "mqueue", "pts", "shm"))
# A display's own node beside the one for computing, which most users may not open.
_DISPLAY = "card"


def explain_closed() -> str:
    """Which device nodes cannot be opened, their group, and the remedy; empty where all can."""
    if (DEV / _KERNEL_LOG).exists():
        # The nodes of a whole machine, of which nobody but root may open most.
        return ""
    closed = sorted(_closed(DEV, _DEPTH))
    if not closed:
        return ""
    named = "; ".join(_describe(path) for path in closed[:MOST_NAMED])
    if len(closed) > MOST_NAMED:
        named += f"; and {len(closed) - MOST_NAMED} more"
    groups = ", ".join(str(number) for number in sorted(os.getgroups())) or "none"
    return f"user {os.getuid()} with the groups {groups} cannot open {named}; {_remedy(closed)}"


def _closed(folder: Path, depth: int) -> Iterator[Path]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            if depth > 1 and entry.name not in _NO_DEVICES:
                yield from _closed(path, depth - 1)
        elif _is_closed(path):
            yield path


def _is_closed(path: Path) -> bool:
    if path.name in _COMMON or path.name.startswith(_DISPLAY):
        return False
    try:
        is_device = stat.S_ISCHR(path.lstat().st_mode)
    except OSError:
        return False
    return is_device and not os.access(path, os.R_OK | os.W_OK)


def _describe(path: Path) -> str:
    status = path.stat()
    mode = stat.S_IMODE(status.st_mode)
    return f"{path} (owner {status.st_uid}, group {_group(status.st_gid)}, mode {mode:04o})"


def _group(number: int) -> str:
    try:
        return f"{number} {grp.getgrgid(number).gr_name}"
    except KeyError:
        return str(number)


def _remedy(closed: list[Path]) -> str:
    statuses = [path.stat() for path in closed]
    writable = stat.S_IRGRP | stat.S_IWGRP
    groups = sorted({each.st_gid for each in statuses if each.st_mode & writable == writable})
    remedies: list[str] = []
    if groups:
        remedies.append(
            f"set spec.template.spec.securityContext.supplementalGroups: {groups} in the job"
        )
    if any(each.st_mode & writable != writable for each in statuses):
        remedies.append("give the group rights to the nodes on the machine (mode 0660)")
    return " and ".join(remedies)
