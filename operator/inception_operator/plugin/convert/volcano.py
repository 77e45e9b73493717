"""``Job`` of ``batch.volcano.sh/v1alpha1`` that trains by torchrun or the plug-in ``pytorch``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from inception_operator.accelerators.profile import Profile
from inception_operator.contract.names import SuccessPolicy
from inception_operator.contract.types import Json

from . import kubeflow, roles
from .draft import Draft, begin
from .ledger import Field, Ledger

_PLUGIN: Final = "pytorch"
_CONTAINERS: Final = ("pytorch", "worker", "master", "trainer")
_FAILURES: Final = frozenset(("PodFailed", "PodEvicted", "TaskFailed", "Unknown", "OutOfSync"))
_ENDINGS: Final = frozenset(("AbortJob", "TerminateJob"))
_RESTARTS: Final = frozenset(("RestartJob", "RestartTask", "RestartPod", "SyncJob"))
_TOGETHER: Final = "ranks start when all nodes are ready"
_FEWER: Final = "set spec.elasticPolicy.minNodes for a training that may begin with fewer"


def convert(ledger: Ledger, profiles: Mapping[str, Profile]) -> Draft:
    """The training of a Volcano Job."""
    job = ledger.root
    draft = begin(job)
    spec = job["spec"]
    found = [_role(task) for task in spec["tasks"].children()]
    chosen = roles.training(found, _plugin_names(spec["plugins"]))
    if not chosen:
        raise spec["tasks"].refusal("there is no task with pods", "add the one that trains")
    roles.read(draft, chosen, _CONTAINERS, profiles)
    roles.drop_others(found, chosen)
    scheduler = spec["schedulerName"].text()
    if scheduler is not None:
        draft.pod.setdefault("schedulerName", scheduler)
    for role in chosen:
        _read_task(role.group, draft, alone=len(chosen) == 1)
    _read_policies(spec["policies"], draft, chief=False)
    _read_plugins(spec["plugins"])
    _read_volumes(spec["volumes"], draft)
    _read_limits(spec, draft)
    kubeflow.read_queue(spec["queue"], draft)
    kubeflow.read_priority(spec["priorityClassName"], draft)
    kubeflow.warn_of_group(spec, draft)
    return draft


def _role(task: Field) -> roles.Role:
    name = str(task["name"].value or "default")
    count = task["replicas"].value
    amount = count if isinstance(count, int) else 1
    return roles.Role(task, name, amount, task["template"])


def _plugin_names(plugins: Field) -> tuple[str, ...]:
    """The tasks that the plug-in ``pytorch`` knows, the master first."""
    if not plugins[_PLUGIN].present:
        return ()
    words = [str(each.value) for each in plugins[_PLUGIN].children()]
    given = dict(word.removeprefix("--").partition("=")[::2] for word in words)
    return given.get("master", "master"), given.get("worker", "worker")


def _read_task(task: Field, draft: Draft, *, alone: bool) -> None:
    for key in ("name", "replicas"):
        task[key].settle()
    _read_policies(task["policies"], draft, chief=not alone)
    if task["minAvailable"].value == task["replicas"].value:
        task["minAvailable"].settle()
    else:
        task["minAvailable"].drop(_TOGETHER, _FEWER)
    task["topologyPolicy"].drop(
        "nothing asks Volcano for a NUMA node", "set the kubelet's topology manager"
    )
    task["maxRetry"].drop("restarts count for the job as a whole", "see spec.failurePolicy")
    task["dependsOn"].drop("the nodes start together", "wait in an init container")


def _read_policies(policies: Field, draft: Draft, *, chief: bool) -> None:
    """What an event leads to; ``chief`` where the policies are those of one task of several."""
    for policy in policies.children():
        action = policy["action"].value
        events = {policy["event"].value, *(each.value for each in policy["events"].children())}
        events.discard(None)
        code = policy["exitCode"].value
        if isinstance(code, int) and 1 <= code <= 255 and action in _RESTARTS | _ENDINGS:
            _add_rule(policy, draft, code, "Fail" if action in _ENDINGS else "Restart")
        elif events == {"TaskCompleted"} and action == "CompleteJob":
            _settle(policy)
            if chief:
                draft.success_policy = SuccessPolicy.CHIEF
        elif events and events <= _FAILURES and action in _RESTARTS:
            # The operator's own behaviour.
            _settle(policy)
        elif events and events <= _FAILURES and action in _ENDINGS:
            _settle(policy)
            draft.failure_policy["maxRestarts"] = 0
        else:
            policy.drop(
                f"nothing here is like {action} after {', '.join(map(str, events)) or code}",
                "see spec.failurePolicy and spec.successPolicy",
            )


def _settle(policy: Field) -> None:
    for key in ("event", "events", "action", "exitCode"):
        policy[key].settle()


def _add_rule(policy: Field, draft: Draft, code: int, action: str) -> None:
    rules: list[Json] = draft.failure_policy.setdefault("rules", [])
    name = f"exit-code-{code}"
    if any(rule["name"] == name for rule in rules):
        policy.drop(f"exit code {code} has a rule already", "see spec.failurePolicy.rules")
        return
    _settle(policy)
    codes = {"operator": "In", "values": [code]}
    rules.append({"name": name, "action": action, "onExitCodes": codes})


def _read_plugins(plugins: Field) -> None:
    for plugin in plugins.children():
        if plugin.key == _PLUGIN:
            plugin.settle()
        else:
            plugin.drop(
                "the operator needs no plug-in: pods know their addresses, ranks their numbers",
                "let the program read RANK, WORLD_SIZE and MASTER_ADDR in place of VC_* and files "
                "of hosts",
            )


def _read_volumes(volumes: Field, draft: Draft) -> None:
    """Claims that the job mounts in all its containers."""
    for index, volume in enumerate(volumes.children()):
        claim = volume["volumeClaimName"].text()
        if claim is None:
            volume.drop(
                "nobody makes a claim or an empty directory for the job",
                "make a PersistentVolumeClaim and give its name as volumeClaimName",
            )
            continue
        name = f"volume-{index}"
        mount = {"name": name, "mountPath": volume["mountPath"].take()}
        source = {"name": name, "persistentVolumeClaim": {"claimName": claim}}
        draft.pod["volumes"] = [*(draft.pod.get("volumes") or ()), source]
        for container in (draft.trainer, *draft.sidecars):
            container["volumeMounts"] = [*(container.get("volumeMounts") or ()), mount]
        volume["volumeClaim"].drop("the claim by name goes before it")


def _read_limits(spec: Field, draft: Draft) -> None:
    if spec["minAvailable"].value == draft.nodes:
        spec["minAvailable"].settle()
    else:
        spec["minAvailable"].drop(_TOGETHER, _FEWER)
    retries = spec["maxRetry"].number()
    if retries is not None and draft.failure_policy.setdefault("maxRestarts", retries) != retries:
        spec["maxRetry"].change(
            f"maxRestarts is {draft.failure_policy['maxRestarts']}, as said more precisely",
            "set spec.failurePolicy.maxRestarts",
        )
    ttl = spec["ttlSecondsAfterFinished"].number()
    if ttl is not None:
        draft.run_policy["ttlSecondsAfterFinished"] = ttl
    if spec["minSuccess"].value == draft.nodes:
        spec["minSuccess"].settle()
    else:
        spec["minSuccess"].drop(
            "a training succeeds with all of its nodes, or with that of rank 0",
            "set spec.successPolicy: Chief for the latter",
        )
    spec["networkTopology"].drop(
        "nothing asks Volcano for nodes near one another",
        "set spec.runPolicy.schedulingPolicy.topologyKey to the label of a rack or switch",
    )
    spec["runningEstimate"].drop("nobody reads it", "see spec.runPolicy.activeDeadlineSeconds")
