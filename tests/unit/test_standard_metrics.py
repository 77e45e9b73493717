"""Series under the names of controller-runtime: they tell what they tell there."""

from __future__ import annotations

import pytest
from kubernetes.aio.client.configuration import Configuration
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from inception_operator.runtime.app import App
from inception_operator.runtime.metrics import RESULTS, VERBS, Metrics
from inception_operator.runtime.settings import Settings
from inception_operator.runtime.standard_metrics import CONTROLLER, FAMILIES

OF_CONTROLLER = {"controller": CONTROLLER}
OF_QUEUE = {"name": CONTROLLER, "controller": CONTROLLER}


def value(metrics: Metrics, series: str, /, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(series, labels)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(server="https://somebody:secret@10.96.0.1:443/cluster")


def test_the_names_are_those_that_dashboards_know() -> None:
    """controller-runtime v0.25.2 and client-go v0.37.1; docs/operator-metrics.md says where."""
    controllers = {
        "reconcile": ("controller", "result"),
        "reconcile_errors": ("controller",),
        "reconcile_time_seconds": ("controller",),
        "active_workers": ("controller",),
        "max_concurrent_reconciles": ("controller",),
    }
    queues = ("depth", "adds", "retries", "queue_duration_seconds", "work_duration_seconds")
    ages = ("unfinished_work_seconds", "longest_running_processor_seconds")
    expected = {f"controller_runtime_{name}": labels for name, labels in controllers.items()}
    expected |= {f"workqueue_{name}": ("name", "controller") for name in (*queues, *ages)}
    expected["rest_client_requests"] = ("code", "method", "host")
    expected["leader_election_master_status"] = ("name",)
    assert {name: labels for name, (_, labels) in FAMILIES.items()} == expected


def test_each_family_has_the_labels_that_are_told_of_it(metrics: Metrics) -> None:
    metrics.count_request("get", "pods", "200", 0.1)
    metrics.standard.show_lease("operator", True)
    found = {
        family.name: {frozenset(sample.labels) - {"le"} for sample in family.samples}
        for family in metrics.standard.collect()
    }
    assert found == {name: {frozenset(labels)} for name, (_, labels) in FAMILIES.items()}


def test_passes_are_counted_by_what_follows_them(metrics: Metrics) -> None:
    """0 from the start, as rate() needs it."""
    for result in ("success", "error", "requeue", "requeue_after"):
        of_result = OF_CONTROLLER | {"result": result}
        assert value(metrics, "controller_runtime_reconcile_total", **of_result) == 0
    for result in RESULTS:
        metrics.count_pass(result, 0.25, comes_again=False)
        metrics.count_pass(result, 0.25, comes_again=True)
    counted = {
        result: value(metrics, "controller_runtime_reconcile_total", **OF_CONTROLLER, result=result)
        for result in ("success", "error", "requeue", "requeue_after")
    }
    others = len(RESULTS) - 1
    assert counted == {
        "error": 2,
        "requeue": others,
        "requeue_after": 1,
        "success": others - 1,
    }
    assert value(metrics, "controller_runtime_reconcile_errors_total", **OF_CONTROLLER) == 2
    times = "controller_runtime_reconcile_time_seconds"
    assert value(metrics, f"{times}_count", **OF_CONTROLLER) == 2 * len(RESULTS)
    assert value(metrics, f"{times}_sum", **OF_CONTROLLER) == 0.5 * len(RESULTS)
    assert value(metrics, f"{times}_bucket", **OF_CONTROLLER, le="0.2") == 0


def test_the_queue_is_told_as_client_go_tells_it(metrics: Metrics) -> None:
    counts = metrics.queue_counts
    for _ in range(3):
        counts.added()
    counts.waited(1.5)
    counts.worked(0.5)
    counts.delayed()
    counts.retried()
    metrics.standard.show_queue(2, [7.0, 1.0])
    metrics.standard.workers.set(16)
    expected = {
        "workqueue_adds_total": 3,
        "workqueue_queue_duration_seconds_sum": 1.5,
        "workqueue_work_duration_seconds_sum": 0.5,
        "workqueue_retries_total": 1,
        "workqueue_depth": 2,
        "workqueue_unfinished_work_seconds": 8,
        "workqueue_longest_running_processor_seconds": 7,
    }
    assert {name: value(metrics, name, **OF_QUEUE) for name in expected} == expected
    assert value(metrics, "controller_runtime_active_workers", **OF_CONTROLLER) == 2
    assert value(metrics, "controller_runtime_max_concurrent_reconciles", **OF_CONTROLLER) == 16
    metrics.standard.show_queue(0, [])
    name = "workqueue_longest_running_processor_seconds"
    assert value(metrics, name, **OF_QUEUE) == 0


def test_requests_are_told_by_method_and_host_and_no_password_is(metrics: Metrics) -> None:
    metrics.count_request("get", "pods", "200", 0.1)
    metrics.count_request("list", "nodes", "200", 0.1)
    metrics.count_request("create", "pods", "409", 0.1)
    metrics.count_request("patch", "pods", "none", 0.1)

    def requests(code: str, method: str) -> float | None:
        labels = {"code": code, "method": method, "host": "10.96.0.1:443"}
        return value(metrics, "rest_client_requests_total", **labels)

    assert requests("200", "GET") == 2
    assert requests("409", "POST") == 1
    assert requests("<error>", "PATCH") == 1
    assert b"secret" not in metrics.page()


def test_whatever_happens_there_is_the_same_number_of_series(metrics: Metrics) -> None:
    """None grows with jobs, namespaces or what users write."""

    def happen() -> int:
        for verb in VERBS:
            metrics.count_request(verb, "pods", "200", 0.1)
        for result in RESULTS:
            metrics.count_pass(result, 1.0, comes_again=False)
        metrics.queue_counts.worked(1.0)
        metrics.standard.show_queue(1, [1.0])
        return sum(len(family.samples) for family in metrics.standard.collect())

    assert happen() == happen() < 100


def test_the_page_has_them_as_prometheus_reads_them(metrics: Metrics) -> None:
    page = generate_latest(metrics.registry).decode()
    kinds = {family.name: family.type for family in text_string_to_metric_families(page)}
    assert kinds["controller_runtime_reconcile"] == "counter"
    assert kinds["controller_runtime_reconcile_time_seconds"] == "histogram"
    assert kinds["workqueue_depth"] == "gauge"
    assert "leader_election_master_status{" not in page, "without a Lease nobody holds it"
    metrics.standard.show_lease("operator", False)
    assert value(metrics, "leader_election_master_status", name="operator") == 0


async def test_the_operator_tells_of_its_workers_queue_lease_and_api_server() -> None:
    settings = Settings(trainer_image="image", workers=3, lease_name="mine")
    app = App(settings, Configuration(host="https://api.example:6443"))
    app._queue.add(("ns", "job"))
    page = app._page().decode()
    app._metrics.count_request("get", "pods", "200", 0.1)
    requests = app._page().decode()
    await app.close()
    of_queue = f'{{controller="{CONTROLLER}",name="{CONTROLLER}"}}'
    for line in (
        f'controller_runtime_max_concurrent_reconciles{{controller="{CONTROLLER}"}} 3.0',
        f"workqueue_depth{of_queue} 1.0",
        f"workqueue_adds_total{of_queue} 1.0",
        'leader_election_master_status{name="mine"} 0.0',
    ):
        assert f"\n{line}\n" in page
    line = 'rest_client_requests_total{code="200",host="api.example:6443",method="GET"} 1.0'
    assert f"\n{line}\n" in requests
