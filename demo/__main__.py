"""`python -m demo up|down|wheels`: what `make demo` and `make demo-down` run."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from demo.clusters import choose
from demo.images import LOCKS, fetch_wheels
from demo.kube import DemoError
from demo.outlook import Say
from demo.run import down, up
from localcluster.errors import LocalClusterError


def main() -> int:
    """Run one of the demo's commands; 1 with one sentence when it cannot go on."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "up", help="bring up a cluster, install the operator, run the main job, report"
    )
    commands.add_parser("down", help="remove everything that up made")
    commands.add_parser("wheels", help="download the wheels that the images are built from")
    command = parser.parse_args().command
    say = Say()
    try:
        if command == "up":
            up(choose(os.environ), os.environ, say)
        elif command == "down":
            down(choose(os.environ), os.environ, say)
        else:
            for image, locks in LOCKS.items():
                print(fetch_wheels(image, locks, say))
    except (DemoError, LocalClusterError, subprocess.CalledProcessError) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
