"""The pods of a job side by side: which of them is slower, and on what."""

from __future__ import annotations

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
POD_LEGEND = "{{namespace}}/{{pod}}"


def ranks() -> Dashboard:
    """The dashboard that tells the pods of one job apart."""
    made = board(
        "inception-ranks",
        "Inception: ranks",
        "Step times, waits and devices of each pod of the chosen jobs.",
        ["namespace", "job"],
    )
    return filled(made, {"": _pods(), "Steps": _steps(), "Devices": _devices()})


def _pods() -> list[Panel]:
    return [
        table(
            About("Pods and nodes", "The pods that each job has now, and where they run."),
            [("", per("max", (*OF_JOB, "slot", "pod", "node"), job("pod_info")))],
            width=24,
            height=6,
        )
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
