"""Two operators with one Lease, and what can happen to the one that leads."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from typing_extensions import override

from inception_operator.contract import names
from inception_operator.runtime.settings import Settings
from localcluster.apiclient import ApiClient
from localcluster.cluster import Cluster
from localcluster.kwok import FAIL_AFTER
from operator_process import OperatorProcess
from recording_proxy import RecordingProxy
from trainings import Trainings, wait_for

LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
TAKE_OVER_SECONDS = 180.0
FAILS_EACH = 5
"""Every fifth job fails, is restarted twice and fails for good."""
CREATORS = 4
_LEADING = re.compile(r"leading as (\S+)")


class Replica(OperatorProcess):
    """One process of several; all its requests go through a proxy of its own."""

    def __init__(
        self, kubeconfig: Path, folder: Path, name: str, lease: str, *arguments: str
    ) -> None:
        folder = folder / name
        folder.mkdir()
        self.proxy = RecordingProxy(kubeconfig, folder)
        options = ("--log-level", "info", *arguments)
        super().__init__(self.proxy.kubeconfig, folder / "log", *options, lease=lease)

    def identities(self) -> list[str]:
        """The names under which it has led."""
        return _LEADING.findall(self.log)


class Processes(ABC):
    """Several of them, each with its proxy; a context manager that ends them."""

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self.all = list(replicas)
        self._stack = ExitStack()

    @abstractmethod
    def start(self, stack: ExitStack) -> None:
        """Start all of them; the stack ends them."""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for replica in self.all:
                stack.enter_context(replica.proxy)
            self.start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()


class Replicas(Processes):
    """Both of them; the first leads from the start."""

    def __init__(self, cluster: Cluster, folder: Path, lease: str) -> None:
        super().__init__(
            [Replica(cluster.kubeconfig, folder, name, lease) for name in ("one", "two")]
        )
        self._lease = lease
        self._api = ApiClient(cluster.kubeconfig)

    @override
    def start(self, stack: ExitStack) -> None:
        first, second = self.all
        stack.enter_context(first)
        stack.enter_context(second.standing_by())

    def holder(self) -> str:
        """Who has the Lease."""
        lease = self._api.request("GET", f"{LEASES}/{self._lease}")
        return str(lease["spec"]["holderIdentity"])

    def leader_and_other(self) -> tuple[Replica, Replica]:
        """The one that has the Lease, and the other."""

        def look() -> tuple[Replica, Replica] | None:
            holder = self.holder()
            first, second = self.all
            if holder in first.identities():
                return first, second
            return (second, first) if holder in second.identities() else None

        return wait_for("somebody leads", look, TAKE_OVER_SECONDS)

    def kill(self) -> float:
        """SIGKILL; answers after how many seconds the other one has changed something."""
        leader, other = self.leader_and_other()
        moment = time.monotonic()
        leader.kill()
        seconds = self._taken_over(other, moment)
        leader.start(wait_for_work=False)
        return seconds

    def drain(self) -> float:
        """SIGTERM, which ends it cleanly."""
        leader, other = self.leader_and_other()
        moment = time.monotonic()
        assert leader.stop() == 0
        seconds = self._taken_over(other, moment)
        leader.start(wait_for_work=False)
        return seconds

    def freeze(self) -> float:
        """SIGSTOP until the other one works; then it goes on, finds out, and says nothing more."""
        leader, other = self.leader_and_other()
        moment = time.monotonic()
        os.kill(leader.pid, signal.SIGSTOP)
        seconds = self._taken_over(other, moment)
        thawed = time.monotonic()
        os.kill(leader.pid, signal.SIGCONT)
        self.ended_in_silence(leader, thawed)
        return seconds

    def cut_off(self, *, keeps: bool = False) -> float:
        """Nothing it sends arrives until the other one works, by which time it has ended; with
        ``keeps`` all of it arrives then, from a proxy on the way.
        """
        leader, other = self.leader_and_other()
        moment = time.monotonic()
        with leader.proxy.cut(keeps=keeps):
            seconds = self._taken_over(other, moment)
            # Its last renewal was before the cut: by then it must have given up, a third of the
            # Lease's duration before the other one may begin.
            self.ended_in_silence(leader, moment + Settings.lease_renew_deadline, restart=False)
        if keeps:
            wait_for("what was held arrives", lambda: not self.held(leader, moment, open_ones=True))
        leader.start(wait_for_work=False)
        return seconds

    @staticmethod
    def held(replica: Replica, since: float, *, open_ones: bool = False) -> list[str]:
        """Writes that a cut held back and that arrived late; or those that are still held."""
        return [
            f"{write.method} {write.path}: {write.status}"
            for write in replica.proxy.after(since)
            if (write.status is None if open_ones else write.held)
        ]

    def _taken_over(self, other: Replica, moment: float) -> float:
        def look() -> float | None:
            changes = other.proxy.changes(moment)
            return changes[0].arrived - moment if changes else None

        return wait_for("the other one works", look, TAKE_OVER_SECONDS)

    @staticmethod
    def ended_in_silence(leader: Replica, moment: float, *, restart: bool = True) -> None:
        """A leader has ended for its Lease, and has sent no write from then on."""
        assert leader.wait(60) == 1, leader.log
        assert "LeadershipLostError" in leader.log
        said = leader.proxy.after(moment)
        assert not said, f"sent although its Lease was over: {said}"
        if restart:
            leader.start(wait_for_work=False)


class PodLedger:
    """Sees every pod of a namespace that is ever made: which names, and how many for one slot."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._api = ApiClient(cluster.kubeconfig)
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self._thread = threading.Thread(target=self._watch, name="pod-ledger", daemon=True)
        self._live: dict[tuple[str, str], set[str]] = defaultdict(set)
        self.uids: dict[str, set[str]] = defaultdict(set)
        self.twice: list[str] = []
        self.gap = ""

    def start(self) -> None:
        """Look from now on; the thread ends with the process."""
        self._thread.start()

    def names(self, job: str) -> list[str]:
        """All pods that a job has ever had."""
        return sorted(name for name in list(self.uids) if name.rsplit("-", 2)[0] == job)

    def _watch(self) -> None:
        try:
            while True:
                for event in self._api.watch(self._path, 3600):
                    self.note(event["type"], event["object"])
        except (OSError, HTTPException, ValueError) as error:
            # The end of the cluster; any other one is a gap, which `Starts.mistakes` tells of.
            self.gap = f"the pods are not watched any more: {error!r}"

    def note(self, kind: str, pod: dict[str, Any]) -> None:
        """One event of the watch."""
        metadata = pod["metadata"]
        name, uid = metadata["name"], metadata["uid"]
        labels = metadata.get("labels") or {}
        place = (labels.get(names.LABEL_JOB, ""), labels.get(names.LABEL_SLOT, ""))
        self.uids[name].add(uid)
        if len(self.uids[name]) > 1:
            self.twice.append(f"{name}: made twice")
        over = pod["status"].get("phase") in ("Failed", "Succeeded")
        if kind == "DELETED" or over or metadata.get("deletionTimestamp"):
            self._live[place].discard(name)
            return
        self._live[place].add(name)
        if len(self._live[place]) > 1:
            self.twice.append(f"{place}: {sorted(self._live[place])} at once")


class Starts:
    """Jobs that are started together; of each it is known which pods and counters it must get."""

    def __init__(
        self,
        trainings: Trainings,
        ledger: PodLedger,
        prefix: str,
        number: int,
        *,
        some_fail: bool = True,
    ) -> None:
        self._trainings = trainings
        self._ledger = ledger
        self._names = [f"{prefix}-{index}" for index in range(number)]
        self._failing = set(self._names[::FAILS_EACH]) if some_fail else set()

    def create(self) -> None:
        """Create all of them, a few at a time as several users would."""
        with ThreadPoolExecutor(CREATORS) as pool:
            list(pool.map(self._create, self._names))

    def _create(self, name: str) -> None:
        if name in self._failing:
            fails = {FAIL_AFTER: "1500ms"}
            policy = {"maxRestarts": 2}
            self._trainings.create(name, nodes=1, annotations=fails, failurePolicy=policy)
        else:
            self._trainings.create(name, nodes=2)

    def wait(self, seconds: float = 300.0) -> None:
        """Wait until every one of them is where it must get."""
        wait_for("all jobs are where they must be", self._arrived, seconds, pause=0.5)

    def mistakes(self) -> list[str]:
        """What is not as it must be: counters of the status, and pods that were ever made."""
        found: list[str] = []
        for name, status in self._statuses().items():
            attempts = 3 if name in self._failing else 1
            seen = [status.get(k) for k in ("attempt", "restarts", "restartsCountTowardsMax")]
            if seen != [attempts, attempts - 1, attempts - 1]:
                found.append(f"{name}: attempt, restarts and those that count are {seen}")
            slots = (0,) if name in self._failing else (0, 1)
            pods = sorted(f"{name}-{slot}-{n + 1}" for slot in slots for n in range(attempts))
            if self._ledger.names(name) != pods:
                found.append(f"{name}: pods {self._ledger.names(name)} in place of {pods}")
        return [*found, *self._ledger.twice, *filter(None, [self._ledger.gap])]

    def delete(self) -> None:
        """Remove them, so that the next ones start alone."""
        with ThreadPoolExecutor(CREATORS) as pool:
            list(pool.map(self._trainings.delete, self._names))
        wait_for("their pods are gone", lambda: not self._trainings.pods(), 120.0, pause=0.5)

    def _statuses(self) -> dict[str, dict[str, Any]]:
        statuses = {
            job["metadata"]["name"]: job.get("status") or {} for job in self._trainings.all()
        }
        return {name: statuses.get(name, {}) for name in self._names}

    def _arrived(self) -> bool:
        return all(
            status.get("state") == ("Failed" if name in self._failing else "Running")
            for name, status in self._statuses().items()
        )
