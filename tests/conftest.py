"""Settings of all tests, and which of them share a process when they run in several."""

from __future__ import annotations

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# The same examples on every machine: a change is judged by what it changes. `make explore` looks for new ones.
settings.register_profile("explore", settings.get_profile("default"), derandomize=False, print_blob=True)
settings.register_profile("repeatable", derandomize=True, print_blob=True)
settings.load_profile("repeatable")


class Scheduling(LoadScopeScheduling):
    """One process has the real node; the tests of any other file share a process and its control plane."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "tests/e2e" if file.startswith("tests/e2e/") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    """Only for `--dist loadscope`."""
    return Scheduling(config, log) if config.getvalue("dist") == "loadscope" else None
