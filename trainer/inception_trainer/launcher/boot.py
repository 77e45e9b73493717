"""How the fork server is started: from the launcher's own copy, whatever lies in the working
directory.
"""

import sys
from pathlib import Path

FOLDER = str(Path(__file__).resolve().parents[len(__spec__.name.split(".")) - 1])
"""Where the launcher's top-level package lies; no program of others shall find it on its path."""
_CODE = """\
import sys
if sys.path[:1] == [""]:
    del sys.path[0]
sys.path.insert(0, sys.argv[1])
from importlib import import_module
import_module(sys.argv[2]).serve(int(sys.argv[3]), foreign=sys.argv[4] == "foreign")
"""


def command(descriptor: int, *, foreign: bool) -> list[str]:
    """Make the fork server's command line; ``descriptor`` is its end of the socket."""
    package = __spec__.name.rpartition(".")[0]
    kind = "foreign" if foreign else "bundled"
    return [sys.executable, "-c", _CODE, FOLDER, f"{package}.forkserver", str(descriptor), kind]
