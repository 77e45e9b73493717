"""A node that has no room on the disk says so before it starts."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from localcluster import LocalClusterError, components, disk, paths


@pytest.mark.parametrize(("free", "needed", "fits"), [(3, 3, True), (2, 3, False)])
def test_room_is_asked_of_the_disk_that_the_folder_will_lie_on(
    free: int, needed: int, fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def disk_usage(folder: Path) -> SimpleNamespace:
        asked.append(folder)
        return SimpleNamespace(free=free << 30)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    folder = tmp_path / "not" / "there" / "yet"
    if fits:
        disk.require_room(folder, needed << 30, "a node", "X_CACHE")
    else:
        with pytest.raises(
            LocalClusterError,
            match=rf"{folder} has 2.0 GiB free and a node needs 3.*prune.*X_CACHE",
        ):
            disk.require_room(folder, needed << 30, "a node", "X_CACHE")
    assert asked == [tmp_path]


def test_a_build_without_room_says_so_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1 << 30))
    with pytest.raises(LocalClusterError, match=r"1.0 GiB free and Go needs 2: .* TMPDIR"):
        components.build(["pause"])
