"""Writes the tables of docs/accelerators.md from the rows of the accelerator table.

With ``--check`` it only says that they are out of date. What was proven is told by tests that are
looked up: a proof whose test is gone is refused.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from docs import pages
from docs.pages import ROOT, ProofError

PROFILES = ROOT / "operator" / "inception_operator" / "accelerators" / "profiles"
TARGET = ROOT / "docs" / "accelerators.md"
START, END = "<!-- tables: made by docs/generate_accelerators.py -->", "<!-- end of tables -->"
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Proof:
    """A test that shows something of every row that it concerns, without the hardware."""

    text: str
    test: str
    concerns: Callable[[Row], bool]


# The cells are made of the rows as they are written, not of the operator's model: a row that
# leaves out what this page shows should fail here.
def _has_devices(row: Row) -> bool:
    return bool(row["resource"] != "none")


def _is_named(row: Row) -> bool:
    return _has_devices(row) and row["resource"] is not None


def _always(row: Row) -> bool:
    return True


PROOFS = (
    Proof("names and counts", "tests/unit/test_profiles.py::test_counts_devices", _is_named),
    Proof(
        "pod",
        "tests/integration/test_operator_accelerators.py::test_the_pod_of_a_sample_is_accepted",
        _has_devices,
    ),
    Proof(
        "devices of its own through a kubelet",
        "tests/e2e/test_vendors.py::test_two_jobs_get_their_own_devices_and_one_rank_for_each",
        _has_devices,
    ),
    Proof(
        "two ranks train on the plug-in's stub",
        "tests/trainer/test_device_vendors.py::test_training_on_a_device_of_its_own",
        lambda row: row["torch"]["device"] not in ("cpu", "cuda", "xpu"),
    ),
    Proof(
        "choice of device and precision",
        "tests/trainer/test_device.py::test_vendors_that_present_their_devices_as_cuda",
        lambda row: row["torch"]["device"] == "cuda" and row["torch"]["module"] is None,
    ),
    Proof(
        "order of import",
        "tests/trainer/test_device.py::test_cuda_shim_is_imported_before_the_first_call",
        lambda row: row["torch"]["device"] == "cuda" and row["torch"]["module"] is not None,
    ),
    Proof(
        "choice of device and precision",
        "tests/trainer/test_device.py::test_xpu_is_in_torch",
        lambda row: row["torch"]["device"] == "xpu",
    ),
    Proof(
        "training",
        "tests/e2e/test_recovery.py::test_killed_worker_process_restarts_warm",
        lambda row: not _has_devices(row),
    ),
)


def main(arguments: list[str] | None = None) -> int:
    """Write the tables; the exit status of the command."""
    return pages.generate(__doc__, TARGET, page, arguments)


def page() -> str:
    """The page with tables of what is proven."""
    check(PROOFS)
    return document(TARGET.read_text(encoding="utf-8"), rows())


def rows() -> list[Row]:
    """The shipped rows, cpu first."""
    loaded = [
        yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(PROFILES.glob("*.yaml"))
    ]
    return sorted(loaded, key=lambda row: (_has_devices(row), row["name"]))


def check(proofs: tuple[Proof, ...]) -> None:
    """Raise ProofError for a proof whose test does not exist."""
    for proof in proofs:
        if not pages.exists(proof.test):
            raise ProofError(f"{proof.text}: there is no test {proof.test}")


def document(page: str, table: list[Row]) -> str:
    """The page with its tables made anew."""
    head, start, rest = page.partition(START)
    _, end, tail = rest.partition(END)
    if not start or not end:
        raise ProofError(f"{TARGET.name} must hold the lines {START} and {END}")
    parts = [*_names(table), "", *_pods(table), "", *_evidence(table)]
    return f"{head}{start}\n\n" + "\n".join(parts) + f"\n\n{end}{tail}"


def _names(table: list[Row]) -> Iterator[str]:
    yield "### Names and torch\n"
    columns = (
        "Profile",
        "Resource",
        "Other names that count",
        "Devices per unit",
        "torch: module, device, back end",
    )
    yield from _header(*columns, "Variables that choose devices")
    for row in table:
        torch = row["torch"]
        names = (torch["module"] or "torch", torch["device"], torch["backend"])
        way = ", ".join(f"`{name}`" for name in names)
        others = [*row.get("exact", ()), *row.get("patterns", ())]
        shown = [variable for variable in row["visible"] if variable]
        yield _line(
            f"**{row['name']}**", _resource(row), _code(others), _unit(row), way, _code(shown)
        )


def _resource(row: Row) -> str:
    if row["resource"] is None:
        return "not known: `resourceName` is required"
    return f"`{row['resource']}`" if _has_devices(row) else "none"


def _unit(row: Row) -> str:
    if not _has_devices(row):
        return ""
    unknown = "not known: `numProcPerNode` is required"
    texts = [unknown if row["unit"] is None else str(row["unit"])]
    texts += [f"`{name}`: {unit or unknown}" for name, unit in row.get("units", {}).items()]
    return "<br>".join(texts)


def _pods(table: list[Row]) -> Iterator[str]:
    yield "### Pods, precision, labels and exporters\n"
    columns = (
        "Profile",
        "What a pod gets beside its devices",
        "`precision: Auto`",
        "Labels of nodes",
    )
    yield from _header(*columns, "Exporter of device metrics")
    for row in table:
        yield _line(
            f"**{row['name']}**",
            "<br>".join(_extras(row)),
            row["precision"],
            _code(row.get("nodeLabels", ())),
            _exporter(row),
        )


def _exporter(row: Row) -> str:
    exporter = row["exporter"]
    if exporter is None:
        # A CPU needs none, so "none known" would sound like a gap.
        return "none known" if _has_devices(row) else ""
    port = f"port {exporter['port']}" if exporter["port"] else "port not known"
    return f"{exporter['name']}, {port}"


def _extras(row: Row) -> Iterator[str]:
    for toleration in row.get("tolerations", ()):
        yield f"toleration `{toleration['key']}`"
    if row.get("runtimeClass"):
        yield f"runtime class `{row['runtimeClass']}`"
    for name, value in row.get("env", {}).items():
        yield f"`{name}={value}`"
    for mount in row.get("mounts", ()):
        yield f"`{mount['hostPath']}` of the node: {mount['reason']}"


def _evidence(table: list[Row]) -> Iterator[str]:
    yield "### What was proven, and what needs the hardware\n"
    columns = (
        "Profile",
        "Where the row was read",
        "Proven with a stub",
        "Only the hardware can show",
    )
    yield from _header(*columns, "Remarks")
    for row in table:
        proven = [
            f"[{proof.text}](../{proof.test.partition('::')[0]})"
            for proof in PROOFS
            if proof.concerns(row)
        ]
        verified = row["verified"]
        yield _line(
            f"**{row['name']}**",
            verified["read"],
            ", ".join(proven),
            verified["hardware"],
            row.get("remark", ""),
        )


def _header(*columns: str) -> Iterator[str]:
    yield _line(*columns)
    yield "|" + "---|" * len(columns)


def _code(words: Any) -> str:
    return "<br>".join(f"`{word}`" for word in words)


def _line(*cells: str) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
