"""The one door for text from outside: JSON of the API server, of launchers and of annotations.

Users write most of what is in it. Three things are bounded here, so that no reader behind has to:
the depth (Python's own decoder raises RecursionError on 4 KB of brackets), numbers (no NaN and no
infinity, which neither the API server nor `datetime` take), and what one bad object of a list may
do to the others: `decode_list` and `decode_event` put a stub into its place, which says what is
wrong with it.

pydantic's decoder is used: it refuses more than `MAX_DEPTH` levels with a ValueError, and takes
half as long as ``json``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from pydantic_core import from_json

from .types import Json

MAX_DEPTH: Final = 200
"""Levels of objects and lists in one text. The deepest field of a PodSpec has about 15."""
MAX_ITEM_BYTES: Final = 1024 * 1024
"""Text of one object that is decoded as a whole; a larger one becomes a stub."""
MAX_FIELD_BYTES: Final = 256 * 1024
"""Text of one field of a stub; a larger one is left out."""
MAX_LIST_BYTES: Final = 4 * 1024 * 1024
"""Text of a list that is decoded in one go; in a longer one each object is decoded by itself."""
UNREADABLE: Final = "unreadable"
"""Key of a stub, beside ``metadata`` and ``spec``: path of the field and what is wrong with it. The
API server stores no such key of a custom resource or a pod, so nobody else can have written it.
"""

_TOO_DEEP: Final = f"is nested more than {MAX_DEPTH} levels deep"
_TOKEN: Final = re.compile(rb'[\[\]{},:]|"[^"\\]*(?:\\.[^"\\]*)*"')
_SPLIT: Final = frozenset(("metadata", "spec"))
# The greater part of many objects, as deep as the object itself, and of no use to the operator.
_UNUSED: Final = "managedFields"


class MalformedError(ValueError):
    """A text that is no JSON, or more of it than anybody needs."""


def decode(text: str | bytes) -> Any:
    """The value of a JSON text; raises `MalformedError`."""
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise MalformedError(str(error)) from error


def decode_object(text: bytes) -> Json:
    """One object of the API server, or a stub of it; raises `MalformedError` if it is neither."""
    whole = _whole(text, MAX_ITEM_BYTES)
    return _stub(_members(text)) if whole is None else whole


def decode_event(text: bytes) -> Json:
    """One line of a watch, with a stub for an object that cannot be decoded."""
    whole = _whole(text, MAX_ITEM_BYTES)
    if whole is not None:
        return whole
    members = _members(text)
    event = {key: decode(value) for key, value in members.items() if key != "object"}
    if "object" in members:
        event["object"] = decode_object(members["object"])
    return event


def decode_list(text: bytes) -> Json:
    """A page of a list, with a stub for each of its objects that cannot be decoded."""
    whole = _whole(text, MAX_LIST_BYTES)
    if whole is not None:
        return whole
    return _page(_members(text), decode_object)


def decode_answer(text: bytes) -> Json:
    """What a command has asked for, of any size: an object, or a list as of `decode_list`."""
    whole = _whole(text, len(text))
    if whole is not None:
        return whole
    members = _members(text)
    return _page(members, decode_answer) if "items" in members else _stub(members)


def whole_number(value: object, least: int, most: int) -> int | None:
    """The number if it is a whole one within these limits, both of them included, else None."""
    # True is an int to Python, and not to JSON.
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if least <= value <= most else None


def decimal_number(value: object) -> float | None:
    """The number as a float, else None; what has more digits than a float stays out."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _page(members: Mapping[str, bytes], decode_item: Callable[[bytes], Json]) -> Json:
    """A page of a list, each of its objects decoded by itself."""
    page = {key: decode(value) for key, value in members.items() if key != "items"}
    items = members.get("items", b"null")
    page["items"] = [] if items == b"null" else [decode_item(item) for item in _entries(items)]
    return page


def _whole(text: bytes, most: int) -> Json | None:
    """The object, decoded in one go; None where that cannot be done."""
    if len(text) > most:
        return None
    try:
        value = from_json(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _stub(members: Mapping[str, bytes]) -> Json:
    """What can be read of an object: each field of ``metadata`` and ``spec`` by itself."""
    stub: Json = {}
    for key, value in members.items():
        if key not in _SPLIT:
            _read(stub, stub, key, value, key)
            continue
        stub[key] = {}
        for name, part in _members(value).items():
            if name != _UNUSED:
                _read(stub, stub[key], name, part, f"{key}.{name}")
    return stub


def _read(stub: Json, into: Json, name: str, text: bytes, path: str) -> None:
    """Decode one field, or note in the stub why not; the first such note stays."""
    problem = f"has more than {MAX_FIELD_BYTES // 1024} KiB"
    if len(text) <= MAX_FIELD_BYTES:
        try:
            into[name] = from_json(text)
        except ValueError as error:
            problem = _TOO_DEEP if "recursion" in str(error) else f"cannot be decoded: {error}"
        else:
            return
    # The metadata that is needed has limits of its own: names, dates, labels.
    if not path.startswith("metadata"):
        stub.setdefault(UNREADABLE, (path, problem))


def _members(text: bytes) -> dict[str, bytes]:
    """The texts of an object's values by key; raises `MalformedError` when it is no object."""
    members: dict[str, bytes] = {}
    key = b""
    begin = 0
    for token, start, end in _outer_tokens(text, b"{"):
        if not begin:
            if token == b":":
                begin = end
            elif token.startswith(b'"'):
                key = token
        elif token in (b",", b"}"):
            members[str(decode(key))] = text[begin:start].strip()
            begin = 0
    return members


def _entries(text: bytes) -> Iterator[bytes]:
    """The texts of a list's entries; raises `MalformedError` when it is no list."""
    begin = 0
    for token, start, end in _outer_tokens(text, b"["):
        if token in (b"[", b",", b"]"):
            entry = text[begin:start].strip()
            if begin and entry:
                yield entry
            begin = end


def _outer_tokens(text: bytes, opener: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The tokens of the outermost object or list, with their places; what is within is passed over.

    Without recursion, so that no text is too deep for it. A text that was cut off is no object.
    """
    depth = 0
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token in (b"}", b"]"):
            depth -= 1
            if depth == 0:
                yield token, match.start(), match.end()
                if text[match.end() :].strip():
                    break
                return
        elif token in (b"{", b"["):
            if depth == 0:
                if token != opener:
                    break
                yield token, match.start(), match.end()
            depth += 1
        elif depth == 1:
            yield token, match.start(), match.end()
    raise MalformedError(f"no complete text between {opener.decode()} and its end")
