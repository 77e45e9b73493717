"""What the ranks of a preflight have found: read out of the logs of their pods, and judged. Pure.

Whoever runs in a pod writes what it wants into its log. So a pod speaks for its own ranks alone,
as the operator has assigned them, and nothing but numbers and short texts is taken from a line.

A rank is slow by the rule by which the operator names stragglers: well above the median of all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from inception_operator.client.figures import NONE
from inception_operator.client.text import clean_line
from inception_operator.contract.types import Json

from .terminal import table

MARK: Final = "inception-preflight "
LONGEST_LINE: Final = 8192
LONGEST_TEXT: Final = 400
CHECKS: Final = ("matmul", "memory", "data", "checkpoint", "clock", "allReduce", "link")
"""In the order in which a rank tells of them."""
_FIGURES: Final = (
    *("teraflops", "seconds", "side", "errorShare", "freeMebibytes", "neededMebibytes"),
    *("imagesPerSecond", "samples", "unreadable", "megabytesPerSecond", "mebibytes"),
    *("offsetSeconds", "busGigabytesPerSecond", "gigabytesPerSecond"),
)
_TEXTS: Final = ("problem", "remedy", "remark", "skipped", "precision")
_MOST_SIZES: Final = 32
_GREATEST: Final = 1e18
_COMPARED: Final = {
    "matmul": "Look at temperature, clock and power limit of the device, and at what else runs on "
    "the node; `kubectl cordon NODE` keeps the next job away from it.",
    "data": "Look at the CPUs that the pod has there, and at the node's way to the data.",
    "checkpoint": "Look at the node's way to the place of the checkpoints.",
    "link": "Look at the network device of the node: speed of the link, cables, RDMA.",
}
"""Checks whose ``seconds`` are those of the rank itself, and what to do about a slow one."""
_UNSTEADY: Final = {"data": 3.0, "checkpoint": 3.0}
"""What others do on the same storage makes these differ; so slow is no chance, in medians."""


@dataclass(frozen=True)
class Seat:
    """A rank and where it runs, as the operator has assigned it."""

    rank: int
    pod: str
    node: str


@dataclass(frozen=True)
class Problem:
    """Why a rank is not fit for the job."""

    check: str
    text: str
    remedy: str
    seat: Seat | None = None

    def as_dict(self) -> Json:
        """For ``-o``."""
        where = {} if self.seat is None else vars(self.seat)
        return {**where, "check": self.check, "problem": self.text, "remedy": self.remedy}

    def lines(self) -> str:
        """For people."""
        seat = self.seat
        who = f"rank {seat.rank} (pod {seat.pod} on node {seat.node})" if seat else "the job"
        return f"{who}: {self.check}: {self.text}" + (f"\n  {self.remedy}" if self.remedy else "")


@dataclass(frozen=True)
class Results:
    """What is known of all ranks."""

    seats: Sequence[Seat]
    told: Mapping[int, Mapping[str, Json]] = field(default_factory=dict)
    """By rank and check."""
    problems: Sequence[Problem] = ()

    def as_dict(self) -> Json:
        """For ``-o``."""
        return {
            "ok": not self.problems,
            "ranks": [
                {**vars(seat), "checks": dict(self.told.get(seat.rank, {}))} for seat in self.seats
            ],
            "problems": [each.as_dict() for each in self.problems],
        }


def read(lines: Iterable[str], ranks: Iterable[int]) -> dict[int, dict[str, Json]]:
    """What the log of one pod says of its ranks, by rank and check; the last word counts."""
    found: dict[int, dict[str, Json]] = {rank: {} for rank in ranks}
    for line in lines:
        at = line.find(MARK)
        if at < 0 or len(line) > LONGEST_LINE:
            continue
        told = _finding(line[at + len(MARK) :])
        if told is not None and told[0] in found:
            found[told[0]][told[1]] = told[2]
    return found


def _finding(text: str) -> tuple[int, str, Json] | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict):
        return None
    rank, check = line.get("rank"), line.get("check")
    if type(rank) is not int or not isinstance(check, str) or check not in CHECKS:
        return None
    finding: Json = {"ok": line.get("ok") is True}
    for name in _FIGURES:
        if (number := _number(line.get(name))) is not None:
            finding[name] = number
    for name in _TEXTS:
        if isinstance(line.get(name), str):
            finding[name] = clean_line(line[name])[:LONGEST_TEXT]
    sizes = line.get("sizes")
    if isinstance(sizes, list):
        rows = [_row(each) for each in sizes[:_MOST_SIZES]]
        finding["sizes"] = [row for row in rows if row is not None]
    return rank, check, finding


def _row(value: Any) -> list[float] | None:
    numbers = [_number(each) for each in value[:3]] if isinstance(value, list) else []
    known = [each for each in numbers if each is not None]
    return known if len(known) == 3 else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < _GREATEST and math.isfinite(value) else None


def judge(seats: Sequence[Seat], told: Mapping[int, Mapping[str, Json]]) -> Results:
    """Name what is wrong, slow, and what no rank has told of."""
    by_rank = {seat.rank: seat for seat in seats}
    problems = [
        Problem(
            check, str(finding.get("problem") or "failed"), str(finding.get("remedy", "")), seat
        )
        for rank, seat in by_rank.items()
        for check, finding in told.get(rank, {}).items()
        if not finding["ok"]
    ]
    problems += _slow(by_rank, told)
    problems += _silent(by_rank, told)
    order = {check: number for number, check in enumerate(CHECKS)}
    problems.sort(key=lambda each: (order[each.check], each.seat.rank if each.seat else -1))
    return Results(seats, told, problems)


def _slow(seats: Mapping[int, Seat], told: Mapping[int, Mapping[str, Json]]) -> list[Problem]:
    # A tenth of a second to import, which no other command needs.
    from inception_operator.decide.stragglers import Pace, compare

    problems = []
    for check, remedy in _COMPARED.items():
        seconds = {
            rank: float(told[rank][check]["seconds"])
            for rank in seats
            if "seconds" in told.get(rank, {}).get(check, {})
        }
        paces = {rank: Pace(each, each) for rank, each in seconds.items()}
        for rank, slowness in compare(paces).items() if paces else ():
            if slowness.slow and slowness.ratio >= _UNSTEADY.get(check, 0.0):
                text = f"slow: it takes {slowness.ratio:.1f} times as long as the median of ranks"
                problems.append(Problem(check, text, remedy, seats[rank]))
    return problems


def _silent(seats: Mapping[int, Seat], told: Mapping[int, Mapping[str, Json]]) -> list[Problem]:
    """The first check that a rank says nothing of: it hangs or has died there, or waits.

    Of all ranks only those are named that have come least far: the others wait for them.
    """
    missing = {}
    for rank in seats:
        done = told.get(rank, {})
        first = next((check for check in CHECKS if check not in done), None)
        if first is not None:
            missing[rank] = first
    if not missing:
        return []
    least = min(CHECKS.index(check) for check in missing.values())
    return [
        Problem(
            check,
            "no answer: the rank has ended or hangs in this check, or has not begun",
            "Its log and `kubectl describe pod` say more.",
            seats[rank],
        )
        for rank, check in missing.items()
        if CHECKS.index(check) == least
    ]


_HEADER: Final = (
    *("RANK", "POD", "NODE", "MATMUL", "LINK", "DATA", "WRITE", "SHM FREE", "CLOCK", "VERDICT"),
)


def ranks_table(results: Results) -> str:
    """One row for each rank."""
    bad: dict[int, list[str]] = {}
    for problem in results.problems:
        if problem.seat is not None:
            kind = "slow" if problem.text.startswith("slow") else "failed"
            bad.setdefault(problem.seat.rank, []).append(f"{problem.check} {kind}")
    rows = []
    for seat in results.seats:
        told = results.told.get(seat.rank, {})
        rows.append(
            (
                str(seat.rank),
                seat.pod,
                seat.node,
                _cell(told, "matmul", "teraflops", "TFLOP/s"),
                _cell(told, "link", "gigabytesPerSecond", "GB/s"),
                _cell(told, "data", "imagesPerSecond", "img/s"),
                _cell(told, "checkpoint", "megabytesPerSecond", "MB/s"),
                _cell(told, "memory", "freeMebibytes", "MiB"),
                _cell(told, "clock", "offsetSeconds", "s", "{:+.3f}"),
                ", ".join(dict.fromkeys(bad.get(seat.rank, []))) or "ok",
            )
        )
    return table(_HEADER, rows)


def _cell(
    told: Mapping[str, Json], check: str, figure: str, unit: str, form: str = "{:.4g}"
) -> str:
    number = told.get(check, {}).get(figure)
    return NONE if number is None else f"{form.format(number)} {unit}"


def sums_line(results: Results) -> str:
    """The speed of sums over all ranks by the size of the message; empty where there are none."""
    for seat in results.seats:
        sizes = results.told.get(seat.rank, {}).get("allReduce", {}).get("sizes") or []
        if sizes:
            texts = [f"{int(size) >> 10} KiB {speed:.3g}" for size, _, speed in sizes]
            return f"all-reduce, GB/s of the bus: {', '.join(texts)}"
    return ""


def remarks(results: Results) -> list[str]:
    """What is worth knowing and fails nothing."""
    found = []
    for seat in results.seats:
        for check, finding in results.told.get(seat.rank, {}).items():
            if finding.get("remark"):
                found.append(f"rank {seat.rank}: {check}: {finding['remark']}")
    skipped = {
        f"{check} was not tried: {finding['skipped']}"
        for findings in results.told.values()
        for check, finding in findings.items()
        if finding.get("skipped")
    }
    return [*found, *sorted(skipped)]
