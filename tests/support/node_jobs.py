"""Training jobs on a real node: install the operator as a user would, apply jobs, look at them,
hurt them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from demo.clusters import Ready
from demo.images import ROOT, build_local_image, local_tag
from demo.kube import Kube
from demo.run import DEPLOYMENT, OPERATOR_NAMESPACE
from inception_operator.accelerators.resolve import DIRECTORY
from localcluster.apiclient import ApiClient, ApiError
from localcluster.cluster import Cluster
from localcluster.components import build

Json = dict[str, Any]
API_VERSION = "training.inception.dev/v1alpha1"

# Runs inside a worker pod: the process number of a local rank, left by the launcher under /tmp.
KILL_RANK = """
import glob, os, signal, sys
newest = max(glob.glob('/tmp/**/pid-{local_rank}', recursive=True), key=os.path.getmtime)
os.kill(int(open(newest).read()), signal.{signal})
"""


# Of a job that says nothing else: what happens in the first epoch is carried over into the second.
EPOCHS = 2
# The digits recipe: 1438 images for training in full batches of 64.
SAMPLES_OF_AN_EPOCH = 1438 // 64 * 64

# The vendor's resource and variable on a machine that has neither the device nor the plug-in for
# torch.
MLU_ON_CPU = {
    "resource": "cambricon.com/mlu",
    "unit": 1,
    "torch": {"module": None, "device": "cpu", "backend": "gloo"},
}


def driver_folder(cluster: Cluster) -> Path:
    """What stands for the folder of a driver that a vendor's pods mount from the node."""
    return cluster.layout.root / "run" / "driver"


def profiles_of_the_node(cluster: Cluster) -> Json:
    """Rows that this machine needs otherwise: a trainer without the vendor's plug-in, a driver's
    folder that exists.
    """
    text = (DIRECTORY / "hygon.yaml").read_text(encoding="utf-8")
    hygon = {key: value for key, value in yaml.safe_load(text).items() if key != "name"}
    mount = {
        **hygon["mounts"][0],
        "hostPath": str(driver_folder(cluster)),
        "mountPath": "/opt/hyhal",
    }
    return {"cambricon": MLU_ON_CPU, "hygon": {**hygon, "mounts": [mount]}}


def install(cluster: Cluster, say: Callable[[str], None]) -> Ready:
    """Build both images into the node and install the chart."""
    driver_folder(cluster).mkdir(parents=True, exist_ok=True)
    (driver_folder(cluster) / "version").write_text("1.2.3", encoding="utf-8")
    for image in ("operator", "trainer"):
        build_local_image(cluster.layout, image, say)
    tools = build(["kubectl", "helm"], say)
    kube = Kube(cluster.kubeconfig, str(tools["kubectl"]))
    repository, _, tag = local_tag("operator").rpartition(":")
    helm_upgrade(
        Kube(cluster.kubeconfig, str(tools["helm"])),
        f"--set=image.registry=,image.repository={repository},image.tag={tag}",
        f"--set=trainerImage={local_tag('trainer')}",
        "--set=test.timeoutSeconds=800",
        f"--set-json=profiles={json.dumps(profiles_of_the_node(cluster))}",
    )
    kube.run("rollout", "status", DEPLOYMENT, "-n", OPERATOR_NAMESPACE, "--timeout=180s")
    return Ready(kube, local_tag("operator"), local_tag("trainer"), "the test's node", "")


def helm_upgrade(helm: Kube, *values: str) -> None:
    """Install the chart, or upgrade what is there."""
    chart = str(ROOT / "charts" / "inception-operator")
    namespace = ("--namespace", OPERATOR_NAMESPACE, "--create-namespace")
    helm.run("upgrade", "--install", "inception-operator", chart, *namespace, *values)


@dataclass(frozen=True)
class Jobs:
    """The jobs of one namespace."""

    cluster: Cluster
    namespace: str

    def apply(self, name: str, *, claim: bool = True, **spec: Any) -> None:
        """Apply a digits job; keywords replace fields of the spec."""
        manifests: list[Json] = [persistent_claim(name)] if claim else []
        manifests.append(digits_job(name, claim=claim, **spec))
        for manifest in manifests:
            self.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))

    @property
    def node(self) -> str:
        """The name of the only node."""
        return self.cluster.kubectl("get", "nodes", "--output=jsonpath={.items[0].metadata.name}")

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl("--namespace", self.namespace, *arguments, input=stdin)

    def get(self, name: str) -> Json:
        kind = f"/apis/{API_VERSION}/namespaces/{self.namespace}/inceptiontrainings"
        return dict(self._api.request("GET", f"{kind}/{name}"))

    @property
    def _api(self) -> ApiClient:
        """Far cheaper than kubectl: much is asked often, on a machine that has other things
        to do.
        """
        return ApiClient(self.cluster.kubeconfig)

    def status(self, name: str) -> Json:
        return dict(self.get(name).get("status", {}))

    def pods(self, name: str) -> list[Json]:
        selector = f"labelSelector=training.inception.dev/job%3D{name}"
        items = self._api.request("GET", f"/api/v1/namespaces/{self.namespace}/pods?{selector}")[
            "items"
        ]
        return sorted(items, key=lambda pod: str(pod["metadata"]["name"]))

    def members(self, name: str) -> list[int]:
        """The slots that train, in rank order; jobs without an elasticPolicy have them in their own
        order.
        """
        status = self.status(name).get("nodes", {})
        runs = str(status.get("members") or f"0-{max(1, status.get('desired', 1)) - 1}").split(",")
        ends = [[int(slot) for slot in run.split("-")] for run in runs]
        return [slot for end in ends for slot in range(end[0], end[-1] + 1)]

    def pod(self, name: str, slot: int) -> str:
        """The newest living pod of a slot."""
        living = [p for p in self.pods(name) if "deletionTimestamp" not in p["metadata"]]
        mine = [
            p for p in living if p["metadata"]["labels"]["training.inception.dev/slot"] == str(slot)
        ]
        return str(
            max(mine, key=lambda pod: pod["metadata"]["creationTimestamp"])["metadata"]["name"]
        )

    def python(self, pod: str, code: str) -> str:
        """Run Python inside a worker pod."""
        return self.kubectl("exec", pod, "-c", "trainer", "--", "python3", "-c", code)

    def kill_rank(self, pod: str, local_rank: int = 0, signal: str = "SIGKILL") -> None:
        self.python(pod, KILL_RANK.format(local_rank=local_rank, signal=signal))

    def wait(
        self, name: str, what: str, holds: Callable[[Json], bool], seconds: float = 240
    ) -> Json:
        """Poll the status until `holds`; the failure shows the last status and what the pods
        said.
        """
        deadline = time.monotonic() + seconds
        status: Json = {}
        while time.monotonic() < deadline:
            status = self.status(name)
            if holds(status):
                return status
            if what != "failed" and condition(status, "Failed") == "True":
                break
            time.sleep(0.25)
        raise AssertionError(f"{name}: not {what}\n{self.story(name, status)}")

    def wait_succeeded(self, name: str, seconds: float = 420) -> Json:
        return self.wait(name, "succeeded", lambda s: condition(s, "Succeeded") == "True", seconds)

    def wait_failed(self, name: str, seconds: float = 120) -> Json:
        return self.wait(name, "failed", lambda s: condition(s, "Failed") == "True", seconds)

    def wait_checkpoint(self, name: str) -> Json:
        """Until a first checkpoint is saved. The trainer's own page says so; the status follows
        seconds later, when a short job is nearly done.
        """
        saved = "trainer_checkpoint_last_success_timestamp_seconds"
        return self.wait(name, "saved", lambda _: self.page(name).get(saved, 0) > 0)

    def page(self, name: str) -> dict[str, float]:
        """The trainer's figures without labels, read from its master through the API server; empty
        when none answer.
        """
        try:
            master = self.pod(name, self.members(name)[0])
            path = f"/api/v1/namespaces/{self.namespace}/pods/{master}:8081/proxy/metrics"
            lines = self._api.text(path).splitlines()
        except (ApiError, OSError, ValueError):
            return {}
        return {
            part[0]: float(part[1])
            for line in lines
            if len(part := line.split()) == 2 and "{" not in line
        }

    def wait_step(self, name: str, attempt: int, seconds: float = 120) -> float:
        """Until this attempt or a later one has made a step; the trainer's own time of its first
        one.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            page = self.page(name)
            if (
                page.get("trainer_attempt", 0) >= attempt
                and page.get("trainer_first_step_timestamp_seconds", 0) > 0
            ):
                return page["trainer_first_step_timestamp_seconds"]
            time.sleep(0.3)
        raise AssertionError(
            f"{name}: attempt {attempt} has made no step\n{self.story(name, self.status(name))}"
        )

    def summary(self, name: str) -> Json:
        """The job's summary.json."""
        return self.file(name, "output/summary.json")

    def file(self, name: str, path: str) -> Json:
        """A JSON file of the job's folder."""
        return dict(json.loads(self.read(name, f"{name}/{path}")))

    def read(self, claim: str, path: str) -> str:
        """A file of a claim."""
        return self.beside(claim, "cat", f"/checkpoint/{path}")

    def beside(self, claim: str, *command: str) -> str:
        """What a command says in a pod of its own, which mounts a claim."""
        reader = f"{claim}-reader"
        self.kubectl("apply", "-f", "-", stdin=json.dumps(reader_pod(reader, claim)))
        try:
            self.kubectl("wait", "--for=condition=Ready", f"pod/{reader}", "--timeout=60s")
            return self.kubectl("exec", reader, "--", *command)
        finally:
            self.kubectl("delete", "pod", reader, "--grace-period=0", "--force", "--wait=false")

    def story(self, name: str, status: Json) -> str:
        """Status, events and logs of a job, for failure messages."""
        columns = "T:.lastTimestamp,R:.reason,O:.involvedObject.name,M:.message"
        events = self.kubectl(
            "get", "events", "--sort-by=.lastTimestamp", "-o", f"custom-columns={columns}"
        )
        return f"{json.dumps(status, indent=1)}\n{events}\n{self.logs(name)}"

    def logs(self, name: str, lines: int = 25) -> str:
        """The last lines of each pod, for failure messages."""
        texts = []
        for pod in self.pods(name):
            pod_name = pod["metadata"]["name"]
            text = self.cluster.kubectl(
                "-n",
                self.namespace,
                "logs",
                pod_name,
                "-c",
                "trainer",
                f"--tail={lines}",
                check=False,
            )
            texts.append(f"--- {pod_name} ({pod['status'].get('phase')})\n{text}")
        return "\n".join(texts)


def condition(status: Mapping[str, Any], kind: str) -> str | None:
    """The value of one condition: True, False, Unknown, or None when it is absent."""
    return next((c["status"] for c in status.get("conditions", ()) if c["type"] == kind), None)


def condition_message(status: Mapping[str, Any], kind: str) -> str:
    """Reason and message of one condition."""
    found = [
        f"{c['reason']}: {c.get('message', '')}"
        for c in status.get("conditions", ())
        if c["type"] == kind
    ]
    return found[0] if found else ""


def digits_job(name: str, *, claim: bool = True, **spec: Any) -> Json:
    """A small digits job of two nodes; keywords replace whole fields of the spec."""
    container = {
        "name": "trainer",
        "resources": {
            "requests": {"cpu": "100m", "memory": "512Mi"},
            "limits": {"cpu": "1", "memory": "3Gi"},
        },
    }
    body: Json = {
        "training": {"recipe": "bninception-digits", "epochs": EPOCHS, "logEverySteps": 5},
        "numNodes": 2,
        "template": {"spec": {"containers": [container]}},
    }
    if claim:
        body["checkpoint"] = {"volumeClaimName": name, "everySteps": 10}
    return {
        "apiVersion": API_VERSION,
        "kind": "InceptionTraining",
        "metadata": {"name": name},
        "spec": {**body, **spec},
    }


def persistent_claim(name: str) -> Json:
    """A claim of the default storage class."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": spec,
    }


def reader_pod(name: str, claim: str) -> Json:
    """A pod that mounts a claim and waits to be asked."""
    volume = {"name": "checkpoint", "persistentVolumeClaim": {"claimName": claim}}
    mount = {"name": "checkpoint", "mountPath": "/checkpoint"}
    container = {
        "name": "reader",
        "image": local_tag("trainer"),
        "command": ["sleep", "600"],
        "volumeMounts": [mount],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "containers": [container], "volumes": [volume]},
    }
