"""InceptionTrainings and their pods on an API server with fake nodes, through plain requests."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType, TracebackType
from typing import Any, TypeVar

from inception_operator.contract import names
from localcluster.apiclient import ApiClient, ApiError
from localcluster.cluster import Cluster

Json = dict[str, Any]
T = TypeVar("T")


def wait_for(
    what: str, look: Callable[[], T | None], seconds: float = 20.0, pause: float = 0.05
) -> T:
    """Look until something true is seen."""
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds:.0f} s, last seen {found!r}")
        time.sleep(pause)


def wait_served(cluster: Cluster) -> None:
    """Wait until the API server serves our kind; while it has no conditions yet, kubectl fails."""
    jsonpath = '-o=jsonpath={.status.conditions[?(@.type=="Established")].status}'
    kind = f"crd/{names.PLURAL}.{names.GROUP}"
    wait_for(
        "the kind is served", lambda: cluster.kubectl("get", kind, jsonpath, check=False) == "True"
    )


def training(
    name: str, *, nodes: int = 2, annotations: dict[str, str] | None = None, **spec: Any
) -> Json:
    """A small training on CPUs; ``annotations`` go onto its pods and steer the fake nodes. None
    leaves a field out.
    """
    template = {"template": {"metadata": {"annotations": annotations}}} if annotations else {}
    fields = {
        "numNodes": nodes,
        "training": {"data": {"kind": "Digits"}},
        "accelerator": {"profile": "cpu"},
        "checkpoint": {"path": "/tmp/inception"},
        **template,
        **spec,
    }
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name},
        "spec": {key: value for key, value in fields.items() if value is not None},
    }


class Trainings:
    """The trainings of one namespace; as a context manager it deletes them at the end: later tests
    are alone.
    """

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self._api = ApiClient(cluster.kubeconfig)
        self._jobs = f"/apis/{names.API_VERSION}/namespaces/{namespace}/{names.PLURAL}"
        self._core = f"/api/v1/namespaces/{namespace}"

    def __enter__(self) -> Trainings:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Undecoded: a hostile one among them may be too deep for Python.
        self._api.content("DELETE", self._jobs)

    def create(self, name: str, **options: Any) -> Json:
        """Create a training; see `training`."""
        created: Json = self._api.request("POST", self._jobs, training(name, **options))
        return created

    def get(self, name: str) -> Json:
        """The training."""
        found: Json = self._api.request("GET", f"{self._jobs}/{name}")
        return found

    def all(self) -> list[Json]:
        """All trainings."""
        items: list[Json] = self._api.request("GET", self._jobs)["items"]
        return items

    def status(self, name: str) -> Json:
        """Its status, empty at first."""
        status: Json = self.get(name).get("status") or {}
        return status

    def change(self, name: str, **spec: Any) -> None:
        """Merge keys into the spec."""
        self.cluster.kubectl(
            *("patch", "itrain", name, f"--namespace={self.namespace}", "--type=merge"),
            f"--patch={json.dumps({'spec': spec})}",
        )

    def patch_status(self, name: str, status: Json) -> None:
        """Merge keys into the status, as an operator would."""
        self.cluster.kubectl(
            *("patch", "itrain", name, f"--namespace={self.namespace}", "--type=merge"),
            *("--subresource=status", f"--patch={json.dumps({'status': status})}"),
        )

    def delete(self, name: str) -> None:
        """Delete the training; the garbage collector removes its pods."""
        self._api.request("DELETE", f"{self._jobs}/{name}")

    def pods(self, name: str | None = None) -> dict[str, Json]:
        """Pods by name, of one training or of all."""
        selector = f"?labelSelector={names.LABEL_JOB}%3D{name}" if name else ""
        items = self._api.request("GET", f"{self._core}/pods{selector}")["items"]
        return {pod["metadata"]["name"]: pod for pod in items}

    def delete_pod(self, name: str) -> None:
        """Delete a pod at once, as if its node had gone."""
        self._api.request("DELETE", f"{self._core}/pods/{name}", {"gracePeriodSeconds": 0})

    def annotate(self, pod: str, **annotations: str) -> None:
        """Steer the fake node: fail_after="1ms" stands for kwok.localcluster/fail-after."""
        pairs = [
            f"kwok.localcluster/{key.replace('_', '-')}={value}"
            for key, value in annotations.items()
        ]
        self.cluster.kubectl("annotate", "pod", pod, f"--namespace={self.namespace}", *pairs)

    def play_kubelet(
        self,
        pod: str,
        ip: str,
        *,
        ready: bool,
        devices: Mapping[str, list[dict[str, str]]] = MappingProxyType({}),
    ) -> None:
        """Write the status of a running pod, whose node otherwise does nothing with it; devices
        with their health.
        """
        health = [{"name": name, "resources": found} for name, found in devices.items()]
        wait_for(f"the status of {pod} is written", lambda: self._written(pod, ip, ready, health))

    def _written(self, pod: str, ip: str, ready: bool, health: list[Json]) -> bool:
        """Whether nobody else changed the pod meanwhile."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        path = f"{self._core}/pods/{pod}"
        found = self._api.request("GET", path)
        running = {
            "name": names.CONTAINER,
            "state": {"running": {"startedAt": now}},
            "ready": ready,
            "restartCount": 0,
        }
        image = {"image": "i", "imageID": "i", "started": True}
        condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": now}
        found["status"] |= {
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "startTime": now,
            "conditions": [c for c in found["status"].get("conditions", []) if c["type"] != "Ready"]
            + [condition],
            "containerStatuses": [{**running, **image, "allocatedResourcesStatus": health}],
        }
        try:
            self._api.request("PUT", f"{path}/status", found)
        except ApiError as error:
            if error.status == 409:
                return False
            raise
        return True

    def assignment(self, pod: str) -> Json | None:
        """What the pod is told to do."""
        found = self._api.request("GET", f"{self._core}/pods/{pod}")
        text = (found["metadata"].get("annotations") or {}).get(names.ANNOTATION_ASSIGNMENT)
        return json.loads(text) if text else None

    def fail_and_suspend(self, name: str) -> None:
        """A job whose second pod fails once and that is then suspended, events and all."""
        self.create(name)
        self.wait_state(name, "Running")
        self.annotate(f"{name}-1-1", fail_after="1ms")
        self.wait_state(name, "Running", attempt=2)
        self.change(name, runPolicy={"suspend": True})
        self.wait_state(name, "Suspended")
        wait_for("events", lambda: "Suspended" in self.reasons(name))

    def reasons(self, name: str) -> list[str]:
        """Reasons of the events on a training, in order."""
        items = self._api.request("GET", f"{self._core}/events")["items"]
        mine = [event for event in items if event["involvedObject"]["name"] == name]
        return [
            e["reason"] for e in sorted(mine, key=lambda e: int(e["metadata"]["resourceVersion"]))
        ]

    def warn(self, pod: str, reason: str, message: str) -> None:
        """Write an event of the kubelet about a pod."""
        found = self._api.request("GET", f"{self._core}/pods/{pod}")["metadata"]
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        involved = {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": found["uid"]}
        body = {
            "metadata": {"generateName": f"{pod}.", "namespace": self.namespace},
            "involvedObject": {**involved, "namespace": self.namespace},
            "type": "Warning",
            "reason": reason,
            "message": message,
            "source": {"component": "kubelet"},
            "firstTimestamp": now,
            "lastTimestamp": now,
        }
        self._api.request(
            "POST", f"{self._core}/events", {"apiVersion": "v1", "kind": "Event", **body}
        )

    def evict(self, pod: str, message: str) -> None:
        """Write the status of a pod that the kubelet has evicted."""
        path = f"{self._core}/pods/{pod}"

        def written() -> bool:
            found = self._api.request("GET", path)
            found["status"] |= {"phase": "Failed", "reason": "Evicted", "message": message}
            found["status"].pop("containerStatuses", None)
            try:
                self._api.request("PUT", f"{path}/status", found)
            except ApiError as error:
                if error.status == 409:
                    return False
                raise
            return True

        wait_for(f"the status of {pod} is written", written)

    def quota(self, pods: int) -> None:
        """Allow no more than so many pods, and return once that is enforced."""
        # No config map is allowed either: by trying one is seen whether the API server, which
        # watches quotas like everybody else, knows of this one.
        hard = {"pods": str(pods), "count/configmaps": "0"}
        body = {"metadata": {"name": "pods"}, "spec": {"hard": hard}}
        self._api.request(
            "POST",
            f"{self._core}/resourcequotas",
            {"apiVersion": "v1", "kind": "ResourceQuota", **body},
        )

        def is_enforced() -> bool:
            probe = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "probe"}}
            try:
                self._api.request("POST", f"{self._core}/configmaps?dryRun=All", probe)
            except ApiError as error:
                return "exceeded quota" in str(error)
            return False

        wait_for("the quota is enforced", is_enforced)

    def lift_quota(self) -> None:
        """Remove the limit."""
        self._api.request("DELETE", f"{self._core}/resourcequotas/pods")

    def condition(self, name: str, kind: str) -> Json:
        """A condition of a training, empty when it is not set."""
        conditions = self.status(name).get("conditions") or []
        return next((c for c in conditions if c["type"] == kind), {})

    def wait_state(
        self, name: str, state: str, *, attempt: int | None = None, seconds: float = 20.0
    ) -> Json:
        """The status once it shows this state, in this attempt."""

        def look() -> Json | None:
            status = self.status(name)
            right = status.get("state") == state and attempt in (None, status.get("attempt"))
            return status if right else None

        try:
            return wait_for(f"{name} {state} in attempt {attempt}", look, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{json.dumps(self.picture(name), indent=1)}") from None

    def picture(self, name: str) -> Json:
        """What can be seen of a training, for messages."""
        return {
            "status": self.status(name),
            "pods": {pod: raw["status"] for pod, raw in self.pods(name).items()},
        }

    def gone(self, name: str) -> bool:
        """Whether there is no such training."""
        try:
            self.get(name)
        except ApiError as error:
            return error.status == 404
        return False
