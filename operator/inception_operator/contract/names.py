"""Names that are part of the API: group, labels, annotations, ports, condition types, reasons.

No other module spells them out. Users build selectors, alerts and dashboards on them, so a change
here is a change of the API (docs/architecture/names.md).
"""

from __future__ import annotations

from typing import Final

GROUP: Final = "training.inception.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "InceptionTraining"
PLURAL: Final = "inceptiontrainings"
FIELD_MANAGER: Final = "inception-operator"
# The value of spec.runPolicy.managedBy that means this operator, as does none.
MANAGER: Final = f"{GROUP}/inception-operator"

LABEL_JOB: Final = f"{GROUP}/job"
LABEL_JOB_UID: Final = f"{GROUP}/job-uid"
LABEL_SLOT: Final = f"{GROUP}/slot"
LABEL_INCARNATION: Final = f"{GROUP}/incarnation"
LABEL_ROLE: Final = f"{GROUP}/role"
# Kueue's: jobs with it are suspended until their queue admits them.
LABEL_QUEUE: Final = "kueue.x-k8s.io/queue-name"
LABEL_APP: Final = "app.kubernetes.io/name"
APP: Final = "inception-training"
ANNOTATION_ASSIGNMENT: Final = f"{GROUP}/assignment"
# Which operator made a pod: the holder of the Lease at that time.
ANNOTATION_CREATED_BY: Final = f"{GROUP}/created-by"
ANNOTATION_EXCLUDED_NODES: Final = f"{GROUP}/excluded-nodes"
# In the message of the chart's policy on creations (leaderElection.guardCreations).
NOT_THE_HOLDER: Final = "does not hold the operator's Lease"
ROLE_WORKER: Final = "worker"
CONTAINER: Final = "trainer"

LAUNCHER_PORT: Final = 8080
# What proves that a delivered assignment is the operator's (`courier`).
KEY_HEADER: Final = "Inception-Key"
# The SHA-256 of the key of a pod's first assignment.
KEY_VARIABLE: Final = "INCEPTION_NEXT_KEY"
METRICS_PORT: Final = 8081
MASTER_PORT_BASE: Final = 29500
# For pods with hostNetwork: below the NodePorts of Services (from 30000 on) and the ports that
# Linux gives to outgoing connections (from 32768 on), so that neither can have taken one.
HOST_PORT_BASE: Final = 20000
HOST_PORTS: Final = 9500
ASSIGNMENT_MOUNT: Final = "/etc/inception"
LAUNCHER_MOUNT: Final = "/opt/inception-launcher"
LAUNCHER_VOLUME: Final = "inception-launcher"
CHECKPOINT_MOUNT: Final = "/checkpoint"
# Time for a checkpoint between SIGTERM and SIGKILL.
GRACE_SECONDS: Final = 120
# A pod's name is also its host name, a DNS label of 63: this leaves 18 for "-<slot>-<incarnation>".
MAX_JOB_NAME_LENGTH: Final = 45


class ConditionType:
    """Condition types of ``status.conditions``."""

    ACCEPTED: Final = "Accepted"
    SUSPENDED: Final = "Suspended"
    PODS_READY: Final = "PodsReady"
    RUNNING: Final = "Running"
    RESTARTING: Final = "Restarting"
    SUCCEEDED: Final = "Succeeded"
    FAILED: Final = "Failed"


class Reason:
    """Reasons of conditions and events; renaming one breaks the alerts that users have built."""

    CREATED: Final = "Created"
    ACCEPTED: Final = "Accepted"
    SUSPENDED: Final = "Suspended"
    RESUMED: Final = "Resumed"
    WAITING_FOR_PODS: Final = "WaitingForPods"
    UNSCHEDULABLE: Final = "Unschedulable"
    IMAGE_PULL_FAILED: Final = "ImagePullFailed"
    CONTAINER_CONFIG_ERROR: Final = "ContainerConfigError"
    POD_START_FAILED: Final = "PodStartFailed"
    POD_CREATION_REJECTED: Final = "PodCreationRejected"
    POD_CHANGE_REJECTED: Final = "PodChangeRejected"
    POD_POLICY_VIOLATION: Final = "PodPolicyViolation"
    ALL_PODS_READY: Final = "AllPodsReady"
    ENOUGH_PODS_READY: Final = "EnoughPodsReady"
    LAUNCHER_UNREACHABLE: Final = "LauncherUnreachable"
    ATTEMPT_STARTED: Final = "AttemptStarted"
    ATTEMPT_RUNNING: Final = "AttemptRunning"
    ATTEMPT_ENDED: Final = "AttemptEnded"
    CHECKPOINT_FAILING: Final = "CheckpointFailing"
    STRAGGLER_FOUND: Final = "StragglerFound"
    STRAGGLER_GONE: Final = "StragglerGone"
    BACK_OFF: Final = "BackOff"
    RESIZED: Final = "Resized"
    LEAVING_NODE: Final = "LeavingNode"
    CANNOT_LEAVE_NODE: Final = "CannotLeaveNode"
    REPLACING_STRAGGLER: Final = "ReplacingStraggler"
    CANNOT_REPLACE_STRAGGLER: Final = "CannotReplaceStraggler"
    MOVED: Final = "Moved"
    RESTARTING: Final = "Restarting"
    STATUS_RESTORED: Final = "StatusRestored"
    COMPLETED: Final = "Completed"
    ACTIVE: Final = "Active"
    NOT_FAILED: Final = "NotFailed"
    MAX_RESTARTS_EXCEEDED: Final = "MaxRestartsExceeded"
    PERMANENT_FAILURE: Final = "PermanentFailure"
    OUT_OF_MEMORY: Final = "OutOfMemory"
    CONTRACT_MISMATCH: Final = "ContractMismatch"
    NON_FINITE: Final = "NonFinite"
    FAILURE_POLICY: Final = "FailurePolicy"
    INVALID_SPEC: Final = "InvalidSpec"
    INTERNAL_ERROR: Final = "InternalError"
    DEADLINE_EXCEEDED: Final = "DeadlineExceeded"
    PRE_RUNNING_DEADLINE_EXCEEDED: Final = "PreRunningDeadlineExceeded"


class Cause:
    """``status.rootCause.reason``: what ended an attempt."""

    # These are the launcher's own words, from its report.
    ERROR: Final = "Error"
    SIGNAL: Final = "Signal"
    OOM_KILLED: Final = "OOMKilled"
    PEER_LOST: Final = "PeerLost"
    USAGE_ERROR: Final = "UsageError"
    DATA_ERROR: Final = "DataError"
    INPUT_MISSING: Final = "InputMissing"
    CONFIG_ERROR: Final = "ConfigError"
    HANG: Final = "Hang"
    STOPPED: Final = "Stopped"
    CANNOT_RUN: Final = "CannotRun"
    NON_FINITE: Final = "NonFinite"
    DEVICE_OUT_OF_MEMORY: Final = "DeviceOutOfMemory"
    # Found by either end: see `version`.
    CONTRACT_MISMATCH: Final = "ContractMismatch"

    # These are found by the operator, in pods and nodes.
    POD_DELETED: Final = "PodDeleted"
    POD_FAILED: Final = "PodFailed"
    EVICTED: Final = "Evicted"
    LIMIT_EXCEEDED: Final = "LimitExceeded"
    DISRUPTED: Final = "Disrupted"
    NODE_LOST: Final = "NodeLost"
    ADMISSION_ERROR: Final = "UnexpectedAdmissionError"
    NOT_RESPONDING: Final = "NotResponding"
    LAUNCHER_UNREACHABLE: Final = "LauncherUnreachable"
    DEVICE_UNHEALTHY: Final = "DeviceUnhealthy"


class State:
    """``status.state``: one word for people, derived from the conditions."""

    REJECTED: Final = "Rejected"
    PENDING: Final = "Pending"
    STARTING: Final = "Starting"
    RUNNING: Final = "Running"
    RESTARTING: Final = "Restarting"
    SUSPENDED: Final = "Suspended"
    SUCCEEDED: Final = "Succeeded"
    FAILED: Final = "Failed"


class CleanPodPolicy:
    """``spec.runPolicy.cleanPodPolicy``: which pods of a job that is over are deleted."""

    NONE: Final = "None"
    RUNNING: Final = "Running"
    ALL: Final = "All"


class PodPlacement:
    """``spec.runPolicy.schedulingPolicy.podPlacement``: whether pods of a job may share a node."""

    ANY: Final = "Any"
    ONE_PER_NODE: Final = "OnePerNode"


class PodPolicy:
    """``--pod-policy``: the level of the Pod Security Standards that all pods must keep to."""

    OFF: Final = "off"
    BASELINE: Final = "baseline"
    RESTRICTED: Final = "restricted"


class ReportState:
    """``state`` of a launcher's report; docs/architecture/wire.md has the table."""

    STARTING: Final = "Starting"
    IDLE: Final = "Idle"
    RUNNING: Final = "Running"
    FAILED: Final = "Failed"
    STOPPED: Final = "Stopped"
    SUCCEEDED: Final = "Succeeded"


class SuccessPolicy:
    """``spec.successPolicy``: whose success is the job's."""

    ALL: Final = "All"
    CHIEF: Final = "Chief"


class StragglerPolicy:
    """``spec.failurePolicy.stragglerPolicy``: what to do about a rank that the others wait for."""

    NONE: Final = "None"
    REPORT: Final = "Report"
    REPLACE: Final = "Replace"


class Phase:
    """Phases of a Pod that decisions look at."""

    PENDING: Final = "Pending"
    RUNNING: Final = "Running"
    SUCCEEDED: Final = "Succeeded"
    FAILED: Final = "Failed"
