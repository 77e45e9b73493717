"""A second API server beside a running one, on the same etcd, that writes an audit log.

It has every flag of the first, so that both are one cluster, as several API servers of one control
plane are; only its port and its log are its own.
"""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from localcluster.apiclient import ApiClient
from localcluster.cluster import Cluster
from localcluster.errors import LocalClusterError
from trainings import wait_for

Json = dict[str, Any]


class AuditedApi:
    """Its kubeconfig as the administrator, and what one user has asked of it."""

    def __init__(self, kubeconfig: Path, log: Path) -> None:
        self.kubeconfig = kubeconfig
        self._log = log

    def requests(self) -> list[Json]:
        """Events of the audit log, one for each request that has been answered."""
        lines = self._log.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]


@contextmanager
def audited_api(cluster: Cluster, user: str, folder: Path, *plugins: str) -> Iterator[AuditedApi]:
    """Run one that records the requests of ``user``, with more admission ``plugins``."""
    document = yaml.safe_load(cluster.kubeconfig.read_text())
    port = urlsplit(document["clusters"][0]["cluster"]["server"]).port
    own_port = _free_port()
    policy = folder / "policy.yaml"
    policy.write_text(yaml.safe_dump(_policy(user)))
    log = folder / "audit.log"
    log.touch()
    argv = [
        *(flag for flag in _arguments(f"--secure-port={port}") if "admission-plugins" not in flag),
        f"--enable-admission-plugins={','.join(('NodeRestriction', *plugins))}",
        f"--audit-policy-file={policy}",
        f"--audit-log-path={log}",
        # Written before the answer, so that nothing is missed.
        "--audit-log-mode=blocking",
    ]
    argv = [flag.replace(f"--secure-port={port}", f"--secure-port={own_port}") for flag in argv]
    document["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{own_port}"
    kubeconfig = folder / "kubeconfig.yaml"
    kubeconfig.write_text(yaml.safe_dump(document))
    output = folder / "kube-apiserver.log"
    with output.open("wb") as file:
        process = subprocess.Popen(argv, stdout=file, stderr=file)
    try:
        wait_for("the second API server", lambda: _is_ready(kubeconfig, process), seconds=120)
        yield AuditedApi(kubeconfig, log)
    finally:
        process.terminate()
        process.wait(60)


def _policy(user: str) -> Json:
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "rules": [{"level": "Metadata", "users": [user]}, {"level": "None"}],
        "omitStages": ["RequestReceived"],
    }


def _arguments(mark: str) -> list[str]:
    """The command line of the API server that has this flag."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().decode().rstrip("\0").split("\0")
        except (OSError, UnicodeDecodeError):
            continue
        if Path(arguments[0]).name == "kube-apiserver" and mark in arguments:
            return arguments
    raise AssertionError(f"no kube-apiserver runs with {mark}")


def _is_ready(kubeconfig: Path, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, f"it ended with {process.returncode}"
    try:
        return ApiClient(kubeconfig).content("GET", "/readyz") == b"ok"
    except (LocalClusterError, OSError):
        return False


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
