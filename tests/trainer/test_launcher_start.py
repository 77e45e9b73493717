"""A launcher that is told to end while it is still being imported, or that cannot listen."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from programs import installed

BLOCKING = """\
import pathlib, time
pathlib.Path(__file__).with_name("reached").touch()
time.sleep(60)
"""


@pytest.mark.parametrize("start", ["bundled", "installed"])
def test_sigterm_during_the_imports_ends_the_launcher(start: str, tmp_path: Path) -> None:
    """75 and not the signal, by which alone PID 1 of a container would not end."""
    # Both import it, so that they are caught in the middle of their imports.
    (tmp_path / "argparse.py").write_text(BLOCKING, encoding="utf-8")
    what = ["-m", "inception_trainer", "launch"]
    if start == "installed":
        what = [str(installed(tmp_path / "launcher")), "--", "true"]
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    process = subprocess.Popen([sys.executable, *what], env={**os.environ, "PYTHONPATH": path})
    try:
        end = time.monotonic() + 30
        while not (tmp_path / "reached").exists() and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 75
    finally:
        process.kill()
        process.wait()


def test_a_port_that_is_taken_is_named_with_who_may_have_it(tmp_path: Path) -> None:
    termination = tmp_path / "termination"
    with socket.create_server(("", 0)) as other:
        port = str(other.getsockname()[1])
        command = [sys.executable, "-m", "inception_trainer.launcher.main", "--port", port]
        command += ["--termination-log", str(termination)]
        assert subprocess.run(command, check=False, timeout=30).returncode == 1
    message = json.loads(termination.read_bytes())["message"]
    assert f"port {port} of the launcher: " in message
    assert "hostNetwork" in message
