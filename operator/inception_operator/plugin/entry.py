"""Where ``kubectl-inception``, ``inceptionctl`` and ``kubectl_complete-inception`` begin."""

from __future__ import annotations

import sys
from types import ModuleType


def main() -> int:
    """Run one command; its exit code."""
    return int(_cli().main())


def complete() -> int:
    """Answer kubectl what it may complete."""
    return int(_cli().complete())


def _cli() -> ModuleType:
    try:
        from . import cli
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("inception_"):
            raise
        sys.exit(
            f"error: the package {error.name} is missing\n"
            "Install the commands with what they need: pipx install "
            "'inception-training-operator[cli]'"
        )
    return cli


if __name__ == "__main__":
    sys.exit(main())
