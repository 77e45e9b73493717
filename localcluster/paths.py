"""Where things lie on this machine. The only place of this package where a variable decides
something.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

CACHE_VARIABLE = "LOCALCLUSTER_CACHE"
PACKAGE = Path(__file__).resolve().parent
GO_MODULES = PACKAGE / "go"
# Leaves two dozen characters for a cluster's name below what state.root_of allows.
_LONGEST_FOLDER = 60


def cache_dir() -> Path:
    """Built binaries and running clusters; ``LOCALCLUSTER_CACHE`` overrides the checkout's own
    ``.cache``.
    """
    configured = os.environ.get(CACHE_VARIABLE)
    return Path(configured).resolve() if configured else PACKAGE.parent / ".cache" / "localcluster"


def clusters_dir() -> Path:
    """One folder per running cluster: in the cache, or outside where that lies too deep for socket
    addresses.
    """
    folder = cache_dir() / "clusters"
    if len(str(folder)) <= _LONGEST_FOLDER:
        return folder
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
    return Path("/var/tmp") / f"localcluster-{os.getuid()}-{digest}"  # noqa: S108


def child_environment() -> dict[str, str]:
    """The environment of a Python child process that must be able to import this package from any
    folder.
    """
    paths = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def build_environment() -> dict[str, str]:
    """The user's environment for Go, less what would change how our modules build.

    Compilers live for seconds: without garbage collection below a gibibyte a build takes a fifth
    less processor time (etcd on two cores: 168 and 136 s).
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in {"GOFLAGS", "GOOS", "GOARCH"}
    }
    memory = {"GOGC": "off", "GOMEMLIMIT": "1GiB"}
    return {**memory, **kept, "GOWORK": "off", "GOTOOLCHAIN": "local"}
