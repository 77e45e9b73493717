"""What the two images hold, built on the local node's bases."""

from __future__ import annotations

import json
import re
import stat
import tarfile
from pathlib import Path, PurePosixPath
from typing import Final

import pytest

from demo.clusters import Ready
from demo.images import ROOT
from image_files import Archive, Entry, build_archive
from localcluster.cluster import Cluster

OPERATOR_LIMIT: Final = 120 * 10**6
REVISION: Final = "0123456789abcdef"
# What no program, package or folder of the operator's image may be called.
UNWANTED: Final = (
    *("sh", "bash", "dash", "busybox", "apt", "apt-get", "dpkg-deb", "pip", "pip3"),
    *("gcc", "cc", "ld", "as", "make", "perl"),
    *("setuptools", "wheel", "ensurepip", "pkg_resources", "__pip-runner__.py"),
    *("test", "tests", "v1_pod.py", "core_v1_api.py"),
)


@pytest.fixture(scope="module")
def operator(
    installed: Ready, node_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Archive:
    """The operator's image; all but its labels is in the cache of builds."""
    folder = tmp_path_factory.mktemp("operator")
    return build_archive(
        node_cluster.layout, "operator", folder / "image.tar", REVISION=REVISION, VERSION="1.2.3"
    )


@pytest.fixture(scope="module")
def files(operator: Archive) -> list[Entry]:
    return operator.entries(0)


def test_the_operators_image_is_one_small_layer(operator: Archive, files: list[Entry]) -> None:
    assert len(operator.manifest["layers"]) == 1
    assert sum(file.size for file in files) <= OPERATOR_LIMIT


def test_the_operators_image_has_one_program_and_no_tools(files: list[Entry]) -> None:
    parts = {part for file in files for part in PurePosixPath(file.name).parts}
    assert parts & set(UNWANTED) == set()
    programs = [
        file.name for file in files if file.is_program and re.search(r"(^|/)s?bin/", file.name)
    ]
    assert [re.sub(r"[0-9.]+$", "", name) for name in programs] == ["usr/bin/python"]


def test_nothing_in_the_operators_image_can_be_written_but_tmp(files: list[Entry]) -> None:
    others = [f for f in files if f.kind != tarfile.SYMTYPE and f.mode & stat.S_IWOTH]
    assert [file.name.rstrip("/") for file in others] == ["tmp"]
    assert [f.name for f in files if f.mode & (stat.S_ISUID | stat.S_ISGID)] == []


@pytest.mark.nightly
def test_both_images_say_what_they_are_and_run_as_the_same_user(
    operator: Archive, node_cluster: Cluster, tmp_path: Path
) -> None:
    trainer = build_archive(node_cluster.layout, "trainer", tmp_path / "image.tar")
    assert operator.config["User"] == trainer.config["User"] == "10001:10001"
    labels = operator.config["Labels"]
    prefix = "org.opencontainers.image."
    assert labels[f"{prefix}revision"] == REVISION
    assert labels[f"{prefix}version"] == "1.2.3"
    assert labels[f"{prefix}base.name"] == "localhost/python-base:bookworm"
    wanted = {f"{prefix}{key}" for key in ("title", "description", "licenses", "version")}
    assert wanted <= set(labels) & set(trainer.config["Labels"])
    assert trainer.config["Labels"][f"{prefix}base.name"] == "localhost/torch-base:trixie"
    # The first layer is the base.
    ours = {
        file.name
        for layer in range(1, len(trainer.manifest["layers"]))
        for file in trainer.entries(layer)
    }
    assert [name for name in ours if re.search(r"/site-packages/pip(/|$)|bin/pip", name)] == []
    assert "usr/share/sbom/inception-trainer.cdx.json" in ours


def test_the_bill_of_materials_names_what_was_locked(operator: Archive) -> None:
    bill = json.loads(operator.text(0, "usr/share/sbom/inception-operator.cdx.json"))
    found = {component["purl"].partition("?")[0] for component in bill["components"]}
    lock = (ROOT / "requirements/operator.txt").read_text()
    locked = {f"pkg:pypi/{name}@{version}" for name, version in re.findall(r"(\S+)==(\S+)", lock)}
    assert locked <= found
    assert any(purl.startswith("pkg:deb/debian/libc6@") for purl in found)


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("image", "output"),
    # pip sets the times of the trainer's folders; the operator's files have one time all over.
    [("operator", ()), ("trainer", ("rewrite-timestamp=true",))],
)
def test_two_builds_of_an_image_are_the_same_bit_by_bit(
    image: str,
    output: tuple[str, ...],
    installed: Ready,
    node_cluster: Cluster,
    tmp_path: Path,
) -> None:
    digests = set()
    for _ in range(2):
        archive = build_archive(
            node_cluster.layout,
            image,
            tmp_path / "image.tar",
            "--no-cache",
            output=output,
            SOURCE_DATE_EPOCH="1700000000",
        )
        digests.add(archive.digest)
    assert len(digests) == 1
