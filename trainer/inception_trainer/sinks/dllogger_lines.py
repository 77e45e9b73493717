"""Lines of a prefix and a JSON object, as DLLogger writes them: units of metrics, and their values
at a step.
"""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO


class Lines:
    """Appends to a file, so that it covers all attempts; nothing is written before :meth:`open`."""

    def __init__(self, path: Path, prefix: str) -> None:
        self._path, self._prefix = path, prefix
        self._file: TextIO | None = None
        self._began = time.time()

    def open(self) -> None:
        """Open the file; its folder is made."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("a", encoding="utf-8")

    def metadata(self, metric: str, metadata: dict[str, Any]) -> None:
        """What a metric is measured in."""
        self._write("METADATA", {"metric": metric, "metadata": metadata})

    def log(self, step: Any, data: Any) -> None:
        """Values at ``step``: [epoch, iteration], [epoch], [] for the run, or a name."""
        self._write("LOG", {"step": step, "data": data})

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _write(self, kind: str, body: dict[str, Any]) -> None:
        if self._file is None:
            return
        now = time.time()
        head = {
            "timestamp": f"{now:.6f}",
            "datetime": str(datetime.fromtimestamp(now)),
            "elapsedtime": f"{now - self._began:.6f}",
            "type": kind,
        }
        self._file.write(f"{self._prefix} {json.dumps(head | body)}\n")
        self._file.flush()
