"""What the operator costs with many jobs: real control plane, fake nodes, pods that nobody can
reach.

`python benchmarks/operator_scale.py` runs all rows and prints a Markdown table beside the goals:

- jobs from their creation to their end, ``--rows 500x2 1000x1 1000x2``: 500 jobs of 2 pods first;
- a start beside jobs that have ended, ``--ended 10000``;
- jobs that come and go, ``--churn 300`` seconds at ``--rate 5`` a second.

Processor time and memory are those of the processes, from /proc: of the operator, the API server
and etcd. 0 leaves a row out. ``--source`` measures the operator of another checkout beside this
one, in turns, and ``--peer`` another operator, whose kinds are in ``--peer-crds`` and one of whose
jobs is ``--peer-job``, with NAME and PODS where these belong.
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
sys.path[:0] = [
    str(HERE.parent),
    str(HERE.parent / "operator"),
    str(HERE.parent / "tests" / "support"),
]

from operator_idle import copy_ended, end_one  # noqa: E402
from operator_load import (  # noqa: E402
    CREATORS,
    Contestant,
    Ours,
    Peer,
    churn,
    component_pids,
    cpu_seconds,
    end_pods,
    make_namespace,
    peak_mib,
    submit,
    timed,
)

from localcluster.apiclient import ApiClient, ApiError  # noqa: E402
from localcluster.cluster import Cluster  # noqa: E402
from localcluster.model import ClusterSpec  # noqa: E402
from localcluster.progress import to_stderr  # noqa: E402
from trainings import Trainings, wait_for, wait_served  # noqa: E402

NODES = 10
QUIET_SECONDS = 3.0
KINDS = {
    "status patches": {"verb": "patch", "resource": "inceptiontrainings"},
    "pods created": {"verb": "create", "resource": "pods"},
    "assignments": {"verb": "patch", "resource": "pods"},
    "events": {"verb": "create", "resource": "events"},
}
GOALS = {
    "operator, ms a job": "12 for 2 pods",
    "peak, MiB": "90 with 500 jobs",
    "duplicate pods": "0",
}
_numbers = count()


@dataclass
class Row:
    """One contestant in one row: what it was about, and its figures by name."""

    what: str
    who: str
    figures: dict[str, float] = field(default_factory=dict)


class Meter:
    """Processor time of the operator, the API server and etcd since it was made."""

    def __init__(self, cluster: Cluster, operator: int) -> None:
        self._pids = {"operator": operator, **component_pids(cluster)}
        self._before = {name: cpu_seconds(pid) for name, pid in self._pids.items()}

    def figures(self, jobs: float) -> dict[str, float]:
        """Milliseconds a job of each, and the operator's peak of memory."""
        used = {name: cpu_seconds(pid) - self._before[name] for name, pid in self._pids.items()}
        each = {f"{name}, ms a job": 1000 * spent / jobs for name, spent in used.items()}
        return {**each, "peak, MiB": peak_mib(self._pids["operator"])}


def run_jobs(cluster: Cluster, contestant: Contestant, jobs: int, pods: int) -> dict[str, float]:
    """Jobs from their creation to their end."""
    api = ApiClient(cluster.kubeconfig)
    with _namespace(cluster, contestant) as namespace, contestant.running() as pid:
        time.sleep(QUIET_SECONDS)
        meter, started = Meter(cluster, pid), time.monotonic()
        bodies = [contestant.job(f"job-{number}", pods) for number in range(jobs)]
        submit(api, contestant.path(namespace), bodies)
        submitted = time.monotonic() - started
        running = timed("the jobs run", started, lambda: contestant.at_work(namespace, jobs, pods))
        found = len(Trainings(cluster, namespace).pods())
        end_pods(api, namespace)
        ended = timed("the jobs end", started, lambda: contestant.is_done(namespace, jobs))
        time.sleep(QUIET_SECONDS)
        return {
            **meter.figures(jobs),
            "submitted, s": submitted,
            "running, s": running,
            "ended, s": ended,
            **_requests(contestant, jobs),
            "duplicate pods": found - jobs * pods,
        }


def _requests(contestant: Contestant, jobs: int) -> dict[str, float]:
    if isinstance(contestant, Peer):
        return {}
    process = contestant.process
    each = {name: process.metric("api_requests_total", **KINDS[name]) / jobs for name in KINDS}
    passes = process.metric("reconcile_total") / jobs
    return {"writes a job": process.writes() / jobs, **each, "passes a job": passes}


def start_beside_ended(cluster: Cluster, contestant: Ours) -> dict[str, float]:
    """From the start of the process to work, with all jobs that there are; they have ended."""
    began = time.monotonic()
    with contestant.running() as pid:
        working = time.monotonic() - began
        listed = len(Trainings(cluster, "default").all())
        timed("all are seen", began, lambda: contestant.is_done("default", listed))
        seen, spent = time.monotonic() - began, cpu_seconds(pid)
        return {
            "working, s": working,
            "all seen, s": seen,
            "operator, s": spent,
            "peak, MiB": peak_mib(pid),
        }


def fill(cluster: Cluster, ended: int, log: Path) -> None:
    """So many jobs of two pods that have ended, in the namespace default."""
    job, pods = end_one(cluster, "default", log)
    api = ApiClient(cluster.kubeconfig)
    names = [f"job-{number}" for number in range(1, ended)]
    with ThreadPoolExecutor(CREATORS) as pool:
        list(pool.map(lambda name: copy_ended(api, job, pods, name), names))


def run_churn(
    cluster: Cluster, contestant: Contestant, rate: float, seconds: float
) -> dict[str, float]:
    """Jobs that come and go, and how long each waited for its pods."""
    api = ApiClient(cluster.kubeconfig)
    with _namespace(cluster, contestant) as namespace, contestant.running() as pid:
        time.sleep(QUIET_SECONDS)
        meter = Meter(cluster, pid)
        waits = churn(api, contestant, namespace, rate=rate, seconds=seconds)
        return {
            **meter.figures(len(waits)),
            "creation to pods p50, ms": 1000 * statistics.median(waits),
            "creation to pods p99, ms": 1000 * sorted(waits)[int(0.99 * len(waits))],
        }


class _namespace:  # noqa: N801 - used as a function
    """A namespace for one row; what is left of it would be worked on, and counted, in the next."""

    def __init__(self, cluster: Cluster, contestant: Contestant) -> None:
        self._cluster = cluster
        self._contestant = contestant
        self._name = f"scale-{next(_numbers)}-{os.getpid()}"

    def __enter__(self) -> str:
        make_namespace(self._cluster, self._name)
        return self._name

    def __exit__(self, *_: object) -> None:
        api = ApiClient(self._cluster.kubeconfig)
        for path in (self._contestant.path(self._name), f"/api/v1/namespaces/{self._name}/pods"):
            api.content("DELETE", f"{path}?gracePeriodSeconds=0")
        pods = Trainings(self._cluster, self._name)
        wait_for("the pods are gone", lambda: not pods.pods(), seconds=300, pause=0.5)
        self._cluster.kubectl("delete", "namespace", self._name, "--wait=false")


def table(rows: Sequence[Row]) -> str:
    """The figures as Markdown: a line for each figure, a column for each row, the goals last."""
    names = list(dict.fromkeys(name for row in rows for name in row.figures))
    lines = [
        ["", *(f"{row.what}, {row.who}" for row in rows), "goal"],
        ["---"] * (len(rows) + 2),
        *(
            [name, *(_shown(row.figures.get(name)) for row in rows), GOALS.get(name, "")]
            for name in names
        ),
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _shown(figure: float | None) -> str:
    if figure is None:
        return ""
    return f"{figure:.0f}" if figure == int(figure) or figure >= 100 else f"{figure:.1f}"


def race(
    cluster: Cluster, arguments: argparse.Namespace, contestants: Sequence[Contestant], log: Path
) -> Iterator[Row]:
    """All rows, each with the contestants one after the other."""
    for jobs, pods in arguments.rows:
        for contestant in contestants:
            figures = run_jobs(cluster, contestant, jobs, pods)
            yield Row(f"{jobs} jobs of {pods}", contestant.name, figures)
    if arguments.churn:
        for contestant in contestants:
            figures = run_churn(cluster, contestant, arguments.rate, arguments.churn)
            yield Row(f"{arguments.rate:g} jobs/s come and go", contestant.name, figures)
    # Last, because these jobs stay.
    if arguments.ended:
        fill(cluster, arguments.ended, log)
        for contestant in contestants:
            if isinstance(contestant, Ours):
                figures = start_beside_ended(cluster, contestant)
                yield Row(f"start beside {arguments.ended}", contestant.name, figures)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rows",
        type=_row,
        nargs="*",
        default=[(500, 2), (1000, 1), (1000, 2)],
        metavar="JOBSxPODS",
    )
    parser.add_argument("--ended", type=int, default=10_000, help="jobs that have ended; 0: no row")
    parser.add_argument("--churn", type=float, default=300, help="seconds; 0: no row")
    parser.add_argument("--rate", type=float, default=5, help="jobs a second of the churn")
    parser.add_argument(
        "--source",
        type=Path,
        action="append",
        help="operator/ folder of a checkout; may be repeated",
    )
    parser.add_argument(
        "--profile", type=Path, help="file for the shares of the operator's parts, of its last row"
    )
    parser.add_argument("--peer", help="command of another operator; --kubeconfig is appended")
    parser.add_argument("--peer-crds", type=Path, help="manifest of its kinds and what it needs")
    parser.add_argument("--peer-job", type=Path, help="manifest of one of its jobs")
    arguments = parser.parse_args()
    if arguments.peer and not (arguments.peer_crds and arguments.peer_job):
        parser.error("--peer needs --peer-crds and --peer-job")
    return arguments


def _row(text: str) -> tuple[int, int]:
    try:
        jobs, pods = (int(part) for part in text.split("x"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: expected JOBSxPODS, as 500x2") from error
    if min(jobs, pods) < 1:
        raise argparse.ArgumentTypeError(f"{text}: at least 1 of both")
    return jobs, pods


def line_up(cluster: Cluster, arguments: argparse.Namespace, folder: Path) -> list[Contestant]:
    """Who takes part."""
    sources = arguments.source or [HERE.parent / "operator"]
    found: list[Contestant] = [
        Ours(cluster, folder / f"{number}.log", source, arguments.profile)
        for number, source in enumerate(sources)
    ]
    if arguments.peer:
        cluster.kubectl("apply", "--server-side", f"--filename={arguments.peer_crds}")
        job = yaml.safe_load(arguments.peer_job.read_text())
        command = shlex.split(arguments.peer)
        make: Callable[[], Peer] = lambda: Peer(cluster, folder / "peer.log", command, job)  # noqa: E731
        found.append(wait_for("the peer's kind is served", lambda: _served(make)))
    return found


def _served(make: Callable[[], Peer]) -> Peer | None:
    try:
        return make()
    except (KeyError, ApiError):
        return None


def main() -> None:
    """Start a control plane, race, print."""
    arguments = parse()
    spec = ClusterSpec(f"scale-{os.getpid()}", flavour="control-plane", kwok_nodes=NODES)
    rows: list[Row] = []
    with Cluster.up(spec, to_stderr) as cluster, tempfile.TemporaryDirectory() as folder:
        crd = HERE.parent / "manifests" / "crd.yaml"
        cluster.kubectl("apply", "--server-side", f"--filename={crd}")
        wait_served(cluster)
        contestants = line_up(cluster, arguments, Path(folder))
        for row in race(cluster, arguments, contestants, Path(folder) / "fill.log"):
            rows.append(row)
            to_stderr(f"{row.what}, {row.who}: {row.figures}")
    print(table(rows))


if __name__ == "__main__":
    main()
