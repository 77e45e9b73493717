"""No text from outside does more than be refused, whatever it is.

`make fuzz` looks for such texts with a coverage-guided fuzzer; here are those that are known, and
some that Hypothesis makes.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz_targets import CORPUS, TARGETS

CASES = [(name, number) for name, texts in CORPUS.items() for number in range(len(texts))]


@pytest.mark.parametrize(("target", "number"), CASES)
def test_a_known_hostile_text_is_taken_or_refused(target: str, number: int) -> None:
    TARGETS[target](CORPUS[target][number])


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["Failed", "Running", "2026-01-01T00:00:00Z", "1e999", "9999-12-31"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=8)
            | st.sampled_from(
                ["attempt", "state", "nnodes", "metrics", "step", "time", "exitCode", "message"]
            )
            | st.sampled_from(["template", "spec", "metadata", "name", "items", "object", "type"]),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)


@pytest.mark.parametrize("target", TARGETS)
@given(value=VALUES)
@settings(max_examples=25)
def test_any_json_is_taken_or_refused(target: str, value: object) -> None:
    TARGETS[target](json.dumps(value).encode())


@pytest.mark.parametrize("target", TARGETS)
@given(data=st.data())
@settings(max_examples=25)
def test_a_known_text_with_a_change_is_taken_or_refused(target: str, data: st.DataObject) -> None:
    text = bytearray(data.draw(st.sampled_from([t for t in CORPUS[target] if len(t) < 2000])))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(text)))
        length = data.draw(st.integers(0, 8))
        new = data.draw(
            st.binary(max_size=8) | st.sampled_from([b"1e999", b"-1", b"{", b"]", b'"', b"null"])
        )
        text[place : place + length] = new
    TARGETS[target](bytes(text))
