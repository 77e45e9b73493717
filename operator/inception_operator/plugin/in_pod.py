"""Lists and reads checkpoints: sent to a pod as it stands, and run there by the launcher's Python.

That is 3.10 or later without packages, and the text travels in a URL: short, and standard library
alone. docs/architecture/names.md has the layout.
"""

import json
import os
import re
import shutil
import sys
from pathlib import Path


def text(path: Path) -> str:
    """A small file; empty when there is none."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(65536)
    except OSError:
        return ""


def listed(root: Path) -> dict[str, object]:
    """All checkpoints, and the one that the job goes on from."""
    files = []
    for path in sorted((root / "checkpoints").iterdir()):
        if path.name[0] != "." and path.suffix != ".sha256" and path.is_file():
            found = path.stat()
            files.append({"file": path.name, "bytes": found.st_size, "time": found.st_mtime})
    try:
        latest = Path(json.loads(text(root / "latest.json"))["file"]).name
    except (ValueError, KeyError, TypeError, RecursionError):
        latest = None
    return {"latest": latest, "files": files[-2000:]}


def main(root: str, name: str = "") -> None:
    """Print the list, or size, checksums and content of one file."""
    if not name:
        print(json.dumps(listed(Path(root))))
        return
    path = Path(root, "checkpoints", name)
    # Opened once: what replaces it meanwhile is another file.
    with path.open("rb") as file:
        sums = re.findall("^[0-9a-f]{64}", text(Path(f"{path}.sha256")), re.MULTILINE)
        head = {"bytes": os.fstat(file.fileno()).st_size, "sha256": sums}
        sys.stdout.buffer.write(json.dumps(head).encode() + b"\n")
        shutil.copyfileobj(file, sys.stdout.buffer, 1 << 20)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except FileNotFoundError as error:
        sys.exit(f"there is no {error.filename}")
