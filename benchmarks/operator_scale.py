"""How the operator copes with many trainings at once: real control plane, fake nodes, pods that
nobody can reach.

Prints a Markdown table: time until all pods exist and until all trainings run, memory, requests per
training. `python benchmarks/operator_scale.py --jobs 200 1000`
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [
    str(HERE.parent),
    str(HERE.parent / "operator"),
    str(HERE.parent / "tests" / "support"),
]

from localcluster.apiclient import ApiClient  # noqa: E402
from localcluster.cluster import Cluster  # noqa: E402
from localcluster.model import ClusterSpec  # noqa: E402
from localcluster.progress import to_stderr  # noqa: E402
from operator_process import OperatorProcess  # noqa: E402
from trainings import Trainings, training, wait_for, wait_served  # noqa: E402

NODES = 10
PODS_PER_JOB = 2
CREATORS = 4
KINDS = {
    "status patches": {"verb": "patch", "resource": "inceptiontrainings"},
    "pods created": {"verb": "create", "resource": "pods"},
    "assignments": {"verb": "patch", "resource": "pods"},
    "events": {"verb": "create", "resource": "events"},
}


@dataclass(frozen=True)
class Result:
    """Figures of one run; seconds count from the first training's creation."""

    jobs: int
    submitted: float
    pods: float
    running: float
    idle_rss: float
    rss: float
    settled_rss: float
    cpu: float
    writes: float
    each: dict[str, float]
    duplicates: int


def measure(cluster: Cluster, jobs: int, log: Path) -> Result:
    """One run with a fresh operator in a fresh namespace."""
    namespace = f"scale-{jobs}-{os.getpid()}"
    cluster.kubectl("create", "namespace", namespace)
    cluster.kubectl(
        "wait",
        "--for=create",
        "--timeout=30s",
        f"--namespace={namespace}",
        "serviceaccount/default",
    )
    trainings = Trainings(cluster, namespace)
    with OperatorProcess(cluster.kubeconfig, log, "--log-level", "info") as operator:
        time.sleep(2)
        idle = operator.rss_mib()
        started = time.monotonic()
        submit(cluster, namespace, jobs)
        submitted = time.monotonic() - started
        made = timed(
            started,
            lambda: (
                operator.metric("api_requests_total", **KINDS["pods created"])
                >= jobs * PODS_PER_JOB
            ),
        )
        running = timed(started, lambda: operator.metric("job_state", state="Running") >= jobs)
        busy, cpu = operator.rss_mib(), cpu_seconds(operator.pid)
        time.sleep(15)
        pods = trainings.pods()
        result = Result(
            jobs=jobs,
            submitted=submitted,
            pods=made,
            running=running,
            idle_rss=idle,
            rss=busy,
            settled_rss=operator.rss_mib(),
            cpu=cpu,
            writes=operator.writes() / jobs,
            each={
                name: operator.metric("api_requests_total", **labels) / jobs
                for name, labels in KINDS.items()
            },
            duplicates=len(pods) - jobs * PODS_PER_JOB,
        )
    # What is left would be worked on, and counted, in the next run.
    cluster.kubectl("delete", "itrain", "--all", f"--namespace={namespace}")
    cluster.kubectl("delete", "namespace", namespace, "--wait=false")
    return result


def submit(cluster: Cluster, namespace: str, jobs: int) -> None:
    """Create all trainings, a few at a time as several users would."""
    api = ApiClient(cluster.kubeconfig)
    path = f"/apis/training.inception.dev/v1alpha1/namespaces/{namespace}/inceptiontrainings"

    def create(number: int) -> None:
        api.request("POST", path, training(f"job-{number}", nodes=PODS_PER_JOB))

    with ThreadPoolExecutor(CREATORS) as pool:
        list(pool.map(create, range(jobs)))


def timed(started: float, look: Callable[[], bool]) -> float:
    """Seconds until it is true."""
    wait_for("the operator to get there", look, seconds=600, pause=0.2)
    return time.monotonic() - started


def cpu_seconds(pid: int) -> float:
    """Processor time used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def table(results: Sequence[Result]) -> str:
    """The figures as Markdown."""
    rows: list[tuple[str, Callable[[Result], str]]] = [
        ("trainings of 2 pods", lambda r: str(r.jobs)),
        ("all submitted after", lambda r: f"{r.submitted:.1f} s"),
        ("all pods created after", lambda r: f"{r.pods:.1f} s"),
        ("all trainings Running after", lambda r: f"{r.running:.1f} s"),
        (
            "memory before / then / 15 s later",
            lambda r: f"{r.idle_rss:.0f} / {r.rss:.0f} / {r.settled_rss:.0f} MiB",
        ),
        ("processor time of the operator", lambda r: f"{r.cpu:.1f} s"),
        ("writes per training", lambda r: f"{r.writes:.2f}"),
        *((f"– {name}", lambda r, name=name: f"{r.each[name]:.2f}") for name in KINDS),
        ("pods too many", lambda r: str(r.duplicates)),
    ]
    lines = [[name, *(show(result) for result in results)] for name, show in rows]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Start a control plane, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--jobs", type=int, nargs="+", default=[200], help="numbers of trainings, one run each"
    )
    arguments = parser.parse_args()
    spec = ClusterSpec(f"scale-{os.getpid()}", flavour="control-plane", kwok_nodes=NODES)
    with Cluster.up(spec, to_stderr) as cluster, tempfile.TemporaryDirectory() as folder:
        crd = HERE.parent / "manifests" / "crd.yaml"
        cluster.kubectl("apply", "--server-side", f"--filename={crd}")
        wait_served(cluster)
        results = [measure(cluster, jobs, Path(folder) / f"{jobs}.log") for jobs in arguments.jobs]
    print(table(results))


if __name__ == "__main__":
    main()
