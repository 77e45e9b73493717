"""Writes docs/operator-metrics.md from the operator's registry: every series it can serve.

With ``--check`` it only says that the page is out of date.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from prometheus_client import Metric

from docs import pages
from docs.pages import ROOT
from inception_operator.runtime.job_metrics import MOST_SERIES
from inception_operator.runtime.metrics import Metrics
from inception_operator.runtime.standard_metrics import CONTROLLER, FAMILIES, NO_ANSWER

TARGET = ROOT / "docs" / "operator-metrics.md"
# Series of the libraries: their names are the same for every program.
STANDARD = ("process_", "python_")
INTRODUCTION = f"""\
# Series of the operator

This page is made from the code by `docs/generate_operator_metrics.py`. The operator serves them at
`/metrics` ([install.md](install.md),
[who may read them](install.md#metrics-for-those-alone-who-may-read-them)); those of the trainer are
in [names.md](architecture/names.md#trainer-metrics). Names follow Prometheus' conventions, and no
counter has a second series with the time it was made in (`_created`).

Beside them there are the `process_…` series of any program (processor, memory, open files, start)
and `python_info`.

## How many series
A job has at most {MOST_SERIES} series, and one more for each of its pods: about 27 while it runs,
32 once it has ended. They appear with the job and are gone with it, so `ttlSecondsAfterFinished`
bounds them. What a program or a user may write freely (reasons, names of profiles) is no label of a
series that outlives a job: unknown reasons are `Other`, unknown profiles `other`. So a counter has
at most namespaces x profiles x reasons series, and those of a namespace stay until the operator
restarts.

A page is made outside of the event loop and is up to a second old; what it costs is in
[benchmarks.md](benchmarks.md). Durations of jobs are made from the times of their statuses, which
are whole seconds. They are counted by the process that has written the status, so a leader that
dies in that moment may miss one.
"""
STANDARD_NAMES = f"""
## Under the names of controller-runtime
Controllers in Go tell the same of themselves, so dashboards and alerts that were made for them know
these names. `controller` and the `name` of a queue are `{CONTROLLER}`, the name that
controller-runtime would give. A series is here only if it means the same there, as read in the
source of [controller-runtime v0.25.2](https://github.com/kubernetes-sigs/controller-runtime/tree/v0.25.2)
(`pkg/internal/controller/controller.go`, `pkg/internal/metrics/workqueue.go`,
`pkg/controller/priorityqueue/`, `pkg/metrics/`) and of
[client-go v0.37.1](https://github.com/kubernetes/client-go/tree/v0.37.1) (`util/workqueue/`,
`rest/request.go`, `tools/leaderelection/`). There are as many of them with any number of jobs.

"""
NOT_THE_SAME = f"""
What to know of them:

- The times have the bounds of our own histograms, 1 ms to 5 s. Those of passes, of waiting and the
  requests are `inception_operator_reconcile_duration_seconds`,
  `inception_operator_queue_wait_seconds` and `inception_operator_api_requests_total` once more.
- `workqueue_depth` has also the jobs that changed while a worker had them, as in client-go;
  `inception_operator_queue_depth` has not. `priority` is no label: the queue has none.
- `requeue` is most of `controller_runtime_reconcile_total`: whoever has changed something looks
  again after a few milliseconds. Such looks count in `workqueue_retries_total`, as every delay does
  there; `inception_operator_retries_total` has those after errors and refusals alone.
- The `code` of a request without an answer is `{NO_ANSWER}`, `none` in ours.
- A conflict is no error: the job is read afresh and the pass is repeated (`requeue`).
- An operator that waits for its Lease has all of them, at 0. controller-runtime has none then.

Left out, because the operator does not know the same: `rest_client_request_duration_seconds` (with
the time to read the answer there, to its beginning here),
`controller_runtime_terminal_reconcile_errors_total`, `_panics_total` and `_timeouts_total` (no
error is final, none ends a worker, and requests have time-outs, passes none), webhooks, and the
`go_…` series. The watch of InceptionTrainings is kopf's, whose requests neither name counts.
"""
JOINS = """
## Joins
`inception_operator_job_pod_info` has the pods of a job and their nodes. Power of the devices by
job, for an exporter with the labels of the pod:

```promql
sum by (namespace, name) (
  DCGM_FI_DEV_POWER_USAGE
  * on (namespace, pod) group_left (name) inception_operator_job_pod_info
)
```

Where the exporter knows the node alone: `on (node) group_left (namespace, name)`, for nodes that a
job has to itself.
"""


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 if the page is up to date now."""
    return pages.generate(__doc__, TARGET, _page, arguments)


def _page() -> str:
    metrics = Metrics()
    families = sorted(metrics.registry.collect(), key=lambda family: family.name)
    ours = [family for family in families if not family.name.startswith(STANDARD)]
    labels = metrics.labels
    of_jobs = [family for family in ours if labels[family.name][:2] == ("namespace", "name")]
    standard = [family for family in ours if family.name in FAMILIES]
    others = [family for family in ours if family not in of_jobs and family not in standard]
    lines = [INTRODUCTION, "## Of one job", "All have the labels `namespace` and `name`.", ""]
    lines += _table(of_jobs, labels, skip=2)
    lines += ["", "## Over all jobs, and of the process", ""]
    lines += _table(others, labels, skip=0)
    lines += STANDARD_NAMES.splitlines()
    lines += _table(standard, labels, skip=0)
    return "\n".join(lines) + "\n" + NOT_THE_SAME + JOINS


def _table(
    families: Iterable[Metric], labels: dict[str, tuple[str, ...]], skip: int
) -> Iterator[str]:
    yield "| series | kind | labels | meaning |"
    yield "|---|---|---|---|"
    for family in families:
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        names = ", ".join(f"`{label}`" for label in labels[family.name][skip:])
        yield f"| `{family.name}{suffix}` | {family.type} | {names} | {family.documentation} |"


if __name__ == "__main__":
    sys.exit(main())
