"""``JobSet`` of ``jobset.x-k8s.io/v1alpha2`` whose Jobs train by torchrun."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from inception_operator.accelerators.profile import Profile
from inception_operator.contract.names import SuccessPolicy

from . import kubeflow, roles
from .draft import Draft, begin
from .ledger import Field, Ledger

_EXCLUSIVE: Final = "alpha.jobset.sigs.k8s.io/exclusive-topology"
_CONTAINERS: Final = ("pytorch", "worker", "trainer", "node")
_RESTARTS: Final = {
    "FailJobSet": "Fail",
    "RestartJobSet": "Restart",
    "RestartJob": "Restart",
    "RestartJobSetAndIgnoreMaxRestarts": "RestartIgnoringLimit",
    "RestartJobAndIgnoreMaxRestarts": "RestartIgnoringLimit",
}


def convert(ledger: Ledger, profiles: Mapping[str, Profile]) -> Draft:
    """The training of a JobSet."""
    job = ledger.root
    draft = begin(job)
    spec = job["spec"]
    found = [role_of(each) for each in spec["replicatedJobs"].children()]
    chosen = roles.training(found)
    if not chosen:
        raise spec["replicatedJobs"].refusal("there is no job with pods", "add the one that trains")
    roles.read(draft, chosen, _CONTAINERS, profiles)
    roles.drop_others(found, chosen)
    read_policies(spec, draft, chosen)
    for role in chosen:
        read_replicated(role.group, draft)
    _read_topology(job, draft)
    kubeflow.warn_of_group(chosen[0].template["spec"], draft)
    return draft


def role_of(group: Field) -> roles.Role:
    """One replicated Job, with a pod for each of its completions."""
    job = group["template"]["spec"]
    replicas = group["replicas"].value
    pods = job["parallelism"].value
    count = _amount(replicas) * _amount(pods)
    return roles.Role(group, str(group["name"].value or ""), count, job["template"])


def _amount(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 1


def read_replicated(group: Field, draft: Draft) -> None:
    """What a replicated Job says besides its pods."""
    for key in ("name", "replicas", "groupName"):
        group[key].settle()
    group["dependsOn"].drop("the nodes start together", "wait in an init container")
    group["template"]["metadata"].drop("there is no Job in between", "see spec.template.metadata")
    job = group["template"]["spec"]
    for key in ("parallelism", "completions", "completionMode", "manualSelector"):
        job[key].settle()
    limit = job["backoffLimit"].number()
    if limit is not None and draft.failure_policy.setdefault("maxRestarts", limit) != limit:
        job["backoffLimit"].change("restarts count for the training as a whole")
    kubeflow.read_deadline(job["activeDeadlineSeconds"], draft)
    job["ttlSecondsAfterFinished"].drop(
        "there is no Job in between", "set spec.runPolicy.ttlSecondsAfterFinished"
    )
    job["podFailurePolicy"].drop(
        "failures are told by rank, not by pod", "see spec.failurePolicy.rules"
    )


def _read_topology(job: Field, draft: Draft) -> None:
    """Exclusive placement in a part of the network, of which nearness is carried over."""
    annotations = draft.metadata.get("annotations") or {}
    key = annotations.pop(_EXCLUSIVE, None)
    if not annotations:
        draft.metadata.pop("annotations", None)
    if key is not None:
        draft.scheduling["topologyKey"] = key
        job["metadata"]["annotations"][_EXCLUSIVE].change(
            "pods prefer to be near one another; nothing keeps others away from there",
            "set spec.runPolicy.schedulingPolicy.podPlacement: OnePerNode for whole nodes",
        )


def read_policies(spec: Field, draft: Draft, chosen: list[roles.Role]) -> None:
    """Life cycle, failures and success of the set."""
    for key in ("suspend", "ttlSecondsAfterFinished"):
        if spec[key].present:
            draft.run_policy[key] = spec[key].take()
    kubeflow.read_manager(spec["managedBy"], draft)
    _read_success(spec["successPolicy"], draft, chosen)
    _read_failure(spec["failurePolicy"], draft)
    spec["network"].drop("pods know the address of rank 0", "let the program read MASTER_ADDR")
    spec["coordinator"].drop("rank 0 is on the first node", "let the program read MASTER_ADDR")
    spec["startupPolicy"].drop("the nodes start together", "wait in an init container")
    spec["volumeClaimPolicies"].drop(
        "nobody makes a claim for the job", "make a PersistentVolumeClaim and mount it"
    )


def _read_success(policy: Field, draft: Draft, chosen: list[roles.Role]) -> None:
    targets = [each.value for each in policy["targetReplicatedJobs"].children()]
    names = [role.name for role in chosen]
    first_alone = targets == names[:1] and len(names) > 1 and chosen[0].pods == 1
    everyone = not targets or set(targets) == set(names)
    if policy["operator"].value == "All" and (everyone or first_alone):
        policy["operator"].settle()
        policy["targetReplicatedJobs"].settle()
        draft.success_policy = None if everyone else SuccessPolicy.CHIEF
    else:
        policy.drop(
            "a training succeeds with all of its nodes, or with that of rank 0",
            "set spec.successPolicy: Chief for the latter",
        )


def _read_failure(policy: Field, draft: Draft) -> None:
    restarts = policy["maxRestarts"].number()
    if (
        restarts is not None
        and draft.failure_policy.setdefault("maxRestarts", restarts) != restarts
    ):
        policy["maxRestarts"].change(
            f"maxRestarts is {draft.failure_policy['maxRestarts']}, as said more precisely",
            "set spec.failurePolicy.maxRestarts",
        )
    policy["restartStrategy"].drop("ranks restart in the pods that are left")
    for rule in policy["rules"].children():
        action = _RESTARTS.get(str(rule["action"].value))
        reasons = [each.value for each in rule["onJobFailureReasons"].children()]
        what = f"{action} " if action else ""
        rule.drop(
            f"its reasons are those of Jobs ({', '.join(map(str, reasons)) or 'any'})",
            f"write a rule {what}for exit codes or reasons in spec.failurePolicy.rules",
        )
