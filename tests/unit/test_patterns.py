"""Regular expressions of users: what is found, what is refused, and that no search lasts."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from inception_operator.spec import patterns


def refusal_of(pattern: str) -> str:
    """Why a pattern is refused; empty when it is not."""
    try:
        patterns.check(pattern)
    except PydanticCustomError as error:
        return error.message()
    return ""


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("ECC", "CUDA error: uncorrectable ECC error", True),
        ("^ECC", "CUDA error: uncorrectable ECC error", False),
        ("(?i)ecc ERROR$", "CUDA error: uncorrectable ECC error", True),
        (r"rank [0-9]{1,3} of \d+", "rank 12 of 96", True),
        ("NCCL .{0,80} timed out", "NCCL work 7 timed out", True),
        ("a.b", "a\nb", False),
        ("(?s)a.b", "a\nb", True),
        ("Grüße|日本", "日本語", True),
        ("b", "a\ud800b", True),
        ("z", "a" * patterns.MAX_TEXT + "z", False),
        (r"\{3\}", "{3}", True),
    ],
    ids=[
        *("part", "begin", "case", "numbers", "gap", "line end", "any character"),
        *("unicode", "half a pair", "beyond the limit", "braces"),
    ],
)
def test_what_is_found(pattern: str, text: str, found: bool) -> None:
    assert refusal_of(pattern) == ""
    assert patterns.found(pattern, text) is found


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("", "must not be empty"),
        ("(a", "is no regular expression: unclosed group"),
        ("a(?=b)", "look-around"),
        (r"(a)\1", "backreferences are not supported"),
        ("a" * 257, "has more than 256 characters"),
        ("a{1000}{1000}", "is too much"),
        ("(a{,80}b){60}", "is too much"),
        ("(" * 60 + "a" + "){9}" * 40, "is too much"),
        (r"\w" * 21, "is too much"),
        (r"(?:\w{3}){7}", "is too much"),
        ("(?x)a{1 0 0}", "has the flag x"),
        ("(?imx:a)", "has the flag x"),
    ],
    ids=[
        *("empty", "unclosed", "look-around", "back reference", "long", "huge", "open count"),
        *("nested", "classes", "repeated classes", "spaces in a number", "flags"),
    ],
)
def test_what_is_refused(pattern: str, words: str) -> None:
    assert words in refusal_of(pattern)


EVIL = ["(a+)+$", "(a|aa)+$", "(a|a?)+b", "(.*a){10}$", "^(([a-z])+.)+[A-Z]([a-z])+$", "(a*)*b"]


@pytest.mark.parametrize("pattern", EVIL)
def test_a_pattern_that_stops_other_engines_takes_as_long_as_its_text_is(pattern: str) -> None:
    # It is milliseconds or for ever: Python's own engine would never come back.
    assert refusal_of(pattern) == ""
    assert patterns.found(pattern, "a" * 4095 + "!") is False


PIECES = [
    "a",
    ".",
    r"\w",
    r"\pL",
    "[^a]",
    "(",
    ")",
    "|",
    "*",
    "+",
    "?",
    "{3}",
    "{1,9}",
    "(?i)",
    "é",
]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join) | st.text(max_size=40))
def test_any_pattern_is_refused_or_searched_for(pattern: str) -> None:
    if refusal_of(pattern):
        return
    assert patterns.found(pattern, "a é日 1" * 500) in (True, False)
    assert len(re.findall(r"\\[wp]", pattern)) <= patterns.MAX_CLASSES
