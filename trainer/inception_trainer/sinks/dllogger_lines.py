"""Lines of a prefix and a JSON object, as NVIDIA's DLLogger writes them.

They say what metrics are measured in, and give their values at a step. Two sinks write such files,
``nvidia_raport`` and ``tecorigin_log``; the package dllogger is not on PyPI.
"""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from inception_trainer.reporting.outputs import append_lines


class DLLoggerLines:
    """Appends to a file, so that it covers all attempts; nothing is written before :meth:`open`."""

    def __init__(self, path: Path, prefix: str) -> None:
        self._path = path
        self._prefix = prefix
        self._file: TextIO | None = None
        self._began_at = time.time()

    def open(self) -> None:
        """Open the file, making its folder."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = append_lines(self._path)

    def metadata(self, metric: str, metadata: dict[str, Any]) -> None:
        """Write what a metric is measured in, and how its values are formatted."""
        self._write("METADATA", {"metric": metric, "metadata": metadata})

    def log(self, step: Any, data: Any) -> None:
        """Write values at ``step``: [epoch, iteration], [epoch], [] for the run, or a name."""
        self._write("LOG", {"step": step, "data": data})

    def close(self) -> None:
        """Close the file, if it was opened."""
        if self._file is not None:
            self._file.close()

    def _write(self, kind: str, body: dict[str, Any]) -> None:
        if self._file is None:
            return
        now = time.time()
        head = {
            # Texts, and the date in local time, as DLLogger has them.
            "timestamp": f"{now:.6f}",
            "datetime": str(datetime.fromtimestamp(now)),
            "elapsedtime": f"{now - self._began_at:.6f}",
            "type": kind,
        }
        self._file.write(f"{self._prefix} {json.dumps(head | body)}\n")
        # A pod that is killed leaves whole lines behind.
        self._file.flush()
