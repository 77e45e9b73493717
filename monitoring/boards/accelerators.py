"""Accelerators of all vendors in one vocabulary, from the recording rules."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from monitoring.boards.parts import About, Panel, Query, board, figure, filled, graph, table, unit
from monitoring.boards.queries import OF_TRAINING, per, training

OF_DEVICE = (*OF_TRAINING, "pod", "accelerator", "device")
DEVICE_LEGEND = "{{namespace}}/{{pod}} {{accelerator}} {{device}}"
NEEDS_RULES = " Needs the recording rules (docs/alerts.md)."


def accelerators() -> Dashboard:
    """The dashboard about devices, whoever made them."""
    made = board(
        "inception-accelerators",
        "Inception: accelerators",
        "Use, memory, power, temperature and health of the devices of jobs, for all vendors.",
        ["namespace", "job"],
    )
    return filled(made, {"": _now(), "By vendor and job": _groups(), "Each device": _devices()})


def _of(record: str) -> str:
    return training(f"namespace_pod_accelerator:{record}")


def _now() -> list[Panel]:
    broken = f"{_of('healthy:bool')} == 0"
    return [
        figure(
            About("Devices", "Devices of the chosen jobs by vendor." + NEEDS_RULES),
            Query(per("count", ["accelerator"], _of("healthy:bool")), "{{accelerator}}"),
            width=6,
        ),
        figure(
            About("Broken devices", "Devices that their exporter or the trainer calls unhealthy."),
            Query(f"count({broken}) or sum({_of('healthy:bool')}) * 0"),
            width=6,
            limits=((None, "green"), (1, "red")),
        ),
        figure(
            About("Utilization", "Mean over the devices of the chosen jobs.", "percentunit"),
            Query(f"avg({_of('utilization:ratio')})"),
            width=6,
        ),
        figure(
            About("Power", "Drawn by all devices of the chosen jobs.", "watt"),
            Query(f"sum({_of('power:watts')})"),
            width=6,
        ),
    ]


def _groups() -> list[Panel]:
    use = _of("utilization:ratio")
    used, total = _of("memory_used:bytes"), _of("memory_total:bytes")
    legend = "{{namespace}}/{{training}} {{accelerator}}"
    labels = (*OF_TRAINING, "accelerator")
    return [
        graph(
            About(
                "Utilization by vendor",
                "Mean over the devices of each vendor, as each counts it.",
                "percentunit",
            ),
            Query(per("avg", ["accelerator"], use), "{{accelerator}}"),
        ),
        graph(
            About("Utilization by job", "Mean over the devices of each job.", "percentunit"),
            Query(per("avg", labels, use), legend),
        ),
        graph(
            About("Memory by job", "Share of the devices' memory that is in use.", "percentunit"),
            Query(f"{per('sum', labels, used)} / {per('sum', labels, total)}", legend),
        ),
    ]


def _devices() -> list[Panel]:
    def device(title: str, description: str, unit_name: str, record: str) -> Panel:
        query = Query(per("max", OF_DEVICE, _of(record)), DEVICE_LEGEND)
        return graph(About(title, description, unit_name), query, width=12)

    share = {name: [unit("percentunit")] for name in ("utilization",)}
    units = {"memory": [unit("bytes")], "power": [unit("watt")], "temperature": [unit("celsius")]}
    return [
        table(
            About("All devices", "The devices of the chosen jobs with their figures of now."),
            [
                ("healthy", per("min", OF_DEVICE, _of("healthy:bool"))),
                ("utilization", per("max", OF_DEVICE, _of("utilization:ratio"))),
                ("memory", per("max", OF_DEVICE, _of("memory_used:bytes"))),
                ("power", per("max", OF_DEVICE, _of("power:watts"))),
                ("temperature", per("max", OF_DEVICE, _of("temperature:celsius"))),
            ],
            overrides=share | units,
        ),
        device(
            "Utilization of each device",
            "As its vendor counts it.",
            "percentunit",
            "utilization:ratio",
        ),
        device("Memory of each device", "In use, of each device.", "bytes", "memory_used:bytes"),
        device("Power of each device", "Drawn by each device.", "watt", "power:watts"),
        device("Temperature of each device", "Of each device.", "celsius", "temperature:celsius"),
    ]
