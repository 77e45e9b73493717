"""The pods of a cluster without a cluster: what the API server would serve of each, and the
launcher in it.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime

import reports
from inception_operator.contract import assignment
from inception_operator.contract.names import ANNOTATION_ASSIGNMENT, ReportState
from inception_operator.contract.times import format_time
from inception_operator.contract.types import Assignment, Json, Report

START = datetime(2026, 1, 1, tzinfo=UTC)
UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "no node fits",
}


@dataclass
class Pod:
    """A pod and its launcher."""

    raw: Json
    ip: str
    phase: str = "Pending"
    ready: bool = False
    ready_changed: datetime = START
    conditions: list[Json] = field(default_factory=list)
    reason: str | None = None
    message: str = ""
    exit_code: int | None = None
    terminated_reason: str | None = None
    last_word: Report | None = None
    deletion_deadline: datetime | None = None
    grace: int = 0
    report: Report = field(default_factory=lambda: Report(0, ReportState.STARTING))
    accepted: Assignment | None = None
    reachable: bool = True
    stuck: bool = False
    held: bool = False
    placed: bool = True
    lost: bool = False
    broken: bool = False

    @property
    def name(self) -> str:
        return str(self.raw["metadata"]["name"])

    @property
    def uid(self) -> str:
        return str(self.raw["metadata"]["uid"])

    @property
    def slot(self) -> int:
        return int(self.name.rsplit("-", 2)[1])

    @property
    def incarnation(self) -> int:
        return int(self.name.rsplit("-", 2)[2])

    @property
    def node(self) -> str:
        return f"node-{self.slot}-{self.incarnation}"

    @property
    def over(self) -> bool:
        return self.phase in ("Succeeded", "Failed")

    @property
    def training(self) -> bool:
        return self.phase == "Running" and self.report.state == ReportState.RUNNING

    @property
    def assigned(self) -> Assignment | None:
        return assignment.from_json(
            self.raw["metadata"].get("annotations", {}).get(ANNOTATION_ASSIGNMENT)
        )

    @property
    def squatting(self) -> bool:
        """Somebody else made it under a name of ours."""
        return "managedFields" not in self.raw["metadata"]

    def tell(self, text: str | None) -> None:
        """Write the annotation with the assignment, as the operator does or somebody else."""
        annotations = self.raw["metadata"].setdefault("annotations", {})
        annotations.pop(ANNOTATION_ASSIGNMENT, None)
        if text is not None:
            annotations[ANNOTATION_ASSIGNMENT] = text

    def strip(self, key: str) -> None:
        """Somebody takes labels or owner away; without both nothing would say any more whose pod it
        is.
        """
        metadata = self.raw["metadata"]
        if all(metadata.get(part) for part in ("labels", "ownerReferences")):
            metadata[key] = type(metadata[key])()

    def to_api(self) -> Json:
        """The Pod as the API server would serve it."""
        pod = copy.deepcopy(self.raw)
        if self.deletion_deadline is not None:
            pod["metadata"]["deletionTimestamp"] = format_time(self.deletion_deadline)
            pod["metadata"]["deletionGracePeriodSeconds"] = self.grace
        if self.held:
            pod["metadata"]["finalizers"] = ["example.com/hold"]
        if self.placed:
            pod["spec"]["nodeName"] = self.node
        ready = {
            "type": "Ready",
            "status": "True" if self.ready else "False",
            "lastTransitionTime": format_time(self.ready_changed),
        }
        state: Json = (
            {"running": {}}
            if self.phase == "Running"
            else {"waiting": {"reason": "ContainerCreating"}}
        )
        if self.exit_code is not None:
            last = reports.to_json(self.last_word) if self.last_word else None
            terminated: Json = {
                "exitCode": self.exit_code,
                "reason": self.terminated_reason or "Error",
            }
            terminated["finishedAt"] = format_time(self.ready_changed)
            if last is not None:
                terminated["message"] = json.dumps(last)
            state = {"terminated": terminated}
        pod["status"] = {
            "phase": self.phase,
            "podIP": self.ip if self.phase != "Pending" else "",
            "conditions": [ready, *self.conditions, *([] if self.placed else [UNSCHEDULABLE])],
            "containerStatuses": [{"name": "trainer", "state": state}],
        }
        if self.broken:
            devices = [
                {"resourceID": "mlu-0", "health": "Healthy"},
                {"resourceID": "mlu-1", "health": "Unhealthy"},
            ]
            resource = {"name": "cambricon.com/mlu", "resources": devices}
            pod["status"]["containerStatuses"][0]["allocatedResourcesStatus"] = [resource]
        if self.reason:
            pod["status"] |= {"reason": self.reason, "message": self.message}
            pod["status"].pop("containerStatuses")
        return pod
