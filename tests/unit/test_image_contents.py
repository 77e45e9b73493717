"""What the bill of materials of an image says, on made-up base images."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import contents

ZLIB = "Package: zlib1g\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:1.2.13+b1"
REMOVED = "Package: vim\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 9"
PYTHON = "Package: python3\nStatus: install ok installed\nArchitecture: all\nVersion: 3.11~1"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base image with three entries in the list of its package manager, one not installed."""
    folder = tmp_path / "base/var/lib/dpkg"
    (folder / "info").mkdir(parents=True)
    (folder / "status").write_text(f"{ZLIB}\n\n{REMOVED}\n\n{PYTHON}\n")
    (folder / "info/zlib1g:amd64.list").write_text("/.\n/nowhere/libz.so.1\n")
    (folder / "info/python3.list").write_text("/.\n/nowhere/python3\n")
    return tmp_path / "base"


def install(folder: Path, name: str, version: str, *lines: str) -> None:
    """A Python package of which only the metadata lie there."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    metadata = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *lines]
    (info / "METADATA").write_text("\n".join(metadata) + "\n")


def bill(base: Path, *folders: Path) -> Mapping[str, Any]:
    return dict(
        json.loads(contents.document("operator", "1", folders, contents.debian_packages(base)))
    )


def purls(document: Mapping[str, Any]) -> list[str]:
    return [component["purl"] for component in document["components"]]


def test_a_bill_names_installed_debian_packages_python_packages_and_python(
    base: Path, tmp_path: Path
) -> None:
    install(tmp_path / "packages", "Prometheus_Client", "0.2")
    assert purls(bill(base, tmp_path / "packages"))[:-1] == [
        "pkg:deb/debian/python3@3.11~1?arch=all",
        "pkg:deb/debian/zlib1g@1%3A1.2.13%2Bb1?arch=amd64",
        "pkg:generic/python@" + platform.python_version(),
    ]
    assert purls(bill(base, tmp_path / "packages"))[-1] == "pkg:pypi/prometheus-client@0.2"


def test_a_package_that_another_one_hides_is_not_in_the_bill(base: Path, tmp_path: Path) -> None:
    install(tmp_path / "ours", "numpy", "2.0")
    install(tmp_path / "theirs", "numpy", "1.0")
    found = purls(bill(base, tmp_path / "ours", tmp_path / "theirs"))
    assert [purl for purl in found if "numpy" in purl] == ["pkg:pypi/numpy@2.0"]


def test_metadata_without_a_name_do_not_stop_the_bill(base: Path, tmp_path: Path) -> None:
    (tmp_path / "packages/broken.dist-info").mkdir(parents=True)
    install(tmp_path / "packages", "whole", "1")
    assert "pkg:pypi/whole@1" in purls(bill(base, tmp_path / "packages"))


def test_a_licence_is_said_where_a_package_says_it_in_the_common_form(
    base: Path, tmp_path: Path
) -> None:
    install(tmp_path / "packages", "said", "1", "License-Expression: MIT OR Apache-2.0")
    install(tmp_path / "packages", "unsaid", "1", "License: some words")
    document = bill(base, tmp_path / "packages")
    licences = {c["name"]: c.get("licenses") for c in document["components"]}
    assert licences["said"] == [{"expression": "MIT OR Apache-2.0"}]
    assert licences["unsaid"] is None


def test_equal_contents_give_equal_bills_and_others_another_number(
    base: Path, tmp_path: Path
) -> None:
    install(tmp_path / "one", "a", "1")
    install(tmp_path / "two", "a", "2")
    assert bill(base, tmp_path / "one") == bill(base, tmp_path / "one")
    numbers = {bill(base, tmp_path / name)["serialNumber"] for name in ("one", "two")}
    assert len(numbers) == 2


def test_only_the_owners_of_copied_files_are_asked_for(base: Path) -> None:
    found = contents.debian_packages(base, {"/nowhere/libz.so.1", "/nowhere/else"})
    assert [package.name for package in found] == ["zlib1g"]
    assert found[0].record == ZLIB + "\n"


def test_a_base_that_is_not_debian_has_no_debian_packages(tmp_path: Path) -> None:
    assert contents.debian_packages(tmp_path) == []
