"""What the chart renders to: valid objects, exact rights, restricted pods, one consistent set of
names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from chart_values import (
    VALUES,
    Object,
    Render,
    container_of,
    of_kind,
    only,
    pod_of,
    settings_of,
)
from inception_operator.accelerators.resolve import load_profiles

OUR_GROUP = "training.inception.dev"


@pytest.fixture(params=VALUES)
def objects(request: pytest.FixtureRequest, render: Render) -> list[Object]:
    return render(VALUES[request.param])


@pytest.mark.parametrize("name", VALUES)
def test_helm_3_renders_the_same_as_helm_4(render: Render, render3: Render, name: str) -> None:
    # What Helm 3 was built for is its default, and older than the chart needs.
    version = "--kube-version=1.36"
    for of_test in (False, True):
        same = [each(VALUES[name], version, of_test=of_test) for each in (render3, render)]
        assert same[0] == same[1]


def test_no_two_objects_share_a_name(objects: list[Object]) -> None:
    names = [
        (item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"])
        for item in objects
    ]
    assert len(names) == len(set(names))


def test_pods_meet_the_restricted_profile(objects: list[Object]) -> None:
    pod = pod_of(objects)["spec"]
    assert not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
    assert all(
        volume.keys() <= {"name", "emptyDir", "configMap", "secret"} for volume in pod["volumes"]
    )
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert min(context["runAsUser"], context["runAsGroup"]) >= 10000
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        inner = container["securityContext"]
        assert inner["allowPrivilegeEscalation"] is False
        assert inner["readOnlyRootFilesystem"] is True
        assert inner["capabilities"] == {"drop": ["ALL"]}
        assert not any("hostPort" in port for port in container["ports"])
        for kind in ("requests", "limits"):
            assert container["resources"][kind].keys() == {"cpu", "memory", "ephemeral-storage"}


def test_probes_and_ports_fit_the_operator(objects: list[Object]) -> None:
    container = container_of(objects)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports.pop("http") == 8080
    assert ports == ({"metrics": 8443} if settings_of(container).metrics_secure else {})
    paths = {
        key: container[key]["httpGet"]
        for key in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert paths["livenessProbe"] == paths["startupProbe"] == {"path": "/healthz", "port": "http"}
    assert paths["readinessProbe"] == {"path": "/readyz", "port": "http"}


@pytest.mark.parametrize("name", VALUES)
def test_the_operator_understands_its_arguments(render: Render, name: str) -> None:
    container = container_of(render(VALUES[name]))
    assert container["command"] == ["python", "-m", "inception_operator"]
    environment = {entry["name"] for entry in container["env"]}
    assert {"POD_NAME", "POD_NAMESPACE", "POD_IP"} <= environment
    settings = settings_of(container)
    assert settings.http_port == 8080
    assert settings.notify_address == "[fd00::5]:8080"
    assert settings.lease_namespace == ("default" if name == "alone" else "system")
    names = {"full": "other", "alone": "inception-operator"}
    assert settings.lease_name == names.get(name, "release-inception-operator")
    assert settings.leader_election == (name != "alone")
    images = {"full": "registry.example/trainer:9", "alone": "registry.example/inception-trainer:9"}
    assert settings.trainer_image == images.get(name, "inception-trainer:0.1.0")
    assert settings.trainer_pull_policy == ("Always" if name == "alone" else None)


def test_images_carry_the_version_of_the_chart(render: Render) -> None:
    assert container_of(render())["image"] == "inception-operator:0.1.0"
    full = container_of(render(VALUES["full"]))
    assert full["image"] == "registry.example/inception-operator:9.9.9@sha256:" + "0" * 64


JOB_RULES = [
    {
        "apiGroups": [OUR_GROUP],
        "resources": ["inceptiontrainings"],
        "verbs": ["get", "list", "watch", "delete"],
    },
    {"apiGroups": [OUR_GROUP], "resources": ["inceptiontrainings/status"], "verbs": ["patch"]},
    {"apiGroups": [OUR_GROUP], "resources": ["inceptiontrainings/finalizers"], "verbs": ["update"]},
    {
        "apiGroups": [""],
        "resources": ["pods"],
        "verbs": ["get", "list", "watch", "create", "patch", "delete"],
    },
    {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "list"]},
    {
        "apiGroups": ["resource.k8s.io"],
        "resources": ["resourceclaimtemplates"],
        "verbs": ["create"],
    },
]


def test_rights_are_exactly_these(render: Render) -> None:
    objects = render()
    cluster = {item["metadata"]["name"]: item["rules"] for item in of_kind(objects, "ClusterRole")}
    assert cluster == {
        "release-inception-operator": [
            *JOB_RULES,
            {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]},
        ],
        "release-inception-operator-view": [
            {
                "apiGroups": [OUR_GROUP],
                "resources": ["inceptiontrainings"],
                "verbs": ["get", "list", "watch"],
            },
            {
                "apiGroups": [OUR_GROUP],
                "resources": ["inceptiontrainings/scale", "inceptiontrainings/status"],
                "verbs": ["get"],
            },
        ],
        "release-inception-operator-edit": [
            {
                "apiGroups": [OUR_GROUP],
                "resources": ["inceptiontrainings"],
                "verbs": ["create", "update", "patch", "delete", "deletecollection"],
            },
            {
                "apiGroups": [OUR_GROUP],
                "resources": ["inceptiontrainings/scale"],
                "verbs": ["update", "patch"],
            },
        ],
    }
    assert only(objects, "Role")["rules"] == [
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": ["release-inception-operator"],
            "verbs": ["get", "update"],
        },
    ]
    # Only the first role is bound; the others are collected by the cluster's own roles.
    assert only(objects, "ClusterRoleBinding")["roleRef"]["name"] == "release-inception-operator"


@pytest.mark.parametrize("name", VALUES)
def test_the_lease_and_the_right_to_it_bear_the_name_that_the_operator_is_told(
    render: Render, name: str
) -> None:
    objects = render(VALUES[name])
    settings = settings_of(container_of(objects))
    leases = {item["metadata"]["name"] for item in of_kind(objects, "Lease")}
    assert leases == ({settings.lease_name} if settings.leader_election else set())
    allowed = [
        rule["resourceNames"]
        for role in of_kind(objects, "Role")
        for rule in role["rules"]
        if rule["resources"] == ["leases"]
    ]
    has_rights = settings.leader_election and name != "minimal"
    assert allowed == ([[settings.lease_name]] if has_rights else [])


def test_two_releases_in_one_namespace_share_no_lease(render: Render) -> None:
    leases = [
        only(render({}, f"--name-template={name}"), "Lease")["metadata"]["name"]
        for name in ("one", "two")
    ]
    assert leases == ["one-inception-operator", "two-inception-operator"]


def test_a_list_of_namespaces_takes_the_place_of_cluster_wide_rights(render: Render) -> None:
    objects = render(VALUES["namespaces"])
    roles = {
        (item["metadata"]["namespace"], item["metadata"]["name"]): item
        for item in of_kind(objects, "Role")
    }
    name = "release-inception-operator"
    assert roles.keys() == {("team-a", name), ("team-b", name), ("system", f"{name}-leader")}
    assert roles["team-a", name]["rules"] == roles["team-b", name]["rules"] == JOB_RULES
    bound = {
        (item["metadata"]["namespace"], item["roleRef"]["kind"], item["roleRef"]["name"])
        for item in of_kind(objects, "RoleBinding")
    }
    assert bound == {(place, "Role", role) for place, role in roles}
    assert of_kind(objects, "ClusterRoleBinding") == []
    # What other people's roles collect; it gives the operator nothing.
    assert {item["metadata"]["name"] for item in of_kind(objects, "ClusterRole")} == {
        f"{name}-view",
        f"{name}-edit",
    }


def test_a_right_to_nodes_can_be_added_to_a_list_of_namespaces(render: Render) -> None:
    objects = render(VALUES["namespaces and nodes"])
    role = only(objects, "ClusterRole", "-nodes")
    assert role["rules"] == [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]}
    ]
    binding = only(objects, "ClusterRoleBinding", "-nodes")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert [subject["name"] for subject in binding["subjects"]] == ["release-inception-operator"]
    everywhere = of_kind(render({"rbac": {"readNodes": True}}), "ClusterRole")
    assert not any(item["metadata"]["name"].endswith("-nodes") for item in everywhere), (
        "it has the right already"
    )


def test_no_right_is_a_wildcard_or_reads_secrets(objects: list[Object]) -> None:
    for role in (*of_kind(objects, "ClusterRole"), *of_kind(objects, "Role")):
        for rule in role["rules"]:
            words = {word for key in rule for word in rule[key]}
            assert not any("*" in word for word in words)
            assert not words & {
                "secrets",
                "configmaps",
                "pods/exec",
                "serviceaccounts",
                "impersonate",
                "bind",
                "escalate",
            }


def test_bindings_name_the_service_account_of_the_pod(objects: list[Object]) -> None:
    account = pod_of(objects)["spec"]["serviceAccountName"]
    for binding in (*of_kind(objects, "ClusterRoleBinding"), *of_kind(objects, "RoleBinding")):
        assert binding["subjects"] == [
            {"kind": "ServiceAccount", "name": account, "namespace": "system"}
        ]
    for item in of_kind(objects, "ServiceAccount"):
        assert item["metadata"]["name"] == account


def test_selectors_meet_the_pod_and_never_change_with_the_version(objects: list[Object]) -> None:
    labels = pod_of(objects)["metadata"]["labels"]
    deployment = only(objects, "Deployment")["spec"]["selector"]["matchLabels"]
    budgets = [
        item["spec"]["selector"]["matchLabels"] for item in of_kind(objects, "PodDisruptionBudget")
    ]
    policies = [
        item["spec"]["podSelector"]["matchLabels"]
        for item in of_kind(objects, "NetworkPolicy")
        if not item["metadata"]["name"].endswith("-jobs")
    ]
    for selector in (deployment, only(objects, "Service")["spec"]["selector"], *budgets, *policies):
        assert selector.items() <= labels.items()
        assert selector.keys() == {
            f"app.kubernetes.io/{key}" for key in ("name", "instance", "component")
        }


def test_own_labels_win_over_those_of_values(render: Render) -> None:
    name = "app.kubernetes.io/name"
    objects = render({"podLabels": {name: "x"}, "commonLabels": {name: "x"}})
    assert all(item["metadata"]["labels"][name] == "inception-operator" for item in objects)
    assert pod_of(objects)["metadata"]["labels"][name] == "inception-operator"


@pytest.mark.parametrize(
    ("name", "expected"), [("default", 0), ("ha", 1), ("full", 1), ("minimal", 0)]
)
def test_a_disruption_budget_only_with_several_replicas(
    render: Render, name: str, expected: int
) -> None:
    assert len(of_kind(render(VALUES[name]), "PodDisruptionBudget")) == expected


def test_spread_constraints_get_the_labels_of_the_pods(render: Render) -> None:
    objects = render(VALUES["ha"])
    (constraint,) = pod_of(objects)["spec"]["topologySpreadConstraints"]
    assert (
        constraint["labelSelector"]["matchLabels"] == only(objects, "Service")["spec"]["selector"]
    )


def annotations_of(item: Mapping[str, Any]) -> dict[str, str]:
    result: dict[str, str] = item["metadata"].get("annotations", {})
    return result


def test_jobs_outlive_the_release_unless_told_otherwise(render: Render) -> None:
    kind = "CustomResourceDefinition"
    assert annotations_of(only(render(), kind)) == {"helm.sh/resource-policy": "keep"}
    assert annotations_of(only(render({"crds": {"keep": False}}), kind)) == {}
    assert of_kind(render({"crds": {"enabled": False}}), kind) == []


def test_dashboards_are_labelled_for_grafana(render: Render) -> None:
    boards = of_kind(render(), "ConfigMap")
    assert len(boards) == 6
    for board in boards:
        assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert board["metadata"]["namespace"] == "system"
    board = only(render(VALUES["full"]), "ConfigMap", "-inception-job")
    assert board["metadata"]["namespace"] == "grafana"
    assert annotations_of(board) == {"grafana_folder": "ML"}
    assert not of_kind(render(VALUES["minimal"]), "ConfigMap")


def test_the_grafana_operator_gets_its_objects_where_wanted(render: Render) -> None:
    kind = "GrafanaDashboard"
    assert not of_kind(render(), kind)
    chosen = {"enabled": True, "folder": "ML", "instanceSelector": {"dashboards": "main"}}
    objects = render({"metrics": {"dashboards": {"grafanaOperator": chosen}}})
    maps = {item["metadata"]["name"]: item for item in of_kind(objects, "ConfigMap")}
    boards = of_kind(objects, kind)
    assert len(boards) == len(maps) == 6
    for board in boards:
        spec = board["spec"]
        (key,) = maps[spec["configMapRef"]["name"]]["data"]
        assert spec["configMapRef"]["key"] == key
        assert spec["instanceSelector"] == {"matchLabels": {"dashboards": "main"}}
        assert (spec["folder"], spec["allowCrossNamespaceImport"]) == ("ML", True)


def test_profiles_of_the_values_reach_the_operator(render: Render, tmp_path: Path) -> None:
    rows = only(render(VALUES["full"]), "ConfigMap", "-profiles")["data"]
    for name, text in rows.items():
        (tmp_path / name).write_text(text)
    assert load_profiles(tmp_path)["abacus"].resource == "example.com/abacus"
    pod = pod_of(render(VALUES["full"]))
    assert "checksum/profiles" in annotations_of(pod)
    folder = next(
        m["mountPath"]
        for m in pod["spec"]["containers"][0]["volumeMounts"]
        if m["name"] == "profiles"
    )
    arguments = pod["spec"]["containers"][0]["args"]
    assert arguments[arguments.index("--profiles-dir") + 1] == folder


def test_a_change_to_recreate_takes_the_numbers_of_a_rolling_update_away(render: Render) -> None:
    objects = render({"updateStrategy": {"type": "Recreate"}})
    strategy = only(objects, "Deployment")["spec"]["strategy"]
    assert strategy == {"type": "Recreate", "rollingUpdate": None}
