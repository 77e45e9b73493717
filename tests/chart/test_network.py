"""Who reaches whom: network policies of the operator and of jobs, and what Prometheus is told to
collect.
"""

from __future__ import annotations

from chart_values import VALUES, Render, container_of, of_kind, only, pod_of, settings_of
from inception_operator.contract.names import LAUNCHER_PORT, METRICS_PORT
from inception_operator.runtime.job_metrics import MOST_SERIES

JOB_PODS = {"matchLabels": {"app.kubernetes.io/name": "inception-training"}}


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
    # Of 10,000 jobs that have ended, as decided for, with several pods each.
    assert operator["sampleLimit"] >= 10_000 * (MOST_SERIES + 16)
    assert operator["labelLimit"] == 32
    assert (trainer["sampleLimit"], trainer["labelLimit"]) == (2000, 32)
    assert not of_kind(render(), "PodMonitor")


def test_a_service_monitor_takes_the_place_of_the_operators_pod_monitor(render: Render) -> None:
    objects = render(VALUES["alone"])
    monitor = only(objects, "ServiceMonitor")["spec"]
    assert (
        monitor["endpoints"]
        == only(render(VALUES["full"]), "PodMonitor", "trainings")["spec"]["podMetricsEndpoints"]
    )
    service = only(objects, "Service")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert [port["name"] for port in service["spec"]["ports"]] == ["http"]
    assert monitor["sampleLimit"] == 0
    assert not of_kind(objects, "PodMonitor")


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
    assert ports == [{53, 5353}, {443, 6443}, {8080, 8081}], "OpenShift's DNS is at 5353"
    assert policy["egress"][2]["to"] == [{"namespaceSelector": {}, "podSelector": trainers}]


def test_the_policy_of_jobs_admits_ranks_and_operator_and_is_there_for_each_namespace(
    render: Render,
) -> None:
    objects = render(VALUES["namespaces"])
    policies = of_kind(objects, "NetworkPolicy")
    assert [policy["metadata"]["namespace"] for policy in policies] == ["team-a", "team-b"]
    policy = policies[0]["spec"]
    assert policy["podSelector"] == JOB_PODS
    assert policy["policyTypes"] == ["Ingress"]
    ranks, operator = policy["ingress"]
    assert ranks == {"from": [{"podSelector": JOB_PODS}]}, "all ports"
    assert {entry["port"] for entry in operator["ports"]} == {LAUNCHER_PORT, METRICS_PORT}
    (peer,) = operator["from"]
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "system"}
    pod = pod_of(objects)["metadata"]["labels"]
    assert peer["podSelector"]["matchLabels"].items() <= pod.items()
    assert "egress" not in policy


def test_the_policy_of_jobs_limits_what_they_reach_when_asked(render: Render) -> None:
    objects = render(VALUES["full"])
    policy = only(objects, "NetworkPolicy", "-jobs")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"][2] == {
        "ports": [{"port": METRICS_PORT, "protocol": "TCP"}],
        "from": [{"namespaceSelector": {}}],
    }
    ranks, names, operator, wanted = policy["egress"]
    assert ranks == {"to": [{"podSelector": JOB_PODS}]}
    assert [(entry["port"], entry["protocol"]) for entry in names["ports"]] == [
        (53, "UDP"),
        (53, "TCP"),
        (5353, "UDP"),
        (5353, "TCP"),
    ], "OpenShift's DNS is at 5353"
    assert "to" not in names
    assert operator["to"] == policy["ingress"][1]["from"]
    assert [entry["port"] for entry in operator["ports"]] == [8080], "launchers ring"
    assert [wanted] == VALUES["full"]["networkPolicy"]["jobs"]["egress"]


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
