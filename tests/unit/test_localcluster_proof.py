"""The tests of localcluster run whenever something changed that they are about."""

from __future__ import annotations

from pathlib import Path

import pytest

import localcluster_proof
from localcluster_proof import PARTS, fingerprint


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small checkout with all parts."""
    for part in PARTS:
        path = tmp_path / part
        if path.suffix:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x", encoding="utf-8")
        else:
            (path / "deep").mkdir(parents=True)
            (path / "deep" / "a.py").write_text("x", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    "change",
    ["localcluster/deep/a.py", "localcluster/new.py", "tests/localcluster/deep/a.py", PARTS[2]],
)
def test_any_change_asks_for_the_tests(checkout: Path, change: str) -> None:
    before = fingerprint(checkout)
    (checkout / change).write_text("y", encoding="utf-8")
    assert fingerprint(checkout) != before


def test_what_python_and_the_proof_itself_leave_behind_is_no_change(checkout: Path) -> None:
    before = fingerprint(checkout)
    (checkout / "localcluster" / "__pycache__").mkdir()
    (checkout / "localcluster" / "__pycache__" / "a.pyc").write_text("x", encoding="utf-8")
    (checkout / "tests" / "localcluster" / "proven.sha256").write_text(before, encoding="utf-8")
    assert fingerprint(checkout) == before


def test_the_command_says_whether_it_is_proven(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(localcluster_proof, "PROOF", checkout / "proven.sha256")
    assert localcluster_proof.main("check") == 1
    assert "has changed since" in capsys.readouterr().out
    assert localcluster_proof.main("write") == 0
    assert localcluster_proof.main("check") == 0
    assert "is as" in capsys.readouterr().out
