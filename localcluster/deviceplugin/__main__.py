"""``python -m localcluster.deviceplugin --device cambricon.com/mlu=4 --device …``: the plugins of a
node.
"""

from __future__ import annotations

import argparse
import signal
import threading
from pathlib import Path

from localcluster.model import DeviceSpec

from . import slug, visible_variable
from .server import PLUGIN_DIRECTORY, DevicePlugin, PluginSettings


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python -m localcluster.deviceplugin", description=__doc__
    )
    parser.add_argument("--device", type=DeviceSpec.parse, action="append", required=True)
    parser.add_argument("--unhealthy-folder", type=Path, required=True)
    parser.add_argument("--plugin-directory", type=Path, default=PLUGIN_DIRECTORY)
    options = parser.parse_args()
    plugins = [DevicePlugin(_settings(device, options)) for device in options.device]

    def stop(*_: object) -> None:
        for plugin in plugins:
            plugin.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    threads = [threading.Thread(target=plugin.run) for plugin in plugins]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _settings(device: DeviceSpec, options: argparse.Namespace) -> PluginSettings:
    unhealthy = options.unhealthy_folder / f"{slug(device.resource)}.unhealthy"
    return PluginSettings(
        device.resource, device.count, visible_variable(device), unhealthy, options.plugin_directory
    )


if __name__ == "__main__":
    main()
