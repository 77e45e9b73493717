"""The model of a row and the JSON schema that is made of it say the same about every row."""

from __future__ import annotations

import json
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from inception_operator.accelerators.profile import parse_profile
from inception_operator.accelerators.resolve import DIRECTORY
from inception_operator.contract.errors import ProfileError

SCHEMA: dict[str, Any] = json.loads((DIRECTORY / "schema.json").read_text(encoding="utf-8"))
FULL: dict[str, Any] = {
    "name": "x",
    "resource": "x.y/z",
    "exact": ["x.y/w"],
    "patterns": ["^x$"],
    "ignore": ["x.y/mem"],
    "unit": None,
    "units": {"x.y/w": 2},
    "torch": {"module": "torch_x", "device": "x", "backend": "xccl"},
    "visible": ["X_VISIBLE", None],
    "tolerations": [{"key": "x", "operator": "Exists", "effect": "NoSchedule"}],
    "runtimeClass": "x",
    "env": {"A": "b"},
    "mounts": [{"hostPath": "/opt/x", "mountPath": "/x", "readOnly": False, "reason": "r"}],
    "security": {"capabilities": ["IPC_LOCK"], "supplementalGroups": [44], "reason": "r"},
    "shm": "8Gi",
    "extraResources": {"rdma/hca": "1", "hugepages-2Mi": "4Gi"},
    "precision": "p",
    "nodeLabels": ["x"],
    "exporter": {"name": "e", "port": 9400},
    "verified": {"read": "r", "hardware": "h"},
    "remark": "r",
}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values of a row."""
    children = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [path, *(place for key, child in children for place in places(child, (*path, key)))]


def with_value(value: Any, path: tuple[Any, ...], news: Any) -> Any:
    if not path:
        return news
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = with_value(value[path[0]], path[1:], news)
    return copy


def ours(row: Any) -> bool:
    try:
        parse_profile(row, "row")
    except ProfileError:
        return False
    return True


def test_a_row_with_all_keys_is_accepted() -> None:
    assert set(FULL) == set(SCHEMA["properties"])
    parse_profile(FULL, "row")


@settings(max_examples=400, deadline=None)
@given(
    place=st.sampled_from(places(FULL)),
    value=st.none()
    | st.booleans()
    | st.integers(-1, 100)
    | st.sampled_from(["", "x", "X", "x.y/z", "1Gi", "none", "^x$", "/a", "Exists", "x" * 600])
    | st.lists(st.sampled_from(["a.b/c", "^x$", 1, None]), max_size=20)
    | st.dictionaries(
        st.sampled_from(["name", "a.b/c", "key", "reason"]), st.sampled_from(["a.b/c", 3, None])
    ),
)
def test_wherever_a_value_is_changed_both_say_the_same(place: tuple[Any, ...], value: Any) -> None:
    row = with_value(FULL, place, value)
    assert ours(row) == jsonschema.Draft202012Validator(SCHEMA).is_valid(row), row


@pytest.mark.parametrize("key", FULL)
def test_a_missing_or_misspelt_key_is_judged_alike(key: str) -> None:
    without = {name: value for name, value in FULL.items() if name != key}
    for row in (without, {**without, f"{key}x": FULL[key]}):
        assert ours(row) == jsonschema.Draft202012Validator(SCHEMA).is_valid(row)


@pytest.mark.parametrize("path", sorted(DIRECTORY.glob("*.yaml")), ids=lambda path: str(path.stem))
def test_shipped_rows_are_valid(path: Any) -> None:
    parse_profile(yaml.safe_load(path.read_text(encoding="utf-8")), path.name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"resource": "no slash"}, "resource: 'no slash' does not match"),
        ({"unit": 0}, "unit: must be at least 1"),
        ({"unit": True}, "unit: must be integer or null"),
        ({"exact": ["a.b/c", "a.b/c"]}, "exact: has an entry twice"),
        ({"visible": ["A"]}, "visible: must have at least 2 entries"),
        ({"env": {"1": "a"}}, "env.1: '1' does not match"),
        (
            {"tolerations": [{"key": "x", "operator": "Is"}]},
            "tolerations[0].operator: 'Is' is none of Exists, Equal",
        ),
    ],
    ids=lambda value: str(value)[:24],
)
def test_the_refusal_names_the_key(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ProfileError) as refused:
        parse_profile(FULL | change, "row")
    assert words in str(refused.value)
