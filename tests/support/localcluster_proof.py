"""Whether localcluster/ is as it was when its own tests last passed.

Every test on a real API server or node runs on localcluster, so its own tests, minutes of starting
and breaking clusters, prove something new only when it has changed. `make test-localcluster` runs
them and writes a fingerprint of the folder, of its tests and of what they need; `make test` runs
them when the fingerprint that is checked in is another one.

    python tests/support/localcluster_proof.py check   # exit status 0: proven
    python tests/support/localcluster_proof.py write
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROOF = ROOT / "tests" / "localcluster" / "proven.sha256"
PARTS = ("localcluster", "tests/localcluster", "requirements/localcluster.txt")


def fingerprint(root: Path = ROOT) -> str:
    """A hash over the names and contents of all files that the tests are about."""
    digest = hashlib.sha256()
    for part in PARTS:
        path = root / part
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts and file.name != PROOF.name:
                digest.update(f"{file.relative_to(root)}\0".encode())
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def main(command: str) -> int:
    """Run one of the two commands; the exit status."""
    if command == "write":
        PROOF.write_text(f"{fingerprint()}\n", encoding="utf-8")
        return 0
    proven = PROOF.exists() and PROOF.read_text(encoding="utf-8").strip() == fingerprint()
    print(f"localcluster/ {'is as' if proven else 'has changed since'} its own tests last passed")
    return 0 if proven else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
