"""The operator and the CRD of earlier releases: from tests/compat and from git's history."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

from operator_process import ROOT

COMPAT = ROOT / "tests" / "compat"
LAST = max((path.parent.name for path in COMPAT.glob("v*/revision")), key=lambda name: name)


def crd_of(release: str) -> Path:
    """The file of its CRD."""
    return COMPAT / release / "crd.yaml"


def unpack_operator(release: str, folder: Path) -> Path:
    """The operator's package of a release, unpacked; the folder to import it from."""
    revision = (COMPAT / release / "revision").read_text(encoding="utf-8").strip()
    done = subprocess.run(
        ["git", "-C", str(ROOT), "archive", revision, "operator"], check=False, capture_output=True
    )
    assert done.returncode == 0, (
        f"{release} is commit {revision}, which this checkout does not have: fetch the whole "
        f"history (git fetch --unshallow). {done.stderr.decode()}"
    )
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder / "operator"
