"""The operator's pod policy: what it allows, what it says, and what becomes of a job that breaks
it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_sim import CONTEXT, Sim, job
from inception_operator.accelerators.resolve import load_profiles, resolve
from inception_operator.contract.errors import SpecError
from inception_operator.contract.types import Json, Observation
from inception_operator.decide import pod_policy
from inception_operator.decide.reconcile import reconcile
from inception_operator.pod import policy
from inception_operator.pod.build import build_pod
from inception_operator.pod.policy import explain, find_violations
from inception_operator.spec.job import parse
from pod_policy_cases import CASES, LEVELS, OFF, Case, allowed
from sim_pods import START

TABLE = load_profiles()
HOST = {"spec": {"hostNetwork": True}}


def build(template: Json, **spec: Any) -> Json:
    metadata = {"name": "j", "namespace": "n", "uid": "u"}
    parsed = parse({"metadata": metadata, "spec": {"template": template, **spec}})
    devices = resolve(parsed, TABLE)
    return build_pod(parsed, devices, 0, 1, image="i:1", launcher_image="i:1")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_level_allows_what_the_standards_allow_and_names_the_field(
    case: Case, level: str
) -> None:
    violations = find_violations(build(case.template), level)
    assert (not violations) == allowed(case, level), violations
    if violations:
        assert any(text.startswith(f"spec.template.{case.field} ") for text in violations)


@pytest.mark.parametrize(
    ("template", "field"),
    [
        ({"spec": {"hostFuture": True}}, "spec.hostFuture is not known"),
        (
            {"spec": {"containers": [{"name": "trainer", "future": 1}]}},
            "spec.containers[trainer].future is not known",
        ),
        (
            {"spec": {"securityContext": {"future": 1}}},
            "spec.securityContext.future is not known",
        ),
        (
            {"spec": {"containers": [{"name": "trainer", "securityContext": {"future": 1}}]}},
            "spec.containers[trainer].securityContext.future is not known",
        ),
        ({"spec": {"volumes": [{"name": "v", "future": {}}]}}, "spec.volumes[v].future is not"),
        ({"spec": {"hostNetwork": 1}}, "spec.hostNetwork"),
        ({"spec": {"hostPID": "false"}}, "spec.hostPID must be false or left out"),
        (
            {"spec": {"containers": [{"name": "trainer", "securityContext": {"privileged": 0}}]}},
            "spec.containers[trainer].securityContext.privileged must be",
        ),
        (
            {"spec": {"initContainers": [{"name": "i", "securityContext": {"procMount": "x"}}]}},
            "spec.initContainers[i].securityContext.procMount must be Default",
        ),
        ({"spec": {"securityContext": [1]}}, "spec.securityContext must be an object"),
        ({"spec": {"securityContext": {"sysctls": {}}}}, "spec.securityContext.sysctls must be a"),
        (
            {"metadata": {"annotations": {f"{policy._APPARMOR}trainer": "unconfined"}}},
            f"metadata.annotations[{policy._APPARMOR}trainer] must be",
        ),
    ],
)
def test_what_is_unknown_or_of_another_shape_is_refused(template: Json, field: str) -> None:
    try:
        pod = build(template)
    except SpecError:
        # Refused even earlier, by what checks templates.
        return
    violations = find_violations(pod, "baseline")
    assert any(text.startswith(f"spec.template.{field}") for text in violations), violations


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.sampled_from(["", "ALL", "a"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["name", "type", "host", "add"]), inner, max_size=2)
    ),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    ["securityContext", "lifecycle", "livenessProbe", "capabilities", "seccompProfile", "sysctls"]
)


@given(st.dictionaries(FIELDS, JSON), st.dictionaries(FIELDS, JSON), JSON)
def test_a_policy_answers_whatever_a_template_holds(
    container: Json, of_pod: Json, context: Any
) -> None:
    spec = {
        **of_pod,
        "volumes": context,
        "initContainers": context,
        "containers": [{"name": "trainer", **container, "ports": context}, context],
    }
    pod = {"metadata": {}, "spec": spec}
    for level in LEVELS:
        violations = find_violations(pod, level)
        assert all(text.startswith("spec.template.") for text in violations)
        assert level != OFF or not violations


@pytest.mark.parametrize("name", TABLE)
def test_only_rows_that_bring_folders_of_the_node_or_capabilities_break_a_policy(name: str) -> None:
    row = TABLE[name]
    accelerator: Json = {"profile": name}
    if row.has_devices and row.resource is None:
        accelerator["resourceName"] = "example.com/card"
    pod = build({}, accelerator=accelerator, numProcPerNode=1)
    beyond = bool(row.mounts or (row.security and row.security.capabilities))
    assert bool(find_violations(pod, "restricted")) == beyond


def test_an_explanation_names_the_level_some_fields_and_the_remedy() -> None:
    everything = {"spec": {"hostNetwork": True, "hostPID": True, "hostIPC": True}}
    side = [{"name": "side", "image": "i", "securityContext": {"privileged": True}}]
    everything["spec"]["containers"] = side  # type: ignore[assignment]
    text = explain(find_violations(build(everything), "baseline"), "baseline")
    assert text.startswith(
        "no pod is made, because the operator's pod policy is baseline: "
        "spec.template.spec.hostNetwork must be false or left out; "
    )
    assert "; and 1 more; change the template" in text
    assert text.endswith("another --pod-policy")


def test_a_name_without_end_does_not_fill_the_message() -> None:
    volumes = [{"name": "v" * 5000, "hostPath": {"path": "/"}, "w" * 5000: {}}]
    text = explain(find_violations(build({"spec": {"volumes": volumes}}), "baseline"), "baseline")
    assert len(text) < 700


def sim(level: str, **spec: Any) -> Sim:
    world = Sim(job(2, **spec))
    world.context = replace(CONTEXT, pod_policy=level)
    return world


def test_a_job_that_breaks_the_policy_gets_no_pod_and_is_told_once() -> None:
    world = sim("baseline", template=HOST)
    world.settle()
    assert world.pods == {}
    accepted = world.full_condition("Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", "PodPolicyViolation")
    assert "is baseline: spec.template.spec.hostNetwork must be false" in accepted["message"]
    assert world.pods_ready()[1:] == ("PodPolicyViolation", accepted["message"])
    assert world.status["state"] == "Rejected"
    assert world.reasons.count("PodPolicyViolation") == 1
    world.tick(60)
    assert world.operate().empty


def test_a_job_of_one_node_is_born_with_its_ranks_and_refused_likewise() -> None:
    world = Sim(job(1, template=HOST))
    world.context = replace(CONTEXT, pod_policy="restricted")
    world.settle()
    assert (world.pods, world.status["state"]) == ({}, "Rejected")


def test_another_template_or_another_policy_lets_it_run() -> None:
    world = sim("baseline", template=HOST)
    world.settle()
    world.edit(template=None)
    world.run_until("Running")
    assert world.condition("Accepted") == "True"
    assert world.counters == (1, 0, 0)

    world = sim("baseline", template=HOST)
    world.settle()
    world.context = CONTEXT
    world.run_until("Running")
    texts = [event.message for event in world.events if event.reason == "Accepted"]
    assert texts == ["the job's pods keep to the operator's pod policy now"]


def test_a_policy_that_comes_later_leaves_what_runs_and_makes_nothing_new() -> None:
    world = sim("off", template=HOST)
    world.run_until("Running")
    world.context = replace(CONTEXT, pod_policy="baseline")
    world.settle()
    assert len(world.pods) == 2
    assert world.status["state"] == "Rejected"
    world.remove(world.pod(1))
    for _ in range(10):
        world.calm()
        world.settle()
    assert {pod.slot for pod in world.pods.values()} == {0}
    assert world.pods_ready()[1] == "PodPolicyViolation"


def test_what_runs_when_a_policy_comes_may_still_succeed() -> None:
    world = sim("off", template=HOST)
    world.run_until("Running")
    world.context = replace(CONTEXT, pod_policy="baseline")
    world.settle()
    world.finish_all()
    world.settle()
    assert world.condition("Succeeded") == "True"


def test_a_job_that_breaks_the_policy_can_be_suspended_and_runs_out_of_time() -> None:
    world = sim("baseline", template=HOST, runPolicy={"preRunningDeadlineSeconds": 30})
    world.settle()
    world.tick(31)
    world.settle()
    failed = world.full_condition("Failed")
    assert failed["reason"] == "PreRunningDeadlineExceeded"
    assert "PodPolicyViolation: no pod is made" in failed["message"]

    world = sim("baseline", template=HOST)
    world.settle()
    world.suspend(True)
    world.settle()
    assert world.condition("Suspended") == "True"


def test_a_pod_is_built_for_the_policy_once_for_each_version_of_the_spec(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built = 0
    build_pod = pod_policy.build_pod

    def counting(*arguments: Any, **options: Any) -> Json:
        nonlocal built
        built += 1
        return build_pod(*arguments, **options)

    monkeypatch.setattr(pod_policy, "build_pod", counting)
    world = sim("restricted")
    world.run_until("Running")
    for _ in range(20):
        world.operate()
    assert built == 1
    world.edit(template={"spec": {"hostNetwork": True}})
    for _ in range(20):
        world.operate()
    assert built == 2
    accepted = world.full_condition("Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", "PodPolicyViolation")
    # Another operator, with a policy of its own, looks for itself.
    world.context = replace(world.context, pod_policy="off")
    world.operate()
    assert world.condition("Accepted") == "True"
    world.context = replace(world.context, pod_policy="baseline")
    world.operate()
    assert (built, world.condition("Accepted")) == (3, "False")


def test_what_is_remembered_of_jobs_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_policy, "REMEMBERED", 3)
    context = replace(CONTEXT, pod_policy="baseline")
    for number in range(10):
        resource = job()
        resource["metadata"]["uid"] = f"uid-{number}"
        reconcile(Observation(resource, (), START), context)
    assert set(context.violations) == {"uid-7", "uid-8", "uid-9"}


@pytest.mark.parametrize("user", [1234, None])
def test_whose_processes_those_of_jobs_are_is_the_operators_to_say(user: int | None) -> None:
    context = replace(CONTEXT, pod_user=user, pod_policy="restricted")
    plan = reconcile(Observation(resource=job(2), pods=(), now=START), context)
    assert [pod["spec"]["securityContext"].get("runAsUser") for pod in plan.create] == [user] * 2
