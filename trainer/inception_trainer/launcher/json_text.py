"""JSON that others have written: programs of users, their data, files that were torn."""

from __future__ import annotations

import json
from typing import Any


def decode(text: str | bytes) -> Any:
    """The value of a JSON text; raises ValueError for every text that has none.

    Python raises RecursionError for a thousand brackets, which who reads a file does not expect.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
