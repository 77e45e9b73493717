"""The tests of data and checkpoints in stores once more, on an S3 server.

The server and s3fs come from a folder of their own in front of the environment (`make s3-server`):
they want an older python-dateutil than the operator's kubernetes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache_folder import CACHE
from launchers import free_port
from nightly import but_nightly

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = CACHE / "s3-server"
BUCKET = "tests"

pytestmark = pytest.mark.timeout(600)


def environment(**more: str) -> dict[str, str]:
    paths = [str(PACKAGES), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **more}


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[dict[str, str]]:
    """What a process needs in its environment to use an S3 server with an empty bucket."""
    assert (PACKAGES / "moto").is_dir(), "the S3 server is missing: make s3-server"
    port, log = free_port(), tmp_path / "server.log"
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as output:
        server = subprocess.Popen(command, env=environment(), stdout=output, stderr=output)
        try:
            make_bucket(address, server, log)
            yield environment(
                AWS_ACCESS_KEY_ID="tests",
                AWS_SECRET_ACCESS_KEY="tests",
                AWS_DEFAULT_REGION="us-east-1",
                AWS_ENDPOINT_URL=address,
            )
        finally:
            server.kill()
            server.wait()


def make_bucket(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for the server, too."""
    give_up = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(
                urllib.request.Request(f"{address}/{BUCKET}", method="PUT"), timeout=10
            ):
                return
        except (urllib.error.URLError, ConnectionError):
            assert server.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < give_up, (
                f"no answer within a minute: {log.read_text(encoding='utf-8')}"
            )
            time.sleep(0.1)


# Each of these does hundreds of saves and is interrupted somewhere else in each.
SWEEPS = "interrupted or at_once_never or taking_over_late or goes_on_saving"


# Checkpoints are what needs the semantics of a store; the rest is reading and writing.
@pytest.mark.parametrize(
    ("file", "but"),
    but_nightly(
        (
            ("test_remote.py", ""),
            ("test_object_store.py", ""),
            ("test_object_store.py", f" and not ({SWEEPS})"),
        ),
        (("test_object_store.py", f" and not ({SWEEPS})"),),
    ),
    ids=["data", "checkpoints", "checkpoints but for the sweeps"],
)
def test_the_tests_of_stores_pass_on_an_s3_server(
    s3: dict[str, str], tmp_path: Path, file: str, but: str
) -> None:
    store = f"s3://{BUCKET}"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--basetemp={tmp_path / 'tests'}",
    ]
    done = subprocess.run(
        [*command, "-k", f"{store}{but}", str(ROOT / "tests" / "trainer" / file)],
        env={**s3, "INCEPTION_TEST_STORE": store},
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert " passed" in done.stdout
