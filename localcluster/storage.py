"""Dynamic volumes for the ``standard`` storage class: every claim gets a directory of its own on
the node.

``python -m localcluster.storage --kubeconfig FILE --directory DIRECTORY`` runs the provisioner.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

from .apiclient import ApiClient, ApiError
from .network import NODE_NAME
from .objects import PROVISIONER, STORAGE_CLASS

_CLAIMS = "/api/v1/persistentvolumeclaims"
_VOLUMES = "/api/v1/persistentvolumes"
_PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
_RESYNC_SECONDS = 60
_RETRY_SECONDS = 1.0

Object = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is to be done now: claims that need a volume, volumes that nobody needs any more."""

    provision: tuple[Object, ...]
    remove: tuple[Object, ...]


def plan(claims: Iterable[Object], volumes: Iterable[Object]) -> Plan:
    """Compare claims with volumes; takes only what belongs to this provisioner."""
    volumes = tuple(volumes)
    existing = {volume["metadata"]["name"] for volume in volumes}
    provision = (
        claim for claim in claims if _wants_volume(claim) and volume_name(claim) not in existing
    )
    return Plan(tuple(provision), tuple(volume for volume in volumes if _is_done(volume)))


def _wants_volume(claim: Object) -> bool:
    spec = claim["spec"]
    deleted = "deletionTimestamp" in claim["metadata"]
    return (
        spec.get("storageClassName") == STORAGE_CLASS and not spec.get("volumeName") and not deleted
    )


def _is_done(volume: Object) -> bool:
    ours = volume["metadata"].get("annotations", {}).get(_PROVISIONED_BY) == PROVISIONER
    released = volume.get("status", {}).get("phase") == "Released"
    return bool(
        ours and released and volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete"
    )


def volume_name(claim: Object) -> str:
    """Name of the volume of a claim."""
    return f"pvc-{claim['metadata']['uid']}"


def volume_for(claim: Object, directory: Path) -> Object:
    """The PersistentVolume of a claim; any access mode works, as there is one node."""
    metadata, spec = claim["metadata"], claim["spec"]
    owner = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
    hostname = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE_NAME]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": volume_name(claim), "annotations": {_PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "accessModes": spec["accessModes"],
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "claimRef": {**owner, **{key: metadata[key] for key in ("namespace", "name", "uid")}},
            "hostPath": {"path": str(directory / volume_name(claim)), "type": "Directory"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [hostname]}]}},
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": STORAGE_CLASS,
        },
    }


class Api(Protocol):
    """What the provisioner needs of the API server."""

    def request(self, method: str, path: str, body: object = None) -> Any:
        """One request; the decoded answer."""


class Provisioner:
    """Carries plans out against the API server and the directory of volumes."""

    def __init__(self, client: Api, directory: Path) -> None:
        self._client = client
        self._directory = directory

    def reconcile(self) -> None:
        """Look once, act once."""
        now = plan(
            self._client.request("GET", _CLAIMS)["items"],
            self._client.request("GET", _VOLUMES)["items"],
        )
        for claim in now.provision:
            self._provision(claim)
        for volume in now.remove:
            self._remove(volume)

    def _provision(self, claim: Object) -> None:
        directory = self._directory / volume_name(claim)
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o777)  # a pod's fsGroup does not reach hostPath volumes
        with _tolerating(HTTPStatus.CONFLICT):
            self._client.request("POST", _VOLUMES, volume_for(claim, self._directory))
        print(
            f"{claim['metadata']['namespace']}/{claim['metadata']['name']}: {volume_name(claim)} "
            "provisioned"
        )

    def _remove(self, volume: Object) -> None:
        name = volume["metadata"]["name"]
        directory = self._directory / name
        if directory.exists():
            shutil.rmtree(directory)
        with _tolerating(HTTPStatus.NOT_FOUND):
            self._client.request("DELETE", f"{_VOLUMES}/{name}")
        print(f"{name}: removed")


@contextlib.contextmanager
def _tolerating(status: HTTPStatus) -> Iterator[None]:
    try:
        yield
    except ApiError as error:
        if error.status != status:
            raise


def _watch(client: ApiClient, path: str, changed: threading.Event) -> None:
    while True:
        try:
            for _ in client.watch(path, _RESYNC_SECONDS):
                changed.set()
        except (OSError, http.client.HTTPException, ApiError) as error:
            print(f"watching {path}: {error}")
            time.sleep(_RETRY_SECONDS)


def run(client: ApiClient, directory: Path) -> None:
    """Provision until the process ends."""
    changed = threading.Event()
    for path in (_CLAIMS, _VOLUMES):
        threading.Thread(
            target=_watch, args=(client, path, changed), name=path, daemon=True
        ).start()
    provisioner = Provisioner(client, directory)
    while True:
        changed.clear()
        try:
            provisioner.reconcile()
        except (OSError, http.client.HTTPException, ApiError) as error:
            print(f"cannot provision now: {error}")
            time.sleep(_RETRY_SECONDS)
        else:
            changed.wait(_RESYNC_SECONDS)


def main() -> None:
    """Command line of the provisioner."""
    parser = argparse.ArgumentParser(prog="python -m localcluster.storage", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--directory", type=Path, required=True)
    options = parser.parse_args()
    run(ApiClient(options.kubeconfig), options.directory)


if __name__ == "__main__":
    main()
