"""The pods and ranks of a job side by side: which of them is slower, and on what."""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.builders.dashboard import Dashboard

from monitoring.boards.parts import (
    TRAINING_LEGEND,
    About,
    Panel,
    Query,
    board,
    filled,
    graph,
    table,
)
from monitoring.boards.queries import (
    OF_JOB,
    OF_TRAINING,
    job,
    per,
    quantile,
    rate,
    trainer,
)

OF_POD = (*OF_TRAINING, "pod")
OF_RANK = (*OF_POD, "rank")
POD_LEGEND = "{{namespace}}/{{pod}}"
RANK_LEGEND = POD_LEGEND + " rank {{rank}}"


def ranks() -> Dashboard:
    """The dashboard that tells the pods of one job apart."""
    made = board(
        "inception-ranks",
        "Inception: ranks",
        "Step times, waits and devices of each rank and pod of the chosen jobs, and stragglers.",
        ["namespace", "job"],
    )
    sections = {
        "": _pods(),
        "Stragglers": _stragglers(),
        "Steps": _steps(),
        "Devices": _devices(),
    }
    return filled(made, sections)


def _pods() -> list[Panel]:
    return [
        table(
            About("Pods and nodes", "The pods that each job has now, and where they run."),
            [("", per("max", (*OF_JOB, "slot", "pod", "node"), job("pod_info")))],
            width=24,
            height=6,
        )
    ]


def _share(part: str, whole: str, labels: Sequence[str]) -> str:
    """How much of one counter of the ranks comes to one unit of another."""
    parts, wholes = (per("sum", labels, rate(trainer(f"rank_{name}"))) for name in (part, whole))
    return f"{parts} / {wholes}"


def _stragglers() -> list[Panel]:
    own = _share("own_seconds_total", "steps_total", OF_RANK)
    fastest = per("min", OF_TRAINING, own)
    each_with_fastest = f"on ({', '.join(OF_TRAINING)}) group_left ()"
    named = per("max", (*OF_JOB, "rank", "pod", "node"), job("straggler_ratio"))
    waits = ("wait_seconds_total", "step_seconds_total")
    return [
        table(
            About(
                "Stragglers now",
                "The rank that all others of its job wait for, as status.straggler names it: its "
                "own time in medians of all ranks. Empty while all keep up.",
            ),
            [("Ratio", named)],
            width=12,
            height=6,
        ),
        graph(
            About(
                "Ratio of the named straggler",
                "How many times as long as the median of the ranks the named one takes until its "
                "gradients are ready. Gaps mean that all kept up.",
            ),
            Query(named, "{{namespace}}/{{pod}} rank {{rank}} on {{node}}"),
            width=12,
        ),
        graph(
            About(
                "Own time of each rank",
                "Mean time of a step until the gradients of the rank were ready, before it waits "
                "for the others: what differs between ranks, as whole steps do not.",
                "s",
            ),
            Query(own, RANK_LEGEND),
            width=6,
        ),
        graph(
            About(
                "Own time against the fastest rank",
                "Own time of each rank divided by that of the fastest rank of its job.",
            ),
            Query(f"{own} / {each_with_fastest} {fastest}", RANK_LEGEND),
            width=6,
        ),
        graph(
            About(
                "Waiting share of each rank",
                "Share of its steps in which a rank waits for others or exchanges gradients: least "
                "on the straggler.",
                "percentunit",
            ),
            Query(_share(*waits, OF_RANK), RANK_LEGEND),
            width=6,
        ),
        graph(
            About(
                "Waiting share of all ranks",
                "What waiting and the exchange of gradients cost the job: their share of the steps "
                "of all ranks.",
                "percentunit",
            ),
            Query(_share(*waits, OF_TRAINING), TRAINING_LEGEND),
            width=6,
        ),
    ]


def _mean(part: str) -> str:
    matcher = f'part="{part}"'
    seconds = rate(trainer("step_duration_seconds_sum", matcher))
    steps = rate(trainer("step_duration_seconds_count", matcher))
    return f"{per('sum', OF_POD, seconds)} / {per('sum', OF_POD, steps)}"


def _steps() -> list[Panel]:
    buckets = rate(trainer("step_duration_seconds_bucket", 'part="compute"'))
    slowest, fastest = (per(pick, OF_TRAINING, _mean("compute")) for pick in ("max", "min"))
    return [
        graph(
            About(
                "Step time of each pod",
                "Mean time that the first rank of each pod computes in a step. In synchronous "
                "training all pods wait for the slowest, so look at the waits for data as well.",
                "s",
            ),
            Query(_mean("compute"), POD_LEGEND),
        ),
        graph(
            About(
                "Step time of each pod, 95 %",
                "95th percentile of the time that the first rank of each pod computes in a step.",
                "s",
            ),
            Query(quantile(0.95, OF_POD, buckets), POD_LEGEND),
        ),
        graph(
            About(
                "Wait for data of each pod",
                "Mean time of a step in which the first rank of each pod waits for its batch.",
                "s",
            ),
            Query(_mean("data"), POD_LEGEND),
        ),
        graph(
            About(
                "Slowest pod against fastest",
                "Mean step time of the slowest pod divided by that of the fastest.",
            ),
            Query(f"{slowest} / {fastest}", TRAINING_LEGEND),
        ),
        graph(
            About("Samples of each pod", "Training samples that each pod works on per second."),
            Query(per("sum", OF_POD, rate(trainer("samples_total", 'phase="train"'))), POD_LEGEND),
        ),
        graph(
            About(
                "Time since the last step of each pod",
                "A pod that hangs alone stands out here.",
                "s",
            ),
            Query(
                f"time() - {per('max', OF_POD, trainer('last_step_timestamp_seconds') + ' > 0')}",
                POD_LEGEND,
            ),
        ),
    ]


def _devices() -> list[Panel]:
    def device(title: str, description: str, unit: str, series: str) -> Panel:
        query = Query(
            per("max", (*OF_POD, "device"), trainer(f"device_{series}")),
            POD_LEGEND + " {{device}}",
        )
        return graph(About(title, description, unit), query)

    idle = per("max", OF_POD, trainer("device_idle_ratio"))
    return [
        graph(
            About(
                "Idle share of the devices",
                "Share of the last log interval in which the devices of a pod had nothing to do.",
                "percentunit",
            ),
            Query(idle, POD_LEGEND),
        ),
        device(
            "Utilization of each device",
            "As the vendor's module counts it, by local rank.",
            "percentunit",
            "utilization_ratio",
        ),
        device("Memory of each device", "In use, by local rank.", "bytes", "memory_used_bytes"),
    ]
