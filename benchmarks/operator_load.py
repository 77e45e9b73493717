"""Load for an operator in a control plane with fake nodes, and what everybody's processes use.

What the benchmarks of the operator share: jobs by the hundred, pods that end, jobs that come and
go, and processor time and memory from /proc.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from localcluster.apiclient import ApiClient
from localcluster.cluster import Cluster
from operator_process import OperatorProcess
from trainings import Trainings, training, wait_for

Json = dict[str, Any]

CREATORS = 4
COMPONENTS = ("kube-apiserver", "etcd")
MERGE = "application/merge-patch+json"
ENDS = {"metadata": {"annotations": {"kwok.localcluster/succeed-after": "1ms"}}}
LIFE_SECONDS = 10.0
"""How long a job of the churn exists."""


def cpu_seconds(pid: int) -> float:
    """Processor time used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mib(pid: int) -> float:
    """The most resident memory so far."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None, f"process {pid} has no memory"
    return int(found.group(1)) / 1024


def component_pids(cluster: Cluster) -> dict[str, int]:
    """The processes of the control plane: API server and etcd of this very cluster."""
    pids: dict[str, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            # It has ended meanwhile.
            continue
        name = Path(command.split("\0", 1)[0]).name
        if name in COMPONENTS and f"{cluster.layout.root}/" in command:
            pids[name] = int(folder.name)
    missing = set(COMPONENTS) - set(pids)
    assert not missing, f"no process of {', '.join(sorted(missing))}"
    return pids


class Ours:
    """The operator of a checkout."""

    def __init__(
        self, cluster: Cluster, log: Path, source: Path, profile: Path | None = None
    ) -> None:
        """With ``profile`` samples of it are written there (`operator_profile`)."""
        self.name = str(source)
        program: tuple[str, ...] = ("-m", "inception_operator")
        if profile is not None:
            os.environ["OPERATOR_PROFILE"] = str(profile)
            program = (str(Path(__file__).with_name("operator_profile.py")),)
        self.process = OperatorProcess(
            cluster.kubeconfig, log, "--log-level", "info", program=program, source=source
        )

    @contextmanager
    def running(self) -> Iterator[int]:
        """Its process number while it runs."""
        with self.process:
            yield self.process.pid
            self.process.stop()

    def path(self, namespace: str) -> str:
        """Where its jobs are."""
        return f"/apis/training.inception.dev/v1alpha1/namespaces/{namespace}/inceptiontrainings"

    def job(self, name: str, pods: int) -> Json:
        """One job."""
        return training(name, nodes=pods)

    def at_work(self, namespace: str, jobs: int, pods: int) -> bool:
        """Whether all jobs run."""
        return self.process.metric("job_state", state="Running") >= jobs

    def is_done(self, namespace: str, jobs: int) -> bool:
        """Whether all jobs have ended."""
        return self.process.metric("job_state", state="Succeeded") >= jobs


class Peer:
    """Another operator: a program that takes ``--kubeconfig``, and a manifest of one of its jobs in
    which NAME and PODS stand for both. Its jobs are judged by their pods and their conditions.
    """

    def __init__(self, cluster: Cluster, log: Path, command: Sequence[str], job: Json) -> None:
        self.name = Path(command[0]).name
        self._cluster = cluster
        self._log = log
        self._command = [*command, f"--kubeconfig={cluster.kubeconfig}"]
        self._job = job
        group, _, version = str(job["apiVersion"]).rpartition("/")
        root = f"/apis/{group}/{version}" if group else f"/api/{version}"
        listed = ApiClient(cluster.kubeconfig).request("GET", root)["resources"]
        kinds = {each["kind"]: each["name"] for each in listed if "/" not in each["name"]}
        self._root, self._plural = root, kinds[job["kind"]]

    @contextmanager
    def running(self) -> Iterator[int]:
        """Its process number while it runs."""
        with self._log.open("ab") as output:
            process = subprocess.Popen(self._command, stdout=output, stderr=output)
        try:
            yield process.pid
        finally:
            process.terminate()
            process.wait(30)

    def path(self, namespace: str) -> str:
        """Where its jobs are."""
        return f"{self._root}/namespaces/{namespace}/{self._plural}"

    def job(self, name: str, pods: int) -> Json:
        """One job."""
        return _filled(self._job, {"NAME": name, "PODS": pods})

    def at_work(self, namespace: str, jobs: int, pods: int) -> bool:
        """Whether all pods run."""
        found = Trainings(self._cluster, namespace).pods().values()
        return sum(pod["status"].get("phase") == "Running" for pod in found) >= jobs * pods

    def is_done(self, namespace: str, jobs: int) -> bool:
        """Whether all jobs say so in a condition."""
        items = ApiClient(self._cluster.kubeconfig).request("GET", self.path(namespace))["items"]
        return sum(map(_is_complete, items)) >= jobs


Contestant = Ours | Peer


def _filled(value: Any, words: Mapping[str, Any]) -> Any:
    """The manifest with these words replaced; a value that is the word alone keeps its type."""
    if isinstance(value, dict):
        return {key: _filled(each, words) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, words) for each in value]
    if isinstance(value, str):
        if value in words:
            return words[value]
        for word, other in words.items():
            value = value.replace(word, str(other))
    return value


def _is_complete(job: Json) -> bool:
    found = (job.get("status") or {}).get("conditions") or ()
    return any(
        each["status"] == "True" and each["type"] in ("Complete", "Completed", "Succeeded")
        for each in found
    )


def make_namespace(cluster: Cluster, name: str) -> None:
    """A namespace in which pods can be created."""
    cluster.kubectl("create", "namespace", name)
    waiting = ("wait", "--for=create", "--timeout=60s", f"--namespace={name}")
    cluster.kubectl(*waiting, "serviceaccount/default")


def submit(api: ApiClient, path: str, jobs: Sequence[Json]) -> None:
    """Create them, a few at a time as several users would."""
    with ThreadPoolExecutor(CREATORS) as pool:
        list(pool.map(lambda job: api.request("POST", path, job), jobs))


def end_pods(api: ApiClient, namespace: str) -> None:
    """Let all pods succeed; costs the operator one event of each pod more than a real end does."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    names = [pod["metadata"]["name"] for pod in api.request("GET", path)["items"]]
    with ThreadPoolExecutor(CREATORS) as pool:
        list(pool.map(lambda name: api.request("PATCH", f"{path}/{name}", ENDS, MERGE), names))


def timed(what: str, started: float, look: Callable[[], bool], seconds: float = 900) -> float:
    """Seconds until it is true."""
    wait_for(what, look, seconds=seconds, pause=0.2)
    return time.monotonic() - started


class Arrivals:
    """When the last pod of each job was first seen, by a watch."""

    def __init__(self, api: ApiClient, namespace: str, pods: int, seconds: float) -> None:
        self._api = api
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self._pods = pods
        self._seconds = int(seconds)
        self._seen: dict[str, set[str]] = {}
        self.complete: dict[str, float] = {}
        self._thread = threading.Thread(target=self._watch, name="arrivals", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        for event in self._api.watch(self._path, self._seconds):
            if event["type"] != "ADDED":
                continue
            owners = event["object"]["metadata"].get("ownerReferences") or ({"name": ""},)
            seen = self._seen.setdefault(owners[0]["name"], set())
            seen.add(event["object"]["metadata"]["name"])
            if len(seen) == self._pods:
                self.complete.setdefault(owners[0]["name"], time.monotonic())


def churn(
    api: ApiClient, contestant: Contestant, namespace: str, *, rate: float, seconds: float
) -> list[float]:
    """Jobs of two pods that are made and, ten seconds later, deleted, so many in a second.

    Returns for each job the seconds from its creation to its last pod. Raises AssertionError when a
    job got no pods at all.
    """
    path = contestant.path(namespace)
    arrivals = Arrivals(api, namespace, 2, seconds + 3 * LIFE_SECONDS)
    made: dict[str, float] = {}
    requests: list[Future[Any]] = []
    began = time.monotonic()
    created, deleted = 0, 0

    def create(name: str) -> None:
        made[name] = time.monotonic()
        api.request("POST", path, contestant.job(name, 2))

    with ThreadPoolExecutor(CREATORS) as pool:
        while (now := time.monotonic() - began) < seconds + LIFE_SECONDS:
            while created < int(min(now, seconds) * rate):
                requests.append(pool.submit(create, f"churn-{created}"))
                created += 1
            while deleted < int((now - LIFE_SECONDS) * rate):
                path_of_job = f"{path}/churn-{deleted}"
                requests.append(pool.submit(api.request, "DELETE", path_of_job))
                deleted += 1
            time.sleep(0.02)
    for request in requests:
        request.result()
    missing = set(made) - set(arrivals.complete)
    assert not missing, f"{len(missing)} jobs got no pods, {min(missing)} among them"
    return [arrivals.complete[name] - when for name, when in made.items()]
