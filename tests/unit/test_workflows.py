"""The files for the place where the repository is hosted hold what reviews rely on.

Whether they are well formed and pinned is the linters' part (`make lint`).
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).resolve().parents[2]
LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
WORKFLOWS: Final = sorted((ROOT / ".github/workflows").glob("*.yml"))
# What a job may do beyond reading the source; a job that is not named may do nothing.
RIGHTS: Final = {
    ("codeql", "analyze"): {"security-events"},
    ("release", "images"): {"packages", "id-token", "attestations"},
    ("release", "index"): {"packages", "id-token", "attestations"},
    ("release", "chart"): {"packages", "id-token"},
    ("release", "publish"): {"contents"},
    ("scorecard", "scorecard"): {"id-token", "security-events"},
    ("update", "lock"): {"contents", "pull-requests"},
}


@functools.cache
def workflow(path: Path) -> dict[str, Any]:
    """A workflow as its file says it."""
    return dict(yaml.load(path.read_text(), Loader=LOADER))  # noqa: S506 - a safe one


def jobs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Workflow, name and content of every job."""
    for path in WORKFLOWS:
        for name, job in workflow(path)["jobs"].items():
            yield path.stem, name, job


def commands() -> Iterator[str]:
    """Every line that a workflow runs."""
    for _, _, job in jobs():
        for step in job["steps"]:
            yield from step.get("run", "").splitlines()


def test_a_job_may_only_do_what_is_listed_here() -> None:
    found = {
        (stem, name): rights
        for stem, name, job in jobs()
        if (rights := {key for key, value in job["permissions"].items() if value == "write"})
    }
    assert found == RIGHTS


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_has_no_rights_of_its_own(path: Path) -> None:
    assert workflow(path)["permissions"] == {}


def test_an_action_has_the_same_release_everywhere() -> None:
    releases: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        for action, release in re.findall(
            r"uses: ([\w.-]+/[\w.-]+)\S*@(.*)$", path.read_text(), re.MULTILINE
        ):
            assert re.fullmatch(r"[0-9a-f]{40} # v\d+\.\d+\.\d+", release), f"{action}@{release}"
            releases.setdefault(action, set()).add(release)
    assert len(releases) >= 5
    assert {action: found for action, found in releases.items() if len(found) > 1} == {}


def test_workflows_run_targets_that_the_makefile_has() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    wanted = {
        word
        for line in commands()
        for call in re.findall(r"\bmake ((?:--silent |[a-z-]+ ?)+)", line)
        for word in call.split()
        if not word.startswith("--")
    }
    assert {"lint", "push", "test-all"} <= wanted
    assert wanted - targets == set()


def test_owners_are_named_for_paths_that_exist() -> None:
    lines = (ROOT / ".github/CODEOWNERS").read_text().splitlines()
    patterns = [line.split()[0] for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*"
    assert [p for p in patterns[1:] if not list(ROOT.glob(p.strip("/")))] == []


def test_dependency_updates_cover_every_folder_of_go_modules() -> None:
    updates = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]
    patterns = [
        folder
        for update in updates
        if update["package-ecosystem"] == "gomod"
        for folder in update["directories"]
    ]
    covered = {found for pattern in patterns for found in ROOT.glob(pattern.strip("/"))}
    modules = {path.parent for path in ROOT.glob("[a-z]*/**/go.mod")}
    assert modules
    assert modules - covered == set()


DIGEST: Final = f"sha256:{'0123456789abcdef' * 4}"


def make(target: str, folder: Path, *settings: str) -> list[str]:
    """Run a target of the Makefile in a folder where Docker answers as a registry would; what was
    asked of it.
    """
    docker = folder / "docker"
    docker.write_text(f'#!/bin/sh\necho "$@" >>{folder}/asked\necho {DIGEST}\n')
    docker.chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    command = ["make", f"--makefile={ROOT / 'Makefile'}", target, *settings]
    subprocess.run(command, cwd=folder, env={**os.environ, "PATH": path}, check=True)
    return (folder / "asked").read_text().splitlines()


def test_images_of_all_kinds_of_machines_get_one_tag(tmp_path: Path) -> None:
    machines = workflow(ROOT / ".github/workflows/release.yml")["jobs"]["images"]["strategy"]
    kinds = [each["kind"] for each in machines["matrix"]["machine"]]
    asked = make("index", tmp_path, "REGISTRY=example.com/me", "VERSION=1.2.3", "IMAGES=trainer")
    name = "example.com/me/inception-trainer:1.2.3"
    assert asked == [
        f"buildx imagetools create --tag {name} {name}-amd64 {name}-arm64",
        f"buildx imagetools inspect {name} --format {{{{.Manifest.Digest}}}}",
    ]
    assert kinds == ["amd64", "arm64"]
    assert (tmp_path / "out/trainer.digest").read_text() == f"{DIGEST}\n"


# It asks the index of packages.
@pytest.mark.nightly
@pytest.mark.parametrize("lock", ["operator", "torch", "trainer", "nvidia"])
def test_the_packages_of_the_images_are_there_for_arm64_too(lock: str, tmp_path: Path) -> None:
    options = ["--dry-run", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    target = ["--python-platform=aarch64-unknown-linux-gnu", f"--target={tmp_path}"]
    command = [sys.executable, "-m", "uv", "pip", "install", *options, *target]
    file = ROOT / "requirements" / f"{lock}.txt"
    done = subprocess.run([*command, "-r", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Would install" in done.stderr


def test_the_base_of_both_images_is_pinned_again_by_one_command(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Dockerfile", tmp_path)
    pinned = r"(?m)^ARG \w*BASE_IMAGE=(\S+)@(sha256:[0-9a-f]{64})$"
    before = re.findall(pinned, (ROOT / "Dockerfile").read_text())
    tags = {tag for tag, _ in before}
    assert len(before) == 2
    assert len(tags) == 1

    asked = make("base", tmp_path)
    after = re.findall(pinned, (tmp_path / "Dockerfile").read_text())
    assert after == [(tag, DIGEST) for tag, _ in before]
    assert asked == [f"buildx imagetools inspect {tags.pop()} --format {{{{.Manifest.Digest}}}}"]
