"""``debug``: secrets are taken out, what cannot be had is named, and the archive is bounded."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from inception_operator.client.cluster import Cluster
from inception_operator.client.errors import FORBIDDEN, AnswerError, ClientError
from inception_operator.client.questions import Query
from inception_operator.contract import names
from inception_operator.contract.names import ConditionType
from inception_operator.plugin import debug, debug_archive, pod_exec
from inception_operator.plugin.debug_archive import Archive
from inception_operator.plugin.redact import REMOVED, Redactor

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
Json = dict[str, Any]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("s3 at https://me:pass@store.example/b", f"s3 at https://{REMOVED}@store.example/b"),
        ("get /x?a=1&X-Amz-Signature=0af3&b=2", f"get /x?a=1&X-Amz-Signature={REMOVED}&b=2"),
        ("Authorization: Bearer abcdefgh.ijk", f"Authorization: {REMOVED} {REMOVED}"),
        ("with bearer abcdefgh.ijk", f"with bearer {REMOVED}"),
        ("key AKIAABCDEFGHIJKLMNOP here", f"key {REMOVED} here"),
        ("hf_abcdefghijklmnopqrstuvwx", REMOVED),
        ("jwt eyJhbGciOiJ9.eyJzdWIiOiJ.c2ln.", f"jwt {REMOVED}."),
        ("db_password = hunter22, next", f"db_password = {REMOVED}, next"),
        ('{"apiKey": "abcd1234"}', f'{{"apiKey": "{REMOVED}"}}'),
        ("WANDB_API_KEY=0123456789", f"WANDB_API_KEY={REMOVED}"),
        (
            "a\n-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----\nb",
            f"a\n{REMOVED}\nb",
        ),
        # What only looks like it stays.
        ("secret:\n  secretName: mine", "secret:\n  secretName: mine"),
        ("automountServiceAccountToken: false", "automountServiceAccountToken: false"),
        ("imagePullSecrets:\n- name: mine", "imagePullSecrets:\n- name: mine"),
        ("https://host/path?epoch=3 a@b", "https://host/path?epoch=3 a@b"),
        ("12:00:00 [j attempt 1 rank 0] step 3", "12:00:00 [j attempt 1 rank 0] step 3"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out_of_text(text: str, kept: str) -> None:
    assert Redactor().text(text) == kept


def test_a_line_too_long_to_be_looked_through_is_left_out() -> None:
    long = "x" * 20_000
    assert Redactor().text(f"a\n{long}\n") == f"a\n{long}\n"
    assert Redactor().text(f"a\ntoken {long}\nb") == (
        "a\n(a line of 20007 characters is left out)\nb"
    )


def resource() -> Json:
    container = {
        "name": names.CONTAINER,
        "args": ["--password", "hunter22", "--epochs", "3", "--token=abcd1234"],
        "env": [
            {"name": "MY_TOKEN", "value": "s3cretvalue"},
            {"name": "PLACE", "value": "home"},
            {"name": "NCCL_DEBUG", "value": "INFO"},
            {"name": "FROM", "valueFrom": {"secretKeyRef": {"name": "s", "key": "token"}}},
        ],
    }
    return {
        "metadata": {
            "name": "digits",
            "uid": "u",
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "a": "b"},
        },
        "spec": {"numNodes": 2, "template": {"spec": {"containers": [container]}}},
        "status": {
            "conditions": [
                {"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""},
                {
                    "type": "PodsReady",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "0/3 nodes",
                    "lastTransitionTime": "2026-01-01T11:00:00Z",
                },
            ]
        },
    }


def test_variables_and_secret_arguments_are_taken_out_of_resources() -> None:
    redactor = Redactor([resource()])
    shown = redactor.resource(resource())
    (container,) = shown["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["--password", REMOVED, "--epochs", "3", f"--token={REMOVED}"]
    assert [each.get("value") for each in container["env"]] == [REMOVED, REMOVED, "INFO", None]
    assert container["env"][3]["valueFrom"]["secretKeyRef"] == {"name": "s", "key": "token"}
    assert shown["metadata"]["annotations"] == {"a": "b"}
    assert shown["spec"]["numNodes"] == 2
    # Where a program has written one of these values, it is known again; a short or plain one not.
    assert redactor.text("got s3cretvalue at home") == f"got {REMOVED} at home"


class Small(Cluster):
    """A cluster that shows pods, events and logs, but neither nodes nor the operator."""

    def __init__(self, log: bytes = b"2026 hello") -> None:
        super().__init__(chosen_namespace="team")
        self.log = log

    def pods(self, name: str) -> list[Json]:
        metadata = {"name": "digits-0-1", "uid": "p", "labels": {}}
        status = {"phase": "Succeeded"}
        return [{"metadata": metadata, "spec": {"nodeName": "n1"}, "status": status}]

    def everything(self, path: str, query: Query = ()) -> list[Json]:
        if not path.endswith("/events"):
            raise AnswerError(403, "you may not list them", code=FORBIDDEN)
        return [
            {"involvedObject": {"uid": uid}, "reason": reason, "message": "m"}
            for uid, reason in (("u", "OfJob"), ("p", "OfPod"), ("x", "OfAnother"))
        ]

    def request(self, method: str, path: str, *_: Any, **__: Any) -> Json:
        raise AnswerError(403, "you may not see nodes\nAsk somebody.", code=FORBIDDEN)

    def lines(self, path: str, query: Query = (), seconds: float | None = None) -> Iterator[bytes]:
        yield from self.log.split(b"\n")


def test_what_may_not_be_seen_is_named_in_the_archive(tmp_path: Path) -> None:
    archive, page = debug.collect(Small(), resource(), NOW, stacks=True)
    assert ("nodes/n1.yaml", "you may not see nodes") in archive.missing
    assert ("operator/deployment.yaml", "you may not list them") in archive.missing
    file = tmp_path / "digits.tar.gz"
    archive.write(file, page, replace=False)
    assert file.stat().st_mode & 0o077 == 0
    with tarfile.open(file) as read:
        assert read.getnames() == [
            *("digits/summary.txt", "digits/job.yaml", "digits/conditions.txt"),
            *("digits/events.yaml", "digits/pods/digits-0-1.yaml", "digits/doctor.txt"),
            "digits/logs/digits-0-1.log",
        ]
        files = {name: read.extractfile(name) for name in read.getnames()}
        texts = {name: file.read().decode() for name, file in files.items() if file}
    summary = texts["digits/summary.txt"]
    assert summary.startswith("Collected at 2026-01-01 12:00:00 UTC")
    for part in (
        "Not true: PodsReady (Unschedulable).",
        "digits in default: Pending",
        "nodes/n1.yaml: you may not see nodes",
        "logs/digits-0-1.log (",
    ):
        assert part in summary
    assert [each["reason"] for each in yaml.safe_load(texts["digits/events.yaml"])["items"]] == [
        *("OfJob", "OfPod"),
    ]
    assert "hunter22" not in "".join(texts.values())
    assert texts["digits/logs/digits-0-1.log"] == "2026 hello\n"
    with pytest.raises(ClientError, match="exists"):
        archive.write(file, page, replace=False)
    archive.write(file, "other", replace=True)


def test_conditions_are_explained() -> None:
    text = debug.explained(resource(), NOW)
    assert "PodsReady=False: all pods that the job needs" in text
    assert "  Unschedulable, for 1h: 0/3 nodes" in text
    types = {value for key, value in vars(ConditionType).items() if key.isupper()}
    assert types == set(debug._MEANINGS)
    assert "no operator" in debug.explained({"metadata": {}}, NOW)


def test_of_a_long_log_the_end_stays_and_the_archive_has_a_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(debug, "FILE_BYTES", 100)
    monkeypatch.setattr(debug_archive, "FILE_BYTES", 100)
    log = b"\n".join(b"line %03d" % number for number in range(500))
    archive, _ = debug.collect(Small(log), resource(), NOW, stacks=False)
    kept = archive.files["logs/digits-0-1.log"]
    assert kept.endswith(b"line 499\n")
    assert kept.startswith(b"line ")
    assert 80 < len(kept) <= 100
    assert "logs/digits-0-1.log" in dict(archive.missing)
    full = Archive(Redactor(), left=10)
    full.add("a", "12345678")
    full.add("b", "12345678")
    assert list(full.files) == ["a"]
    assert [name for name, _ in full.missing] == ["b"]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["python3", "-m", "inception_trainer", "launch"], ["python3", "-m"]),
        (["/usr/bin/python3.10", names.LAUNCHER_MOUNT, "--", "a"], ["/usr/bin/python3.10", "-c"]),
        ([], ["python3", "-m"]),
    ],
)
def test_a_module_of_the_launcher_is_run_by_its_interpreter(
    command: list[str], expected: list[str]
) -> None:
    pod = {"spec": {"containers": [{"name": names.CONTAINER, "command": command}]}}
    words = pod_exec.of_launcher(pod, "show_stacks", "4")
    assert words[:2] == expected
    assert words[-1] == "4"


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        (b'{"status": "Success"}', 0),
        (
            b'{"status": "Failure", '
            b'"details": {"causes": [{"reason": "ExitCode", "message": "7"}]}}',
            7,
        ),
        (b'{"status": "Failure", "message": "no such container"}', None),
        (b"", None),
        (b"[]", None),
    ],
)
def test_the_end_of_a_command_is_its_code_or_why_it_did_not_run(
    ending: bytes, code: int | None
) -> None:
    if code is None:
        with pytest.raises(ClientError, match="the command could not be run"):
            pod_exec._code(ending)
    else:
        assert pod_exec._code(ending) == code
