"""The volume provisioner: its decisions, and what it does to a directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from localcluster import storage
from localcluster.apiclient import ApiError


def _claim(uid: str = "u1", **spec: Any) -> dict[str, Any]:
    defaults = {
        "storageClassName": "standard",
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "1Gi"}},
    }
    metadata = {"namespace": "ns", "name": "data", "uid": uid, "resourceVersion": "7"}
    return {"metadata": metadata, "spec": defaults | spec}


def _volume(
    phase: str = "Released", provisioner: str = "localcluster/hostpath", reclaim: str = "Delete"
) -> dict[str, Any]:
    annotations = {"pv.kubernetes.io/provisioned-by": provisioner}
    return {
        "metadata": {"name": "pvc-u1", "annotations": annotations},
        "spec": {"persistentVolumeReclaimPolicy": reclaim},
        "status": {"phase": phase},
    }


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        pytest.param(_claim(), 1, id="pending"),
        pytest.param(_claim(volumeName="pvc-u1"), 0, id="bound"),
        pytest.param(_claim(storageClassName="other"), 0, id="other-class"),
        pytest.param(
            _claim() | {"metadata": {"uid": "u1", "deletionTimestamp": "now"}}, 0, id="deleted"
        ),
    ],
)
def test_only_pending_claims_of_the_class_get_a_volume(
    claim: dict[str, Any], expected: int
) -> None:
    assert len(storage.plan([claim], []).provision) == expected


def test_a_claim_with_a_volume_waits_for_the_binding() -> None:
    assert storage.plan([_claim()], [_volume("Available")]).provision == ()


@pytest.mark.parametrize(
    ("volume", "expected"),
    [
        pytest.param(_volume(), 1, id="released"),
        pytest.param(_volume("Bound"), 0, id="bound"),
        pytest.param(_volume(provisioner="other"), 0, id="not-ours"),
        pytest.param(_volume(reclaim="Retain"), 0, id="retained"),
    ],
)
def test_only_released_volumes_of_ours_are_removed(volume: dict[str, Any], expected: int) -> None:
    assert len(storage.plan([], [volume]).remove) == expected


def test_the_volume_belongs_to_the_claim_and_the_node() -> None:
    spec = storage.volume_for(_claim(), Path("/volumes"))["spec"]
    assert spec["claimRef"]["uid"] == "u1"
    assert spec["hostPath"]["path"] == "/volumes/pvc-u1"
    assert spec["accessModes"] == ["ReadWriteMany"]
    assert spec["nodeAffinity"]["required"]["nodeSelectorTerms"]


class _Api:
    """Answers lists from memory; refuses to create what exists, as the API server does."""

    def __init__(
        self, claims: list[dict[str, Any]], volumes: list[dict[str, Any]], *, conflict: bool = False
    ) -> None:
        self._lists = {storage._CLAIMS: claims, storage._VOLUMES: volumes}
        self._conflict = conflict
        self.calls: list[tuple[str, str]] = []

    def request(self, method: str, path: str, body: object = None) -> Any:
        del body
        if method == "GET":
            return {"items": self._lists[path]}
        self.calls.append((method, path))
        if self._conflict:
            raise ApiError(method, path, 409, "already exists")
        return {}


@pytest.mark.parametrize("conflict", [False, True], ids=["created", "exists-already"])
def test_provisioning_makes_a_directory_for_every_user(tmp_path: Path, conflict: bool) -> None:
    api = _Api([_claim()], [], conflict=conflict)
    storage.Provisioner(api, tmp_path).reconcile()
    assert (tmp_path / "pvc-u1").stat().st_mode & 0o777 == 0o777
    assert api.calls == [("POST", storage._VOLUMES)]


def test_removing_deletes_directory_and_object(tmp_path: Path) -> None:
    (tmp_path / "pvc-u1" / "nested").mkdir(parents=True)
    api = _Api([], [_volume()])
    storage.Provisioner(api, tmp_path).reconcile()
    assert list(tmp_path.iterdir()) == []
    assert api.calls == [("DELETE", f"{storage._VOLUMES}/pvc-u1")]


def test_other_refusals_are_not_swallowed(tmp_path: Path) -> None:
    api = _Api([], [_volume()], conflict=True)
    with pytest.raises(ApiError, match="already exists"):
        storage.Provisioner(api, tmp_path).reconcile()
