"""Values of the chart that stand for how people install it, and ways into what they render to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from inception_operator.__main__ import parse
from inception_operator.runtime.settings import Settings

Object = dict[str, Any]
Render = Callable[..., list[Object]]

MONITORS = {
    name: {"podMonitor": {"enabled": True, "labels": {"release": "prometheus"}}}
    for name in ("operator", "trainer")
}
SERVICE_MONITOR = {"operator": {"serviceMonitor": {"enabled": True, "sampleLimit": 0}}}
CERTIFICATE = {"enabled": True, "issuerRef": {"name": "ours", "kind": "ClusterIssuer"}}
SECURE = {
    "operator": {
        "secure": {"enabled": True, "certManager": CERTIFICATE},
        "serviceMonitor": {"enabled": True},
    }
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
    "alone": {
        "leaderElection": {"enabled": False},
        "updateStrategy": {"type": "Recreate"},
        "trainerImage": {"registry": "registry.example", "tag": "9", "pullPolicy": "Always"},
        "metrics": SERVICE_MONITOR,
    },
    "secure": {"metrics": SECURE, "networkPolicy": {"enabled": True}},
    "namespaces": {
        "watchNamespaces": ["team-a", "team-b", "team-a"],
        "metrics": MONITORS,
        "networkPolicy": {"jobs": {"enabled": True}},
    },
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
            "jobs": {
                "enabled": True,
                "namespaces": ["team-a"],
                "metricsFrom": [{"namespaceSelector": {}}],
                "limitEgress": True,
                "egress": [
                    {"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}], "ports": [{"port": 443}]}
                ],
            },
        },
        "metrics": {
            **MONITORS,
            "dashboards": {"namespace": "grafana", "annotations": {"grafana_folder": "ML"}},
            "rules": {"enabled": True, "labels": {"release": "prometheus"}},
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
