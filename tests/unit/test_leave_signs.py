"""By which signs jobs leave a node: the list of ``--leave-on``, and what nodes say."""

from __future__ import annotations

from typing import Any

import pytest

from inception_operator.__main__ import parse
from inception_operator.contract.types import Json
from inception_operator.decide.leave_signs import DEFAULT_SIGNS, parse_signs


def node(
    *taints: str, unschedulable: bool | None = None, conditions: dict[str, str] | None = None
) -> Json:
    spec: Json = {} if unschedulable is None else {"unschedulable": unschedulable}
    if taints:
        spec["taints"] = [
            {"key": key, "effect": effect} for key, effect in (each.split(":") for each in taints)
        ]
    found = [{"type": kind, "status": status} for kind, status in (conditions or {}).items()]
    return {"metadata": {"name": "n"}, "spec": spec, "status": {"conditions": found}}


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (node(), None),
        (node(unschedulable=True), "cordoned"),
        (node(unschedulable=False), None),
        (node("node.kubernetes.io/unschedulable:NoSchedule", unschedulable=True), "cordoned"),
        (
            node("ToBeDeletedByClusterAutoscaler:NoSchedule", unschedulable=True),
            "taint ToBeDeletedByClusterAutoscaler",
        ),
        (node("DeletionCandidateOfClusterAutoscaler:PreferNoSchedule"), None),
        (node("karpenter.sh/disrupted:NoSchedule"), "taint karpenter.sh/disrupted"),
        (node("karpenter.sh/disrupted:PreferNoSchedule"), None),
        (
            node("node.kubernetes.io/out-of-service:NoExecute"),
            "taint node.kubernetes.io/out-of-service",
        ),
        (
            node("nvidia.com/gpu:NoSchedule", "aws-node-termination-handler/spot-itn:NoSchedule"),
            "taint aws-node-termination-handler/spot-itn",
        ),
        (node("node.kubernetes.io/unreachable:NoExecute"), None),
        (node(conditions={"Ready": "Unknown", "MemoryPressure": "True"}), None),
    ],
)
def test_the_default_list_names_what_takes_a_node_away_within_minutes(
    seen: Json, why: str | None
) -> None:
    assert parse_signs(["default"]).reason(seen) == why


@pytest.mark.parametrize(
    ("signs", "seen", "why"),
    [
        (["default", "-cordon"], node(unschedulable=True), None),
        (["default", "-cordon"], node("karpenter.sh/disrupted:NoSchedule"), "karpenter"),
        (["none"], node("karpenter.sh/disrupted:NoSchedule", unschedulable=True), None),
        (["taint=a/b:NoExecute"], node("a/b:NoSchedule"), None),
        (["taint=a/b:NoExecute"], node("a/b:NoExecute"), "taint a/b"),
        (["taint=a:PreferNoSchedule"], node("a:PreferNoSchedule"), "taint a"),
        (["taint=a:NoExecute", "taint=a:NoSchedule"], node("a:NoSchedule"), "taint a"),
        (["condition=GpuXid"], node(conditions={"GpuXid": "True"}), "condition GpuXid is True"),
        (["condition=GpuXid"], node(conditions={"GpuXid": "Unknown"}), None),
        (["condition=Ready=False"], node(conditions={"Ready": "False"}), "condition Ready is"),
        (["default", "condition=GpuXid"], node(unschedulable=True), "cordoned"),
        (["cordon"], {"metadata": {"name": "n"}}, None),
        (["cordon", "condition=A"], {"spec": {"taints": None}, "status": None}, None),
    ],
)
def test_another_list_adds_signs_and_takes_them_off(
    signs: list[str], seen: Json, why: str | None
) -> None:
    found = parse_signs(signs).reason(seen)
    assert found is None if why is None else (found and why in found)


def test_an_empty_list_turns_planned_moves_off() -> None:
    assert not parse_signs(["none"])
    assert not parse_signs([])
    assert parse_signs(["none", "cordon"])
    assert len(parse_signs(["default"]).taints) + 1 == len(DEFAULT_SIGNS)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("drain", "'drain' is no sign"),
        ("taint=", "is no sign"),
        ("taint=a b", "is no sign"),
        ("taint=a:Sometimes", "is no sign"),
        ("condition=A=Maybe", "is no sign"),
        ("-cordon", "'cordon' is not in the list"),
        (",".join(f"taint=t{number}" for number in range(101)), "at most 100 signs"),
    ],
)
def test_a_list_that_makes_no_sense_ends_the_operator_with_the_reason(
    text: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse(["run", "--trainer-image=i", f"--leave-on={text}"], {})
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "cordon", "conditions"),
    [
        ([], True, set()),
        (["--leave-on=none"], False, set()),
        (["--leave-on=default,condition=A", "--leave-on=condition=B"], True, {"A", "B"}),
        (["--leave-on", "default,-cordon"], False, set()),
    ],
)
def test_the_command_line_takes_lists(
    arguments: list[str], cordon: bool, conditions: set[str]
) -> None:
    settings = parse(["run", "--trainer-image=i", *arguments], {})
    signs: Any = settings.leave_signs
    assert (signs.cordon, set(signs.conditions)) == (cordon, conditions)
