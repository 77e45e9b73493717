"""The values schema knows every key, refuses unknown ones at every level, and the README lists them
all.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts import kubernetes_types, plain, sync

VALUES: dict[str, Any] = yaml.safe_load((plain.CHART / "values.yaml").read_text(encoding="utf-8"))
SCHEMA: dict[str, Any] = json.loads(
    (plain.CHART / "values.schema.json").read_text(encoding="utf-8")
)

Path_ = tuple[str, ...]


def resolve(schema: dict[str, Any]) -> dict[str, Any]:
    """What a reference stands for; of several forms of a value, the map."""
    reference = schema.get("$ref", "")
    if reference.startswith(f"#/$defs/{kubernetes_types.PREFIX}"):
        return {}
    found: dict[str, Any] = SCHEMA["$defs"][reference.rsplit("/", 1)[1]] if reference else schema
    maps = [form for form in found.get("anyOf", ()) if form.get("type") == "object"]
    return maps[0] if maps else found


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


@pytest.mark.parametrize("wanted", [True, False])
def test_another_chart_may_have_it_as_a_dependency_with_a_condition(
    helm: str, tmp_path: Path, wanted: bool
) -> None:
    dependency = {"name": "inception-operator", "version": "0.1.0"}
    parent = {
        "apiVersion": "v2",
        "name": "platform",
        "version": "1.0.0",
        "dependencies": [{**dependency, "condition": "inception-operator.enabled"}],
    }
    (tmp_path / "Chart.yaml").write_text(yaml.safe_dump(parent))
    (tmp_path / "charts").mkdir()
    (tmp_path / "charts" / "inception-operator").symlink_to(plain.CHART)
    chosen = f"--set=inception-operator.enabled={str(wanted).lower()}"
    done = subprocess.run(
        [helm, "template", "release", str(tmp_path), chosen],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert ("kind: Deployment" in done.stdout) == wanted


@pytest.mark.parametrize(
    ("namespaces", "command"),
    [([], "kubectl apply"), (["team-a", "team-b"], "kubectl -n team-a apply")],
    ids=["all", "list"],
)
def test_the_notes_make_a_job_where_the_operator_looks(
    helm: str, namespaces: list[str], command: str
) -> None:
    done = subprocess.run(
        [
            *(helm, "install", "release", str(plain.CHART), "--dry-run=client"),
            f"--set-json=watchNamespaces={json.dumps(namespaces)}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"\n{command} --server-side" in done.stdout.partition("NOTES:")[2]


@pytest.mark.parametrize("path", list(CLOSED), ids=lambda path: ".".join(path) or "top")
def test_a_misspelt_key_is_refused(template: Callable[..., Any], path: Path_) -> None:
    done = template(nested((*path, "misspelt"), True))
    assert done.returncode != 0
    assert "additional properties 'misspelt' not allowed" in done.stderr


def test_helm_3_refuses_misspelt_keys_and_contradictions_too(
    template3: Callable[..., Any],
) -> None:
    version = "--kube-version=1.36"
    assert (
        "Additional property misspelt is not allowed" in template3({"misspelt": 1}, version).stderr
    )
    values, words = CONTRADICTIONS[0]
    assert words in template3(values, version).stderr


MISSPELT = {
    "podSecurityContext": {"runAsNonroot": True},
    "securityContext": {"capabilities": {"dropp": ["ALL"]}},
    "affinity": {"nodeAffinity": {"required": {}}},
    "tolerations": [{"keey": "a"}],
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "ScheduleAnyway", "minDomain": 2}
    ],
    "extraEnv": [{"name": "A", "valueFrom": {"secretRef": {"name": "s"}}}],
    "networkPolicy": {"jobs": {"egress": [{"too": []}]}},
    "extraObjects": [{"kind": "ConfigMap", "metadata": {"name": "x"}}],
}


@pytest.mark.parametrize("key", MISSPELT)
def test_a_key_that_a_kubernetes_type_does_not_have_is_refused(
    template: Callable[..., Any], key: str
) -> None:
    done = template({key: MISSPELT[key]})
    assert done.returncode != 0
    assert f"at '/{key}" in done.stderr


def test_no_map_of_the_schema_takes_any_key() -> None:
    """But labels, annotations and the like, whose values are typed, and whole objects of others."""
    free = ("/object", "/object/metadata", "/global")

    def check(schema: dict[str, Any], path: str) -> None:
        if schema.get("type") == "object" and path not in free:
            assert "additionalProperties" in schema, path
        for key in ("properties", "$defs"):
            for name, child in schema.get(key, {}).items():
                check(child, f"{path}/{name}")
        if isinstance(schema.get("items"), dict):
            check(schema["items"], f"{path}/[]")
        for number, form in enumerate(schema.get("anyOf", ())):
            check(form, f"{path}/{number}")

    check({key: value for key, value in SCHEMA.items() if key != "type"}, "")


CONTRADICTIONS = [
    ({"leaderElection": {"enabled": False}, "replicaCount": 2}, "replicaCount: 2 operators"),
    ({"leaderElection": {"enabled": False}}, "updateStrategy.type: without leaderElection"),
    (
        {"leaderElection": {"enabled": False, "guardCreations": True}},
        "guardCreations: without leaderElection.enabled nobody holds a Lease",
    ),
    (
        {
            "leaderElection": {"enabled": False},
            "updateStrategy": {"type": "Recreate"},
            "shards": 2,
        },
        "shards: without leaderElection.enabled nothing keeps two operators from the same job",
    ),
    (
        {"leaderElection": {"guardCreations": True}, "shards": 2},
        "shards: leaderElection.guardCreations compares the creator of a pod with the holder",
    ),
    ({"extraArgs": ["--shard=0/2"]}, "what the value shards is for"),
    ({"extraArgs": ["--no-leader-election"]}, "what the value leaderElection.enabled is for"),
    ({"extraArgs": ["--namespaces=a"]}, "what the value watchNamespaces is for"),
    ({"extraArgs": ["--http-port", "80"]}, "extraArgs: --http-port is fixed"),
    ({"podDisruptionBudget": {"maxUnavailable": 0}}, "podDisruptionBudget.maxUnavailable: 0"),
    ({"podDisruptionBudget": {"maxUnavailable": "0%"}}, "podDisruptionBudget.maxUnavailable: 0"),
    (
        {"updateStrategy": {"rollingUpdate": {"maxSurge": 0}}},
        "maxSurge and maxUnavailable cannot both be 0",
    ),
    (
        {
            "metrics": {
                "operator": {
                    "podMonitor": {"enabled": True},
                    "serviceMonitor": {"enabled": True},
                }
            }
        },
        "podMonitor and serviceMonitor",
    ),
    ({"metrics": {"operator": {"secure": None}}}, "--reset-then-reuse-values in place"),
    ({"extraArgs": ["--metrics-secure"]}, "the value metrics.operator.secure.enabled is for"),
    ({"extraArgs": ["--metrics-port=1"]}, "extraArgs: --metrics-port is fixed"),
    ({"metrics": {"operator": {"secure": {"enabled": True}}}}, "TLS needs a certificate"),
    (
        {"metrics": {"operator": {"secure": {"certManager": {"enabled": True}}}}},
        "no effect without metrics.operator.secure.enabled",
    ),
    (
        {"metrics": {"operator": {"secure": {"enabled": True, "certManager": {"enabled": True}}}}},
        "secure.certManager.issuerRef: name the Issuer",
    ),
    (
        {
            "metrics": {
                "operator": {
                    "secure": {"enabled": True, "secretName": "tls"},
                    "podMonitor": {"enabled": True},
                }
            }
        },
        "metrics.operator.podMonitor: reads tokens from Secrets only",
    ),
    ({"networkPolicy": {"jobs": {"enabled": True}}}, "networkPolicy.jobs.namespaces: a Network"),
    (
        {
            "networkPolicy": {"jobs": {"enabled": True, "namespaces": ["b"]}},
            "watchNamespaces": ["a"],
        },
        "networkPolicy.jobs.namespaces: b is not in watchNamespaces",
    ),
    (
        {"test": {"namespace": "b"}, "watchNamespaces": ["a"]},
        "test.namespace: b is not in watchNamespaces",
    ),
    ({"test": None}, "--reset-then-reuse-values in place of --reuse-values"),
    ({"metrics": {"operator": {"serviceMonitor": None}}}, "--reset-then-reuse-values in place"),
    ({"networkPolicy": {"jobs": {"egress": [{}]}}}, "without networkPolicy.jobs.limitEgress"),
]


@pytest.mark.parametrize(
    ("values", "words"), CONTRADICTIONS, ids=[words for _, words in CONTRADICTIONS]
)
def test_values_that_contradict_one_another_are_refused_with_the_remedy(
    template: Callable[..., Any], values: dict[str, Any], words: str
) -> None:
    done = template(values)
    assert done.returncode != 0
    assert words in done.stderr


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("replicaCount",), "two"),
        (("replicaCount",), -1),
        (("image", "digest"), "sha256:short"),
        (("image", "pullPolicy"), "Sometimes"),
        (("logging", "level"), "loud"),
        (("crds", "enabled"), "yes"),
        (("leaderElection", "leaseName"), "Big One"),
        (("metrics", "trainer", "podMonitor", "interval"), "often"),
        (("networkPolicy", "apiServerPorts"), [0]),
        (("networkPolicy", "apiServerCIDRs"), ["everywhere"]),
        (("extraEnv",), [{"value": "x"}]),
        (("watchNamespaces",), ["Team A"]),
        (("podPolicy",), "privileged"),
        (("podPolicy",), True),
        (("podUser",), 0),
        (("podUser",), "root"),
        (("leaveOn",), ["drain"]),
        (("leaveOn",), "cordon"),
        (("trainerImage",), "two words"),
        (("trainerImage", "digest"), "sha256:short"),
        (("metrics", "trainer", "podMonitor", "sampleLimit"), -1),
        (("tolerations",), [{"key": 3}]),
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


def operator_option(done: subprocess.CompletedProcess[str], option: str) -> list[str]:
    """An option of the rendered operator with its value; nothing where it is not given."""
    assert done.returncode == 0, done.stderr
    (deployment,) = (
        each
        for each in yaml.safe_load_all(done.stdout)
        if each is not None and each["kind"] == "Deployment"
    )
    given: list[str] = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    start = given.index(option) if option in given else len(given)
    return given[start : start + 2]


# YAML reads a bare off as false.
@pytest.mark.parametrize(
    ("policy", "arguments"),
    [("off", []), (False, []), ("restricted", ["--pod-policy", "restricted"])],
)
def test_the_pod_policy_reaches_the_operator(
    template: Callable[..., Any], policy: Any, arguments: list[str]
) -> None:
    done = template({"podPolicy": policy})
    assert operator_option(done, "--pod-policy") == arguments


@pytest.mark.parametrize(
    ("user", "arguments"),
    [
        (10001, []),
        (1000680000, ["--pod-user", "1000680000"]),
        ("none", ["--pod-user", "none"]),
    ],
)
def test_the_user_of_jobs_reaches_the_operator(
    template: Callable[..., Any], user: Any, arguments: list[str]
) -> None:
    done = template({"podUser": user})
    assert operator_option(done, "--pod-user") == arguments


@pytest.mark.parametrize(
    ("signs", "arguments"),
    [
        ([], []),
        (["none"], ["--leave-on", "none"]),
        (
            ["default", "-cordon", "condition=GpuXid"],
            ["--leave-on", "default,-cordon,condition=GpuXid"],
        ),
    ],
)
def test_the_signs_of_nodes_that_go_reach_the_operator(
    template: Callable[..., Any], signs: list[str], arguments: list[str]
) -> None:
    done = template({"leaveOn": signs})
    assert operator_option(done, "--leave-on") == arguments


def test_an_account_that_is_not_made_must_be_named(template: Callable[..., Any]) -> None:
    done = template({"serviceAccount": {"create": False}})
    assert done.returncode != 0
    assert "serviceAccount.name is required" in done.stderr


def test_the_readme_describes_every_key() -> None:
    described = {
        key
        for key, _, _ in sync.values_rows((plain.CHART / "values.yaml").read_text(encoding="utf-8"))
    }
    for path in keys(VALUES, ()):
        # A key is described by itself, by a map that it stands in, or by the keys of the map that
        # it is.
        parents = {".".join(path[:length]) for length in range(1, len(path) + 1)}
        assert parents & described or path in CLOSED, path


def test_the_readme_has_a_row_for_every_key() -> None:
    text = sync.README.read_text(encoding="utf-8")
    for key, _, description in sync.values_rows(
        (plain.CHART / "values.yaml").read_text(encoding="utf-8")
    ):
        assert f"| `{key}` |" in text
        assert description[0].isupper(), key
        assert description.endswith("."), key


def test_versions_agree() -> None:
    chart = yaml.safe_load((plain.CHART / "Chart.yaml").read_text(encoding="utf-8"))
    project = (Path(plain.ROOT) / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{chart["version"]}"' in project
    assert chart["version"] == chart["appVersion"]
