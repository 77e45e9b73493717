"""Writes the Grafana dashboards in monitoring/dashboards from monitoring/boards.

With ``--check`` it only says which of them are out of date. The chart carries copies, which
charts/sync.py makes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from monitoring.boards.accelerators import accelerators
from monitoring.boards.comparison import comparison
from monitoring.boards.fleet import fleet
from monitoring.boards.job import training_job
from monitoring.boards.operator_health import operator_health
from monitoring.boards.ranks import ranks

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "monitoring" / "dashboards"
BOARDS = (fleet, training_job, ranks, comparison, accelerators, operator_health)


def main(arguments: list[str] | None = None) -> int:
    """Write what is out of date, or with ``--check`` only name it; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing, fail when a file is out of date"
    )
    options = parser.parse_args(arguments)
    stale = sync(TARGET, write=not options.check)
    for name in stale:
        print(f"{'out of date' if options.check else 'written'}: monitoring/dashboards/{name}")
    return 1 if stale and options.check else 0


def sync(folder: Path, *, write: bool) -> list[str]:
    """The files of a folder that were out of date or of no dashboard; ``write`` mends that."""
    wanted = texts()
    present = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    stale = sorted(name for name in wanted | present if present.get(name) != wanted.get(name))
    for name in stale if write else ():
        if name in wanted:
            (folder / name).write_text(wanted[name], encoding="utf-8")
        else:
            (folder / name).unlink()
    return stale


def texts() -> dict[str, str]:
    """The JSON of every dashboard by the name of its file, which is its uid."""
    return dict(_file(make()) for make in BOARDS)


def _file(builder: Dashboard) -> tuple[str, str]:
    board = builder.build()
    for number, panel in enumerate(board.panels or [], 1):
        panel.id_val = number
    return f"{board.uid}.json", JSONEncoder(sort_keys=True, indent=2).encode(board) + "\n"


if __name__ == "__main__":
    sys.exit(main())
