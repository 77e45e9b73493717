"""Command line of the report: ``python -m inception_operator.report NAMESPACE/NAME``.

The page goes to a file of the job's name, or to the one of ``--output``; ``-`` is the standard
output.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from inception_operator.contract.errors import OperatorError
from inception_operator.contract.times import parse_time

from . import cluster, files, history
from .content import Report
from .page import render


def main(argv: Sequence[str] | None = None) -> int:
    """Write the report; the exit status of the command."""
    options = _options(argv)
    try:
        report = _gather(options, datetime.now(UTC))
    except OperatorError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    text = render(report)
    if options.output == "-":
        # UTF-8 in any locale, as the page says of itself.
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode())
        return 0
    target = Path(options.output or f"{report.title.replace('/', '-')}.html")
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        print(f"error: {target}: {error.strerror}", file=sys.stderr)
        return 1
    print(f"{target}: {len(text) // 1024} KiB")
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m inception_operator.report",
        description="Make one static HTML file of a job: figures, curves, states, restarts.",
    )
    parser.add_argument("job", nargs="?", metavar="NAMESPACE/NAME", help="job on a cluster")
    parser.add_argument("--files", type=Path, metavar="DIR", help="files of a run: its output")
    parser.add_argument("--prometheus", metavar="URL", help="Prometheus with the job's history")
    parser.add_argument("--kubeconfig", metavar="FILE", help="as for kubectl")
    parser.add_argument("--context", metavar="NAME", help="context of the kubeconfig")
    parser.add_argument("--output", metavar="FILE", help="page to write; - is standard output")
    options = parser.parse_args(argv)
    if options.job is None and options.files is None:
        parser.error("give NAMESPACE/NAME, or --files DIR, or both")
    if options.job is not None and options.job.count("/") != 1:
        parser.error(f"{options.job} is not NAMESPACE/NAME")
    if options.prometheus and options.job is None:
        parser.error("--prometheus needs NAMESPACE/NAME")
    if options.files is not None and not options.files.is_dir():
        parser.error(f"{options.files} is no folder")
    return options


def _gather(options: argparse.Namespace, now: datetime) -> Report:
    if options.job is None:
        return files.read(options.files, now)
    namespace, _, name = options.job.partition("/")
    report = cluster.read(namespace, name, options.kubeconfig, options.context, now)
    if options.prometheus:
        report = history.add(report, options.prometheus, _life(namespace, name, report, now))
    return _with_files(report, files.read(options.files, now)) if options.files else report


def _life(namespace: str, name: str, report: Report, now: datetime) -> history.Life:
    conditions = [entry.get("lastTransitionTime") for entry in report.status.get("conditions", ())]
    times = [parse_time(text) for text in (*conditions, report.status.get("startTime"))]
    begin = min((time for time in times if time), default=now)
    end = parse_time(report.status.get("completionTime")) or now
    # A margin, so that what is scraped just before and after is on the page.
    return history.Life(namespace, name, begin.timestamp() - 60, end.timestamp() + 60)


def _with_files(report: Report, run: Report) -> Report:
    """A report of a cluster with what only the files of the run know."""
    return replace(
        report,
        sources=(*report.sources, *run.sources),
        summary=run.summary,
        configuration=run.configuration or report.configuration,
        charts=report.charts or run.charts,
        spans=report.spans or run.spans,
        restarts=report.restarts or run.restarts,
        notes=(*report.notes, *run.notes),
    )


if __name__ == "__main__":
    sys.exit(main())
