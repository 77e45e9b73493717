"""Self-contained kubeconfig files: certificates are embedded, so a file can be copied anywhere on
the machine.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import yaml

from . import pki
from .model import Layout


def document(layout: Layout, user: str) -> dict[str, Any]:
    """The kubeconfig of one client certificate."""
    name = "localcluster"
    cluster = {
        "server": layout.api_url,
        "certificate-authority-data": _encoded(layout.pki("ca.crt")),
    }
    credentials = {
        "client-certificate-data": _encoded(layout.pki(f"{user}.crt")),
        "client-key-data": _encoded(layout.pki(f"{user}.key")),
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
        "current-context": name,
    }


def create(layout: Layout) -> None:
    """Write the kubeconfig of every client that has a certificate."""
    for user in pki.client_names():
        path = layout.kubeconfig(user)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            yaml.safe_dump(document(layout, user), file, sort_keys=False)


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
