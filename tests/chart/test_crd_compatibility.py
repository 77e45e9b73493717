"""The CRD takes everything that the releases before took; what it does not is listed with its
reason.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from crd_compatibility import breaks

ROOT = Path(__file__).resolve().parents[2]
COMPAT = ROOT / "tests" / "compat"
RELEASES = sorted(path.parent for path in COMPAT.glob("v*/crd.yaml"))
Json = dict[str, Any]


def load(path: Path) -> Json:
    loaded: Json = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


def test_there_is_a_release_to_compare_with() -> None:
    assert [path.name for path in RELEASES][:1] == ["v0.1.0"]


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_what_a_release_took_is_still_taken(release: Path) -> None:
    found = breaks(load(release / "crd.yaml"), load(ROOT / "manifests" / "crd.yaml"))
    excepted = load(COMPAT / "exceptions.yaml").get(release.name) or []
    assert all(len(entry["reason"]) > 20 for entry in excepted), "a reason is a sentence"
    listed = [entry["change"] for entry in excepted]
    assert [change for change in found if change not in listed] == []
    assert [change for change in listed if change not in found] == [], "no longer true: remove it"


def crd() -> Json:
    schema = {
        "type": "object",
        "required": ["name"],
        "x-kubernetes-validations": [{"rule": "self.size >= 1 || !has(self.size)"}],
        "properties": {
            "name": {"type": "string", "maxLength": 63, "enum": ["a", "b"]},
            "size": {"type": "integer", "minimum": 1, "maximum": 8, "default": 2},
            "share": {"type": "number", "nullable": True},
            "count": {"x-kubernetes-int-or-string": True},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "items": {
                "type": "array",
                "x-kubernetes-list-type": "atomic",
                "items": {"type": "string", "pattern": "^a"},
            },
        },
    }
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "selectableFields": [{"jsonPath": ".spec.name"}],
        "schema": {"openAPIV3Schema": schema},
    }
    names = {"kind": "K", "listKind": "KList", "plural": "ks", "singular": "k", "shortNames": ["x"]}
    return {"spec": {"group": "g", "scope": "Namespaced", "names": names, "versions": [version]}}


Change = Callable[[Json, Json], object]
"""Changes a CRD: is given its spec and the properties of its schema."""

NARROWER: dict[str, tuple[Change, str]] = {
    "group": (lambda s, p: s.update(group="h"), "spec.group: was g, is h"),
    "plural": (lambda s, p: s["names"].update(plural="x"), "spec.names.plural: was ks, is x"),
    "short name": (lambda s, p: s["names"].update(shortNames=[]), "spec.names.shortNames: x is"),
    "not served": (lambda s, p: s["versions"][0].update(served=False), "v1: is not served"),
    "version gone": (lambda s, p: s["versions"][0].update(name="v2"), "v1: is not served"),
    "not stored": (lambda s, p: s["versions"][0].update(storage=False), "v1: is not the stored"),
    "no status": (lambda s, p: s["versions"][0].pop("subresources"), "v1: the sub-resource status"),
    "not selectable": (
        lambda s, p: s["versions"][0].pop("selectableFields"),
        "v1: .spec.name cannot be selected",
    ),
    "field gone": (lambda s, p: p.pop("share"), "v1.share: is gone"),
    "type": (lambda s, p: p["share"].update(type="integer"), "v1.share: was integer or number"),
    "type of one of two": (
        lambda s, p: p.update(count={"type": "integer"}),
        "v1.count: was integer or string, is integer",
    ),
    "type where there was none": (
        lambda s, p: p["labels"].update(additionalProperties={"type": "integer"}),
        "v1.labels.*: was string, is integer",
    ),
    "not null": (lambda s, p: p["share"].update(nullable=False), "v1.share: may not be null"),
    "value gone": (lambda s, p: p["name"].update(enum=["a"]), "v1.name: does not take b"),
    "only values": (lambda s, p: p["size"].update(enum=[1]), "v1.size: takes only some values"),
    "minimum": (lambda s, p: p["size"].update(minimum=2), "v1.size: minimum was 1, is 2"),
    "maximum": (lambda s, p: p["size"].update(maximum=7), "v1.size: maximum was 8, is 7"),
    "new limit": (lambda s, p: p["items"].update(maxItems=5), "v1.items: maxItems was none, is 5"),
    "default": (lambda s, p: p["size"].update(default=3), "v1.size: default was 2, is 3"),
    "no default": (lambda s, p: p["size"].pop("default"), "v1.size: default was 2, is none"),
    "pattern": (
        lambda s, p: p["items"]["items"].update(pattern="^b"),
        "v1.items[]: pattern was ^a, is ^b",
    ),
    "list type": (
        lambda s, p: p["items"].update({"x-kubernetes-list-type": "set"}),
        "v1.items: x-kubernetes-list-type was atomic, is set",
    ),
    "keys pruned": (
        lambda s, p: p["free"].pop("x-kubernetes-preserve-unknown-fields"),
        "v1.free: keys that are not described are not kept",
    ),
    "no free keys": (
        lambda s, p: p["labels"].pop("additionalProperties"),
        "v1.labels: takes no free keys",
    ),
    "required": (
        lambda s, p: schema(s).update(required=["name", "share"]),
        "v1.share: is required",
    ),
    "rule": (
        lambda s, p: schema(s)["x-kubernetes-validations"].append({"rule": "self.size < 5"}),
        "v1: has the new rule self.size < 5",
    ),
    "other rule": (
        lambda s, p: schema(s)["x-kubernetes-validations"][0].update(rule="self.size >= 2"),
        "v1: has the new rule self.size >= 2",
    ),
}
WIDER: dict[str, Change] = {
    "the same": lambda s, p: None,
    "new optional field": lambda s, p: p.update(more={"type": "string", "maxLength": 1}),
    "new object with a rule and a required field": lambda s, p: p.update(
        more={
            "type": "object",
            "required": ["a"],
            "properties": {"a": {"type": "string"}},
            "x-kubernetes-validations": [{"rule": "self.a != ''"}],
        }
    ),
    "required with a default": lambda s, p: schema(s).update(required=["name", "size"]),
    "nothing required": lambda s, p: schema(s).pop("required"),
    "more values": lambda s, p: p["name"].update(enum=["b", "a", "c"]),
    "any value": lambda s, p: p["name"].pop("enum"),
    "wider limits": lambda s, p: p["size"].update(minimum=0, maximum=9),
    "no limit": lambda s, p: p["name"].pop("maxLength"),
    "any number": lambda s, p: p["size"].update(type="number"),
    "a number or a text": lambda s, p: p["size"].update(
        {"type": None, "x-kubernetes-int-or-string": True}
    ),
    "rule gone": lambda s, p: schema(s).pop("x-kubernetes-validations"),
    "message and layout of a rule": lambda s, p: schema(s)["x-kubernetes-validations"][0].update(
        rule="self.size >= 1\n  || !has(self.size)", message="size: give one"
    ),
    "all keys kept": lambda s, p: p["labels"].update(
        {"additionalProperties": None, "x-kubernetes-preserve-unknown-fields": True}
    ),
    "another version beside it": lambda s, p: s["versions"].append({"name": "v2"}),
    "described": lambda s, p: p["size"].update(description="The size."),
}


def schema(spec: Json) -> Json:
    found: Json = spec["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def changed(change: Change) -> list[str]:
    old, new = crd(), copy.deepcopy(crd())
    change(new["spec"], schema(new["spec"])["properties"])
    return breaks(old, new)


@pytest.mark.parametrize("name", NARROWER)
def test_whatever_takes_less_is_found(name: str) -> None:
    change, finding = NARROWER[name]
    found = changed(change)
    assert len(found) == 1, found
    assert found[0].startswith(finding)


@pytest.mark.parametrize("name", WIDER)
def test_what_takes_more_is_no_finding(name: str) -> None:
    assert changed(WIDER[name]) == []
