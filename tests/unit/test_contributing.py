"""CONTRIBUTING.md leads to the code: every folder has its row, and every path in it exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ") and " | " in line]
PACKAGES = (ROOT / "operator" / "inception_operator", ROOT / "trainer" / "inception_trainer")
FOLDERS = sorted(
    str(folder.relative_to(ROOT))
    for package in PACKAGES
    for folder in package.rglob("*")
    if folder.is_dir() and folder.name != "__pycache__"
)
PATHS = sorted(
    {path for path in re.findall(r"`([\w./-]+)`", TEXT) if "/" in path}
    | set(re.findall(r"\]\(([\w./-]+)\)", TEXT))
    | set(re.findall(r"\b(?:docs|tests)/[\w/]+\.\w+", TEXT))
)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_folder_of_both_packages_has_its_row(folder: str) -> None:
    assert any(f"`{folder}/`" in row for row in ROWS)


@pytest.mark.parametrize("path", PATHS)
def test_every_path_exists(path: str) -> None:
    assert (ROOT / path).exists()
