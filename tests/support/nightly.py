"""Which cases of a parametrized test `make test` has; the others are for `make test-all`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def but_nightly(cases: Iterable[Any], daily: Collection[Any]) -> list[Any]:
    """Parameters for `pytest.mark.parametrize`: all cases, marked nightly where not in ``daily``.

    A case with several values is a tuple.
    """
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            marks=() if case in daily else pytest.mark.nightly,
        )
        for case in cases
    ]
