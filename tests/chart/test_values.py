"""The values schema knows every key, refuses unknown ones at every level, and the README lists them
all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts import sync

VALUES: dict[str, Any] = yaml.safe_load((sync.CHART / "values.yaml").read_text(encoding="utf-8"))
SCHEMA: dict[str, Any] = json.loads((sync.CHART / "values.schema.json").read_text(encoding="utf-8"))

Path_ = tuple[str, ...]


def resolve(schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref", "")
    found: dict[str, Any] = SCHEMA["$defs"][reference.rsplit("/", 1)[1]] if reference else schema
    return found


def closed(schema: dict[str, Any], path: Path_ = ()) -> Iterator[tuple[Path_, dict[str, Any]]]:
    """The maps whose keys are all known, with their paths."""
    schema = resolve(schema)
    if schema.get("additionalProperties") is False:
        yield path, schema
        for key, child in schema["properties"].items():
            yield from closed(child, (*path, key))


CLOSED = dict(closed(SCHEMA))


def keys(value: Any, path: Path_) -> Iterator[Path_]:
    """The paths of all keys of values.yaml above maps with the shape of a Kubernetes type."""
    for key, child in value.items():
        yield (*path, key)
        if isinstance(child, dict) and (*path, key) in CLOSED:
            yield from keys(child, (*path, key))


def nested(path: Path_, value: Any) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    result: dict[str, Any] = value
    return result


@pytest.mark.parametrize("path", list(CLOSED), ids=lambda path: ".".join(path) or "top")
def test_schema_and_values_have_the_same_keys(path: Path_) -> None:
    value: Any = VALUES
    for key in path:
        value = value[key]
    schema_keys = set(CLOSED[path]["properties"])
    if not path:
        schema_keys.remove("global")
    assert set(value) == schema_keys


@pytest.mark.parametrize("path", list(CLOSED), ids=lambda path: ".".join(path) or "top")
def test_a_misspelt_key_is_refused(template: Callable[..., Any], path: Path_) -> None:
    done = template(nested((*path, "misspelt"), True))
    assert done.returncode != 0
    assert "additional properties 'misspelt' not allowed" in done.stderr


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("replicaCount",), "two"),
        (("replicaCount",), -1),
        (("image", "digest"), "sha256:short"),
        (("image", "pullPolicy"), "Sometimes"),
        (("logging", "level"), "loud"),
        (("crds", "enabled"), "yes"),
        (("leaderElection", "leaseName"), ""),
        (("metrics", "trainer", "podMonitor", "interval"), "often"),
        (("networkPolicy", "apiServerPorts"), [0]),
        (("networkPolicy", "apiServerCIDRs"), ["everywhere"]),
        (("extraEnv",), [{"value": "x"}]),
        (("watchNamespaces",), ["Team A"]),
        (("podPolicy",), "privileged"),
        (("podPolicy",), True),
        (("trainerImage",), "two words"),
        (("profiles", "abacus", "unit"), 0),
        (("profiles", "abacus", "patterns"), ["abacus.com/.*"]),
        (("profiles", "abacus", "torch"), {"device": "bead"}),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else repr(value),
)
def test_a_wrong_value_is_refused_with_its_path(
    template: Callable[..., Any], path: Path_, value: Any
) -> None:
    done = template(nested(path, value))
    assert done.returncode != 0
    assert f"at '/{'/'.join(path)}" in done.stderr


def test_rows_of_the_accelerator_table_have_only_keys_that_are_known(
    template: Callable[..., Any],
) -> None:
    row = {"resource": "abacus.com/bead", "unit": 1, "torch": {"device": "bead", "backend": "ccl"}}
    assert template({"profiles": {"abacus": row}}).returncode == 0
    for more in ({"colour": "red"}, {"name": "other"}):
        done = template({"profiles": {"abacus": {**row, **more}}})
        assert done.returncode != 0
        assert "at '/profiles/abacus'" in done.stderr


# YAML reads a bare off as false.
@pytest.mark.parametrize(
    ("policy", "arguments"),
    [("off", []), (False, []), ("restricted", ["--pod-policy", "restricted"])],
)
def test_the_pod_policy_reaches_the_operator(
    template: Callable[..., Any], policy: Any, arguments: list[str]
) -> None:
    done = template({"podPolicy": policy})
    assert done.returncode == 0, done.stderr
    (deployment,) = (
        each
        for each in yaml.safe_load_all(done.stdout)
        if each is not None and each["kind"] == "Deployment"
    )
    given = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    start = given.index("--pod-policy") if "--pod-policy" in given else len(given)
    assert given[start : start + 2] == arguments


def test_an_account_that_is_not_made_must_be_named(template: Callable[..., Any]) -> None:
    done = template({"serviceAccount": {"create": False}})
    assert done.returncode != 0
    assert "serviceAccount.name is required" in done.stderr


def test_the_readme_describes_every_key() -> None:
    described = {
        key
        for key, _, _ in sync.values_rows((sync.CHART / "values.yaml").read_text(encoding="utf-8"))
    }
    for path in keys(VALUES, ()):
        # A key is described by itself, by a map that it stands in, or by the keys of the map that
        # it is.
        parents = {".".join(path[:length]) for length in range(1, len(path) + 1)}
        assert parents & described or path in CLOSED, path


def test_the_readme_has_a_row_for_every_key() -> None:
    text = sync.README.read_text(encoding="utf-8")
    for key, _, description in sync.values_rows(
        (sync.CHART / "values.yaml").read_text(encoding="utf-8")
    ):
        assert f"| `{key}` |" in text
        assert description[0].isupper(), key
        assert description.endswith("."), key


def test_versions_agree() -> None:
    chart = yaml.safe_load((sync.CHART / "Chart.yaml").read_text(encoding="utf-8"))
    project = (Path(sync.ROOT) / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{chart["version"]}"' in project
    assert chart["version"] == chart["appVersion"]
