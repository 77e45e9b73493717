"""What prune removes, and what it leaves."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from localcluster import cli, components, imagestore, paths, prune
from localcluster.model import Layout


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv(paths.CACHE_VARIABLE, folder)
        components.binaries_dir().mkdir()
        yield Path(folder)


def binary(cache: Path, folder: str, name: str) -> Path:
    path = cache / "store" / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy("/bin/sleep", path)
    return path


def test_binaries_of_other_versions_go(cache: Path) -> None:
    current = binary(cache, components.fingerprint(components.COMPONENTS["etcd"]), "etcd")
    old = binary(cache, "0123456789abcdef", "etcd")
    assert prune.prune() == [old.parent]
    assert current.exists()
    assert not old.exists()


def test_what_clusters_use_stays(cache: Path) -> None:
    linked, running = binary(cache, "1" * 16, "kubelet"), binary(cache, "2" * 16, "etcd")
    (components.binaries_dir() / "kubelet").symlink_to(Path("..") / linked.relative_to(cache))
    with subprocess.Popen([running, "60"]) as process:
        assert prune.prune() == []
        process.kill()
    assert prune.prune() == [running.parent]


def store(cache: Path, number: int, built: float) -> Path:
    folder = cache / "containerd" / str(number)
    (folder / "content").mkdir(parents=True)
    imagestore.record_key(folder, "image", "key")
    os.utime(folder / "built.json", (built, built))
    return folder


def test_image_stores_go_but_the_newest_and_those_in_use(cache: Path) -> None:
    used, spare, newest = store(cache, 0, 100), store(cache, 1, 200), store(cache, 2, 300)
    layout = Layout(cache, components.binaries_dir(), 0)
    newest.rename(cache / "aside")
    spare.rename(cache / "aside-too")
    borrowed, descriptor = imagestore.borrow_store(layout)
    (cache / "aside").rename(newest)
    (cache / "aside-too").rename(spare)
    assert borrowed == used
    try:
        assert prune.prune() == [spare]
    finally:
        os.close(descriptor)
    assert used.exists()
    assert prune.prune() == [used]
    assert newest.exists()


def test_a_store_with_mounts_is_left_alone(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spare, _ = store(cache, 0, 100), store(cache, 1, 200)
    monkeypatch.setattr(prune, "mounts_under", lambda path: [str(path / "rootfs")])
    said: list[str] = []
    assert prune.prune(said.append) == []
    assert str(spare) in said[-1]


def test_an_empty_cache_is_fine(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["prune"]) == 0
    assert capsys.readouterr().out == ""


def test_the_command_says_what_it_removed(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = binary(cache, "0123456789abcdef", "etcd")
    assert cli.main(["prune"]) == 0
    assert capsys.readouterr().out == f"removed {old.parent}\n"


def test_of_base_images_the_ones_wanted_last_stay(cache: Path) -> None:
    (cache / "images").mkdir()
    archives = [cache / "images" / f"{name}.tar" for name in ("a-b-1", "a-b-2", "a-3")]
    for age, archive in enumerate(archives):
        archive.touch()
        lock = archive.with_suffix(".lock")
        lock.touch()
        os.utime(lock, (1000 - age, 1000 - age))
    assert prune.prune() == [archives[1]]
    assert archives[0].exists()
    assert archives[2].exists()


@pytest.mark.parametrize(("free", "goes"), [(20, False), (19, True)])
def test_nothing_goes_while_there_is_room(
    free: int, goes: bool, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = binary(cache, "0123456789abcdef", "etcd")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free << 30))
    assert cli.main(["prune", "--when-below", "20"]) == 0
    assert old.exists() is not goes
