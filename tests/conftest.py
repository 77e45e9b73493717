"""Settings of all tests, and which of them share a process when they run in several."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from multiprocessing import util
from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# The same examples on every machine: a change is judged by what it changes. `make explore` looks
# for new ones.
# No deadline: how long an example takes says more about the machine than about the code.
settings.register_profile("explore", derandomize=False, print_blob=True, deadline=None)
settings.register_profile("repeatable", derandomize=True, print_blob=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder for sockets, whose whole path may have 107 characters; tests have long names."""
    with tempfile.TemporaryDirectory(prefix="test-") as folder:
        yield Path(folder)


class FailuresAtOnce:
    """Says at once what failed: the whole story comes at the end, which a run that is cut short
    never reaches.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # Only the first process has one.
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and terminal is not None:
            crash = getattr(report.longrepr, "reprcrash", None)
            why = crash.message if crash else report.longreprtext
            terminal.write_line(f"\nFAILED {report.nodeid} ({report.when}): {why[:1200]}")


# Seconds that one test of a level may take on two cores. Nothing fails for it: what is over is
# named at the end of a run, so that the next change makes it cheaper or moves it to `make
# test-all`.
BUDGETS: Final = {
    "tests/unit": 0.5,
    "tests/chart": 2,
    "tests/trainer": 10,
    "tests/integration": 15,
    "tests/e2e": 60,
    "tests/localcluster": 20,
}


class Budgets:
    """Adds up what each level of tests took, and names the tests that are over their budget."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # What a fixture of a whole file takes is not the first test's.
        if report.when == "call":
            self._seconds[report.nodeid] = report.duration

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for level, budget in BUDGETS.items():
            taken = {test: s for test, s in self._seconds.items() if test.startswith(f"{level}/")}
            if taken:
                total, most = sum(taken.values()), f"budget {budget} s a test"
                terminalreporter.write_line(f"{level}: {len(taken)} tests, {total:.0f} s, {most}")
            for test, seconds in sorted(taken.items(), key=lambda entry: -entry[1]):
                if seconds > budget:
                    terminalreporter.write_line(f"  over budget: {seconds:6.1f} s {test}")


class TemporaryFiles:
    """Takes away what libraries and killed processes leave in the folder for temporary files: it is
    one of this run's own. pytest's folders stay where they were, to be looked at after a failure.
    """

    def __init__(self) -> None:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
        self._folder = tempfile.mkdtemp(prefix="tests-")
        # As /tmp itself: some tests start processes of other users.
        Path(self._folder).chmod(0o1777)
        os.environ["TMPDIR"] = tempfile.tempdir = self._folder
        # After those of multiprocessing, whose last one takes its own folder away with -100.
        util.Finalize(None, self._remove, exitpriority=-200)

    def _remove(self) -> None:
        # A mount that a test left behind may show files that are not ours.
        mounts = Path("/proc/self/mountinfo")
        if not mounts.exists() or self._folder not in mounts.read_text():
            shutil.rmtree(self._folder, ignore_errors=True)


def pytest_configure(config: pytest.Config) -> None:
    """Register what needs the configuration."""
    config.pluginmanager.register(FailuresAtOnce(config))
    # With several processes only the first one hears of all tests; the others get its environment.
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Budgets())
        TemporaryFiles()


class Scheduling(LoadScopeScheduling):
    """One process has the real node; the tests of any other file share a process and its control
    plane.

    Two nodes at once are no faster: their trainings want the same cores.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        node = file.startswith("tests/e2e/") or file == "tests/localcluster/test_node.py"
        return "real node" if node else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    """Only for `--dist loadscope`."""
    return Scheduling(config, log) if config.getvalue("dist") == "loadscope" else None
