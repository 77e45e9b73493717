"""Settings of all tests, and which of them share a process when they run in several."""

from __future__ import annotations

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# The same examples on every machine: a change is judged by what it changes. `make explore` looks
# for new ones.
settings.register_profile(
    "explore", settings.get_profile("default"), derandomize=False, print_blob=True
)
settings.register_profile("repeatable", derandomize=True, print_blob=True)
settings.load_profile("repeatable")


class FailuresAtOnce:
    """Says at once what failed: the whole story comes at the end, which a run that is cut short
    never reaches.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self._config.pluginmanager.get_plugin(
            "terminalreporter"
        )  # only the first process has one
        if report.failed and terminal is not None:
            crash = getattr(report.longrepr, "reprcrash", None)
            why = crash.message if crash else report.longreprtext
            terminal.write_line(f"\nFAILED {report.nodeid} ({report.when}): {why[:300]}")


def pytest_configure(config: pytest.Config) -> None:
    """Register what needs the configuration."""
    config.pluginmanager.register(FailuresAtOnce(config))


class Scheduling(LoadScopeScheduling):
    """One process has the real node; the tests of any other file share a process and its control
    plane.

    Two nodes at once are no faster: their trainings want the same cores.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "tests/e2e" if file.startswith("tests/e2e/") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    """Only for `--dist loadscope`."""
    return Scheduling(config, log) if config.getvalue("dist") == "loadscope" else None
