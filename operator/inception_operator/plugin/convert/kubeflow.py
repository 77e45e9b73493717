"""What the kinds of ``kubeflow.org`` share: the run policy and how replicas restart."""

from __future__ import annotations

from typing import Final

from .draft import Draft
from .ledger import Field

VOLCANO: Final = "volcano"
QUEUE_ANNOTATION: Final = "scheduling.volcano.sh/queue-name"
_OWN_MANAGERS: Final = frozenset(
    (
        "kubeflow.org/training-operator",
        "kubeflow.org/mpi-operator",
        "trainer.kubeflow.org/trainjob-controller",
        "jobset.sigs.k8s.io/jobset-controller",
    )
)
_SAME: Final = ("ttlSecondsAfterFinished", "suspend", "cleanPodPolicy")


def read_run_policy(policy: Field, draft: Draft) -> None:
    """Life cycle, retries and scheduling."""
    if policy.present and not policy.value:
        policy.settle()
    for key in _SAME:
        if policy[key].value not in (None, ""):
            draft.run_policy[key] = policy[key].take()
    read_deadline(policy["activeDeadlineSeconds"], draft)
    read_manager(policy["managedBy"], draft)
    limit = policy["backoffLimit"].number()
    if limit is not None and draft.failure_policy.setdefault("maxRestarts", limit) != limit:
        policy["backoffLimit"].change(
            f"maxRestarts is {draft.failure_policy['maxRestarts']}, as said more precisely",
            "set spec.failurePolicy.maxRestarts",
        )
    _read_scheduling(policy["schedulingPolicy"], draft)


def read_deadline(deadline: Field, draft: Draft) -> None:
    """How long the job may take; both count from the start and not in suspension."""
    seconds = deadline.number()
    if seconds is not None:
        draft.run_policy["activeDeadlineSeconds"] = seconds


def read_manager(manager: Field, draft: Draft) -> None:
    """Which controller runs the job, where it is not the other operator itself."""
    name = manager.text()
    if name is not None and name not in _OWN_MANAGERS:
        draft.run_policy["managedBy"] = name


def _read_scheduling(policy: Field, draft: Draft) -> None:
    if policy.present and not policy.value:
        policy.settle()
    if policy["minAvailable"].value == draft.nodes:
        policy["minAvailable"].settle()
    else:
        policy["minAvailable"].drop(
            "ranks start when all nodes are ready",
            "set spec.elasticPolicy.minNodes for a training that may begin with fewer",
        )
    read_queue(policy["queue"], draft)
    read_priority(policy["priorityClass"], draft)
    policy["minResources"].drop(
        "pods are placed one by one", "let Kueue admit the training as a whole"
    )
    policy["scheduleTimeoutSeconds"].drop(
        "pods are placed one by one",
        "set spec.runPolicy.preRunningDeadlineSeconds for a job that shall fail when it waits long",
    )


def read_queue(queue: Field, draft: Draft) -> None:
    """A queue of Volcano, which its scheduler reads from an annotation of the pods."""
    name = queue.text()
    if name is None:
        return
    if draft.pod.get("schedulerName") == VOLCANO:
        draft.annotate_pods(QUEUE_ANNOTATION, name)
        return
    queue.drop(
        "no scheduler is named that has queues",
        f"set schedulerName: {VOLCANO} and the annotation {QUEUE_ANNOTATION} in spec.template, or "
        "the label kueue.x-k8s.io/queue-name for Kueue",
    )


def read_priority(priority: Field, draft: Draft) -> None:
    """The priority class of the group of pods, unless the pods have one of their own."""
    name = priority.text()
    if name is None:
        return
    if "priorityClassName" in draft.pod:
        if draft.pod["priorityClassName"] != name:
            priority.drop(
                f"the pods have a class of their own, {draft.pod['priorityClassName']}",
                "remove it from spec.template.spec.priorityClassName to have this one",
            )
        return
    draft.scheduling["priorityClassName"] = name


def warn_of_group(spec: Field, draft: Draft) -> None:
    """Say that Volcano knows nothing of how many pods belong together."""
    if draft.pod.get("schedulerName") == VOLCANO and draft.nodes > 1:
        spec["schedulerName"].change(
            "carried over, but Volcano places the pods one by one: nobody makes a PodGroup of them",
            "let Kueue admit the training as a whole; its ranks start when all pods are ready",
        )


def read_restart_policy(policy: Field, draft: Draft) -> None:
    """How pods of a replica restart; here all ranks do together."""
    word = policy.text()
    if word == "Never":
        if draft.failure_policy.setdefault("maxRestarts", 0):
            policy.change("the number of restarts that is said besides counts")
    elif word == "ExitCode":
        rule = {"name": "exit-code", "action": "Fail", "onReasons": ["Error"]}
        draft.failure_policy["rules"] = [rule]
        policy.change(
            "a rank that ends with an error fails the job, one that a signal ends restarts it",
            "see spec.failurePolicy.rules for single exit codes",
        )


def take_replicas(spec: Field) -> int:
    """How many pods a replica has, one without a word."""
    replicas = spec["replicas"].number()
    if replicas is not None and replicas < 0:
        raise spec["replicas"].refusal(f"{replicas} is negative", "correct it")
    return 1 if replicas is None else replicas
