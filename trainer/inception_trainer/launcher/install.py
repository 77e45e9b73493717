"""Puts the launcher where a container of somebody else's image can start it: ``python3 DIR --
PROGRAM``.

The copy is called ``inception_launcher``, a name nobody else uses: whatever the program imports, it
never meets a part of the trainer in the place of its own modules. ::

    python3 -m inception_trainer.launcher.install DIR
"""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

PACKAGE = "inception_launcher"
_MAIN = f'''"""The launcher of the Inception training operator, put here by an init container."""

import sys

from {PACKAGE}.early import obey_sigterm

obey_sigterm()
from {PACKAGE}.main import main

sys.exit(main(sys.argv[1:]))
'''


def install(folder: Path) -> None:
    """Copy the launcher into a folder; doing so again changes nothing."""
    package = folder / PACKAGE
    package.mkdir(parents=True, exist_ok=True)
    # Modules only, no caches of byte code: those are of this image's Python.
    for source in sorted(Path(__file__).parent.glob("*.py")):
        shutil.copyfile(source, package / source.name)
    (folder / "__main__.py").write_text(_MAIN, encoding="utf-8")


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    if len(argv) != 1:
        print("usage: python3 -m inception_trainer.launcher.install DIR", file=sys.stderr)
        return 64
    install(Path(argv[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
