"""``checkpoints``: what a pod says about its files, and what arrives of them."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from inception_operator.client.errors import ClientError
from inception_operator.plugin import checkpoints, in_pod
from inception_operator.plugin.checkpoints import Incoming, files_table

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def asked(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """What a pod answers."""
    source = Path(in_pod.__file__).read_text(encoding="utf-8")
    command = [sys.executable, "-I", "-c", source, *arguments]
    return subprocess.run(command, capture_output=True, check=False)


def test_a_file_comes_whole_however_it_is_cut(tmp_path: Path) -> None:
    content = b"line\nof a checkpoint" * 100
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.pt").write_bytes(content)
    beside = f"{hashlib.sha256(content).hexdigest()}  best.pt\n"
    (tmp_path / "checkpoints" / "best.pt.sha256").write_text(beside)
    copy = io.BytesIO()
    incoming = Incoming(copy)
    answer = asked(str(tmp_path), "best.pt").stdout
    for start in range(0, len(answer), 7):
        incoming(answer[start : start + 7])
    incoming.check()
    assert copy.getvalue() == content

    missing = asked(str(tmp_path), "none.pt")
    assert missing.returncode == 1
    assert missing.stderr.decode().startswith("there is no ")


def test_a_folder_without_an_index_is_listed_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-000000001.pt").write_bytes(b"x")
    for text in ("", "[]", "{", '{"file": 3}'):
        (tmp_path / "latest.json").write_text(text)
        assert in_pod.listed(tmp_path)["latest"] is None
    (found,) = json.loads(asked(str(tmp_path)).stdout)["files"]
    assert (found["file"], found["bytes"]) == ("step-000000001.pt", 1)
    assert files_table({"latest": None, "files": []}, NOW) == "No files are there."


def head(content: bytes, *sums: str) -> bytes:
    return json.dumps({"bytes": len(content), "sha256": list(sums)}).encode() + b"\n"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (head(b"abc", hashlib.sha256(b"abd").hexdigest()) + b"abc", "damaged"),
        (head(b"abc") + b"ab", "only 2 of 3 bytes"),
        (b"", "only 0 of None bytes"),
        (b"no answer\n", "not answered with a file"),
        (b"[]\n", "not answered with a file"),
    ],
)
def test_a_copy_that_is_not_the_file_is_refused(answer: bytes, said: str) -> None:
    def take() -> None:
        incoming = Incoming(io.BytesIO())
        incoming(answer)
        incoming.check()

    with pytest.raises(ClientError, match=said):
        take()


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 40, "3.0 TiB")]
)
def test_sizes_are_read_by_people(count: int, text: str) -> None:
    assert checkpoints.size(count) == text


@pytest.mark.parametrize(
    ("place", "spec", "said"),
    [
        ("s3://b/ns/digits", {"uri": "s3://b"}, "aws s3 ls"),
        ("/checkpoint/digits", {"volumeClaimName": "mine"}, "the claim mine, folder digits"),
        ("/data/out/digits", {"path": "/data/out"}, "with a pod of your own"),
    ],
)
def test_without_a_pod_the_refusal_says_how_to_get_at_the_files(
    place: str, spec: dict[str, Any], said: str
) -> None:
    class Idle(checkpoints.Cluster):
        def pods(self, name: str) -> list[dict[str, Any]]:
            return [{"metadata": {"name": "p"}, "status": {"phase": "Succeeded"}}]

    job = {"metadata": {"name": "digits"}, "spec": {"checkpoint": spec}}
    with pytest.raises(ClientError) as caught:
        checkpoints._reader(Idle(), job, place)
    assert said in str(caught.value)
