"""Where images live: directories that outlive a cluster and are lent to one running cluster at a
time.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .model import Layout
from .paths import cache_dir

_RECORD = "built.json"


def image_store(layout: Layout) -> Path:
    """The store that the cluster uses now; raises FileNotFoundError when it never started."""
    return _link(layout).resolve(strict=True)


def borrow_store(layout: Layout) -> tuple[Path, int]:
    """Lend a free store to the cluster; it is given back when the returned file descriptor closes.

    Images built for one cluster are so at hand for the next one: the store that was built into last
    comes first. Clusters that run at the same time get stores of their own.
    """
    stores = cache_dir() / "containerd"
    stores.mkdir(parents=True, exist_ok=True)
    for store in _candidates(stores):
        descriptor = _try_lock(store.with_suffix(".lock"))
        if descriptor is not None:
            store.mkdir(exist_ok=True)
            _point(_link(layout), store)
            return store, descriptor
    raise AssertionError("unreachable: there is always another number")


@contextmanager
def spare_stores() -> Iterator[list[Path]]:
    """The stores that no cluster has borrowed, but for the one built into last, which the next
    cluster will want.

    Nobody can borrow them until the context ends.
    """
    folder = cache_dir() / "containerd"
    stores = (
        sorted((path for path in folder.iterdir() if path.is_dir()), key=_last_use)
        if folder.exists()
        else []
    )
    held = [(store, _try_lock(store.with_suffix(".lock"))) for store in stores[:-1]]
    try:
        yield [store for store, descriptor in held if descriptor is not None]
    finally:
        for _, descriptor in held:
            if descriptor is not None:
                os.close(descriptor)


def _candidates(stores: Path) -> Iterator[Path]:
    existing = [path for path in stores.iterdir() if path.is_dir()]
    yield from sorted(existing, key=_last_use, reverse=True)
    taken = {path.name for path in existing}
    yield from (stores / str(number) for number in itertools.count() if str(number) not in taken)


def _last_use(store: Path) -> float:
    record = store / _RECORD
    return record.stat().st_mtime if record.exists() else 0.0


def _try_lock(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _link(layout: Layout) -> Path:
    return layout.root / "images"


def _point(link: Path, target: Path) -> None:
    temporary = link.with_name(f".{link.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)


def recorded_key(store: Path, image: str) -> str | None:
    """Key of the inputs that ``image`` was last built or imported from."""
    value = _records(store).get(image)
    return value if isinstance(value, str) else None


def record_key(store: Path, image: str, key: str) -> None:
    """Remember what ``image`` was made from."""
    records = {**_records(store), image: key}
    temporary = store / f"{_RECORD}.new"
    temporary.write_text(json.dumps(records, indent=2, sort_keys=True))
    temporary.replace(store / _RECORD)


def _records(store: Path) -> dict[str, object]:
    path = store / _RECORD
    if not path.exists():
        return {}
    records: dict[str, object] = json.loads(path.read_text())
    return records
