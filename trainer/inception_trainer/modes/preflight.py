"""Mode Preflight: is every rank fit for the job? Tries what training needs, and leaves nothing.

Each rank tells what it finds as it goes on, in lines of its own in the log of its pod, because a
rank that hangs or dies must not take along what was found before::

    inception-preflight {"rank": 3, "check": "data", "ok": false, "problem": …, "remedy": …}

``kubectl inception preflight`` reads these lines (docs/architecture/wire.md) and compares the
speeds of the ranks. Here only what is wrong fails, and it fails the rank on which it was found, so
that the root cause of the job is its pod and node.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch

from inception_trainer import models
from inception_trainer.errors import PreflightFailed, Stopped
from inception_trainer.log import logger
from inception_trainer.train.network import empty_network

from . import preflight_local as local
from . import preflight_together as together
from .common import MANY_CLASSES, Boundary, Run
from .preflight_local import Finding

MARK = "inception-preflight"
"""What a line of a finding begins with."""
LONGEST_TEXT = 300
"""Characters of a problem or remedy, so that a line is written to the pod's log at once."""
COLUMNS = ("teraflops", "imagesPerSecond", "megabytesPerSecond", "gigabytesPerSecond")
"""Figures of a rank that rank 0 logs for all of them."""


def run(run: Run) -> dict[str, Any]:
    """Try everything on every rank; every rank returns on which of them something failed."""
    classes = run.config.data.num_classes or MANY_CLASSES
    network = empty_network(run.config, classes, torch.device("meta"))
    probe = local.CheckpointProbe(run)
    alone: tuple[tuple[str, Callable[[], Finding]], ...] = (
        ("matmul", lambda: local.matmul(run)),
        ("memory", lambda: local.memory(run, network)),
        ("data", lambda: local.data(run)),
        ("checkpoint", probe.check),
    )
    shared = (together.clock, together.all_reduce, together.link)
    model = models.canonical(run.config.model.name)
    info = run.begin(network, model, len(alone) + len(shared), run.comm.world_size)
    boundary = Boundary(run)
    findings: list[Finding] = []

    def keep(finding: Finding) -> None:
        findings.append(finding)
        tell(run.comm.rank, finding)
        run.step(len(findings), 0, "infer")

    for name, check in alone:
        _begin(run, boundary)
        keep(tried(name, check))
    # Nobody writes there any more once all ranks are here.
    _begin(run, boundary)
    probe.tidy()
    for each in shared:
        _begin(run, boundary)
        # Not tried: after an error in the middle of an exchange the ranks are not in step any more.
        keep(each(run))
    boundary.settle()
    return run.summary(info, ranks=_table(run, findings))


def _begin(run: Run, boundary: Boundary) -> None:
    """Begin together: a rank that decodes images would slow down one that multiplies beside it."""
    boundary.check()
    run.heartbeat.pause()
    run.comm.barrier()


def tried(name: str, check: Callable[[], Finding]) -> Finding:
    """What a check finds; an error of it is a finding, too."""
    try:
        return check()
    except Stopped:
        raise
    except Exception as error:
        return Finding(name, problem=local.words(error), remedy=local.remedy_of(name, error))


def tell(rank: int, finding: Finding) -> None:
    """Write the line of a finding."""
    line: dict[str, Any] = {"rank": rank, "check": finding.check, "ok": not finding.problem}
    texts = {
        "problem": finding.problem,
        "remedy": finding.remedy,
        "remark": finding.remark,
        "skipped": finding.skipped,
    }
    line |= {name: text[:LONGEST_TEXT] for name, text in texts.items() if text}
    # With its end in one write: lines of several ranks meet in one pipe.
    print(f"{MARK} {json.dumps({**line, **finding.figures})}\n", end="", flush=True)


def _table(run: Run, findings: list[Finding]) -> list[dict[str, Any]]:
    """One entry for each rank, on all of them."""
    figures = {name: value for each in findings for name, value in each.figures.items()}
    row = [float(any(each.problem for each in findings))]
    row += [float(figures.get(name) or 0.0) for name in COLUMNS]
    rows = run.comm.gather(torch.tensor(row, dtype=torch.float64)).tolist()
    table = [
        {"rank": rank, "failed": bool(values[0])}
        | {name: value for name, value in zip(COLUMNS, values[1:], strict=True) if value}
        for rank, values in enumerate(rows)
    ]
    for entry in table if run.comm.is_first else ():
        logger.info("rank %d: %s", entry["rank"], _described(entry))
    return table


def _described(entry: dict[str, Any]) -> str:
    units = dict(zip(COLUMNS, ("TFLOP/s", "img/s", "MB/s written", "GB/s"), strict=True))
    parts = [f"{entry[name]:.4g} {unit}" for name, unit in units.items() if name in entry]
    return ", ".join([*parts, "failed" if entry["failed"] else "nothing is wrong"])


def judge(summary: dict[str, Any], rank: int) -> None:
    """Raise PreflightFailed where something was wrong on this rank."""
    if summary["ranks"][rank]["failed"]:
        raise PreflightFailed(
            f"rank {rank} is not fit for the job: the lines {MARK} of this pod say why"
        )
