"""``PyTorchJob`` of ``kubeflow.org/v1``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from inception_operator.accelerators.profile import Profile
from inception_operator.contract.names import SuccessPolicy

from . import command, kubeflow, pods
from .draft import Draft, begin
from .ledger import Field, Ledger

CONTAINERS: Final = ("pytorch",)
# The first is rank 0.
_ROLES: Final = ("Master", "Worker")


def convert(ledger: Ledger, profiles: Mapping[str, Profile]) -> Draft:
    """The training of a PyTorchJob."""
    job = ledger.root
    draft = begin(job)
    spec = job["spec"]
    replicas = spec["pytorchReplicaSpecs"]
    counts = {
        role: kubeflow.take_replicas(replicas[role]) for role in _ROLES if replicas[role].present
    }
    roles = [replicas[role] for role, count in counts.items() if count]
    if not roles:
        raise replicas.refusal("there is neither a Master nor a Worker", "add one of them")
    draft.nodes = sum(counts.values())
    first = roles[0]
    container = pods.read(first["template"], CONTAINERS, draft, profiles)
    ranks = _read_elastic(spec["elasticPolicy"], draft)
    kubeflow.read_restart_policy(first["restartPolicy"], draft)
    if spec["nprocPerNode"].present:
        ranks.drop("spec.nprocPerNode goes before it")
        ranks = spec["nprocPerNode"]
    command.apply(draft, container["command"], container["args"], ranks, default="auto")
    for other in (replicas[role] for role in counts):
        if other.path != first.path:
            other["restartPolicy"].settle()
            pods.compare(first["template"], other["template"], first.key)
    if len(roles) == 2:
        # That operator looks at the Master alone, where there is one.
        draft.success_policy = SuccessPolicy.CHIEF
    kubeflow.read_run_policy(spec["runPolicy"], draft)
    kubeflow.warn_of_group(first["template"]["spec"], draft)
    return draft


def _read_elastic(policy: Field, draft: Draft) -> Field:
    """Sizes and restarts; gives the ranks per node that older versions said here."""
    least, most = policy["minReplicas"].number(), policy["maxReplicas"].number()
    if policy.present:
        if not policy.value:
            policy.settle()
        _set_sizes(policy, draft, least, most)
    restarts = policy["maxRestarts"].number()
    if restarts is not None:
        draft.failure_policy["maxRestarts"] = restarts
    for child in policy.children():
        if child.key.startswith("rdzv") or child.key == "standalone":
            child.drop("operator and launcher bring the ranks together")
    policy["metrics"].drop(
        "no HorizontalPodAutoscaler is made",
        "make one whose scaleTargetRef is this InceptionTraining: it has the subresource scale",
    )
    return policy["nProcPerNode"]


def _set_sizes(policy: Field, draft: Draft, least: int | None, most: int | None) -> None:
    if least is not None:
        draft.elastic["minNodes"] = max(1, min(least, draft.nodes))
        if draft.elastic["minNodes"] != least:
            policy["minReplicas"].change(
                f"minNodes is {draft.elastic['minNodes']}: it is from 1 to numNodes",
                "correct spec.elasticPolicy",
            )
    if most is not None:
        draft.elastic["maxNodes"] = max(most, draft.nodes)
        if most < draft.nodes:
            policy["maxReplicas"].change(
                f"maxNodes is {draft.nodes}, as many as there are", "correct spec.elasticPolicy"
            )
