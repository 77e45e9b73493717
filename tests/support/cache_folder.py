"""Where the tests keep what they build or install: ``INCEPTION_CACHE``, else the checkout's own
``.cache``.
"""

from __future__ import annotations

import os
from pathlib import Path

CACHE = Path(os.environ.get("INCEPTION_CACHE", Path(__file__).resolve().parents[2] / ".cache"))
