"""What the operator costs while nothing happens: processor time beside jobs that have ended.

`python benchmarks/operator_idle.py --ended 500 1000`: a control plane with fake nodes, one job that
runs to its end, copies of it with the same status and ended pods, and then an operator that
has nothing to do. Prints a Markdown table of seconds of processor time per minute (utime and stime
in /proc, so a busy machine does not show), without and with somebody who reads /metrics every 15 s.
`--source` measures the operator of another checkout beside this one.

`python benchmarks/operator_idle.py --in-memory --ended 1000` needs no cluster: processor time of
what is done again and again beside so many ended jobs, one round of reading figures and one page of
metrics.
"""

import argparse
import asyncio
import copy
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

HERE = Path(__file__).resolve().parent
sys.path[:0] = [
    str(HERE.parent),
    str(HERE.parent / "operator"),
    str(HERE.parent / "tests" / "support"),
]

from operator_load import cpu_seconds  # noqa: E402

from cluster_sim import Sim, job  # noqa: E402
from inception_operator.pod.view import trim_pod  # noqa: E402
from inception_operator.runtime.containment import Containment  # noqa: E402
from inception_operator.runtime.job_cache import JobCache  # noqa: E402
from inception_operator.runtime.job_metrics import JobCollector  # noqa: E402
from inception_operator.runtime.scraper import Scraper  # noqa: E402
from localcluster.apiclient import ApiClient  # noqa: E402
from localcluster.cluster import Cluster  # noqa: E402
from localcluster.model import ClusterSpec  # noqa: E402
from localcluster.progress import to_stderr  # noqa: E402
from operator_process import OperatorProcess  # noqa: E402
from trainings import Trainings, wait_for, wait_served  # noqa: E402

Json = dict[str, Any]

NODES = 2
CREATORS = 4
ROUNDS = 5
SETTLE_SECONDS = 20.0
SCRAPE_SECONDS = 15.0
_OF_SERVER = (
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "generation",
    "managedFields",
    "ownerReferences",
)


def end_one(cluster: Cluster, namespace: str, log: Path) -> tuple[Json, list[Json]]:
    """A job of two pods that has run to its end under the operator, and its pods."""
    trainings = Trainings(cluster, namespace)
    with OperatorProcess(cluster.kubeconfig, log, "--log-level", "info"):
        trainings.create("job-0")
        trainings.wait_state("job-0", "Running", seconds=120)
        for pod in trainings.pods("job-0"):
            trainings.annotate(pod, succeed_after="1ms")
        trainings.wait_state("job-0", "Succeeded", seconds=120)
        wait_for(
            "the pods end",
            lambda: all(
                pod["status"]["phase"] == "Succeeded" for pod in trainings.pods("job-0").values()
            ),
        )
    return trainings.get("job-0"), list(trainings.pods("job-0").values())


def copy_ended(api: ApiClient, job: Json, pods: Sequence[Json], name: str) -> None:
    """Another job that looks as if it had run like this one."""
    namespace = job["metadata"]["namespace"]
    path = f"/apis/{job['apiVersion']}/namespaces/{namespace}/inceptiontrainings"
    made = api.request("POST", path, _renamed(job, job["metadata"]["name"], name, ""))
    uid = made["metadata"]["uid"]
    status = {**made, "status": _renamed(job, job["metadata"]["name"], name, uid)["status"]}
    api.request("PUT", f"{path}/{name}/status", status)
    for pod in pods:
        body = _renamed(pod, job["metadata"]["name"], name, uid, old_uid=job["metadata"]["uid"])
        owner = {**pod["metadata"]["ownerReferences"][0], "name": name, "uid": uid}
        body["metadata"]["ownerReferences"] = [owner]
        body["spec"].pop("serviceAccountName", None)
        path_of_pods = f"/api/v1/namespaces/{namespace}/pods"
        made = api.request("POST", f"{path_of_pods}?fieldManager=inception-operator", body)
        ended = {**made, "status": pod["status"]}
        del ended["metadata"]["resourceVersion"]
        api.request("PUT", f"{path_of_pods}/{made['metadata']['name']}/status", ended)


def _renamed(body: Json, old: str, new: str, uid: str, *, old_uid: str = "-") -> Json:
    """A copy that can be created: with another name, and without what the API server adds."""
    copied = copy.deepcopy(body)
    metadata = copied["metadata"]
    for key in _OF_SERVER:
        metadata.pop(key, None)
    metadata["name"] = metadata["name"].replace(old, new, 1)
    for key, value in (metadata.get("labels") or {}).items():
        metadata["labels"][key] = new if value == old else uid if value == old_uid else value
    return copied


class Pods:
    """Ended pods by job, as the reflector keeps them."""

    def __init__(self) -> None:
        self.of: dict[tuple[str, str], tuple[Json, ...]] = {}

    def pods(self, key: tuple[str, str]) -> tuple[Json, ...]:
        """The pods of one job."""
        return self.of[key]


async def measure_in_memory(ended: int) -> tuple[float, float]:
    """Milliseconds of processor time of a round of reading figures, and of a page of metrics."""
    sim = Sim(job(2))
    sim.run_until("Running")
    sim.finish_all()
    sim.operate()
    jobs, pods = JobCache(), Pods()
    for number in range(ended):
        copied = copy.deepcopy(sim.job)
        name = f"job-{number}"
        copied["metadata"] |= {"name": name, "uid": name, "resourceVersion": str(number + 1)}
        jobs.update(copied)
        kept = tuple(trim_pod(pod.to_api()) for pod in sim.pods.values())
        pods.of[copied["metadata"]["namespace"], name] = kept
    contained = Containment(lambda _where: None)
    # Nobody is asked, so there is nobody to ask.
    unasked: Any = None
    reader = Scraper(
        jobs, cast(Any, pods), unasked, lambda _key: None, contained, interval=5, report_interval=10
    )
    collector = JobCollector(jobs.values, pods.pods, contained)
    await reader.look_at_all()
    collector.text()
    begin = time.process_time()
    for _ in range(ROUNDS):
        await reader.look_at_all()
    middle = time.process_time()
    for _ in range(ROUNDS):
        collector.text()
    end = time.process_time()
    return (middle - begin) / ROUNDS * 1000, (end - middle) / ROUNDS * 1000


def measure(operator: OperatorProcess, seconds: float, *, scrape: bool) -> float:
    """Seconds of processor time in a minute."""
    before, began = cpu_seconds(operator.pid), time.monotonic()
    while (left := began + seconds - time.monotonic()) > 0:
        if scrape:
            operator.fetch("/metrics")
        time.sleep(min(left, SCRAPE_SECONDS))
    return (cpu_seconds(operator.pid) - before) * 60 / (time.monotonic() - began)


def main() -> None:
    """Start a control plane, fill it, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--ended", type=int, nargs="+", default=[500, 1000], help="numbers of ended jobs, ascending"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each measurement")
    parser.add_argument(
        "--source",
        type=Path,
        action="append",
        help="operator/ folder of a checkout; may be given again; this one is the default",
    )
    parser.add_argument("--in-memory", action="store_true", help="without a cluster")
    arguments = parser.parse_args()
    if arguments.in_memory:
        for ended in arguments.ended:
            figures, page = asyncio.run(measure_in_memory(ended))
            print(f"{ended} ended jobs: figures {figures:.1f} ms, page {page:.1f} ms")
        return
    sources = arguments.source or [HERE.parent / "operator"]
    rows = ["| operator | ended jobs | s/min | s/min, /metrics read | MiB |", "|" + "---|" * 5]
    spec = ClusterSpec(f"idle-{os.getpid()}", flavour="control-plane", kwok_nodes=NODES)
    with Cluster.up(spec, to_stderr) as cluster, tempfile.TemporaryDirectory() as folder:
        crd = HERE.parent / "manifests" / "crd.yaml"
        cluster.kubectl("apply", "--server-side", f"--filename={crd}")
        wait_served(cluster)
        log = Path(folder) / "log"
        job, pods = end_one(cluster, "default", log)
        api = ApiClient(cluster.kubeconfig)
        there = 1
        for wanted in arguments.ended:
            names = [f"job-{number}" for number in range(there, wanted)]
            with ThreadPoolExecutor(CREATORS) as pool:
                list(pool.map(lambda name: copy_ended(api, job, pods, name), names))
            there = wanted
            for source in sources:
                with OperatorProcess(
                    cluster.kubeconfig, log, "--log-level", "info", source=source
                ) as operator:
                    time.sleep(SETTLE_SECONDS)
                    alone = measure(operator, arguments.seconds, scrape=False)
                    read = measure(operator, arguments.seconds, scrape=True)
                    for verb in ("patch", "delete"):
                        assert not operator.metric("api_requests_total", verb=verb)
                    row = f"| {source} | {wanted} | {alone:.2f} | {read:.2f} |"
                    rows.append(f"{row} {operator.rss_mib():.0f} |")
                    to_stderr(rows[-1])
    print("\n".join(rows))


if __name__ == "__main__":
    main()
