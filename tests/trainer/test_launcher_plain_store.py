"""Programs of others with a torch that was built without libuv, as Debian's is."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launchers import ROOT, Gang, wait_for

pytestmark = pytest.mark.timeout(180)

SUPPORT = ROOT / "tests" / "support"
PATH = os.pathsep.join(map(str, (SUPPORT / "without_libuv", ROOT / "trainer", SUPPORT)))
COMMAND = "import tiny_program; tiny_program.train()"


@pytest.fixture
def gang(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Gang]:
    with Gang(tmp_path, 2, request.param, PYTHONPATH=PATH) as gang:
        yield gang
    assert wait_for("an empty process table", lambda: not gang.processes())


@pytest.mark.parametrize(
    "gang",
    [
        pytest.param(["tiny_program:train"], id="a function"),
        pytest.param([sys.executable, "-c", COMMAND], id="in an interpreter of its own"),
        pytest.param(["bash", "-c", f"{sys.executable} -c '{COMMAND}'"], id="in a shell"),
    ],
    indirect=True,
)
def test_ranks_meet_without_libuv(gang: Gang) -> None:
    gang.assign(1)
    gang.first_steps(1, 2)
    (gang.folder / "finish").touch()
    for launcher in gang.launchers:
        assert launcher.wait_exit() == 0, launcher.read_log()
