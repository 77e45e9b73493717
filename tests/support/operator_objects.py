"""Small Kubernetes objects for tests of the operator."""

from __future__ import annotations

from typing import Any

from inception_operator.contract import names
from inception_operator.runtime.containment import Containment


def job(
    name: str = "job", *, version: int = 1, uid: str = "job-uid", **status: Any
) -> dict[str, Any]:
    """An InceptionTraining."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {
            "namespace": "ns",
            "name": name,
            "uid": uid,
            "resourceVersion": str(version),
            "generation": 1,
        },
        "spec": {"training": {"data": {"kind": "Digits"}}},
        "status": status,
    }


def pod(
    name: str = "job-0-1",
    *,
    version: int = 1,
    uid: str = "",
    owner: str = "job-uid",
    ip: str | None = None,
) -> dict[str, Any]:
    """A pod of slot 0 of the training ``job``, or of what the name says:
    ``<job>-<slot>-<incarnation>``.
    """
    training, slot, incarnation = name.rsplit("-", 2)
    return {
        "kind": "Pod",
        "metadata": {
            "namespace": "ns",
            "name": name,
            "uid": uid or f"{name}-uid",
            "resourceVersion": str(version),
            "labels": {
                names.LABEL_JOB: training,
                names.LABEL_SLOT: slot,
                names.LABEL_INCARNATION: incarnation,
                names.LABEL_ROLE: names.ROLE_WORKER,
            },
            "ownerReferences": [
                {"kind": names.KIND, "name": training, "uid": owner, "controller": True}
            ],
        },
        "spec": {},
        "status": {"phase": "Running", "podIP": ip} if ip else {"phase": "Pending"},
    }


def strict_containment() -> Containment:
    """One that contains nothing: in most tests an error of the operator's own is a failure."""

    def count(where: str) -> None:
        raise AssertionError(f"an error of the operator's own: {where}")

    return Containment(count)
