"""The conventions that every field of our API keeps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from inception_operator.contract import conditions
from inception_operator.contract import names as api
from inception_operator.spec import job as spec

ROOT = Path(__file__).resolve().parents[2]
CRD: dict[str, Any] = yaml.safe_load((ROOT / "manifests" / "crd.yaml").read_text(encoding="utf-8"))
VERSION: dict[str, Any] = CRD["spec"]["versions"][0]
SCHEMA: dict[str, Any] = VERSION["schema"]["openAPIV3Schema"]
OPAQUE, LIST_TYPE, RULES = (
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-list-type",
    "x-kubernetes-validations",
)


def walk(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}")
    if "items" in schema:
        yield from walk(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from walk(schema["additionalProperties"], f"{path}{{}}")


NODES = dict(walk(SCHEMA, ""))
FIELDS = {path: node for path, node in NODES.items() if path != ".metadata"}
LONG = {".spec.training.loss.classWeights": 1000}
"""A number for each class, of which ImageNet has a thousand."""
DECIMALS = ("learningRate", "momentum", "weightDecay", "gamma", "labelSmoothing")


@pytest.mark.parametrize("path", FIELDS)
def test_every_field_is_described_in_whole_sentences(path: str) -> None:
    text = FIELDS[path].get("description", "")
    assert re.fullmatch(r"[A-Z].*\.", text, re.DOTALL), text
    assert "{{" not in text, "the chart would take it for a template"


@pytest.mark.parametrize(
    "path", [path for path, node in NODES.items() if node.get("type") == "array"]
)
def test_every_list_is_bounded_and_says_how_it_merges(path: str) -> None:
    node = NODES[path]
    assert node["maxItems"] <= LONG.get(path, 256)
    assert node[LIST_TYPE] in ("atomic", "map", "set")
    if node[LIST_TYPE] == "map":
        assert set(node["x-kubernetes-list-map-keys"]) <= set(node["items"]["required"])


def test_strings_and_maps_are_bounded() -> None:
    for path, node in NODES.items():
        if (
            node.get("type") == "string"
            and "format" not in node
            and path not in (".apiVersion", ".kind")
        ):
            assert "maxLength" in node or path.endswith("conditions[].status"), path
        if isinstance(node.get("additionalProperties"), dict):
            assert "maxProperties" in node, path


def test_numbers_are_bounded_integers() -> None:
    for path, node in NODES.items():
        assert node.get("type") != "number", path
        if node.get("type") == "integer":
            assert node["format"] in ("int32", "int64"), path
            if path.startswith(".spec.") and ".template." not in path:
                assert "minimum" in node, path
                assert "maximum" in node, path


def test_decimals_are_strings_with_a_pattern() -> None:
    for path, node in NODES.items():
        if path.rsplit(".", 1)[-1] in DECIMALS:
            assert node["type"] == "string", path
            assert re.fullmatch(node["pattern"], "0.5"), path
            assert not re.fullmatch(node["pattern"], "-0.5"), path
            assert not re.fullmatch(node["pattern"], "half"), path


def test_patterns_are_anchored() -> None:
    for path, node in NODES.items():
        if "pattern" in node:
            assert node["pattern"].startswith("^"), path
            assert node["pattern"].endswith("$") or node["pattern"] == "^/.+", path


def test_names_follow_the_conventions() -> None:
    for path in NODES:
        name = re.sub(r"[\[\]{}]", "", path.rsplit(".", 1)[-1])
        assert re.fullmatch(r"[a-z][A-Za-z0-9]*|", name), path
        assert "phase" not in name.lower(), path
        assert not name.endswith("Timestamp"), path


def test_rules_name_their_field_and_say_why() -> None:
    rules = [(path, rule) for path, node in NODES.items() for rule in node.get(RULES, ())]
    assert len(rules) > 15
    for path, rule in rules:
        assert rule["message"].startswith(("spec.", "metadata.name ")), path
        assert not rule["message"].endswith("."), path
        assert "reason" in rule, path


def test_every_spec_field_but_the_policies_is_immutable() -> None:
    spec = SCHEMA["properties"]["spec"]
    guarded = {
        rule["fieldPath"].removeprefix(".") for rule in spec[RULES] if "oldSelf" in rule["rule"]
    }
    born_with = {"failurePolicy.progressDeadlineSeconds"}
    assert guarded == set(spec["properties"]) - {"runPolicy", "failurePolicy"} | born_with


def test_only_the_manager_is_immutable_even_while_the_job_is_suspended() -> None:
    rules = [rule for rule in SCHEMA["properties"]["spec"][RULES] if "oldSelf" in rule["rule"]]
    assert all(
        rule["rule"].startswith("oldSelf.?runPolicy.?suspend.orValue(false) || ") for rule in rules
    )
    (manager,) = NODES[".spec.runPolicy"][RULES]
    assert (manager["fieldPath"], "suspend" in manager["rule"]) == (".managedBy", False)


def test_the_group_has_one_version_that_is_served_and_stored() -> None:
    (version,) = CRD["spec"]["versions"]
    assert (version["name"], version["served"], version["storage"]) == ("v1alpha1", True, True)
    assert CRD["spec"]["group"] == api.GROUP
    assert "conversion" not in CRD["spec"], "no webhook whose absence would stop the API"


def test_names_of_the_kind_do_not_clash_with_those_of_kubernetes() -> None:
    names = CRD["spec"]["names"]
    assert (names["shortNames"], names["categories"]) == (["itrain"], ["training"])
    assert (names["plural"], names["kind"], names["listKind"]) == (
        api.PLURAL,
        api.KIND,
        f"{api.KIND}List",
    )


def test_durations_are_integers_and_dates_are_dates() -> None:
    for path, node in FIELDS.items():
        name = path.rsplit(".", 1)[-1]
        if ".template." in path:
            continue
        if name.endswith(("Seconds", "Second")) and name != "samplesPerSecond":
            assert node["type"] == "integer", path
        assert not re.search("(Minutes|Hours|Duration|Timeout|Deadline|Ttl|Date|At)$", name), path
        if name.endswith("Time") or name == "time":
            assert (node["type"], node["format"]) == ("string", "date-time"), path


def test_words_of_a_choice_are_written_in_camel_case() -> None:
    # Networks have the names that the trainer gives them.
    for path, node in NODES.items():
        if "enum" in node and path != ".spec.training.model.name":
            assert all(re.fullmatch(r"[A-Z][A-Za-z0-9]*", word) for word in node["enum"]), path


def test_choices_that_may_grow_are_no_booleans() -> None:
    flags = {path for path, node in FIELDS.items() if node.get("type") == "boolean"}
    assert flags == {
        ".spec.runPolicy.suspend",
        ".spec.training.optimizer.nesterov",
        # The augmentation has no parameters, and there is no third kind of weights to measure.
        ".spec.training.augmentation.trivialAugment",
        ".spec.training.evaluation.rawWeights",
    }


def test_lists_of_objects_are_not_sets() -> None:
    for path, node in NODES.items():
        if node.get(LIST_TYPE) == "set":
            assert node["items"]["type"] in ("string", "integer"), path


def test_rules_look_at_bounded_values_only() -> None:
    """The API server estimates the cost of a rule from these limits."""
    for path, node in NODES.items():
        if RULES in node and node.get("type") == "string":
            assert "maxLength" in node, path
        if RULES in node and node.get("type") == "array":
            assert "maxItems" in node, path


def test_limits_of_the_life_cycle_are_those_of_the_operator() -> None:
    policy = NODES[".spec.runPolicy"]["properties"]
    for name, least in (
        ("activeDeadlineSeconds", 1),
        ("preRunningDeadlineSeconds", 1),
        ("ttlSecondsAfterFinished", 0),
    ):
        assert (policy[name]["minimum"], policy[name]["maximum"]) == (least, spec.MAX_SECONDS)
        assert "default" not in policy[name], "no limit unless somebody sets one"
    assert policy["cleanPodPolicy"]["enum"] == list(spec.CLEAN_POD_POLICIES)
    assert policy["cleanPodPolicy"]["default"] == spec.RunPolicy().clean_pods
    assert re.fullmatch(policy["managedBy"]["pattern"], api.MANAGER)
    assert len(api.MANAGER) <= policy["managedBy"]["maxLength"]
    assert api.MANAGER in policy["managedBy"]["description"]


def constants(kind: type) -> list[str]:
    return [value for name, value in vars(kind).items() if name.isupper()]


def test_reasons_and_conditions_fit_into_events_and_conditions() -> None:
    schema = NODES[".status.conditions[]"]["properties"]
    for reason in (*constants(api.Reason), *constants(api.Cause)):
        assert re.fullmatch(r"[A-Z][A-Za-z0-9]{1,127}", reason)
        assert re.fullmatch(schema["reason"]["pattern"], reason)
    assert len(set(constants(api.Reason))) == len(constants(api.Reason))
    for kind in constants(api.ConditionType):
        assert re.fullmatch(schema["type"]["pattern"], kind)
    assert api.ConditionType.SUCCEEDED == "Succeeded", (
        "the one that the conventions ask of bounded objects"
    )
    assert {entry[0] for entry in conditions.INITIAL} == set(constants(api.ConditionType)), (
        "all at the first visit"
    )
    assert len(conditions.INITIAL) <= NODES[".status.conditions"]["maxItems"]


def test_words_for_people_fit_into_the_state() -> None:
    assert all(len(state) <= NODES[".status.state"]["maxLength"] for state in constants(api.State))


def test_only_pods_hold_opaque_parts() -> None:
    assert all(
        path.startswith(".spec.template.spec") for path, node in NODES.items() if node.get(OPAQUE)
    )


def test_status_and_scale_are_sub_resources() -> None:
    scale = VERSION["subresources"]["scale"]
    assert VERSION["subresources"] == {"status": {}, "scale": scale}
    assert {key: NODES[path]["type"] for key, path in scale.items()} == {
        "specReplicasPath": "integer",
        "statusReplicasPath": "integer",
        "labelSelectorPath": "string",
    }
    assert VERSION["served"] is VERSION["storage"] is True


def test_columns_point_at_fields_and_are_described() -> None:
    columns = VERSION["additionalPrinterColumns"]
    names = [column["name"] for column in columns if not column.get("priority")]
    assert names == [
        "STATE",
        "NODES",
        "ACCELERATOR",
        "PROGRESS",
        "TOP1",
        "IMG/S",
        "RESTARTS",
        "AGE",
    ]
    assert [column["name"] for column in columns if column.get("priority")] == [
        "MODEL",
        "ETA",
        "REASON",
    ]
    for column in columns:
        assert column["description"].endswith(".")
        assert "[" not in column["jsonPath"], "no condition by its position"
        path = column["jsonPath"]
        assert path == ".metadata.creationTimestamp" or NODES[path]["type"] == column["type"], path


def test_conditions_have_the_shape_of_kubernetes() -> None:
    conditions = NODES[".status.conditions"]
    assert (conditions[LIST_TYPE], conditions["x-kubernetes-list-map-keys"]) == ("map", ["type"])
    assert set(conditions["items"]["required"]) == {
        "type",
        "status",
        "lastTransitionTime",
        "reason",
        "message",
    }
    assert set(conditions["items"]["properties"]) == {
        *conditions["items"]["required"],
        "observedGeneration",
    }
