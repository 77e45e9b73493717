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
A job has at most {MOST_SERIES} series, and one more for each of its pods: about 26 while it runs,
30 once it has ended. They appear with the job and are gone with it, so `ttlSecondsAfterFinished`
bounds them. What a program or a user may write freely (reasons, names of profiles) is no label of a
series that outlives a job: unknown reasons are `Other`, unknown profiles `other`. So a counter has
at most namespaces x profiles x reasons series, and those of a namespace stay until the operator
restarts.

A page is made outside of the event loop and is up to a second old; what it costs is in
[benchmarks.md](benchmarks.md). Durations of jobs are made from the times of their statuses, which
are whole seconds. They are counted by the process that has written the status, so a leader that
dies in that moment may miss one.
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
    others = [family for family in ours if family not in of_jobs]
    lines = [INTRODUCTION, "## Of one job", "All have the labels `namespace` and `name`.", ""]
    lines += _table(of_jobs, labels, skip=2)
    lines += ["", "## Over all jobs, and of the process", ""]
    lines += _table(others, labels, skip=0)
    return "\n".join(lines) + "\n" + JOINS


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
