"""What the cluster did to a pod, told from what it writes into the pod: one table.

Exit codes and reports of a pod that was evicted, preempted or refused only echo that. Most of it is
nothing that the program did. A pod that used more of something than its own spec allows is not: the
kubelet evicts it too, under the same reason as for a node that is full, and only the words differ.
What is in no table here is left to the exit code, and counts.
"""

from __future__ import annotations

import re
from typing import Final

from inception_operator.contract.names import Cause
from inception_operator.contract.types import PodView

# status.reason, which the kubelet, its node shutdown manager and the node controller write.
CAUSE_OF_POD_REASON: Final = {
    "Evicted": Cause.EVICTED,
    "Preempting": Cause.EVICTED,
    "Terminated": Cause.EVICTED,
    "Shutdown": Cause.EVICTED,
    "NodeShutdown": Cause.EVICTED,
    "NodeLost": Cause.NODE_LOST,
    # activeDeadlineSeconds of the template's own pod spec.
    "DeadlineExceeded": Cause.LIMIT_EXCEEDED,
    # The kubelet found its node other than the scheduler had; on another one the pod may run.
    "UnexpectedAdmissionError": Cause.ADMISSION_ERROR,
    "UnexpectedPredicateFailureType": Cause.ADMISSION_ERROR,
    "InvalidNodeInfo": Cause.ADMISSION_ERROR,
    "TopologyAffinityError": Cause.ADMISSION_ERROR,
    "EmptyPodSharedPoolError": Cause.ADMISSION_ERROR,
    "NodeAffinity": Cause.ADMISSION_ERROR,
    "NodeName": Cause.ADMISSION_ERROR,
    "NodePorts": Cause.ADMISSION_ERROR,
    "TaintToleration": Cause.ADMISSION_ERROR,
    "VolumeAttachmentLimitExceeded": Cause.ADMISSION_ERROR,
    # What the template asks for and no node of this kind will ever give (SysctlForbidden, AppArmor,
    # PodOSNotSupported, SMTAlignmentError and others) is left out on purpose: it counts.
}
# OutOfcpu, OutOfmemory, OutOfnvidia.com/gpu: the kubelet found its node full.
_FULL: Final = "OutOf"
# Reason of the condition DisruptionTarget. Controllers may have reasons of their own: whatever is
# not listed here is an eviction.
CAUSE_OF_DISRUPTION: Final = {
    # A controller of the cluster takes the pod away.
    "PreemptionByScheduler": Cause.EVICTED,
    "EvictionByEvictionAPI": Cause.EVICTED,
    "DeletionByDeviceTaintManager": Cause.EVICTED,
    # The node is gone: its kubelet does not report any more, or it was removed.
    "DeletionByTaintManager": Cause.NODE_LOST,
    "DeletionByPodGC": Cause.NODE_LOST,
    # The node runs out of something, shuts down, or makes room for a pod that it cannot do without.
    "TerminationByKubelet": Cause.EVICTED,
}
CAUSE_OF_CONTAINER_REASON: Final = {
    "OOMKilled": Cause.OOM_KILLED,
    "ContainerStatusUnknown": Cause.NODE_LOST,
    "ContainerCannotRun": Cause.CANNOT_RUN,
    "StartError": Cause.CANNOT_RUN,
}
NODE_GONE: Final = frozenset(
    reason for reason, cause in CAUSE_OF_DISRUPTION.items() if cause == Cause.NODE_LOST
)
"""Disruptions after which nobody on the node can be waited for."""
# The kubelet's words for a pod or container that has used more than its own limit of ephemeral
# storage, or an emptyDir more than its sizeLimit. "The node was low on resource" is none of them,
# not even where it names the container that had used most.
_OWN_LIMIT: Final = re.compile(r"\bexceed(s|ed) (the|its) ([a-z]+ ){0,3}limit\b")


def cause(pod: PodView) -> str | None:
    """A cause that the cluster states and that overrules exit codes; None where it states none."""
    if _is_beyond_its_limit(pod):
        return Cause.LIMIT_EXCEEDED
    if pod.disruption_reason is not None:
        return CAUSE_OF_DISRUPTION.get(pod.disruption_reason, Cause.EVICTED)
    reason = pod.reason or ""
    found = CAUSE_OF_POD_REASON.get(reason)
    if found is None and pod.exit_code is None and reason.startswith(_FULL):
        found = Cause.ADMISSION_ERROR
    return found or CAUSE_OF_CONTAINER_REASON.get(pod.terminated_reason or "")


def cause_of_deletion(disruption: str) -> str:
    """The cause of a pod that is being deleted, by its reason of the condition DisruptionTarget."""
    return Cause.NODE_LOST if disruption in NODE_GONE else Cause.DISRUPTED


def _is_beyond_its_limit(pod: PodView) -> bool:
    return pod.reason == "Evicted" and bool(_OWN_LIMIT.search(pod.message or ""))
