"""Operators that divide the jobs among them, as processes of this machine."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from typing_extensions import override

from inception_operator.contract import names
from inception_operator.contract.shard import MOST_SHARDS, Shard, shard_of
from localcluster.apiclient import ApiClient
from localcluster.cluster import Cluster
from replicas import LEASES, TAKE_OVER_SECONDS, Processes, Replica
from trainings import Trainings, wait_for


def make_leases(cluster: Cluster, lease: str, count: int) -> None:
    """The Leases of so many shards, as if their holders had just given them back."""
    assert count <= MOST_SHARDS
    api = ApiClient(cluster.kubeconfig)
    for name in (lease, *(f"{lease}-shard-{index}" for index in range(count))):
        spec = {"holderIdentity": "", "leaseDurationSeconds": 1, "leaseTransitions": 1}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
        api.request("POST", LEASES, {**body, "metadata": {"name": name}, "spec": spec})


class Shards(Processes):
    """All processes of one number of shards, one for each."""

    def __init__(self, cluster: Cluster, folder: Path, lease: str, count: int) -> None:
        self.count = count
        super().__init__(
            [
                Replica(
                    *(cluster.kubeconfig, folder, f"{index}-of-{count}", lease),
                    *("--shard", str(Shard(index, count))),
                )
                for index in range(count)
            ]
        )

    @override
    def start(self, stack: ExitStack) -> None:
        for replica in self.all:
            stack.callback(replica.__exit__, None, None, None)
        # Side by side: most of the time of a start is that of imports.
        with ThreadPoolExecutor(self.count) as pool:
            list(pool.map(lambda each: each.start(wait_for_work=False), self.all))

    def working(self) -> bool:
        """Whether every one of them leads its shard and works."""
        return all("INFO    working" in replica.log for replica in self.all)

    def wait_working(self, seconds: float = TAKE_OVER_SECONDS) -> None:
        """Wait until all of them work."""
        wait_for(f"{self.count} shards work", self.working, seconds)

    def owner(self, namespace: str, job: str) -> Replica:
        """The process that a job belongs to."""
        return self.all[shard_of((namespace, job), self.count)]

    def strangers(self, trainings: Trainings) -> list[str]:
        """Pods that another process has made than the one their job belongs to."""
        found = []
        for name, pod in trainings.pods().items():
            maker = pod["metadata"]["annotations"][names.ANNOTATION_CREATED_BY]
            owner = self.owner(trainings.namespace, pod["metadata"]["labels"][names.LABEL_JOB])
            if maker not in owner.identities():
                found.append(f"{name} by {maker}")
        return found

    def parts(self, trainings: Trainings) -> list[int]:
        """How many of the jobs that there are each of them has."""
        found = Counter(
            shard_of((trainings.namespace, job["metadata"]["name"]), self.count)
            for job in trainings.all()
        )
        return [found[index] for index in range(self.count)]
