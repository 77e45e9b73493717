"""The operator's metrics behind TLS: what belongs together in the chart."""

from __future__ import annotations

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

HOST = "release-inception-operator-metrics.system.svc"
SECRET = "release-inception-operator-metrics-tls"


@pytest.fixture
def objects(render: Render) -> list[Object]:
    return render(VALUES["secure"])


def secure(**more: Any) -> dict[str, Any]:
    """Values with a Secret of one's own."""
    return {"secure": {"enabled": True, "secretName": "own", **more}}


def test_by_default_metrics_are_where_they_were(render: Render) -> None:
    objects = render()
    assert not settings_of(container_of(objects)).metrics_secure
    assert [port["port"] for port in only(objects, "Service")["spec"]["ports"]] == [8080]


def test_the_operator_serves_the_certificate_of_the_secret(objects: list[Object]) -> None:
    container = container_of(objects)
    settings = settings_of(container)
    assert (settings.metrics_secure, settings.metrics_port) == (True, 8443)
    (mount,) = [each for each in container["volumeMounts"] if each["name"] == "metrics-certificate"]
    assert Path(mount["mountPath"]) == settings.metrics_cert_path
    assert mount["readOnly"] is True
    (volume,) = [
        each for each in pod_of(objects)["spec"]["volumes"] if each["name"] == mount["name"]
    ]
    assert volume["secret"]["secretName"] == SECRET
    assert {entry["path"] for entry in volume["secret"]["items"]} == {"tls.crt", "tls.key"}


def test_service_and_policy_lead_to_the_port_of_the_container(objects: list[Object]) -> None:
    (port,) = only(objects, "Service")["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (8443, "metrics")
    (rule,) = only(objects, "NetworkPolicy")["spec"]["ingress"]
    assert [entry["port"] for entry in rule["ports"]] == ["http", "metrics"]


def test_cert_manager_makes_the_secret_for_the_name_that_monitors_ask_for(
    objects: list[Object],
) -> None:
    spec = only(objects, "Certificate")["spec"]
    assert spec["secretName"] == SECRET
    assert spec["dnsNames"] == [HOST]
    assert spec["issuerRef"] == {
        "group": "cert-manager.io",
        "kind": "ClusterIssuer",
        "name": "ours",
    }
    (endpoint,) = only(objects, "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint == {
        "port": "metrics",
        "path": "/metrics",
        "interval": "15s",
        "honorLabels": True,
        "scheme": "https",
        "bearerTokenFile": "/var/run/secrets/kubernetes.io/serviceaccount/token",
        "tlsConfig": {"serverName": HOST, "ca": {"secret": {"name": SECRET, "key": "ca.crt"}}},
    }


def test_a_pod_monitor_takes_the_token_of_a_secret(render: Render) -> None:
    own = secure(token={"secretName": "token"}, ca={"secretName": "root", "key": "root.pem"})
    objects = render({"metrics": {"operator": {**own, "podMonitor": {"enabled": True}}}})
    (endpoint,) = only(objects, "PodMonitor")["spec"]["podMetricsEndpoints"]
    assert endpoint["authorization"] == {
        "type": "Bearer",
        "credentials": {"name": "token", "key": "token"},
    }
    assert "bearerTokenFile" not in endpoint
    assert endpoint["tlsConfig"]["ca"] == {"secret": {"name": "root", "key": "root.pem"}}
    assert not of_kind(objects, "Certificate")


def test_the_operator_may_ask_and_readers_may_read(objects: list[Object], render: Render) -> None:
    asks = only(objects, "ClusterRole", "-metrics-auth")["rules"]
    assert {(*rule["apiGroups"], *rule["resources"], *rule["verbs"]) for rule in asks} == {
        ("authentication.k8s.io", "tokenreviews", "create"),
        ("authorization.k8s.io", "subjectaccessreviews", "create"),
    }
    reads = only(objects, "ClusterRole", "-metrics-reader")["rules"]
    assert reads == [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]
    # Whose account that is, the chart does not know.
    bound = {item["roleRef"]["name"] for item in of_kind(objects, "ClusterRoleBinding")}
    assert "release-inception-operator-metrics-auth" in bound
    assert "release-inception-operator-metrics-reader" not in bound
    roles = [item["metadata"]["name"] for item in of_kind(render(), "ClusterRole")]
    assert not [name for name in roles if "metrics" in name]


def test_a_list_of_namespaces_keeps_the_right_to_ask(render: Render) -> None:
    """Reviews belong to no namespace."""
    objects = render({"watchNamespaces": ["team-a"], "metrics": {"operator": secure()}})
    assert only(objects, "ClusterRoleBinding", "-metrics-auth")
