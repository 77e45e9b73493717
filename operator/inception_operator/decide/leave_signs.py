"""By which signs of a node jobs leave it: the list of ``--leave-on``, and what it says of a node.

The default names what says that a node goes away within minutes, by whoever takes it away. Signs of
nodes that are gone already are not among them (``node.kubernetes.io/unreachable``,
``…/not-ready``): there is nobody to save with, and they come and go. Nor are soft ones, such as
``DeletionCandidateOfClusterAutoscaler``, after which mostly nothing happens. Conditions differ from
cluster to cluster, so none is in the default.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from inception_operator.contract.types import Json

CORDON: Final = "cordon"
DEFAULT: Final = "default"
NONE: Final = "none"
MOST: Final = 100
DEFAULT_SIGNS: Final = (
    # What `kubectl drain`, upgrades of clusters and NVSentinel do first. Who cordons nodes and
    # wants their jobs to stay takes it off the list.
    CORDON,
    "taint=ToBeDeletedByClusterAutoscaler",
    # Karpenter's, today and before its version 1.
    "taint=karpenter.sh/disrupted",
    "taint=karpenter.sh/disruption",
    # An administrator's word that the node is shut down.
    "taint=node.kubernetes.io/out-of-service",
    # Notices of clouds: Google's; of AWS by its handler; of Azure by AKS.
    "taint=cloud.google.com/impending-node-termination",
    "taint=aws-node-termination-handler/spot-itn",
    "taint=aws-node-termination-handler/scheduled-maintenance",
    "taint=aws-node-termination-handler/asg-lifecycle-termination",
    "taint=remediator.aks.microsoft.com/unschedulable",
)
_TAINT: Final = re.compile(
    r"taint=(?P<name>[A-Za-z0-9][-A-Za-z0-9._/]{0,316})"
    r"(?::(?P<value>NoSchedule|NoExecute|PreferNoSchedule))?"
)
_CONDITION: Final = re.compile(
    r"condition=(?P<name>[A-Za-z0-9][-A-Za-z0-9._/]{0,316})(?:=(?P<value>True|False|Unknown))?"
)
# PreferNoSchedule keeps nothing away, so it says little.
_EFFECTS: Final = frozenset(("NoSchedule", "NoExecute"))
_FORMS: Final = "cordon, taint=KEY, taint=KEY:EFFECT, condition=TYPE, condition=TYPE=STATUS"


@dataclass(frozen=True)
class LeaveSigns:
    """The signs, for looking at nodes: taints by key with the effects that count, conditions by
    type with the status that counts.
    """

    cordon: bool
    taints: dict[str, frozenset[str]]
    conditions: dict[str, frozenset[str]]

    def __bool__(self) -> bool:
        return self.cordon or bool(self.taints or self.conditions)

    def reason(self, node: Json) -> str | None:
        """Why the node is about to go, None while it stays; taints say more than the cordon that
        mostly comes with them.
        """
        spec = node.get("spec") or {}
        for taint in spec.get("taints") or ():
            key, effect = taint.get("key"), taint.get("effect")
            if effect in self.taints.get(key, ()):
                return f"taint {key}"
        if self.conditions:
            for condition in (node.get("status") or {}).get("conditions") or ():
                kind, status = condition.get("type"), condition.get("status")
                if status in self.conditions.get(kind, ()):
                    return f"condition {kind} is {status}"
        return "cordoned" if self.cordon and spec.get("unschedulable") is True else None


def parse_signs(texts: Sequence[str]) -> LeaveSigns:
    """The signs of a list; raises ValueError, which says what is wrong with it.

    ``default`` stands for the default list, ``none`` for an empty one; a sign behind a hyphen is
    taken off again.
    """
    signs: dict[str, None] = {}
    for text in _expand(texts):
        if text.startswith("-"):
            if text[1:] not in signs:
                raise ValueError(f"{text[1:]!r} is not in the list, so it cannot be taken off it")
            del signs[text[1:]]
        else:
            signs[text] = None
    if len(signs) > MOST:
        raise ValueError(f"at most {MOST} signs")
    taints: dict[str, frozenset[str]] = {}
    conditions: dict[str, frozenset[str]] = {}
    for text in signs:
        if text == CORDON:
            continue
        taint, condition = _TAINT.fullmatch(text), _CONDITION.fullmatch(text)
        if taint is not None:
            effects = _EFFECTS if taint["value"] is None else frozenset((taint["value"],))
            taints[taint["name"]] = taints.get(taint["name"], frozenset()) | effects
        elif condition is not None:
            statuses = frozenset((condition["value"] or "True",))
            name = condition["name"]
            conditions[name] = conditions.get(name, frozenset()) | statuses
        else:
            raise ValueError(f"{text!r} is no sign; signs are {_FORMS}; beside them default, none")
    return LeaveSigns(CORDON in signs, taints, conditions)


def _expand(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        if text == DEFAULT:
            yield from DEFAULT_SIGNS
        elif text != NONE:
            yield text
