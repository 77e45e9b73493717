"""How long a friendly job takes to start beside a tenant who is not: real API server, fake nodes.

    python benchmarks/hostile_neighbour.py --trials 10

The same jobs start alone and beside every resource of tests/support/hostile.py, in turns. Prints
a Markdown table: seconds from the creation of a job of two pods to Running, and memory.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [
    str(HERE.parent),
    str(HERE.parent / "operator"),
    str(HERE.parent / "tests" / "support"),
]

from hostile import RESOURCES  # noqa: E402
from inception_operator.contract import names  # noqa: E402
from localcluster.apiclient import ApiClient, ApiError  # noqa: E402
from localcluster.cluster import Cluster  # noqa: E402
from localcluster.model import ClusterSpec  # noqa: E402
from localcluster.progress import to_stderr  # noqa: E402
from operator_process import OperatorProcess  # noqa: E402
from trainings import Trainings, wait_for, wait_served  # noqa: E402

TENANTS = ("friendly", "hostile")


def submit(cluster: Cluster) -> int:
    """Create every hostile resource that the API server takes; returns how many those are."""
    api = ApiClient(cluster.kubeconfig)
    path = f"/apis/{names.API_VERSION}/namespaces/hostile/{names.PLURAL}"
    taken = 0
    for row in RESOURCES:
        with suppress(ApiError):
            api.content("POST", path, row.body)
            taken += 1
    return taken


def start(friendly: Trainings, name: str) -> float:
    """Seconds from the creation of a job until it runs."""
    started = time.monotonic()
    friendly.create(name)
    friendly.wait_state(name, "Running", seconds=60)
    seconds = time.monotonic() - started
    friendly.delete(name)
    wait_for("its pods are gone", lambda: not friendly.pods(name), seconds=60)
    return seconds


def measure(cluster: Cluster, log: Path, label: str, trials: int) -> str:
    """One operator, so many starts; a row of the table."""
    friendly = Trainings(cluster, "friendly")
    with OperatorProcess(cluster.kubeconfig, log, "--log-level", "info") as operator:
        time.sleep(5)
        seconds = sorted(start(friendly, f"{label}-{number}") for number in range(trials))
        most, middle = max(seconds), statistics.median(seconds)
        return f"| {label} | {middle:.2f} | {most:.2f} | {operator.rss_mib():.0f} MiB |"


def main() -> None:
    """Measure alone and beside the others, by turns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    rows = []
    spec = ClusterSpec(f"hostile-{os.getpid()}", flavour="control-plane", kwok_nodes=10)
    with Cluster.up(spec, to_stderr) as cluster, tempfile.TemporaryDirectory() as folder:
        cluster.kubectl(
            "apply", "--server-side", f"--filename={HERE.parent / 'manifests' / 'crd.yaml'}"
        )
        wait_served(cluster)
        for tenant in TENANTS:
            cluster.kubectl("create", "namespace", tenant)
        for number in range(options.rounds):
            rows.append(measure(cluster, Path(folder, "log"), f"alone-{number}", options.trials))
            taken = submit(cluster)
            label = f"beside-{taken}-hostile-{number}"
            rows.append(measure(cluster, Path(folder, "log"), label, options.trials))
            with Trainings(cluster, "hostile"):
                pass  # The end of the block deletes them all.
    print("| state | p50, s | max, s | memory |\n|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
