"""The operator: whether it leads, hears and keeps up, and what it costs."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from monitoring.boards.parts import (
    About,
    Panel,
    Query,
    board,
    figure,
    filled,
    firing,
    graph,
    spread,
)
from monitoring.boards.queries import events, growth, operator, per, rate

# The process of an operator has the labels of its scrape alone.
_OF_OPERATORS = f"and on (cluster, job, instance) {operator('build_info')}"


def operator_health() -> Dashboard:
    """The dashboard for those who run the operator; jobs do not matter here."""
    made = board(
        "inception-operator",
        "Inception: operator",
        "Health of the operator: leadership, watches, work queue, API requests, resources.",
        [],
    )
    sections = {
        "": [*_now(), firing('alertname=~"InceptionOperator.+"')],
        "Work": _work(),
        "API server": _api(),
        "Process": _process(),
    }
    return filled(made, sections)


def _now() -> list[Panel]:
    return [
        figure(
            About(
                "Leaders of each shard",
                "Processes that hold the Lease, for each shard of the jobs; less than 1 for long "
                "means that nobody works at some of them, more that a process was cut off.",
            ),
            Query(
                f"{per('sum', ['cluster'], operator('leader'))} / "
                f"{per('max', ['cluster'], operator('shards'))}",
                "{{cluster}}",
            ),
            limits=((None, "red"), (1, "green"), (1.01, "orange")),
        ),
        figure(
            About("Processes", "Operators that are measured, by version."),
            Query(per("count", ["cluster", "version"], operator("build_info")), "{{version}}"),
        ),
        figure(
            About("Waiting jobs", "Jobs that wait for a worker of the operator."),
            Query(f"sum({operator('queue_depth')})"),
        ),
        figure(
            About("Oldest waiting job", "How long it has waited or been worked on.", "s"),
            Query(f"max({operator('queue_oldest_age_seconds')})"),
            limits=((None, "green"), (60, "red")),
        ),
        figure(
            About("Oldest watch", "Time since the quietest watch showed a sign of life.", "s"),
            Query(f"max({operator('watch_age_seconds')})"),
            limits=((None, "green"), (150, "red")),
        ),
        figure(
            About("Leaving nodes", "Nodes that are about to go, whose jobs move in time."),
            Query(f"max({operator('leaving_nodes')})"),
        ),
    ]


def _work() -> list[Panel]:
    return [
        graph(
            About("Reconciles", "Passes over a job by result.", "ops"),
            Query(per("sum", ["result"], rate(operator("reconcile_total"))), "{{result}}"),
        ),
        spread(
            "Time of a reconcile",
            "Of one pass, its requests included.",
            rate(operator("reconcile_duration_seconds_bucket")),
        ),
        spread(
            "Wait for a worker",
            "How long jobs wait in the work queue.",
            rate(operator("queue_wait_seconds_bucket")),
        ),
        graph(
            About("Retries", "Passes that are repeated after a pause.", "ops"),
            Query(f"sum({rate(operator('retries_total'))})", "retries"),
        ),
        graph(
            About("Own errors", "Errors of the operator's own, by what it was doing."),
            Query(per("sum", ["where"], growth(operator("internal_errors_total"))), "{{where}}"),
        ),
        graph(
            About("Changes of state", "Jobs that entered a state in each step of the graph."),
            Query(per("sum", ["state"], events(operator("job_transitions_total"))), "{{state}}"),
            stacked=True,
        ),
    ]


def _api() -> list[Panel]:
    requests = rate(operator("api_requests_total"))
    return [
        graph(
            About("Requests by kind", "Requests to the API server.", "reqps"),
            Query(per("sum", ["verb", "resource"], requests), "{{verb}} {{resource}}"),
        ),
        graph(
            About("Requests by answer", "Status codes; none means that no answer came.", "reqps"),
            Query(per("sum", ["code"], requests), "{{code}}"),
        ),
        spread(
            "Time of a request",
            "Until the API server answers, or begins to answer a watch, by verb.",
            rate(operator("api_request_duration_seconds_bucket")),
            ("verb",),
        ),
        graph(
            About(
                "Age of the watches",
                "Time since each watch last showed a sign of life. Growth means that the operator "
                "hears nothing.",
                "s",
            ),
            Query(per("max", ["resource"], operator("watch_age_seconds")), "{{resource}}"),
        ),
    ]


def _process() -> list[Panel]:
    def of_process(title: str, description: str, unit: str, expression: str) -> Panel:
        query = Query(f"{expression} {_OF_OPERATORS}", "{{cluster}} {{instance}}")
        return graph(About(title, description, unit), query)

    return [
        of_process(
            "Memory", "Resident memory of each process.", "bytes", "process_resident_memory_bytes"
        ),
        of_process(
            "Processor",
            "Processor time per second of each process.",
            "short",
            rate("process_cpu_seconds_total"),
        ),
        of_process("Open files", "File descriptors of each process.", "short", "process_open_fds"),
    ]
