"""The wheel of this repository, and a place with it that has what users of the commands get.

That are the packages of the extra `cli`, as the locked environment of the tests has them, and no
others: torch is not among them, nor is the folder of the repository on the path.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).resolve().parents[2]


def build_wheel(folder: Path) -> Path:
    """The wheel, as `pipx install` builds it: in an environment with the build's own packages,
    here those of the lock.
    """
    lock = ROOT / "requirements" / "build.txt"
    options = ["--wheel", "--quiet", "--build-constraints", str(lock), "--require-hashes"]
    done = subprocess.run(
        [sys.executable, "-m", "uv", "build", *options, "--out-dir", str(folder), str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
        env=without_repository(),
    )
    assert done.returncode == 0, f"uv build: {done.stderr}"
    (wheel,) = folder.glob("*.whl")
    return wheel


def without_repository() -> dict[str, str]:
    """The environment of this process, but for what leads Python to this repository."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}


def needed_packages(wanted: Distribution, extra: str) -> dict[str, Distribution]:
    """What a distribution needs with an extra and all that those need, by canonical name."""
    found: dict[str, Distribution] = {}
    waiting = _requirements(wanted, {extra})
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found:
            assert not requirement.extras, f"{requirement} asks for more of what is there"
            continue
        found[name] = distribution(name)
        assert requirement.specifier.contains(found[name].version), f"{requirement} is not locked"
        waiting += _requirements(found[name], requirement.extras)
    return found


def _requirements(of: Distribution, extras: Iterable[str]) -> list[Requirement]:
    requirements = [Requirement(line) for line in of.requires or ()]
    return [
        each
        for each in requirements
        if each.marker is None
        or any(each.marker.evaluate({"extra": extra}) for extra in {"", *extras})
    ]


def link_packages(packages: Mapping[str, Distribution], place: Path) -> None:
    """Put packages into a folder for packages, as links to those of this environment."""
    for package in packages.values():
        for top in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            (place / top).symlink_to(Path(str(package.locate_file(top))))


class InstalledCommands:
    """A virtual environment with the wheel."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder = folder
        venv = folder / "venv"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
        self.bin = venv / "bin"
        install = ["install", "--quiet", "--no-index", "--no-deps", str(wheel)]
        subprocess.run(
            [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), *install],
            check=True,
            env=without_repository(),
        )
        variables = {"base": str(venv), "platbase": str(venv)}
        self.packages = Path(sysconfig.get_path("purelib", "venv", variables))
        (metadata,) = self.packages.glob("inception_training_operator-*.dist-info")
        self.needed = needed_packages(PathDistribution(metadata), "cli")
        link_packages(self.needed, self.packages)

    def run(
        self, program: str, *arguments: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment as a shell would that has nothing else."""
        return subprocess.run(
            [str(self.bin / program), *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env={"PATH": f"{self.bin}:/usr/bin:/bin", "HOME": str(self.folder), **environment},
        )
