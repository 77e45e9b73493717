"""Writes ``spec.training`` of manifests/crd.yaml from the trainer's configuration classes, or says
with ``--check`` that it is out of date.

The rest of the file is written by hand. The classes are in trainer/inception_trainer/config: their
type hints become types, ``key`` limits, ``rule`` validations, and the text below a key, or the
first paragraph of a section's docstring, its description.
"""

from __future__ import annotations

import dataclasses
import sys
import textwrap
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from docs import pages
from docs.pages import ROOT
from inception_trainer.config.declare import INVALID, Api, Cel, Limits, camel, rules
from inception_trainer.config.describe import key_descriptions, section_description
from inception_trainer.config.schema import without_none
from inception_trainer.config.training import TrainingConfig

CRD = ROOT / "manifests" / "crd.yaml"
START = "                training:\n"
WIDTH = 125
"""The limit of .yamllint.yaml."""
Schema = dict[str, Any]

_ANY = r"^(0|[1-9][0-9]*)(\.[0-9]+)?([eE]-?[0-9]{1,2})?$"
DECIMALS = {
    Limits(at_least=0): _ANY,
    # The pattern cannot tell 0.0 from 0.1; a rule does.
    Limits(above=0): _ANY,
    Limits(at_least=0, below=1): r"^0(\.[0-9]+)?$",
    Limits(above=0, below=1): r"^0\.[0-9]*[1-9][0-9]*$",
    Limits(at_least=0, at_most=1): r"^(0(\.[0-9]+)?|1(\.0+)?)$",
    Limits(above=0, at_most=1): r"^(0\.[0-9]*[1-9][0-9]*|1(\.0+)?)$",
    # Less than the trainer takes: 10 itself would need a longer pattern and helps nobody.
    Limits(at_least=0, at_most=10): r"^[0-9](\.[0-9]+)?$",
}
"""Patterns of the decimals within some limits. The API has no decimals, because programs would
disagree about them, so they are texts."""
LONGEST_DECIMAL = 24
LONGEST_CHOICE = 32
INT32 = 2**31 - 1


class CrdError(Exception):
    """A class of the configuration, or the CRD, is not as the generator needs it."""


def main(arguments: list[str] | None = None) -> int:
    """Write the file; the exit status of the command."""
    text = CRD.read_text(encoding="utf-8")
    return pages.generate(__doc__, CRD, lambda: with_training(text), arguments)


def with_training(text: str) -> str:
    """The text of the CRD with ``spec.training`` made anew."""
    head, start, rest = text.partition(START)
    indentation = START[: -len(START.lstrip())]
    old = list(_indented_deeper(rest, len(indentation)))
    if not start or not old:
        raise CrdError(f"{CRD.name} must hold the line {START.strip()} below spec")
    schema = section_schema(TrainingConfig, "spec.training")
    new = "".join(f"{line}\n" for line in yaml_lines(schema, len(indentation) + 2))
    if yaml.safe_load(new) != schema:
        raise CrdError("spec.training is not what its YAML says")
    return head + start + new + rest[sum(map(len, old)) :]


def _indented_deeper(text: str, indentation: int) -> Iterator[str]:
    for line in text.splitlines(keepends=True):
        if line.strip() and len(line) - len(line.lstrip()) <= indentation:
            return
        yield line


def section_schema(kind: type[Any], path: str) -> Schema:
    """The OpenAPI schema of a section and of all below it; ``path`` is where users write it."""
    hints = typing.get_type_hints(kind)
    texts = key_descriptions(kind)
    properties: Schema = {}
    for field in dataclasses.fields(kind):
        if not field.metadata.get("in_api", True):
            continue
        name = camel(field.name)
        hint = without_none(hints[field.name])
        below = f"{path}.{name}"
        if dataclasses.is_dataclass(hint):
            properties[name] = section_schema(typing.cast("type[Any]", hint), below)
        elif field.name not in texts:
            raise CrdError(f"{below} has no description: write it as a text below the key")
        else:
            limits, api = field.metadata["limits"], field.metadata["api"]
            described = {"description": texts[field.name]}
            properties[name] = described | key_schema(hint, limits, api, below)
    validations = [
        {"rule": cel.rule, "message": cel.message, "fieldPath": f".{cel.field}"}
        | {"reason": cel.reason}
        for cel in _cel(kind)
    ]
    schema: Schema = {"description": section_description(kind), "type": "object"}
    if validations:
        schema["x-kubernetes-validations"] = validations
    return schema | {"properties": properties}


def _cel(kind: type[Any]) -> list[Cel]:
    return [rule.api for rule in rules(kind).values() if rule.api is not None]


def key_schema(hint: Any, limits: Limits, api: Api, path: str) -> Schema:
    """The OpenAPI schema of one key, without its description."""
    if typing.get_origin(hint) is tuple:
        return _list_schema(typing.get_args(hint)[0], limits, api, path)
    if hint is bool:
        return {"type": "boolean"}
    if hint is int or api.integer:
        return _integer_schema(limits, api, path)
    if hint is float:
        return _decimal_schema(limits, path)
    return _text_schema(limits, api, path)


def _list_schema(item: Any, limits: Limits, api: Api, path: str) -> Schema:
    described = {"description": api.item} | key_schema(item, limits, api, path)
    return {
        "type": "array",
        # An empty list would be one more way to say nothing.
        "minItems": 1,
        "maxItems": _given(api.max_items, path, "max_items"),
        "x-kubernetes-list-type": api.list_type,
        "items": described,
    }


def _integer_schema(limits: Limits, api: Api, path: str) -> Schema:
    minimum = limits.at_least if api.minimum is None else api.minimum
    maximum = limits.at_most if api.maximum is None else api.maximum
    greatest = int(_given(maximum, path, "maximum"))
    return {
        "type": "integer",
        "format": api.format or ("int32" if greatest <= INT32 else "int64"),
        "minimum": int(_given(minimum, path, "at_least")),
        "maximum": greatest,
    }


def _decimal_schema(limits: Limits, path: str) -> Schema:
    if limits not in DECIMALS:
        raise CrdError(f"{path}: DECIMALS has no pattern for {limits}")
    schema: Schema = {
        "type": "string",
        "maxLength": LONGEST_DECIMAL,
        "pattern": DECIMALS[limits],
    }
    if limits == Limits(above=0):
        rule = {
            "rule": "double(self) > 0.0",
            "message": f"{path} must be greater than 0",
            "reason": INVALID,
        }
        schema["x-kubernetes-validations"] = [rule]
    return schema


def _text_schema(limits: Limits, api: Api, path: str) -> Schema:
    choices = limits.choices or api.choices
    longest = api.max_length or (LONGEST_CHOICE if choices else None)
    schema: Schema = {"type": "string"}
    if api.min_length is not None:
        schema["minLength"] = api.min_length
    schema["maxLength"] = _given(longest, path, "max_length")
    if api.pattern is not None:
        schema["pattern"] = api.pattern
    if choices:
        schema["enum"] = list(choices)
    return schema


def _given(value: Any, path: str, name: str) -> Any:
    if value is None:
        raise CrdError(f"{path} needs {name}: every value of the API is bounded")
    return value


def yaml_lines(schema: Mapping[str, Any], indentation: int) -> Iterator[str]:
    """A schema as block style YAML: long texts are folded, choices stand in one line."""
    margin = " " * indentation
    for name, value in schema.items():
        if isinstance(value, Mapping):
            yield f"{margin}{name}:"
            yield from yaml_lines(value, indentation + 2)
        elif isinstance(value, list) and isinstance(value[0], Mapping):
            yield f"{margin}{name}:"
            for item in value:
                first, *more = yaml_lines(item, indentation + 4)
                yield f"{margin}  - {first.lstrip()}"
                yield from more
        elif isinstance(value, list):
            yield f"{margin}{name}: [{', '.join(value)}]"
        else:
            yield from _scalar_lines(f"{margin}{name}: ", value, margin)


def _scalar_lines(start: str, value: Any, margin: str) -> Iterator[str]:
    text = _quoted(value) if isinstance(value, str) else str(value).lower()
    if len(start + text) <= WIDTH:
        yield start + text
        return
    yield f"{start}>-"
    # A fold is read as one space, so a line may begin with anything but a space.
    yield from textwrap.wrap(
        value,
        WIDTH,
        initial_indent=f"{margin}  ",
        subsequent_indent=f"{margin}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _quoted(text: str) -> str:
    try:
        plain = yaml.safe_load(f"key: {text}") == {"key": text}
    except yaml.YAMLError:
        plain = False
    if plain:
        return text
    if "'" in text and not {'"', "\\"} & set(text):
        return f'"{text}"'
    return "'" + text.replace("'", "''") + "'"


if __name__ == "__main__":
    sys.exit(main())
