"""Keeps what later releases must be compatible with: ``make release-snapshot``, once per release.

Written into ``tests/compat/v<version>/``: ``crd.yaml``, which the CRD of every later release is
compared with, and ``revision``, the commit from which the tests of upgrades take the operator. They
are files and not looked up in git, because a shallow clone and an archive have no tags. Run it on
the commit that gets the tag, and commit the result after it.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Write the snapshot of this commit; one that is there is never overwritten."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    folder = ROOT / "tests" / "compat" / f"v{project['version']}"
    if folder.exists():
        print(f"{folder.relative_to(ROOT)} exists: a release is not changed", file=sys.stderr)
        return 1
    git = ["git", "-C", str(ROOT)]
    changed = subprocess.run(
        [*git, "status", "--porcelain"], check=True, capture_output=True, text=True
    ).stdout
    if changed:
        print(f"commit these first:\n{changed}", file=sys.stderr)
        return 1
    revision = subprocess.run(
        [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout
    folder.mkdir(parents=True)
    crd = (ROOT / "manifests" / "crd.yaml").read_text(encoding="utf-8")
    (folder / "crd.yaml").write_text(crd, encoding="utf-8")
    (folder / "revision").write_text(revision, encoding="utf-8")
    print(f"wrote {folder.relative_to(ROOT)} of {revision.strip()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
