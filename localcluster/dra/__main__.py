"""``python -m localcluster.dra --driver mlu.example.com --count 4 …``: one driver process on the
node.
"""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

from localcluster.apiclient import ApiClient

from .objects import Offer
from .server import Driver, DriverSettings


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m localcluster.dra", description=__doc__)
    parser.add_argument("--driver", required=True)
    parser.add_argument("--node", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--visible-variable", required=True)
    parser.add_argument("--unhealthy-file", type=Path, required=True)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    options = parser.parse_args()
    offer = Offer(options.driver, options.node, options.count)
    settings = DriverSettings(offer, options.visible_variable, options.unhealthy_file)
    driver = Driver(settings, ApiClient(options.kubeconfig))
    signal.signal(signal.SIGTERM, lambda *_: driver.stop())
    signal.signal(signal.SIGINT, lambda *_: driver.stop())
    driver.run()


if __name__ == "__main__":
    main()
