"""The part of the Common Expression Language that rules of the CRD use, evaluated without an API
server.

Texts, numbers, lists, ``has()``, ``double()``, ``? :``, ``&& || !``, ``== != in``, fields and the
optional fields of Kubernetes (``self.?name.orValue('SGD')``). Anything else is a CelError.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import Any

_TOKEN = re.compile(r"\s*('[^']*'|\d+(?:\.\d+)?|[A-Za-z_]\w*|&&|\|\||==|!=|\.\?|[!?:.,()\[\]])")
_ABSENT = object()


class CelError(Exception):
    """The expression is wrong, or uses a field that is not there."""


def holds(rule: str, value: dict[str, Any]) -> bool:
    """Whether ``value``, as a user wrote it, passes the rule."""
    tokens, end = [], 0
    while end < len(rule.rstrip()):
        match = _TOKEN.match(rule, end)
        if not match:
            raise CelError(f"what is {rule[end:]!r}?")
        tokens.append(match[1])
        end = match.end()
    parser = _Parser(tokens)
    expression = parser.choice()
    if parser.tokens:
        raise CelError(f"{parser.tokens} is left over")
    return bool(expression(value))


Expression = Callable[[dict[str, Any]], Any]


class _Parser:
    """Builds functions of ``self``, so that && and || evaluate only what they need."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens

    def choice(self) -> Expression:
        test = self.either()
        if not self._take("?"):
            return test
        yes = self.choice()
        self._expect(":")
        no = self.choice()
        return lambda value: yes(value) if test(value) else no(value)

    def either(self) -> Expression:
        left = self.both()
        while self._take("||"):
            left = _or(left, self.both())
        return left

    def both(self) -> Expression:
        left = self.relation()
        while self._take("&&"):
            left = _and(left, self.relation())
        return left

    def relation(self) -> Expression:
        left = self.negation()
        for sign, compare in _RELATIONS.items():
            if self._take(sign):
                right = self.negation()
                return lambda value: compare(left(value), right(value))
        return left

    def negation(self) -> Expression:
        if not self._take("!"):
            return self.member()
        negated = self.negation()
        return lambda value: not negated(value)

    def member(self) -> Expression:
        part = self.primary()
        while self.tokens and self.tokens[0] in (".", ".?"):
            optional = self.tokens.pop(0) == ".?"
            name = self.tokens.pop(0)
            if name == "orValue":
                self._expect("(")
                part = _or_value(part, self.choice())
                self._expect(")")
            else:
                part = _field(part, name, optional=optional)
        return part

    def primary(self) -> Expression:
        token = self.tokens.pop(0)
        if token == "(":
            return self._until(")")
        if token == "[":
            return self._list()
        if token == "has":
            # The last field may be absent; all before it must be there, as in CEL.
            end = self.tokens.index(")")
            self.tokens[end - 2] = ".?"
            self._expect("(")
            asked = self._until(")")
            return lambda value: asked(value) is not _ABSENT
        if token == "double":
            self._expect("(")
            text = self._until(")")
            return lambda value: float(text(value))
        if token == "self":
            return lambda value: value
        constant = {"true": True, "false": False}.get(token, _ABSENT)
        if constant is _ABSENT:
            constant = ast.literal_eval(token)
        return lambda _: constant

    def _list(self) -> Expression:
        items = [self.choice()]
        while self._take(","):
            items.append(self.choice())
        self._expect("]")
        return lambda value: [item(value) for item in items]

    def _until(self, end: str) -> Expression:
        inner = self.choice()
        self._expect(end)
        return inner

    def _take(self, token: str) -> bool:
        if not self.tokens or self.tokens[0] != token:
            return False
        self.tokens.pop(0)
        return True

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise CelError(f"{token} expected before {self.tokens}")


_RELATIONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    "in": lambda left, right: left in right,
}


def _or(left: Expression, right: Expression) -> Expression:
    return lambda value: left(value) or right(value)


def _and(left: Expression, right: Expression) -> Expression:
    return lambda value: left(value) and right(value)


def _or_value(part: Expression, default: Expression) -> Expression:
    def evaluate(value: dict[str, Any]) -> Any:
        found = part(value)
        return default(value) if found is _ABSENT else found

    return evaluate


def _field(part: Expression, name: str, *, optional: bool) -> Expression:
    def evaluate(value: dict[str, Any]) -> Any:
        inner = part(value)
        # After one `.?` the whole chain is optional: self.?model.?name.
        if inner is _ABSENT:
            return _ABSENT
        if name not in inner and not optional:
            raise CelError(f"no such field: {name}")
        return inner.get(name, _ABSENT)

    return evaluate
