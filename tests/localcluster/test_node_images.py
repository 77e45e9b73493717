"""Image archives, the store that outlives a cluster, and what decides whether an image is built
again.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from localcluster import images, imagestore, ociarchive
from localcluster.model import Layout


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setenv("LOCALCLUSTER_CACHE", str(tmp_path / "cache"))
    return _layout(tmp_path, "one")


def _layout(tmp_path: Path, name: str) -> Layout:
    root = tmp_path / "clusters" / name
    root.mkdir(parents=True)
    return Layout(root, tmp_path / "bin", 20123)


@pytest.fixture
def build(tmp_path: Path) -> images.ImageBuild:
    context, wheels = tmp_path / "context", tmp_path / "wheels"
    (context / "source").mkdir(parents=True)
    wheels.mkdir()
    (context / "Dockerfile").write_text("FROM scratch")
    (context / "source" / "a.py").write_text("a")
    (context / "notes.txt").write_text("n")
    (wheels / "torch-1.whl").write_text("w")
    return images.ImageBuild(
        "localhost/x:1",
        context,
        context / "Dockerfile",
        target="x",
        build_args={"BASE": "b"},
        named_contexts={"wheels": wheels},
        sources=("source",),
    )


def test_archive_is_a_complete_oci_layout(tmp_path: Path) -> None:
    binary, layer, archive = tmp_path / "pause", tmp_path / "layer", tmp_path / "image.tar"
    binary.write_bytes(b"program")
    ociarchive.write_layer(layer, {"pause": binary})
    ociarchive.write(
        archive, "localhost/pause:1", layer, ociarchive.ImageConfig(entrypoint=("/pause",))
    )
    with tarfile.open(archive) as opened:
        files = {member.name: opened.extractfile(member) for member in opened}
        content = {name: file.read() for name, file in files.items() if file is not None}
    (descriptor,) = json.loads(content["index.json"])["manifests"]
    manifest = json.loads(content[_blob(descriptor["digest"])])
    config = json.loads(content[_blob(manifest["config"]["digest"])])
    assert descriptor["annotations"]["io.containerd.image.name"] == "localhost/pause:1"
    assert config["rootfs"]["diff_ids"] == [manifest["layers"][0]["digest"]]
    assert config["config"] == {"Entrypoint": ["/pause"]}
    for name, data in content.items():
        if name.startswith("blobs/"):
            assert name == _blob(f"sha256:{hashlib.sha256(data).hexdigest()}")


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def test_pause_archive_is_made_once(layout: Layout, tmp_path: Path) -> None:
    del layout
    binary = tmp_path / "pause"
    binary.write_bytes(b"program")
    first = images.ensure_pause_archive(binary)
    created = first.stat().st_mtime_ns
    assert images.ensure_pause_archive(binary).stat().st_mtime_ns == created
    binary.write_bytes(b"another")
    assert images.ensure_pause_archive(binary) != first


def test_a_store_is_lent_to_one_cluster_at_a_time(layout: Layout, tmp_path: Path) -> None:
    other = _layout(tmp_path, "two")
    first, descriptor = imagestore.borrow_store(layout)
    second, other_descriptor = imagestore.borrow_store(other)
    try:
        assert first != second
        assert imagestore.image_store(layout) == first
        assert imagestore.image_store(other) == second
    finally:
        os.close(descriptor)
        os.close(other_descriptor)
    again, descriptor = imagestore.borrow_store(other)
    os.close(descriptor)
    assert again == first


def test_the_store_with_the_newest_images_comes_first(layout: Layout, tmp_path: Path) -> None:
    stores = [tmp_path / "cache" / "containerd" / str(number) for number in range(3)]
    for age, store in zip((5, 1, 9), stores, strict=True):
        store.mkdir(parents=True)
        imagestore.record_key(store, "image", "key")
        os.utime(store / "built.json", (1000 - age, 1000 - age))
    store, descriptor = imagestore.borrow_store(layout)
    os.close(descriptor)
    assert store == stores[1]


def test_keys_of_images_are_remembered(tmp_path: Path) -> None:
    assert imagestore.recorded_key(tmp_path, "a") is None
    imagestore.record_key(tmp_path, "a", "1")
    imagestore.record_key(tmp_path, "b", "2")
    assert (imagestore.recorded_key(tmp_path, "a"), imagestore.recorded_key(tmp_path, "b")) == (
        "1",
        "2",
    )


def test_the_command_names_contexts_target_and_output(
    layout: Layout, build: images.ImageBuild
) -> None:
    command = images.build_command(layout, build)
    assert f"--local=wheels={build.named_contexts['wheels']}" in command
    assert "--opt=context:wheels=local:wheels" in command
    assert "--opt=target=x" in command
    assert "--opt=build-arg:BASE=b" in command
    assert "--output=type=image,name=localhost/x:1,unpack=true,compression=uncompressed" in command


def test_the_same_inputs_have_the_same_key(build: images.ImageBuild) -> None:
    (build.context / "notes.txt").write_text("not a source")
    key = images.build_key(build)
    os.utime(build.context / "source" / "a.py")
    assert images.build_key(build) == key


@pytest.mark.parametrize(
    "path",
    ["Dockerfile", "source/a.py", "source/new.py", ".dockerignore", "../wheels/torch-2.whl"],
)
def test_a_changed_file_changes_the_key(build: images.ImageBuild, path: str) -> None:
    key = images.build_key(build)
    (build.context / path).write_text("changed")
    assert images.build_key(build) != key


def test_changed_settings_change_the_key(build: images.ImageBuild) -> None:
    variants = [
        build,
        replace(build, target="y"),
        replace(build, build_args={"BASE": "c"}),
        replace(build, named_contexts={}),
    ]
    assert len({images.build_key(variant) for variant in variants}) == len(variants)


def test_files_that_git_ignores_do_not_count(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text("*.log\n")
    for name in ("a.py", "b.log"):
        (tmp_path / name).write_text("")
    assert [path.name for path in images.context_files(tmp_path, ["."])] == [".gitignore", "a.py"]


def test_an_image_that_lost_its_name_is_found() -> None:
    listing = """\
REF           TYPE  DIGEST     SIZE
localhost/a:1 t     sha256:new 1 MiB
sha256:id1    t     sha256:old 1 MiB
sha256:id2    t     sha256:new 1 MiB
"""
    assert images.replaced_images(listing) == ("sha256:id1",)
