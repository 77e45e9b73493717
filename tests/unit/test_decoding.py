"""Objects of the API server are decoded one by one: one that is too much becomes a stub."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from yarl import URL

from inception_operator.contract.bounds import MAX_LEVELS, MAX_VALUES, bounded
from inception_operator.contract.decoding import (
    MAX_ITEM_BYTES,
    MAX_LIST_BYTES,
    UNREADABLE,
    MalformedError,
    decode,
    decode_answer,
    decode_event,
    decode_list,
    decode_object,
)
from inception_operator.contract.errors import SpecError
from inception_operator.runtime import kopf_session
from inception_operator.runtime.kopf_session import BoundedResponse, _Lines, bounded_line
from inception_operator.spec.job import parse

METADATA = {"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "5"}


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


def text_of(template: str, name: str = "a") -> bytes:
    """A job as the API server writes it; managed fields are as deep as the template."""
    metadata = json.dumps({**METADATA, "name": name})[:-1] + f',"managedFields":[{template}]}}'
    spec = f'{{"runPolicy":{{"suspend":true}},"text":"}}]{{\\"[","template":{{"spec":{template}}}}}'
    return f'{{"metadata":{metadata},"spec":{spec},"status":{{"state":"Running"}}}}'.encode()


@pytest.mark.parametrize("levels", [300, 2000, 9990])
def test_a_deep_object_becomes_a_stub_that_names_the_field(levels: int) -> None:
    stub = decode_object(text_of(nested(levels)))
    assert stub["metadata"] == METADATA
    assert stub["spec"] == {"runPolicy": {"suspend": True}, "text": '}]{"['}
    assert stub["status"] == {"state": "Running"}
    assert stub[UNREADABLE][0] == "spec.template"
    with pytest.raises(
        SpecError, match=r"spec\.template: is nested more than 200 levels deep; rem"
    ):
        parse(stub)


def test_the_others_of_a_list_are_whole() -> None:
    items = b",".join((text_of("{}", "a"), text_of(nested(2000), "b"), text_of("[1]", "c")))
    page = decode_list(b'{"metadata":{"resourceVersion":"9"},"items":[%s]}' % items)
    assert [item["metadata"]["name"] for item in page["items"]] == ["a", "b", "c"]
    assert [UNREADABLE in item for item in page["items"]] == [False, True, False]
    assert page["items"][2]["spec"]["template"] == {"spec": [1]}
    assert page["metadata"] == {"resourceVersion": "9"}


def test_an_answer_for_people_is_whole_but_for_what_is_too_deep() -> None:
    large = text_of('"' + "x" * MAX_ITEM_BYTES + '"')
    alone = decode_answer(large)
    page = decode_answer(b'{"metadata":{},"items":[%s,%s]}' % (large, text_of(nested(2000))))
    assert page["items"][0] == alone
    assert [UNREADABLE in item for item in page["items"]] == [False, True]
    assert decode_answer(text_of(nested(2000))) == page["items"][1]


def test_an_event_keeps_its_type() -> None:
    event = decode_event(b'{"type":"MODIFIED","object":%s}\n' % text_of(nested(2000)))
    assert (event["type"], event["object"]["metadata"]) == ("MODIFIED", METADATA)


def test_what_is_large_is_left_out() -> None:
    large = '"' + "x" * MAX_ITEM_BYTES + '"'
    assert decode_object(text_of(large))[UNREADABLE] == ("spec.template", "has more than 256 KiB")
    many = b",".join(text_of('"' + "x" * 100_000 + '"') for _ in range(60))
    assert len(many) > MAX_LIST_BYTES
    page = decode_list(b'{"metadata":{},"items":[%s]}' % many)
    assert len(page["items"]) == 60
    assert not any(UNREADABLE in item for item in page["items"])


@pytest.mark.parametrize("text", [b"", b"[]", b"<html>", b'{"a":1} x', text_of(nested(2000))[:-1]])
def test_what_was_cut_off_is_no_object(text: bytes) -> None:
    with pytest.raises(MalformedError):
        decode_object(text)


@pytest.mark.parametrize("text", ["NaN", "Infinity", '"\\ud800"', "[" * 4096, "{'a': 1}"])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        decode(text)


@pytest.mark.parametrize(
    ("field", "problem"),
    [
        (json.loads(nested(MAX_LEVELS + 1)), "is nested more than 100 levels deep"),
        ([[]] * MAX_VALUES, "has more than 10000 values"),
        ({"a": ["x" * 1000] * 300}, "has more than 256 KiB of text"),
        ({"x" * 150_000: 1, "y" * 150_000: 1}, "has more than 256 KiB of text"),
    ],
)
def test_a_field_beyond_the_bounds_is_left_out_and_named(field: object, problem: str) -> None:
    resource = {"metadata": METADATA, "spec": {"numNodes": 1, "template": {"spec": field}}}
    kept = bounded(resource)
    assert kept["spec"] == {"numNodes": 1}
    with pytest.raises(SpecError, match=problem) as refused:
        parse(kept)
    assert refused.value.path.startswith("spec.template")
    assert resource["spec"] != kept["spec"], "the argument stays as it is"


def test_a_path_leads_to_the_deep_place() -> None:
    deep: object = 1
    for _ in range(MAX_LEVELS):
        deep = {"matchExpressions": deep}
    kept = bounded({"spec": {"template": {"spec": {"affinity": deep, "volumes": []}}}})
    assert kept[UNREADABLE][0] == "spec.template.spec.affinity.matchExpressions"


def test_an_ordinary_resource_is_the_same_object() -> None:
    resource = {"metadata": METADATA, "spec": {"template": json.loads(nested(MAX_LEVELS - 1))}}
    assert bounded(resource) is resource
    assert bounded({"spec": None}) == {"spec": None}


def test_lines_for_kopf_are_whole_and_bounded() -> None:
    ordinary = b'{"type":"ADDED","object":%s}' % text_of("{}")
    deep = b'{"type":"ADDED","object":%s}' % text_of(nested(2000))
    stream = ordinary + b"\n" + deep + b"\n\n" + b'{"type":"ADDED","obj'

    class Content:
        async def iter_chunked(self, _size: int) -> AsyncIterator[bytes]:
            for start in range(0, len(stream), 7):
                yield stream[start : start + 7]

    async def lines() -> list[bytes]:
        return [line async for line in _Lines(Content()).iter_chunked(7)]  # type: ignore[arg-type]

    first, second = asyncio.run(lines())
    assert first == ordinary + b"\n"
    assert json.loads(second)["object"][UNREADABLE][0] == "spec.template"
    assert bounded_line(ordinary) is ordinary
    assert bounded_line(b"{" * 500) is None
    assert BoundedResponse.json is not None


def test_an_error_within_a_watch_makes_kopf_list_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kopf_session, "ERROR_PAUSE", 0.0)
    refused = {"kind": "Status", "code": 500, "message": "etcdserver: leader changed"}
    expired = {"kind": "Status", "code": 410, "message": "too old resource version"}
    ordinary = b'{"type":"ADDED","object":%s}' % text_of("{}")
    lines = [ordinary]
    for each in (refused, expired):
        event = {"type": "ERROR", "object": each}
        lines.append(json.dumps(event, separators=(",", ":")).encode())

    class Content:
        async def iter_chunked(self, _size: int) -> AsyncIterator[bytes]:
            yield b"\n".join((*lines, b""))

    async def shown() -> list[bytes]:
        return [line async for line in _Lines(Content()).iter_chunked(7)]  # type: ignore[arg-type]

    first, second, third = asyncio.run(shown())
    assert (first, third) == (lines[0] + b"\n", lines[2] + b"\n")
    assert json.loads(second)["object"] == {**refused, "code": 410}


@pytest.mark.parametrize(
    ("status", "place", "ends"),
    [
        (200, "namespaces/a/inceptiontrainings", False),
        (401, "inceptiontrainings", False),  # kopf logs in again
        (403, "inceptiontrainings?watch=true", True),
        (404, "inceptiontrainings", True),
        (404, "", False),
        (410, "inceptiontrainings?continue=abc", True),
        (410, "inceptiontrainings?watch=true", False),
        (429, "inceptiontrainings", False),  # kopf waits by itself
        (500, "", True),
        (503, "inceptiontrainings?watch=true", True),
    ],
)
def test_answers_that_would_end_kopf_are_shown_to_it_as_none(
    status: int, place: str, ends: bool
) -> None:
    url = URL(f"https://server/apis/training.inception.dev/v1alpha1/{place}")
    assert kopf_session._ends_kopf(status, url) == ends
