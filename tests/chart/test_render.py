"""What the chart renders to: valid objects, exact rights, restricted pods, one consistent set of
names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from inception_operator.__main__ import parse
from inception_operator.accelerators.resolve import load_profiles
from inception_operator.runtime.settings import Settings

OUR_GROUP = "training.inception.dev"
FOREIGN_GROUPS = ("monitoring.coreos.com",)
KUBERNETES = ("1.33", "1.36")

Object = dict[str, Any]
Render = Callable[..., list[Object]]

MONITORS = {
    name: {"podMonitor": {"enabled": True, "labels": {"release": "prometheus"}}}
    for name in ("operator", "trainer")
}
ABACUS = {
    "resource": "example.com/abacus",
    "unit": 1,
    "torch": {"module": None, "device": "cpu", "backend": "gloo"},
}
VALUES: dict[str, dict[str, Any]] = {
    "default": {},
    "minimal": {
        "crds": {"enabled": False},
        "rbac": {"create": False},
        "serviceAccount": {"create": False, "name": "mine"},
        "metrics": {"dashboards": {"enabled": False}},
        "podDisruptionBudget": {"enabled": False},
    },
    "ha": {
        "replicaCount": 2,
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "topology.kubernetes.io/zone",
                "whenUnsatisfiable": "ScheduleAnyway",
            }
        ],
    },
    "namespaces": {"watchNamespaces": ["team-a", "team-b", "team-a"], "metrics": MONITORS},
    "namespaces and nodes": {"watchNamespaces": ["team-a"], "rbac": {"readNodes": True}},
    "full": {
        "fullnameOverride": "trainings",
        "commonLabels": {"team": "ml"},
        "image": {
            "registry": "registry.example",
            "tag": "9.9.9",
            "digest": "sha256:" + "0" * 64,
            "pullPolicy": "Always",
        },
        "imagePullSecrets": [{"name": "pull"}],
        "trainerImage": "registry.example/trainer:9",
        "replicaCount": 3,
        "updateStrategy": {"type": "Recreate", "rollingUpdate": None},
        "leaderElection": {"leaseName": "other"},
        "logging": {"format": "text", "level": "debug"},
        "crds": {"keep": False},
        "serviceAccount": {"annotations": {"a": "b"}},
        "nodeSelector": {"disk": "fast"},
        "affinity": {"nodeAffinity": {}},
        "tolerations": [{"operator": "Exists"}],
        "priorityClassName": "system-cluster-critical",
        "podLabels": {"a": "b"},
        "podAnnotations": {"a": "b"},
        "extraArgs": ["--workers=4"],
        "profiles": {"abacus": ABACUS},
        "extraEnv": [{"name": "A", "value": "b"}],
        "networkPolicy": {
            "enabled": True,
            "metricsFrom": [{"namespaceSelector": {}}],
            "apiServerCIDRs": ["10.0.0.1/32"],
        },
        "metrics": {
            **MONITORS,
            "dashboards": {"namespace": "grafana", "annotations": {"grafana_folder": "ML"}},
        },
        "extraObjects": [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "{{ .Release.Name }}-extra"},
            }
        ],
    },
}


def of_kind(objects: Iterable[Object], kind: str) -> list[Object]:
    return [item for item in objects if item["kind"] == kind]


def only(objects: Iterable[Object], kind: str, ending: str = "") -> Object:
    found = [item for item in of_kind(objects, kind) if item["metadata"]["name"].endswith(ending)]
    assert len(found) == 1, [item["metadata"]["name"] for item in found]
    return found[0]


def pod_of(objects: Iterable[Object]) -> Object:
    template: Object = only(objects, "Deployment")["spec"]["template"]
    return template


def container_of(objects: Iterable[Object]) -> Object:
    (container,) = pod_of(objects)["spec"]["containers"]
    result: Object = container
    return result


def settings_of(container: Object) -> Settings:
    """What the operator makes of its arguments."""
    values = {"$(POD_NAMESPACE)": "system", "$(POD_IP)": "fd00::5"}
    return parse([values.get(argument, argument) for argument in container["args"]], {})


@pytest.fixture(params=VALUES)
def objects(request: pytest.FixtureRequest, render: Render) -> list[Object]:
    return render(VALUES[request.param])


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("name", VALUES)
def test_every_object_is_valid(render: Render, name: str, version: str) -> None:
    for item in render(VALUES[name], f"--kube-version={version}"):
        if not item["apiVersion"].startswith(FOREIGN_GROUPS):
            kubernetes_validate.validate(item, version, strict=True)


def test_an_old_cluster_is_refused(template: Callable[..., Any]) -> None:
    done = template({}, "--kube-version=1.32.9")
    assert done.returncode != 0
    assert "1.33" in done.stderr


def test_no_two_objects_share_a_name(objects: list[Object]) -> None:
    names = [
        (item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"])
        for item in objects
    ]
    assert len(names) == len(set(names))


def test_pods_meet_the_restricted_profile(objects: list[Object]) -> None:
    pod = pod_of(objects)["spec"]
    assert not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
    assert all(volume.keys() <= {"name", "emptyDir", "configMap"} for volume in pod["volumes"])
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
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {"http": 8080}
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
    assert settings.lease_namespace == "system"
    assert settings.lease_name == ("other" if name == "full" else "inception-operator")
    assert settings.trainer_image == (
        "registry.example/trainer:9" if name == "full" else "inception-trainer:0.1.0"
    )


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
    {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]},
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
            {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]},
        ],
        "release-inception-operator-view": [
            {
                "apiGroups": [OUR_GROUP],
                "resources": ["inceptiontrainings"],
                "verbs": ["get", "list", "watch"],
            }
        ],
        "release-inception-operator-edit": [
            {
                "apiGroups": [OUR_GROUP],
                "resources": ["inceptiontrainings"],
                "verbs": ["create", "update", "patch", "delete", "deletecollection"],
            }
        ],
    }
    assert only(objects, "Role")["rules"] == [
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": ["inception-operator"],
            "verbs": ["get", "update", "patch"],
        },
    ]
    # Only the first role is bound; the others are collected by the cluster's own roles.
    assert only(objects, "ClusterRoleBinding")["roleRef"]["name"] == "release-inception-operator"


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
    assert role["rules"] == [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]
    binding = only(objects, "ClusterRoleBinding", "-nodes")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert [subject["name"] for subject in binding["subjects"]] == ["release-inception-operator"]
    everywhere = of_kind(render({"rbac": {"readNodes": True}}), "ClusterRole")
    assert not any(item["metadata"]["name"].endswith("-nodes") for item in everywhere), (
        "it has the right already"
    )


def test_a_list_of_namespaces_reaches_operator_monitor_and_policy(render: Render) -> None:
    policy = {"networkPolicy": {"enabled": True, "metricsFrom": [{"podSelector": {}}]}}
    objects = render(VALUES["namespaces"] | policy)
    assert settings_of(container_of(objects)).namespaces == ("team-a", "team-b")
    assert settings_of(container_of(render())).namespaces == ()
    names = {"matchNames": ["team-a", "team-b"]}
    assert only(objects, "PodMonitor", "-trainers")["spec"]["namespaceSelector"] == names
    policy = only(objects, "NetworkPolicy")["spec"]
    (peer,) = policy["egress"][2]["to"]
    assert policy["ingress"][0]["from"][1] == peer
    (expression,) = peer["namespaceSelector"]["matchExpressions"]
    assert expression == {
        "key": "kubernetes.io/metadata.name",
        "operator": "In",
        "values": ["team-a", "team-b"],
    }


def test_no_right_is_a_wildcard_or_reads_secrets(objects: list[Object]) -> None:
    for role in (*of_kind(objects, "ClusterRole"), *of_kind(objects, "Role")):
        for rule in role["rules"]:
            words = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
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
        item["spec"]["podSelector"]["matchLabels"] for item in of_kind(objects, "NetworkPolicy")
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


def test_monitors_label_series_as_the_dashboards_need_them(render: Render) -> None:
    objects = render(VALUES["full"])
    operator = only(objects, "PodMonitor", "trainings")["spec"]
    trainer = only(objects, "PodMonitor", "-trainers")["spec"]
    assert operator["podMetricsEndpoints"] == [
        {"port": "http", "path": "/metrics", "interval": "15s", "honorLabels": True}
    ]
    assert trainer["namespaceSelector"] == {"any": True}
    assert trainer["selector"] == {"matchLabels": {"app.kubernetes.io/name": "inception-training"}}
    (endpoint,) = trainer["podMetricsEndpoints"]
    assert endpoint["port"] == "metrics"
    targets = {entry["targetLabel"]: entry["sourceLabels"] for entry in endpoint["relabelings"]}
    assert targets == {
        "training": ["__meta_kubernetes_pod_label_training_inception_dev_job"],
        "slot": ["__meta_kubernetes_pod_label_training_inception_dev_slot"],
    }
    assert not of_kind(render(), "PodMonitor")


def test_dashboards_are_labelled_for_grafana(render: Render) -> None:
    board = only(render(), "ConfigMap")
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert board["metadata"]["namespace"] == "system"
    board = only(render(VALUES["full"]), "ConfigMap", "-inception-jobs")
    assert board["metadata"]["namespace"] == "grafana"
    assert annotations_of(board) == {"grafana_folder": "ML"}
    assert not of_kind(render(VALUES["minimal"]), "ConfigMap")


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


def test_network_policy_lets_through_what_the_operator_needs(render: Render) -> None:
    policy = only(render({"networkPolicy": {"enabled": True}}), "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"] == [{"ports": [{"port": "http", "protocol": "TCP"}]}]
    some = {"networkPolicy": {"enabled": True, "metricsFrom": [{"podSelector": {}}]}}
    senders = only(render(some), "NetworkPolicy")["spec"]["ingress"][0]["from"]
    trainers = {"matchLabels": {"app.kubernetes.io/name": "inception-training"}}
    assert senders == [{"podSelector": {}}, {"namespaceSelector": {}, "podSelector": trainers}], (
        "launchers ring"
    )
    ports = [{entry["port"] for entry in rule["ports"]} for rule in policy["egress"]]
    assert ports == [{53}, {443, 6443}, {8080, 8081}]
    assert policy["egress"][2]["to"] == [{"namespaceSelector": {}, "podSelector": trainers}]
