"""Groups of pods of one job: which of them train together, and what the rest was for."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from inception_operator.accelerators.profile import Profile

from . import command, pods
from .draft import Draft
from .ledger import Field

_TORCHRUN: Final = re.compile(r"\btorchrun\b|torch\.distributed\.(run|launch)\b")
_PYTHON: Final = re.compile(r"\bpython|\baccelerate\b")


@dataclass(frozen=True)
class Role:
    """One group: its name, how many pods it has, and the template of them."""

    group: Field
    name: str
    pods: int
    template: Field


def training(roles: Sequence[Role], names: Collection[str] = ()) -> list[Role]:
    """Those that train: the ones with these names, else whoever calls torchrun, else Python.

    The first is rank 0, and in the order of ``names`` if they are given.
    """
    if names:
        named = [role for name in names for role in roles if role.name == name]
        if named:
            return [role for role in named if role.pods]
    counted = [role for role in roles if role.pods]
    best = max((_likeness(role) for role in counted), default=0)
    found = [role for role in counted if _likeness(role) == best]
    return found if best else found[:1]


def _likeness(role: Role) -> int:
    container = pods.training_container(role.template["spec"], ())
    if container is None:
        return 0
    words: list[str] = []
    for key in ("command", "args"):
        words += [str(each.value) for each in container[key].children()]
    text = " ".join(words)
    return 2 if _TORCHRUN.search(text) else int(bool(_PYTHON.search(text)))


def read(
    draft: Draft,
    chosen: Sequence[Role],
    containers: Collection[str],
    profiles: Mapping[str, Profile],
) -> None:
    """Nodes, template and command of the groups that train."""
    first = chosen[0]
    draft.nodes = sum(role.pods for role in chosen)
    container = pods.read(first.template, containers, draft, profiles)
    command.apply(draft, container["command"], container["args"])
    for other in chosen[1:]:
        pods.compare(first.template, other.template, first.name)


def drop_others(roles: Sequence[Role], chosen: Sequence[Role]) -> None:
    """Say of the other groups that nothing comes of them."""
    for role in roles:
        if role not in chosen:
            role.group.drop(
                "it does not train, and a training has pods of one kind",
                "make it a Job or Deployment of its own, or an init container",
            )
