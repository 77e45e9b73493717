"""What the API server tells of one job, with the moments on this machine's clock: troubles of its
pods, its attempts, and their assignments.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

ASSIGNMENT = "training.inception.dev/assignment"
JOB = "training.inception.dev/job"


@dataclass
class Attempt:
    """One attempt of the job, as far as it has been told."""

    decided: float
    """The job's status has its number."""
    members: dict[str, int] = field(default_factory=dict)
    """Node ranks by pod, of those that have been assigned theirs."""
    nodes: int = 0
    """How many there will be, 0 before the first is assigned."""
    assigned: float | None = None
    """All members have their assignment."""


class JobEvents:
    """Fed by watches of pods and jobs, which may tell of others too."""

    def __init__(self, job: str) -> None:
        self.job = job
        self.status: dict[str, Any] = {}
        """The newest status."""
        self.attempts: dict[int, Attempt] = {}
        self.ready: dict[str, bool] = {}
        """The pods that are there, and whether they are ready."""
        self.troubles: list[tuple[float, str]] = []
        """When a ready pod was no longer ready, was to be deleted or was gone; and its name."""

    @property
    def attempt(self) -> int:
        """The newest attempt that was decided on."""
        return max(self.attempts, default=0)

    def see_job(self, event: dict[str, Any], moment: float) -> None:
        """Note what a status says."""
        if event["object"]["metadata"]["name"] != self.job or event["type"] == "DELETED":
            return
        self.status = event["object"].get("status") or {}
        number = int(self.status.get("attempt") or 0)
        if number:
            self.attempts.setdefault(number, Attempt(moment))

    def see_pod(self, event: dict[str, Any], moment: float) -> None:
        """Note how a pod is and what it was assigned."""
        pod = event["object"]
        if pod["metadata"].get("labels", {}).get(JOB) != self.job:
            return
        name = str(pod["metadata"]["name"])
        if event["type"] == "DELETED":
            self._note_trouble(name, moment)
            self.ready.pop(name, None)
            return
        conditions = {item["type"]: item["status"] for item in pod["status"].get("conditions", ())}
        ready = conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]
        if not ready:
            self._note_trouble(name, moment)
        self.ready[name] = ready
        annotations = pod["metadata"].get("annotations", {})
        self._see_assignment(name, json.loads(annotations.get(ASSIGNMENT, "{}")), moment)

    def detected(self, after: float, attempt: int) -> float | None:
        """The first sign of trouble after a moment: a pod's, or that an attempt was decided on."""
        signs = [moment for moment, _ in self.troubles if moment >= after]
        if attempt in self.attempts:
            signs.append(self.attempts[attempt].decided)
        return min(signs, default=None)

    def condition(self, kind: str) -> bool:
        """Whether a condition of the job is True."""
        conditions = self.status.get("conditions", ())
        return any(item["type"] == kind and item["status"] == "True" for item in conditions)

    def _note_trouble(self, pod: str, moment: float) -> None:
        if self.ready.get(pod):
            self.troubles.append((moment, pod))

    def _see_assignment(self, pod: str, assignment: dict[str, Any], moment: float) -> None:
        # A standby has an attempt, but no ranks.
        if not assignment.get("nnodes"):
            return
        # The watch of the job may be behind that of the pods.
        attempt = self.attempts.setdefault(int(assignment["attempt"]), Attempt(moment))
        attempt.nodes = int(assignment["nnodes"])
        attempt.members.setdefault(pod, int(assignment["nodeRank"]))
        if attempt.assigned is None and len(attempt.members) == attempt.nodes:
            attempt.assigned = moment
