"""How a key of the configuration is declared: default, limits, description and rules in one place.

A section of the configuration is a frozen dataclass. Two things are made from it: what the trainer
accepts (:mod:`.schema` reads plain data into it) and ``spec.training`` of the custom resource
definition (``manifests/generate_crd.py``). Both read the same declaration::

    @dataclass(frozen=True)
    class OptimizerConfig:
        '''Optimizer is the method that changes the weights.'''

        momentum: float = key(0.9, at_least=0, below=1)
        '''Momentum is a quoted decimal below 1. The default is "0.9".'''

        @rule(Cel("…", message="…", field="nesterov", reason=FORBIDDEN))
        def nesterov_needs_sgd(self) -> str | None: ...

The string below a field and the first paragraph of the class's docstring are the descriptions that
``kubectl explain`` shows, so they speak to users and begin with the name of the key.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

S = TypeVar("S")

REQUIRED = "FieldValueRequired"
FORBIDDEN = "FieldValueForbidden"
INVALID = "FieldValueInvalid"


@dataclass(frozen=True)
class Limits:
    """The values of a key that the trainer allows; None: no such limit."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    choices: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Api:
    """What the API server asks of a key beyond :class:`Limits`.

    It bounds every number, text and list, because objects in etcd must stay small and because it
    refuses CEL rules over values without bounds as too expensive. The trainer has no such reason:
    a file outside the cluster may hold a relative path or a million epochs.
    """

    minimum: int | None = None
    """The least integer, where the trainer's own limit is lower."""
    maximum: int | None = None
    """The greatest integer, where the trainer has no limit of its own."""
    integer: bool = False
    """An integer in the API although the trainer takes decimals."""
    format: str | None = None
    """``int32`` or ``int64``; None: the smaller one that holds the maximum."""
    choices: tuple[str, ...] | None = None
    """An enumeration that the trainer checks elsewhere."""
    pattern: str | None = None
    min_length: int | None = None
    max_length: int | None = None
    """The longest text in characters; the generator has defaults for choices and decimals."""
    max_items: int | None = None
    list_type: str = "atomic"
    """How server-side apply merges a list: ``atomic`` replaces it, a ``set`` has no duplicates."""
    item: str | None = None
    """The description of one entry of a list."""


PLACE = Api(pattern=r"^(/|[a-z][a-z0-9+.-]*://).+$", max_length=1024)
"""An absolute path in the container, or a URL in an object store."""


def key(
    default: Any,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    choices: Iterable[str] | None = None,
    api: Api | None = None,
    of_method: bool = False,
) -> Any:
    """A field of a section: its default, what the trainer allows and what the API asks besides.

    ``of_method``: the key belongs to one ``name`` of its section, so a recipe's value goes when the
    user chooses another name.
    """
    limits = Limits(
        at_least=at_least,
        above=above,
        at_most=at_most,
        below=below,
        choices=None if choices is None else tuple(choices),
    )
    metadata = {"limits": limits, "api": api or Api(), "of_method": of_method}
    return dataclasses.field(default=default, metadata=metadata)


FROM_SPEC = {"in_api": False}
"""Metadata of a section that the operator fills from fields of ``spec`` beside ``training``."""


NOT_A_KEY = {"in_api": False, "in_file": False, "limits": Limits(), "api": Api()}
"""Metadata of a field that says something of the configuration and is no part of it."""


@dataclass(frozen=True)
class Cel:
    """One entry of ``x-kubernetes-validations``: the API server's half of a rule.

    ``rule`` is an expression in the Common Expression Language over ``self``, the section as the
    user wrote it: recipe and defaults are not filled in, so it must pass what they may repair.
    """

    rule: str
    message: str
    field: str
    """The key that the error points at, below the section."""
    reason: str


@dataclass(frozen=True)
class Rule(Generic[S]):
    """Keys of a section that only make sense together, as the API server and the trainer say it."""

    api: Cel | None
    """None: the API server cannot tell, mostly because a recipe may hold the other key."""
    check: Callable[[S], str | None] | None
    """What the trainer says of a section that breaks it; None: the trainer takes such a section."""


def rule(api: Cel | None = None) -> Callable[[Callable[[S], str | None]], Rule[S]]:
    """Make a rule of a method that returns what is wrong; the text names the key and the remedy."""

    def declare(check: Callable[[S], str | None]) -> Rule[S]:
        return Rule(api, check)

    return declare


def api_rule(api: Cel) -> Rule[Any]:
    """A rule that the API server alone checks; say beside it why the trainer cannot."""
    return Rule(api, None)


def rules(kind: type[Any]) -> dict[str, Rule[Any]]:
    """The rules of a section by name, in the order of their declaration."""
    return {name: entry for name, entry in vars(kind).items() if isinstance(entry, Rule)}


def cel_list(values: Iterable[str]) -> str:
    """``['Train', 'Benchmark']``: texts as a list in CEL."""
    return "[" + ", ".join(f"'{value}'" for value in values) + "]"


def listed(values: Iterable[str], conjunction: str = "and") -> str:
    """``A, B and C``: words as a list in English."""
    *first, last = values
    return f"{', '.join(first)} {conjunction} {last}" if first else last


def camel(name: str) -> str:
    """``learning_rate`` to ``learningRate``; Python's ``global_`` is the key ``global``."""
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)
