"""``python -m localcluster.deviceplugin --resource cambricon.com/mlu --count 4 …``: one plugin process."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

from .server import PLUGIN_DIRECTORY, DevicePlugin, PluginSettings


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m localcluster.deviceplugin", description=__doc__)
    parser.add_argument("--resource", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--visible-variable", required=True)
    parser.add_argument("--unhealthy-file", type=Path, required=True)
    parser.add_argument("--plugin-directory", type=Path, default=PLUGIN_DIRECTORY)
    options = parser.parse_args()
    settings = PluginSettings(
        options.resource, options.count, options.visible_variable, options.unhealthy_file, options.plugin_directory
    )
    plugin = DevicePlugin(settings)
    signal.signal(signal.SIGTERM, lambda *_: plugin.stop())
    signal.signal(signal.SIGINT, lambda *_: plugin.stop())
    plugin.run()


if __name__ == "__main__":
    main()
