"""Removes what no cluster uses and this checkout does not need: binaries and base images of other
pins, and spare image stores.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from . import imagestore
from .components import COMPONENTS, binaries_dir, build_lock, fingerprint
from .linux import mounts_under
from .paths import cache_dir
from .progress import Progress, quiet


def prune(progress: Progress = quiet) -> list[Path]:
    """Remove and return what is not needed any more. Nothing that a running cluster uses is
    touched.
    """
    removed = []
    with build_lock(progress):
        for folder in _old_binaries():
            shutil.rmtree(folder)
            removed.append(folder)
    for archive in _old_archives():
        archive.unlink()
        removed.append(archive)
    with imagestore.spare_stores() as stores:
        for store in stores:
            if mounts_under(store):
                progress(f"left alone, because something is mounted there: {store}")
                continue
            shutil.rmtree(store)
            removed.append(store)
    return removed


def _old_binaries() -> Iterator[Path]:
    store = cache_dir() / "store"
    kept = {fingerprint(component) for component in COMPONENTS.values()}
    # Clusters find programs through the links, and a running program may be older than its link.
    kept |= {link.resolve().parent.name for link in binaries_dir().iterdir() if link.is_symlink()}
    kept |= {
        path.parent.name for path in _running_programs() if path.is_relative_to(store.resolve())
    }
    for folder in sorted(store.iterdir()) if store.exists() else ():
        if folder.name not in kept:
            yield folder


def _old_archives() -> Iterator[Path]:
    """Base images other than the one of each name that was asked for last; whoever wants one of
    them again makes it anew.
    """
    newest: dict[str, Path] = {}
    archives = (cache_dir() / "images").glob("*-*.tar")
    for archive in sorted(archives, key=_last_wanted):
        name = archive.name.rpartition("-")[0]
        if name in newest:
            yield newest[name]
        newest[name] = archive


def _last_wanted(archive: Path) -> float:
    # Whoever wants the archive takes its lock first, and opening that for writing dates it.
    lock = archive.with_suffix(".lock")
    return (lock if lock.exists() else archive).stat().st_mtime


def _running_programs() -> Iterator[Path]:
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                yield (process / "exe").readlink()
            except OSError:  # it has ended, or is somebody else's
                continue
