"""PromQL of the dashboards: selectors with the variables that the reader has chosen, and the sums,
rates and quantiles that many panels take of them.

A query keeps the label ``cluster``, so that one Prometheus over several clusters mixes none. Its
variable also matches series that have no such label.
"""

from __future__ import annotations

from collections.abc import Sequence

from inception_operator.contract.names import State

OF_JOB = ("cluster", "namespace", "name")
"""The labels of a job in the operator's series."""
OF_TRAINING = ("cluster", "namespace", "training")
"""The same in the trainer's series, where ``name`` would be one of many."""
STATES = (
    State.FAILED,
    State.REJECTED,
    State.PENDING,
    State.STARTING,
    State.RESTARTING,
    State.RUNNING,
    State.SUSPENDED,
    State.SUCCEEDED,
)
"""All states; their positions are the values of `state_number`."""


def job(series: str, *matchers: str) -> str:
    """A series of the operator about single jobs, of the chosen ones."""
    return _selector(
        f"inception_operator_job_{series}",
        'cluster=~"$cluster"',
        'namespace=~"$namespace"',
        'name=~"$job"',
        *matchers,
    )


def of_namespaces(series: str, *matchers: str) -> str:
    """A series of the operator that outlives jobs, of the chosen namespaces."""
    chosen = ('cluster=~"$cluster"', 'namespace=~"$namespace"')
    return _selector(f"inception_operator_{series}", *chosen, *matchers)


def operator(series: str, *matchers: str) -> str:
    """A series about the operator itself, whose namespace is none of a job."""
    return _selector(f"inception_operator_{series}", 'cluster=~"$cluster"', *matchers)


def trainer(series: str, *matchers: str) -> str:
    """A series of the chosen jobs' trainers."""
    return training(f"trainer_{series}", *matchers)


def training(name: str, *matchers: str) -> str:
    """Any series with the labels of a trainer's, recorded ones among them."""
    chosen = ('cluster=~"$cluster"', 'namespace=~"$namespace"', 'training=~"$job"')
    return _selector(name, *chosen, *matchers)


def per(operation: str, labels: Sequence[str], expression: str) -> str:
    """An aggregation that keeps these labels."""
    return f"{operation} by ({', '.join(labels)}) ({expression})"


def rate(counter: str) -> str:
    """How fast a counter grows."""
    return f"rate({counter}[$__rate_interval])"


def growth(counter: str) -> str:
    """By how much a counter has grown within a step of the graph."""
    return f"increase({counter}[$__rate_interval])"


def growth_in_view(counter: str) -> str:
    """By how much a counter has grown within the time range of the dashboard."""
    return f"increase({counter}[$__range])"


def events(counter: str) -> str:
    """What a counter counted within a step of the graph, the first event of its labels included.

    `growth` needs two samples of a series, so it misses what made the series; for rare events that
    is most of them.
    """
    before = f"{counter} offset $__interval"
    return f"clamp_min({counter} - ({before} or {counter} * 0), 0)"


def quantile(share: float, labels: Sequence[str], growing_buckets: str) -> str:
    """A quantile of a histogram, of the rate or growth of its buckets."""
    return f"histogram_quantile({share}, {per('sum', ('le', *labels), growing_buckets)})"


def state_number() -> str:
    """The state of each job as its position in `STATES`, so that a job is one line."""
    series = (job("state", f'state="{state}"') for state in STATES)
    numbers = (f"{state} * {at}" for at, state in enumerate(series))
    return per("max", OF_JOB, " or ".join(numbers))


def _selector(name: str, *matchers: str) -> str:
    return f"{name}{{{', '.join(matchers)}}}"
