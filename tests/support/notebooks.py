"""Notebooks of the documents, run by a kernel of this Python as a reader would run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ROOT / "docs" / "notebooks" / "train.ipynb"
# In a process of its own: an event loop and sockets of a kernel are none of the tests'.
_RUN = """
import sys
import nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
seconds = float(sys.argv[3])
client = NotebookClient(
    notebook, timeout=seconds, startup_timeout=seconds, kernel_name="python3"
)
try:
    client.execute()
finally:
    nbformat.write(notebook, sys.argv[2])
"""


def run(notebook: Path, folder: Path, kubeconfig: Path, seconds: float = 600) -> list[str]:
    """What each cell of code has printed or shown, with the cluster of a kubeconfig."""
    import nbformat

    done = folder / notebook.name
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "IPYTHONDIR": str(folder)}
    answer = subprocess.run(
        [sys.executable, "-c", _RUN, str(notebook), str(done), str(seconds)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=seconds * 2,
    )
    assert answer.returncode == 0, answer.stderr[-4000:]
    found: Any = nbformat.read(str(done), as_version=4)
    return [_shown(cell) for cell in found.cells if cell.cell_type == "code"]


def _shown(cell: Any) -> str:
    return "".join(
        output.get("text") or output.get("data", {}).get("text/plain") or ""
        for output in cell.outputs
    )
