"""``init``: the file says what `run` would create, and what else it could say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from inception_operator.plugin import init
from plugin_commands import Commands

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = ("--recipe=bninception-digits", "--nodes=2", "--accelerator=cpu", "--max-restarts=3")


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Commands:
    monkeypatch.chdir(tmp_path)
    return Commands(capsys)


def uncommented(text: str) -> Any:
    """What the file says with all that it suggests."""
    return yaml.safe_load(re.sub(r"(?m)^  #(?! )", "  ", text))


def test_the_file_is_the_job_that_run_would_create(command: Commands) -> None:
    result = command("init", "digits", *OPTIONS, "--namespace=team")
    assert result.out == "job.yaml\n"
    assert "kubectl create -f job.yaml" in result.err
    text = Path("job.yaml").read_text(encoding="utf-8")
    dry = command("run", "digits", *OPTIONS, "--namespace=team", "--dry-run").out
    assert yaml.safe_load(text) == yaml.safe_load(dry)
    assert text.startswith("# BN-Inception")
    assert "  # How often it is tried again after failures.\n  failurePolicy:\n" in text
    assert max(map(len, text.splitlines())) <= 100


def test_what_is_suggested_adds_sections_and_changes_none(command: Commands) -> None:
    command("init", "digits", *OPTIONS)
    text = Path("job.yaml").read_text(encoding="utf-8")
    plain, whole = yaml.safe_load(text)["spec"], uncommented(text)["spec"]
    assert {key: whole[key] for key in plain} == plain
    assert set(whole) == {*plain, *init._SUGGESTED}


def test_the_file_may_be_the_standard_output(command: Commands, tmp_path: Path) -> None:
    made = command("init", "x", "--recipe", "bninception-digits", "-f", "-")
    assert yaml.safe_load(made.out)["metadata"]["name"] == "x"
    assert not (tmp_path / "-").exists()


def test_no_file_is_replaced_that_is_not_meant(command: Commands, tmp_path: Path) -> None:
    Path("mine.yaml").write_text("mine")
    refused = command.run("init", "mine", *OPTIONS, "-f", "mine.yaml")
    assert (refused.code, refused.out) == (1, "")
    assert "mine.yaml exists" in refused.err
    assert Path("mine.yaml").read_text() == "mine"
    command("init", "mine", *OPTIONS, "-f", "mine.yaml", "--force")
    assert "name: mine" in Path("mine.yaml").read_text()
    nowhere = command.run("init", "mine", *OPTIONS, "-f", str(tmp_path / "none" / "x"))
    assert (nowhere.code, "cannot be written" in nowhere.err) == (1, True)


def test_a_program_of_ones_own_has_a_file_too(command: Commands) -> None:
    command("init", "mine", "--image=mine:1", "--", "torchrun", "a.py")
    spec = yaml.safe_load(Path("job.yaml").read_text())["spec"]
    assert spec["template"]["spec"]["containers"][0]["command"] == ["torchrun", "a.py"]
    wrong = command.run("init", "x", "--recipe=bninception-digts")
    assert (wrong.code, "did you mean bninception-digits?" in wrong.err) == (2, True)


def test_every_section_that_is_explained_is_one_of_the_api() -> None:
    text = (ROOT / "manifests" / "crd.yaml").read_text(encoding="utf-8")
    crd = yaml.load(text, yaml.CSafeLoader)
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert set(init._EXPLAINED) <= set(schema["properties"])
    assert set(init._SUGGESTED) <= set(init._EXPLAINED)
