"""What reads text from outside, as functions of bytes that raise for a fault only.

`tests/unit/test_fuzz.py` gives them texts of Hypothesis and a corpus of hostile ones in seconds;
`tests/fuzz/run.py` lets a coverage-guided fuzzer look for texts for as long as it is told.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from inception_operator.accelerators.resolve import load_profiles, resolve
from inception_operator.contract import assignment, decoding, limits, names, progress, report
from inception_operator.contract.bounds import bounded
from inception_operator.contract.errors import ApiError, SpecError, api_error
from inception_operator.contract.times import format_time, parse_time
from inception_operator.contract.types import Json, Observation
from inception_operator.decide import elastic
from inception_operator.decide.reconcile import Context, reconcile
from inception_operator.pod.build import build_pod
from inception_operator.pod.view import trim_pod, view
from inception_operator.runtime.kopf_session import bounded_line
from inception_operator.spec.job import parse

NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
TABLE: Final = load_profiles()
CONTEXT: Final = Context(profiles=TABLE, image="trainer:1")
UID: Final = "4c1f8b1e-0000-4000-8000-000000000000"


def _writable(status: Json) -> None:
    """Nothing in it would be refused by the API server, which takes UTF-8 and no NaN."""
    assert limits.clip(status) == status
    json.dumps(status, allow_nan=False, ensure_ascii=False).encode()


def read_report(data: bytes) -> None:
    """``/status`` of a launcher, and the termination message of any program."""
    found = report.from_json(data)
    if found is None:
        return
    if found.time is not None:
        format_time(found.time)
    _writable({"trainerStatus": progress.to_json(progress.from_report(found, NOW))})


def read_assignment(data: bytes) -> None:
    """The annotation that anybody may write who may patch pods."""
    found = assignment.from_json(data.decode("utf-8", "replace"))
    if found is not None:
        again = assignment.from_json(assignment.to_json(found))
        # A standby carries no ranks, so what it says of them is not written again.
        assert found.is_standby or again == found


def read_metrics(data: bytes) -> None:
    """The metrics page of rank 0, or whatever a program serves there."""
    found = progress.from_metrics(data.decode("utf-8", "replace"), NOW)
    if found is not None:
        _writable({"trainerStatus": progress.to_json(found)})


def read_list(data: bytes) -> None:
    """A page of a list of the API server."""
    try:
        page = decoding.decode_list(data)
    except decoding.MalformedError:
        return
    for item in page.get("items") or ():
        if isinstance(item, dict):
            bounded(item)


def read_event(data: bytes) -> None:
    """A line of a watch: what kopf gets of it, it can decode."""
    with suppress(decoding.MalformedError):
        decoding.decode_event(data)
    line = bounded_line(data)
    if line is not None and line != data:
        json.loads(line)


def read_error(data: bytes) -> None:
    """The body of a refusal, which a webhook may have written."""
    assert isinstance(api_error(422, data, {}, "patch"), ApiError)


def read_status_words(data: bytes) -> None:
    """Members and times of a status, which anybody may write who may edit it."""
    text = data.decode("utf-8", "replace")
    members = elastic.from_text(text)
    assert elastic.from_text(elastic.to_text(members)) == members
    time = parse_time(text)
    if time is not None:
        assert parse_time(format_time(time)) is not None


def read_job(data: bytes) -> None:
    """A custom resource with this spec: a pod comes of it, or a refusal that names the field."""
    spec = _object(data)
    if spec is None:
        return
    resource = bounded({"metadata": _metadata("digits"), "spec": spec})
    try:
        job = parse(resource)
        devices = resolve(job, TABLE)
    except SpecError as error:
        if not error.path:
            raise
        return
    pod = build_pod(job, devices, 0, 1, image="trainer:1", launcher_image="trainer:1")
    json.dumps(pod, allow_nan=False)


def read_pod(data: bytes) -> None:
    """A pod of the job whose status and annotation are these; then a decision on the job."""
    fields = _object(data)
    if fields is None:
        return
    pod: Json = {
        "kind": "Pod",
        "metadata": {
            **_metadata("digits-0-1"),
            "labels": {names.LABEL_JOB: "digits", names.LABEL_ROLE: names.ROLE_WORKER},
            "annotations": {names.ANNOTATION_ASSIGNMENT: str(fields.get("assignment", ""))},
            "ownerReferences": [{"kind": names.KIND, "name": "digits", "uid": UID}],
        },
        "spec": {"nodeName": "node"},
        "status": _pod_status(fields),
    }
    pod["metadata"]["ownerReferences"][0]["controller"] = True
    seen = view(trim_pod(pod))
    assert seen is not None
    resource = {"metadata": _metadata("digits"), "spec": {}, "status": {}}
    for _ in range(3):
        plan = reconcile(Observation(resource=resource, pods=(seen,), now=NOW), CONTEXT)
        if plan.status is None:
            break
        _writable(plan.status)
        resource = {**resource, "status": plan.status}


def _pod_status(fields: Json) -> Json:
    terminated = {"exitCode": 1, "message": str(fields.get("message", ""))[:4096]}
    return {
        "phase": "Failed",
        "podIP": "10.0.0.1",
        "containerStatuses": [{"name": names.CONTAINER, "state": {"terminated": terminated}}],
    }


def _metadata(name: str) -> Json:
    return {
        "name": name,
        "namespace": "team",
        "uid": UID,
        "resourceVersion": "1",
        "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }


def _object(data: bytes) -> Json | None:
    try:
        value: Any = decoding.decode(data)
    except decoding.MalformedError:
        return None
    return value if isinstance(value, dict) else None


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "report": read_report,
    "assignment": read_assignment,
    "metrics": read_metrics,
    "list": read_list,
    "event": read_event,
    "error": read_error,
    "status-words": read_status_words,
    "job": read_job,
    "pod": read_pod,
}

_DEEP: Final = b"[" * 2000 + b"]" * 2000
_REPORT: Final = (
    b'{"attempt":1,"state":"Failed","exitCode":7,"rank":1,"reason":"Error","message":"bad luck",'
    b'"time":"2026-01-01T00:00:00Z","step":12,"metrics":{"loss":0.5,"progress":0.2}}'
)
_OBJECT: Final = (
    b'{"metadata":{"name":"a","namespace":"n","uid":"u","resourceVersion":"1"},"spec":%s}'
)
CORPUS: Final[dict[str, tuple[bytes, ...]]] = {
    "report": (
        _REPORT,
        b"[" * 4096,
        b"{" * 4096,
        b'{"a":' * 700,
        _REPORT.replace(b"12", b"1e999"),
        _REPORT.replace(b"0.5", b"1e307"),
        _REPORT.replace(b"0.2", b"9" * 400),
        _REPORT.replace(b":7", b":1e30"),
        _REPORT.replace(b":7", b":" + b"9" * 30),
        _REPORT.replace(b'"Failed"', b'["Failed"]'),
        _REPORT.replace(b"2026-01-01T00:00:00Z", b"9999-12-31T23:59:59-23:59"),
        _REPORT.replace(b"2026-01-01T00:00:00Z", b"0001-01-01T00:00:00+23:59"),
        _REPORT.replace(b"bad luck", b"\\ud800"),
        _REPORT.replace(b'"Error"', b'"' + b"x" * 2000 + b'"'),
        _REPORT.replace(b'"attempt":1', b'"attempt":99999999999'),
    ),
    "assignment": (
        b'{"attempt":1,"nnodes":2,"nodeRank":1,"nprocPerNode":2,"masterAddr":"a","masterPort":1}',
        b'{"attempt":1,"nnodes":Infinity}',
        b'{"attempt":1,"nnodes":1e999}',
        b'{"attempt":1,"nnodes":' + b"9" * 4000 + b"}",
        b'{"attempt":true,"nnodes":1}',
        b'{"attempt":[],"nnodes":{}}',
        b"[" * 4000,
    ),
    "metrics": (
        b"trainer_step 5\ntrainer_loss NaN\n",
        b"trainer_checkpoint_last_success_timestamp_seconds 1795996800000\n",
        b"trainer_checkpoint_last_success_timestamp_seconds -1e300\n",
        b"trainer_step 1e999\ntrainer_epoch -5\ntrainer_progress_ratio 1e307\n",
        b'trainer_accuracy_ratio{split="val",k="1"} 0.5\n',
        b'trainer_accuracy_ratio{split="val" 0.5\ntrainer_step{ 5\ntrainer_step} 5\n',
        b"trainer_step 5 5 5 5\ntrainer_loss\ntrainer_loss \n",
        b"trainer_step 5\n" * 20000,
        b"trainer_loss" + b"{" * 5000,
    ),
    "list": (
        b'{"metadata":{"resourceVersion":"1"},"items":[%s,%s]}'
        % (_OBJECT % b"{}", _OBJECT % (b'{"template":' + _DEEP + b"}")),
        b'{"metadata":{"resourceVersion":"1"},"items":null}',
    ),
    "event": (
        b'{"type":"ADDED","object":%s}' % (_OBJECT % (b'{"template":' + _DEEP + b"}")),
        b'{"type":"ADDED","object":%s}' % (_OBJECT % b'{"a":"}]\\""}'),
        b'{"type":"ADDED","object":{"spec":',
    ),
    "error": (b'{"message":"no","reason":"AlreadyExists"}', _DEEP, b"<html>", b""),
    "status-words": (
        b"0-3,5",
        "²".encode(),
        b"0-999999999",
        b"0-1,2-611401101",
        b"1-0",
        b"9" * 5000,
        b"2026-01-01",
    ),
    "job": (
        b'{"template":{"spec":{"affinity":%s}}}' % (b'{"a":' * 150 + b"1" + b"}" * 150),
        b'{"template":{"spec":{"containers":[{"name":"trainer","command":["a"]}]}}}',
        b'{"training":{"a":[%s1]}}' % (b"[]," * 20000),
        b'{"numNodes":2,"elasticPolicy":{"minNodes":1}}',
        b'{"accelerator":{"profile":"nvidia","claims":[{"name":"a","deviceClassName":"b"}]}}',
    ),
    "pod": (
        b'{"assignment":"{\\"attempt\\":1,\\"nnodes\\":1e999}","message":"' + b"[" * 4000 + b'"}',
        b'{"message":%s}' % json.dumps(_REPORT.decode()).encode(),
        b'{"message":%s}' % json.dumps(_REPORT.decode().replace("12", "1e999")).encode(),
        b'{"message":%s}' % json.dumps(_REPORT.decode().replace("Error", "x" * 2000)).encode(),
    ),
}
