"""The operator's pod policy (``--pod-policy``): what is decided about a job whose pods break it.

`pod.policy` looks at one pod. A job is asked before it gets any: its pods differ in their names
only, so one of them speaks for all, and ``Accepted`` says what is wrong and in which field. It is
``Accepted`` and not ``PodsReady``, because trying again cannot help: another spec is needed, or
another policy. What runs already when a policy is introduced is left to run.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from inception_operator.accelerators.resolve import Devices
from inception_operator.contract.names import PodPolicy
from inception_operator.contract.types import Json, Plan
from inception_operator.pod.build import build_pod
from inception_operator.pod.policy import explain, find_violations
from inception_operator.spec.job import Job

from .view import Context

REMEMBERED: Final = 20_000


def find_violation(resource: Json, job: Job, devices: Devices, context: Context) -> str | None:
    """Why no pod of the job may be made; None when the policy allows them.

    A pod is built once for each version of the spec: everything else is the same for all decisions
    of a process, and most of these make no pod.
    """
    if context.pod_policy == PodPolicy.OFF:
        return None
    uid = resource["metadata"]["uid"]
    generation = resource["metadata"].get("generation", 0)
    known = context.violations.pop(uid, None)
    if known is None or known[0] != generation:
        known = (generation, _look(job, devices, context))
    # The latest last: jobs that are gone are the first to be forgotten.
    context.violations[uid] = known
    if len(context.violations) > REMEMBERED:
        del context.violations[next(iter(context.violations))]
    return known[1]


def _look(job: Job, devices: Devices, context: Context) -> str | None:
    # Images, names and assignments play no part in any level.
    pod = build_pod(
        job,
        devices,
        0,
        1,
        image=context.image,
        launcher_image=context.image,
        user=context.pod_user,
    )
    violations = find_violations(pod, context.pod_policy)
    return explain(violations, context.pod_policy) if violations else None


def drop_forbidden(plan: Plan, policy: str) -> Plan:
    """The plan without pods that break the policy, whatever was decided before.

    The last word, on the very pods that would be sent.
    """
    if policy == PodPolicy.OFF or not plan.create:
        return plan
    allowed = tuple(pod for pod in plan.create if not find_violations(pod, policy))
    return replace(plan, create=allowed)
